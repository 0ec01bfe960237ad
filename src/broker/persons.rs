//! What is held about one person, across all tables: exported as one document, and erased.

mod export;
mod sign_ins;

use std::sync::Arc;

use super::connections::ProviderRevocation;
use super::{Authorizations, Connections};
use crate::access::audit::{self, Action, Entry, Trail, Who};
use crate::access::users::require_over;
use crate::access::{Caller, Permission};
use crate::clock::Clock;
use crate::error::{Error, Resource};
use crate::model::{EventKind, NewEvent};
use crate::store::persons::Person;
use crate::store::{self, Store, transact};

/// Connections and authorisations taken at a time.
const BATCH: i64 = 100;
/// Ids looked for in the trail at a time.
const CHUNK: usize = 100;
/// Log rows reduced in one transaction.
const LOG_BATCH: i64 = 1_000;
/// How often an owner is looked through for what came meanwhile.
const ROUNDS_MAX: usize = 10;

/// Whose data is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user's, by id; softly deleted users too.
    User(String),
    /// An owner's of connections.
    Owner(String),
}

/// What was erased, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Connections.
    pub connections: i64,
    /// How often the provider could not be told to revoke tokens, of those or of what was on its way
    /// to be one.
    pub unrevoked: i64,
    /// Sessions.
    pub sessions: i64,
    /// Log rows that hold ids only from now on.
    pub log_rows: i64,
    /// Whether there was a user.
    pub user: bool,
}

/// What is held about persons.
pub struct Persons {
    store: Store,
    clock: Clock,
    authorizations: Arc<Authorizations>,
    connections: Arc<Connections>,
    trail: Arc<Trail>,
}

impl Persons {
    /// Over a store; `authorizations` and `connections` end those of a person, `trail` knows what they
    /// did.
    pub fn new(
        store: Store,
        clock: Clock,
        authorizations: Arc<Authorizations>,
        connections: Arc<Connections>,
        trail: Arc<Trail>,
    ) -> Self {
        Self {
            store,
            clock,
            authorizations,
            connections,
            trail,
        }
    }

    /// Erases a person: user, sessions, preferences, what they gave to OAuth clients, connections,
    /// authorisations, and of the logs all but ids. With `validate_only` it counts and changes nothing; log rows are not counted
    /// then. After an error part of it is done: call it again, which goes on where it ended.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the user, [`Error::InvalidArgument`] for an empty owner,
    /// [`Error::PermissionDenied`]; [`Error::Unavailable`] when accounts are being connected for the
    /// owner faster than they end; or the store's. A provider that could not be told to revoke is none:
    /// it is in the answer.
    pub async fn erase(
        &self,
        caller: &Caller,
        subject: &Subject,
        validate_only: bool,
    ) -> Result<Erased, Error> {
        let (person, owns) = self.person(caller, subject).await?;
        let tenant = &caller.tenant;
        let mut erased = Erased {
            user: person.user.is_some(),
            ..Erased::default()
        };
        if validate_only {
            let mut conn = self.store.read().await?;
            let held = store::persons::amounts(&mut conn, tenant, &person).await?;
            erased.connections = if owns { held.connections } else { 0 };
            erased.sessions = held.sessions;
            return Ok(erased);
        }
        let entry = self.begin(caller, &person, owns, &mut erased).await?;
        if owns {
            self.end_all(caller, &person.owner, &entry, &mut erased)
                .await?;
        }
        let mut named = Vec::new();
        if let Some(user_id) = person.user_id() {
            named = self
                .forget_sign_ins(tenant, user_id, &entry, &mut erased)
                .await?;
        }
        self.finish(caller, &person, &named, erased).await
    }

    /// The person, and whether the connections of that owner are theirs: a softly deleted user's owner
    /// may be another's by now.
    async fn person(&self, caller: &Caller, subject: &Subject) -> Result<(Person, bool), Error> {
        let permission = Permission::ManagePersons;
        caller.require(permission)?;
        // Whoever may see part of a person's data can't give all of it away, or take it.
        if !caller.constraints.apps.is_empty() || !caller.constraints.providers.is_empty() {
            return Err(Error::PermissionDenied(permission.name()));
        }
        let tenant = &caller.tenant;
        let mut conn = self.store.read().await?;
        let person = match subject {
            Subject::User(id) => {
                let missing = || Error::NotFound(Resource::User, id.clone());
                store::persons::of_user(&mut conn, tenant, id)
                    .await?
                    .filter(|person| caller.allows_owner(&person.owner))
                    .ok_or_else(|| caller.hidden(permission, missing()))?
            }
            // Nobody's: sign-ins under way have no owner either.
            Subject::Owner(owner) if owner.is_empty() => {
                return Err(Error::invalid("owner", "is required"));
            }
            Subject::Owner(owner) if caller.allows_owner(owner) => {
                store::persons::of_owner(&mut conn, tenant, owner).await?
            }
            Subject::Owner(_) => return Err(Error::PermissionDenied(permission.name())),
        };
        if let Some(user) = &person.user {
            // The export as well: what somebody did reaches beyond the owners that the caller is allowed.
            require_over(caller, user).map_err(|_| Error::PermissionDenied(permission.name()))?;
        }
        let taken = store::persons::is_owner_taken(&mut conn, tenant, &person).await?;
        Ok((person, !taken))
    }

    /// Shuts the person out, so that nothing new comes; answers the id of the entry that tells of the
    /// erasure.
    async fn begin(
        &self,
        caller: &Caller,
        person: &Person,
        owns: bool,
        erased: &mut Erased,
    ) -> Result<String, Error> {
        let tenant = &caller.tenant;
        let (entry, reduced) = transact!(self.store, |tx| {
            let now = self.clock.now();
            if let Some(user_id) = person.user_id() {
                store::persons::lock_out(&mut tx, tenant, user_id, now).await?;
                store::sessions::revoke_all_of(&mut tx, tenant, user_id, None, "erased", now)
                    .await?;
                store::issuer::grants::revoke_of_user(&mut tx, tenant, user_id, "erased", now)
                    .await?;
                let ended = NewEvent::internal(EventKind::IssuedEnded, tenant, user_id, now);
                store::events::append(&mut tx, &ended).await?;
            }
            let mut reduced = 0;
            if owns {
                let owner = &person.owner;
                store::automation::accounts::forget_credentials(&mut tx, tenant, owner, now)
                    .await?;
                reduced = store::persons::reduce_attempts(&mut tx, tenant, owner).await?;
            }
            let mut entry = entry(Action::PersonErased, caller, person).detail("step", "begun");
            if owns {
                // Verification takes nobody else's entries for theirs.
                entry = entry.detail("owner", &person.owner);
            }
            Ok((audit::record(&mut tx, &entry, now).await?, reduced))
        })?;
        erased.log_rows += count(reduced);
        Ok(entry)
    }

    /// Ends what an owner has: open authorisations first, since one of them that is finished meanwhile
    /// makes a connection, and all of it again until nothing was there any more.
    async fn end_all(
        &self,
        caller: &Caller,
        owner: &str,
        entry: &str,
        erased: &mut Erased,
    ) -> Result<(), Error> {
        let (tenant, who) = (&caller.tenant, Who::from(caller));
        for _ in 0..ROUNDS_MAX {
            let closed = self
                .authorizations
                .close_all_of(&who, tenant, owner)
                .await?;
            erased.unrevoked += closed.unrevoked;
            let before = erased.connections;
            self.end_connections(caller, owner, erased).await?;
            let forgotten = self
                .forget_authorizations(tenant, owner, entry, erased)
                .await?;
            if closed.authorizations == 0 && erased.connections == before && forgotten == 0 {
                return Ok(());
            }
        }
        Err(Error::Unavailable(
            "accounts of the person are still being connected; have that stopped, and erase again"
                .to_owned(),
            None,
        ))
    }

    async fn end_connections(
        &self,
        caller: &Caller,
        owner: &str,
        erased: &mut Erased,
    ) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let mut conn = self.store.read().await?;
            let tenant = &caller.tenant;
            let ids =
                store::persons::connection_ids(&mut conn, tenant, owner, &after, BATCH).await?;
            drop(conn);
            let Some(last) = ids.last() else {
                return Ok(());
            };
            after.clone_from(last);
            for id in &ids {
                match self.connections.delete(caller, id, None, false).await {
                    Ok(outcome) => {
                        erased.connections += 1;
                        erased.unrevoked += i64::from(outcome == ProviderRevocation::Failed);
                    }
                    // Somebody else may have deleted it meanwhile; a caller with constraints hears then
                    // that they may not.
                    Err(error @ (Error::NotFound(..) | Error::PermissionDenied(_))) => {
                        let mut conn = self.store.read().await?;
                        let left = store::connections::find(&mut conn, tenant, id).await?;
                        if left.is_some() {
                            return Err(error);
                        }
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// Deletes the finished authorisations of an owner, after what their browsers left in the trail; how
    /// many.
    async fn forget_authorizations(
        &self,
        tenant: &str,
        owner: &str,
        entry: &str,
        erased: &mut Erased,
    ) -> Result<i64, Error> {
        let mut forgotten = 0;
        loop {
            let mut conn = self.store.read().await?;
            let ids = store::persons::authorization_ids(&mut conn, tenant, owner, BATCH).await?;
            drop(conn);
            if ids.is_empty() {
                return Ok(forgotten);
            }
            erased.log_rows += self.reduce_trail(tenant, &ids, entry).await?;
            forgotten += self.delete_authorizations(tenant, &ids).await?;
        }
    }

    async fn delete_authorizations(&self, tenant: &str, ids: &[String]) -> Result<i64, Error> {
        transact!(self.store, |tx| {
            let deleted = store::persons::delete_authorizations(&mut tx, tenant, ids).await?;
            Ok(count(deleted))
        })
    }

    /// Takes from the trail what a user did, what was tried on their sessions and what clients did with
    /// what they gave, and deletes the authorisations that they signed in with. Answers the ids by which
    /// the trail names them: the user's and those of sessions, grants, requests and authorisations.
    async fn forget_sign_ins(
        &self,
        tenant: &str,
        user_id: &str,
        entry: &str,
        erased: &mut Erased,
    ) -> Result<Vec<String>, Error> {
        let sign_ins = self.sign_ins(tenant, user_id).await?;
        erased.sessions = sign_ins.kept;
        let authorizations = Vec::from_iter(sign_ins.all.authorizations);
        let mut named = vec![user_id.to_owned()];
        named.extend(sign_ins.all.sessions);
        named.extend(sign_ins.all.consents);
        named.extend_from_slice(&authorizations);
        for ids in named.chunks(CHUNK) {
            erased.log_rows += self.reduce_trail(tenant, ids, entry).await?;
        }
        for ids in authorizations.chunks(CHUNK) {
            self.delete_authorizations(tenant, ids).await?;
        }
        Ok(named)
    }

    /// Clears address and program of the entries of these ids, some in each transaction, so that others
    /// write in between; how many that were.
    async fn reduce_trail(&self, tenant: &str, ids: &[String], entry: &str) -> Result<i64, Error> {
        let mut reduced = 0;
        loop {
            let rows = transact!(self.store, |tx| {
                let rows =
                    store::audit::erase_personal(&mut tx, tenant, ids, entry, LOG_BATCH).await?;
                Ok(count(rows))
            })?;
            reduced += rows;
            if rows < LOG_BATCH {
                return Ok(reduced);
            }
        }
    }

    /// Removes the user. `named` are the ids by which the trail names them.
    async fn finish(
        &self,
        caller: &Caller,
        person: &Person,
        named: &[String],
        erased: Erased,
    ) -> Result<Erased, Error> {
        transact!(self.store, |tx| {
            let mut erased = erased;
            let tenant = &caller.tenant;
            if let Some(user_id) = person.user_id() {
                store::users::remove(&mut tx, tenant, user_id).await?;
            }
            let entry = entry(Action::PersonErased, caller, person)
                .detail("step", "finished")
                .detail("connections", erased.connections)
                .detail("unrevoked_at_provider", erased.unrevoked)
                .detail("sessions", erased.sessions)
                .detail("log_rows", erased.log_rows);
            let told = audit::record(&mut tx, &entry, self.clock.now()).await?;
            // What was written of them meanwhile, this entry too where they erase themselves. It names
            // this one, which lies behind: retention never keeps it and lets that go. From here on the
            // user is gone, and counts held in memory are written without address.
            let rows = Trail::erase_personal(&mut tx, tenant, named, &told).await?;
            erased.log_rows += count(rows);
            Ok(erased)
        })
    }
}

/// Something that was done with all of a person's data.
fn entry(action: Action, caller: &Caller, person: &Person) -> Entry {
    let entry = Entry::new(action, caller);
    match person.user_id() {
        Some(user_id) => entry.on("user", user_id),
        None => entry.on("owner", &person.owner),
    }
}

fn count(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}
