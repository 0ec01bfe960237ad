//! Sessions as their users, and those who manage users, see and end them.

use super::Sessions;
use crate::access::audit::{self, Action, Entry};
use crate::access::{Caller, Permission, users};
use crate::error::{Error, Resource};
use crate::model::Session;
use crate::store::{self, Conn, transact};

/// The session of the call, by another name than its id.
pub const CURRENT: &str = "current";

impl Sessions {
    /// A user's sessions, newest first, behind the id `after`; those that have ended too, if
    /// `ended`.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`], [`Error::NotFound`] for the user; [`Error::InvalidArgument`]
    /// where `me` is nobody; or the store's.
    pub async fn list(
        &self,
        caller: &Caller,
        user_id: &str,
        ended: bool,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Session>, Error> {
        let user_id = users::named(caller, user_id, Permission::ReadUsers)?;
        let mut conn = self.parts.store.read().await?;
        require_user(&mut conn, caller, user_id, Permission::ReadUsers).await?;
        let live_at = (!ended).then(|| self.parts.clock.now());
        let tenant = &caller.tenant;
        let found =
            store::sessions::list(&mut conn, tenant, user_id, live_at, after, limit).await?;
        Ok(found)
    }

    /// Ends a session, on every replica within the stated bound. One that has ended stays so.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for whoever may end only their own, whether or not there is such a
    /// session, and for that of a user who may do more than the caller; [`Error::NotFound`];
    /// [`Error::InvalidArgument`] where `current` is none; or the store's.
    pub async fn revoke(&self, caller: &Caller, id: &str) -> Result<(), Error> {
        let id = match id {
            CURRENT => caller.session_id().ok_or_else(|| {
                Error::invalid("session_id", "`current` needs the token of a session")
            })?,
            id => id,
        };
        let permission = Permission::WriteUsers;
        let tenant = &caller.tenant;
        let found = {
            let mut conn = self.parts.store.read().await?;
            let found = store::sessions::find(&mut conn, tenant, id).await?;
            if let Some(session) = &found {
                require_user(&mut conn, caller, &session.user_id, permission).await?;
            } else {
                caller.require(permission)?;
            }
            found
        };
        let session = found.ok_or_else(|| {
            let missing = Error::NotFound(Resource::Session, id.to_owned());
            caller.hidden(permission, missing)
        })?;
        let own = caller.user_id() == Some(session.user_id.as_str());
        let reason = if own { "signed_out" } else { "revoked" };
        let now = self.parts.clock.now();
        transact!(self.parts.store, |tx| {
            if store::sessions::revoke(&mut tx, tenant, id, reason, now).await? {
                let entry = Entry::new(Action::SessionRevoked, caller)
                    .on("session", id)
                    .detail("user_id", &session.user_id)
                    .reason(reason);
                audit::record(&mut tx, &entry, now).await?;
            }
            Ok(())
        })?;
        self.ended(&[id.to_owned()]);
        Ok(())
    }

    /// Ends all sessions of a user, or all but the one of the call; how many.
    ///
    /// # Errors
    /// As [`Sessions::list`], and [`Error::PermissionDenied`] for a user who may do more than the
    /// caller.
    pub async fn revoke_all(
        &self,
        caller: &Caller,
        user_id: &str,
        keep_current: bool,
    ) -> Result<i64, Error> {
        let user_id = users::named(caller, user_id, Permission::WriteUsers)?;
        {
            let mut conn = self.parts.store.read().await?;
            require_user(&mut conn, caller, user_id, Permission::WriteUsers).await?;
        }
        let own = caller.user_id() == Some(user_id);
        let reason = if own { "signed_out" } else { "revoked" };
        let except = caller.session_id().filter(|_| keep_current);
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        let ended = transact!(self.parts.store, |tx| {
            let ended =
                store::sessions::revoke_all_of(&mut tx, tenant, user_id, except, reason, now)
                    .await?;
            if ended > 0 {
                let entry = Entry::new(Action::SessionRevoked, caller)
                    .on("user", user_id)
                    .detail("sessions", ended)
                    .reason(reason);
                audit::record(&mut tx, &entry, now).await?;
            }
            Ok(ended)
        })?;
        self.ended(&[user_id.to_owned()]);
        Ok(ended)
    }
}

/// That the caller may see the user's sessions, or end them: their own always, others' by permission,
/// within its constraints, and only of who may do no more than the caller to end them.
async fn require_user(
    conn: &mut Conn,
    caller: &Caller,
    user_id: &str,
    permission: Permission,
) -> Result<(), Error> {
    caller.require_own_or(user_id, permission)?;
    if caller.user_id() == Some(user_id) {
        return Ok(());
    }
    let found = store::users::find(conn, &caller.tenant, user_id).await?;
    let user = users::visible(caller, user_id, found, permission)?;
    match permission {
        Permission::WriteUsers => users::require_over(caller, &user),
        _ => Ok(()),
    }
}
