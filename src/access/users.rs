//! Users: people who sign in.

mod changes;
mod email;
mod fields;
mod passwords;
mod preferences;
mod rights;
mod sign_in;

use std::sync::Arc;

use tokio::sync::Notify;

pub use email::{EMAIL_FORM, EMAIL_MAX, normalised};
pub use fields::{NAME_MAX, NewUser, UserChanges, password_faults};
pub use preferences::{PREFERENCES_DEPTH, PREFERENCES_MAX, faults as preference_faults};
pub use rights::ME;
pub(crate) use rights::{named, require_over, visible};

use super::audit::{self, Action, Entry};
use super::passwords::Passwords;
use super::requests::{self, Once, Outcome};
use super::throttle::Throttle;
use super::{Caller, Permission};
use crate::clock::Clock;
use crate::config;
use crate::crypto::Keyring;
use crate::error::{Error, FieldViolation, Resource};
use crate::model::{IdKind, User, UserState};
pub use crate::store::users::Filter as UserFilter;
use crate::store::users::Written;
use crate::store::{self, Store, transact};

/// How many pages of the store one call reads in search of the owners that a caller is allowed.
const SCANS_MAX: usize = 20;

/// The users of this database.
pub struct Users {
    store: Store,
    keyring: Keyring,
    clock: Clock,
    passwords: Passwords,
    throttle: Throttle,
    poke: Arc<Notify>,
}

/// By what a user is asked for.
#[derive(Clone, Debug)]
pub enum UserName {
    /// Their id, or `me`.
    Id(String),
    /// Their e-mail address, in any case.
    Email(String),
}

/// One page of users.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The users, by id.
    pub users: Vec<User>,
    /// The id behind which the next page begins; none on the last page. A page may be short, even
    /// empty, and still have a next one.
    pub next: Option<String>,
}

impl Users {
    /// On a store, with the `[passwords]` section. `poke` wakes the relay of events after a commit.
    ///
    /// # Errors
    /// [`Error::Internal`] for a cost of hashing that does not exist.
    pub fn new(
        store: Store,
        keyring: Keyring,
        clock: Clock,
        config: &config::Passwords,
        poke: Arc<Notify>,
    ) -> Result<Self, Error> {
        Ok(Self {
            passwords: Passwords::new(config)?,
            throttle: Throttle::new(store.clone(), config.clone()),
            store,
            keyring,
            clock,
            poke,
        })
    }

    /// What hashes their passwords.
    pub const fn passwords(&self) -> &Passwords {
        &self.passwords
    }

    /// Makes a user; a retry with the same request id gets the same one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every fault, or for a role or constraints beyond the caller's
    /// own; [`Error::AlreadyExists`] when the e-mail address or the owner is another user's;
    /// [`Error::ResourceExhausted`] when too many passwords are being hashed.
    pub async fn create(&self, caller: &Caller, new: NewUser) -> Result<User, Error> {
        reject(new.faults())?;
        let message = new.message();
        let request_id = new.request_id.clone();
        let once = Once::of(&caller.tenant, "CreateUser", &request_id, &message);
        let outcome = requests::answer(
            &self.store,
            &self.keyring,
            once.as_ref(),
            self.clock.now(),
            self.make(caller, new, once.as_ref()),
        )
        .await?;
        match outcome {
            Outcome::Made(user) => Ok(user),
            Outcome::Before(replayed) => {
                self.by_id(caller, &replayed.resource_id, Permission::WriteUsers)
                    .await
            }
        }
    }

    async fn make(
        &self,
        caller: &Caller,
        new: NewUser,
        once: Option<&Once<'_>>,
    ) -> Result<Option<User>, Error> {
        let id = IdKind::User.new_id();
        let owner = Some(new.owner).filter(|owner| !owner.is_empty());
        let owner = owner.unwrap_or_else(|| id.clone());
        rights::require_within(caller, new.role, &new.constraints, &owner)?;
        let password_hash = match &new.password {
            Some(password) => Some(self.passwords.hash(password).await?),
            None => None,
        };
        let now = self.clock.now();
        let user = User {
            id,
            tenant: caller.tenant.clone(),
            email: normalised(&new.email).unwrap_or_default(),
            email_verified: new.email_verified,
            display_name: new.display_name,
            password_changed_at: password_hash.as_ref().map(|_| now),
            password_hash,
            role: new.role,
            constraints: new.constraints,
            owner,
            state: UserState::Active,
            version: 1,
            created_at: now,
            updated_at: now,
            last_sign_in_at: None,
            deleted_at: None,
        };
        let entry = Entry::new(Action::UserCreated, caller)
            .on("user", &user.id)
            .detail("role", user.role.as_str())
            .detail("has_password", user.password_hash.is_some());
        let made = transact!(self.store, |tx| {
            if let Some(once) = once
                && !requests::remember(&mut tx, &self.keyring, once, &user.id, None, now).await?
            {
                return Ok(false);
            }
            written(store::users::insert(&mut tx, &user).await?, &user)?;
            audit::record(&mut tx, &entry, now).await?;
            Ok(true)
        })?;
        Ok(made.then_some(user))
    }

    /// One user: themselves, or one whom the caller may read.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::NotFound`], hidden from a caller with constraints; or
    /// [`Error::InvalidArgument`] for `me` where no user is signed in.
    pub async fn get(&self, caller: &Caller, name: &UserName) -> Result<User, Error> {
        let email = match name {
            UserName::Id(id) => return self.by_id(caller, id, Permission::ReadUsers).await,
            UserName::Email(email) => normalised(email).unwrap_or_default(),
        };
        if !caller.may(Permission::ReadUsers) {
            // Whether anybody else has this address is not told.
            let own = self.by_id(caller, "me", Permission::ReadUsers).await;
            return own
                .ok()
                .filter(|own| own.email == email)
                .ok_or(Error::PermissionDenied(Permission::ReadUsers.name()));
        }
        let mut conn = self.store.read().await?;
        let found = store::users::find_by_email(&mut conn, &caller.tenant, &email).await?;
        rights::visible(caller, &email, found, Permission::ReadUsers)
    }

    async fn by_id(
        &self,
        caller: &Caller,
        id: &str,
        permission: Permission,
    ) -> Result<User, Error> {
        let id = rights::named(caller, id, permission)?;
        let mut conn = self.store.read().await?;
        let found = store::users::find(&mut conn, &caller.tenant, id).await?;
        rights::visible(caller, id, found, permission)
    }

    /// One page of the users behind the id `after`, oldest first, as far as the caller is allowed
    /// them.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        caller: &Caller,
        filter: &UserFilter,
        after: &str,
        limit: usize,
    ) -> Result<Listed, Error> {
        let batch = limit.saturating_add(1);
        let mut conn = self.store.read().await?;
        let mut users: Vec<User> = Vec::new();
        let mut from = after.to_owned();
        for _ in 0..SCANS_MAX {
            let rows = i64::try_from(batch).unwrap_or(i64::MAX);
            let page = store::users::list(&mut conn, &caller.tenant, filter, &from, rows).await?;
            let full = page.len() == batch;
            for user in page {
                if users.len() == limit {
                    let next = users.last().map(|last| last.id.clone());
                    return Ok(Listed { users, next });
                }
                from.clone_from(&user.id);
                if rights::sees(caller, &user) {
                    users.push(user);
                }
            }
            if !full {
                return Ok(Listed { users, next: None });
            }
        }
        Ok(Listed {
            users,
            next: Some(from),
        })
    }
}

/// # Errors
/// [`Error::InvalidArgument`] with every fault, if there is any.
fn reject(faults: Vec<FieldViolation>) -> Result<(), Error> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Error::InvalidArgument(faults))
}

/// # Errors
/// [`Error::AlreadyExists`] with what of the user is another's.
fn written(outcome: Written, user: &User) -> Result<(), Error> {
    let (name, detail) = match outcome {
        Written::Done => return Ok(()),
        Written::EmailTaken => (&user.email, "the e-mail address (email) is another user's"),
        Written::OwnerTaken => (&user.owner, "the owner is another user's"),
    };
    Err(Error::AlreadyExists {
        resource: Resource::User,
        name: name.clone(),
        detail: detail.to_owned(),
    })
}
