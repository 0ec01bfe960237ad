//! Signing in by e-mail address and password: the judgement. The session is made by whoever asks for
//! it.

use secrecy::SecretString;

use super::{Users, normalised};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::passwords::Verdict;
use crate::access::throttle::{Attempt, Refusal};
use crate::error::{Error, Unknown};
use crate::model::{User, UserState};
use crate::store::{self, transact};

impl Users {
    /// The user with this address and password, who may sign in.
    ///
    /// For an unknown address, a wrong password, a user without one and one who is switched off, the
    /// answer is the same, and so is the work before it. The failure is recorded with its reason, the
    /// address is not: people type passwords there, too. A password that was hashed at another cost
    /// than today's is hashed anew. An attempt that could not be judged does not count as a failure.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] with [`Unknown::SignInFailed`]; [`Error::ResourceExhausted`] after
    /// too many failures of this account or from this address, or when too many passwords are being
    /// judged; or the store's.
    pub async fn sign_in(
        &self,
        tenant: &str,
        email: &str,
        password: &SecretString,
        origin: &Origin,
    ) -> Result<User, Error> {
        let email = normalised(email).unwrap_or_else(|| email.to_lowercase());
        let attempt = Attempt::new(tenant, &email, origin.ip);
        let admission = match self.throttle.admit(attempt, self.clock.now()).await {
            Ok(admission) => admission,
            Err(refusal) => {
                if let Refusal::Blocked { first: true, .. } = refusal {
                    let user = self.known(tenant, &email).await?;
                    self.failed(tenant, user.as_ref(), origin, "THROTTLED")
                        .await?;
                }
                return Err(refusal.into());
            }
        };
        let (user, verdict) = match self.judge(tenant, &email, password).await {
            Ok(judged) => judged,
            Err(error) => {
                self.throttle.withdrawn(admission, self.clock.now()).await;
                return Err(error);
            }
        };
        let (user, outdated) = match (user, verdict) {
            (Some(user), Verdict::Right { outdated }) if user.state == UserState::Active => {
                (user, outdated)
            }
            (user, verdict) => {
                let reason = match (&user, verdict) {
                    (None, _) => "UNKNOWN_USER",
                    (Some(_), Verdict::Wrong) => "WRONG_PASSWORD",
                    (Some(_), Verdict::Right { .. }) => "USER_INACTIVE",
                };
                self.failed(tenant, user.as_ref(), origin, reason).await?;
                return Err(Error::Unauthenticated(Unknown::SignInFailed));
            }
        };
        self.throttle.succeeded(admission, self.clock.now()).await?;
        if outdated && let Err(error) = self.rehash(&user, password).await {
            // They signed in all the same; the next time will do.
            tracing::warn!(user = user.id, %error, "a password could not be hashed anew");
        }
        Ok(user)
    }

    async fn judge(
        &self,
        tenant: &str,
        email: &str,
        password: &SecretString,
    ) -> Result<(Option<User>, Verdict), Error> {
        let user = self.known(tenant, email).await?;
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref());
        let verdict = self.passwords.verify(hash, password).await?;
        Ok((user, verdict))
    }

    async fn known(&self, tenant: &str, email: &str) -> Result<Option<User>, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::users::find_by_email(&mut conn, tenant, email).await?)
    }

    async fn rehash(&self, user: &User, password: &SecretString) -> Result<(), Error> {
        let Some(old) = &user.password_hash else {
            return Ok(());
        };
        let new = self.passwords.hash(password).await?;
        let mut conn = self.store.write().await?;
        store::users::rehash(&mut conn, &user.tenant, &user.id, old, &new).await?;
        Ok(())
    }

    async fn failed(
        &self,
        tenant: &str,
        user: Option<&User>,
        origin: &Origin,
        reason: &str,
    ) -> Result<(), Error> {
        let id = user.map_or("", |user| user.id.as_str());
        let entry = Entry::new(Action::SessionCreated, Who::anonymous(tenant, origin))
            .on("user", id)
            .detail("method", "password")
            .failed(reason);
        let now = self.clock.now();
        transact!(self.store, |tx| {
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }
}
