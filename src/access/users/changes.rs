//! Users changed, switched off and on, and deleted.

use super::{Users, reject, rights, written};
use crate::access::audit::{self, Action, Entry};
use crate::access::users::UserChanges;
use crate::access::{Caller, Permission};
use crate::error::{Error, Resource};
use crate::model::{EventKind, NewEvent, Timestamp, User, UserState};
use crate::store::{self, Tx, transact};

/// What alters what a session may do.
const RIGHTS: [&str; 3] = ["role", "constraints", "owner"];

impl Users {
    /// Changes a user. Another role, constraints or owner end their sessions, which were given the
    /// old ones.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every fault, for a role or constraints beyond the caller's own,
    /// and for a change of one's own; [`Error::AlreadyExists`] when the e-mail address or the owner is
    /// another user's; [`Error::Conflict`] when `version` is not the current one;
    /// [`Error::PermissionDenied`] for a user who may do more than the caller; [`Error::NotFound`],
    /// hidden from a caller with constraints.
    pub async fn update(
        &self,
        caller: &Caller,
        id: &str,
        changes: &UserChanges,
        version: Option<i64>,
    ) -> Result<User, Error> {
        reject(changes.faults())?;
        let user = transact!(self.store, |tx| {
            let mut user = changeable(&mut tx, caller, id, version).await?;
            let role = user.role;
            let changed = changes.apply(&mut user);
            if changed.is_empty() {
                return Ok(user);
            }
            let rights = changed.iter().any(|name| RIGHTS.contains(name));
            if rights {
                require_not_own(caller, &user, &changed)?;
                rights::require_within(caller, user.role, &user.constraints, &user.owner)
                    .map_err(of_user)?;
            }
            let mut entry =
                entry(Action::UserUpdated, caller, &user).detail("fields", changed.join(" "));
            if role != user.role {
                let both = format!("{} to {}", role.as_str(), user.role.as_str());
                entry = entry.detail("role", both);
            }
            let ends = rights.then_some("user_updated");
            self.write(&mut tx, caller, &mut user, entry, ends).await?;
            Ok(user)
        })?;
        self.poke.notify_one();
        Ok(user)
    }

    /// Switches a user off; their sessions end, and what they gave to clients is of no use while they are
    /// off. One who is off already stays as they are.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for a user who may do more than the caller; [`Error::NotFound`],
    /// hidden from a caller with constraints.
    pub async fn deactivate(&self, caller: &Caller, id: &str, reason: &str) -> Result<User, Error> {
        let user = transact!(self.store, |tx| {
            let mut user = changeable(&mut tx, caller, id, None).await?;
            if user.state == UserState::Inactive {
                return Ok(user);
            }
            user.state = UserState::Inactive;
            let entry = entry(Action::UserDeactivated, caller, &user).reason(reason);
            self.write(&mut tx, caller, &mut user, entry, Some("user_deactivated"))
                .await?;
            forget_issued(&mut tx, &user, self.clock.now()).await?;
            Ok(user)
        })?;
        self.poke.notify_one();
        Ok(user)
    }

    /// Switches a user on again. One who is on already stays as they are.
    ///
    /// # Errors
    /// As [`Users::deactivate`].
    pub async fn reactivate(&self, caller: &Caller, id: &str) -> Result<User, Error> {
        transact!(self.store, |tx| {
            let mut user = changeable(&mut tx, caller, id, None).await?;
            if user.state == UserState::Active {
                return Ok(user);
            }
            user.state = UserState::Active;
            let entry = entry(Action::UserReactivated, caller, &user);
            self.write(&mut tx, caller, &mut user, entry, None).await?;
            Ok(user)
        })
    }

    /// Deletes a user softly: sessions end, what they gave to clients is revoked, the password is gone,
    /// the e-mail address and the owner are free again. Retention removes what is left.
    ///
    /// # Errors
    /// [`Error::Conflict`] when `version` is not the current one; otherwise as [`Users::deactivate`].
    pub async fn delete(
        &self,
        caller: &Caller,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), Error> {
        transact!(self.store, |tx| {
            let mut user = changeable(&mut tx, caller, id, version).await?;
            let now = self.clock.now();
            user.deleted_at = Some(now);
            user.password_hash = None;
            let reason = "user_deleted";
            // After the user: a consent that is under way locks them too.
            let grants =
                store::issuer::grants::revoke_of_user(&mut tx, &user.tenant, &user.id, reason, now);
            let revoked = grants.await?.len();
            let entry = entry(Action::UserDeleted, caller, &user).detail("grants_revoked", revoked);
            self.write(&mut tx, caller, &mut user, entry, Some(reason))
                .await?;
            forget_issued(&mut tx, &user, now).await
        })?;
        self.poke.notify_one();
        Ok(())
    }

    /// Writes a changed user, ends their sessions where there is a reason to, but the caller's own
    /// where they set their password, and records it; how many sessions ended.
    pub(super) async fn write(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        user: &mut User,
        mut entry: Entry,
        ends_sessions: Option<&str>,
    ) -> Result<i64, Error> {
        let now = self.clock.now();
        user.version += 1;
        user.updated_at = now;
        written(store::users::update(tx, user).await?, user)?;
        let mut ended = 0;
        if let Some(reason) = ends_sessions {
            let own = caller
                .session_id()
                .filter(|_| reason == super::passwords::PASSWORD_SET && rights::is(caller, user));
            let (tenant, id) = (&user.tenant, &user.id);
            ended = store::sessions::revoke_all_of(tx, tenant, id, own, reason, now).await?;
            entry = entry.detail("sessions_ended", ended);
        }
        audit::record(tx, &entry, now).await?;
        Ok(ended)
    }
}

/// Has every replica forget what clients have of this user.
async fn forget_issued(tx: &mut Tx, user: &User, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent::internal(EventKind::IssuedEnded, &user.tenant, &user.id, now);
    store::events::append(tx, &event).await?;
    Ok(())
}

pub(super) fn entry(action: Action, caller: &Caller, user: &User) -> Entry {
    Entry::new(action, caller).on("user", &user.id)
}

/// The user, locked, whom the caller may change.
pub(super) async fn changeable(
    tx: &mut Tx,
    caller: &Caller,
    id: &str,
    version: Option<i64>,
) -> Result<User, Error> {
    let found = store::users::lock(tx, &caller.tenant, id).await?;
    let user = rights::visible(caller, id, found, Permission::WriteUsers)?;
    rights::require_over(caller, &user)?;
    if version.is_some_and(|version| version != user.version) {
        return Err(Error::Conflict(Resource::User, id.to_owned()));
    }
    Ok(user)
}

/// That nobody takes their own rights away by mistake, with nobody left to give them back.
fn require_not_own(caller: &Caller, user: &User, changed: &[&str]) -> Result<(), Error> {
    if !rights::is(caller, user) {
        return Ok(());
    }
    let own = ["role", "constraints"];
    match own.into_iter().find(|name| changed.contains(name)) {
        None => Ok(()),
        Some(name) => Err(Error::invalid(
            format!("user.{name}"),
            "can't be changed by the user; somebody else must",
        )),
    }
}

/// The violations of a user's fields, as paths in UpdateUser's request.
fn of_user(error: Error) -> Error {
    match error {
        Error::InvalidArgument(mut faults) => {
            for fault in &mut faults {
                fault.field.insert_str(0, "user.");
            }
            Error::InvalidArgument(faults)
        }
        error => error,
    }
}
