//! Passwords of users: set and taken away.

use secrecy::SecretString;

use super::changes::{changeable, entry};
use super::{Users, password_faults, reject, rights};
use crate::access::audit::{self, Action};
use crate::access::passwords::Verdict;
use crate::access::throttle::{Attempt, Refusal};
use crate::access::{Caller, Permission};
use crate::error::{Error, Resource};
use crate::model::User;
use crate::store::transact;

/// Why sessions end that a new password does not fit.
pub(super) const PASSWORD_SET: &str = "password_changed";

impl Users {
    /// Sets a user's password, or takes it away; how many sessions ended, which are all but the
    /// caller's own.
    ///
    /// A signed-in user needs their current password, where they have one, unless they may write
    /// users; a wrong one counts like a failed sign-in.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a password that is easily guessed, and for a current one that is
    /// missing or wrong; [`Error::ResourceExhausted`] after too many wrong ones, or when too many are
    /// being hashed; [`Error::Conflict`] when the password was changed meanwhile; [`Error::PermissionDenied`]
    /// for a user who may do more than the caller; [`Error::NotFound`], hidden from a caller with
    /// constraints.
    pub async fn set_password(
        &self,
        caller: &Caller,
        user_id: &str,
        current: Option<&SecretString>,
        new: Option<&SecretString>,
    ) -> Result<i64, Error> {
        let user = self.by_id(caller, user_id, Permission::WriteUsers).await?;
        rights::require_over(caller, &user)?;
        if let Some(new) = new {
            reject(password_faults("new_password", new, &user.email))?;
        }
        self.prove(caller, &user, current).await?;
        let hash = match new {
            Some(new) => Some(self.passwords.hash(new).await?),
            None => None,
        };
        let ended = transact!(self.store, |tx| {
            let mut locked = changeable(&mut tx, caller, &user.id, None).await?;
            // What was proven, or that nothing had to be, holds for the password that was there.
            if locked.password_hash != user.password_hash {
                return Err(Error::Conflict(Resource::User, user.id.clone()));
            }
            locked.password_hash.clone_from(&hash);
            locked.password_changed_at = Some(self.clock.now());
            let what = if hash.is_some() { "set" } else { "taken away" };
            let entry = entry(Action::UserPasswordSet, caller, &locked).detail("password", what);
            self.write(&mut tx, caller, &mut locked, entry, Some(PASSWORD_SET))
                .await
        })?;
        self.poke.notify_one();
        Ok(ended)
    }

    /// Judges the current password of a user who changes their own.
    async fn prove(
        &self,
        caller: &Caller,
        user: &User,
        current: Option<&SecretString>,
    ) -> Result<(), Error> {
        let needed = rights::is(caller, user)
            && user.password_hash.is_some()
            && !caller.may(Permission::WriteUsers);
        if !needed {
            return Ok(());
        }
        let Some(current) = current else {
            return Err(Error::invalid("current_password", "is required"));
        };
        let attempt = Attempt::new(&user.tenant, &user.email, caller.origin.ip);
        let admission = match self.throttle.admit(attempt, self.clock.now()).await {
            Ok(admission) => admission,
            Err(refusal) => {
                if let Refusal::Blocked { first: true, .. } = refusal {
                    self.not_set(caller, user, "THROTTLED").await?;
                }
                return Err(refusal.into());
            }
        };
        let hash = user.password_hash.as_deref();
        let verdict = match self.passwords.verify(hash, current).await {
            Ok(verdict) => verdict,
            Err(error) => {
                self.throttle.withdrawn(admission, self.clock.now()).await;
                return Err(error);
            }
        };
        if verdict == Verdict::Wrong {
            self.not_set(caller, user, "WRONG_PASSWORD").await?;
            let wrong = "is not the user's password";
            return Err(Error::invalid("current_password", wrong));
        }
        self.throttle.succeeded(admission, self.clock.now()).await
    }

    async fn not_set(&self, caller: &Caller, user: &User, reason: &str) -> Result<(), Error> {
        let entry = entry(Action::UserPasswordSet, caller, user).failed(reason);
        let now = self.clock.now();
        transact!(self.store, |tx| {
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }
}
