//! Signing in: a session is made here, from nothing that the caller sent but their proof.

use secrecy::SecretString;

use super::{Parts, Sessions};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::access::throttle::Attempt;
use crate::error::{Error, Unknown};
use crate::model::{IdKind, NotProved, ProvedAccount, Session, SignInMethod, Timestamp, User};
use crate::store::sessions::Hashes;
use crate::store::{self, transact};

/// Whose browser or program it is that somebody signs in with.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// Where it calls from.
    pub origin: Origin,
    /// The caller that signs them in, where it is not they who call.
    pub through: Option<String>,
}

/// A session that was made or refreshed, with its tokens: here and nowhere else.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The session.
    pub session: Session,
    /// For `authorization: Bearer`.
    pub session_token: SecretString,
    /// For the next refresh.
    pub refresh_token: SecretString,
}

/// The tokens of a session.
pub(super) struct Tokens {
    session: BearerSecret,
    refresh: BearerSecret,
}

impl Tokens {
    pub(super) fn generate() -> Self {
        Self {
            session: BearerSecret::generate(Prefix::Session),
            refresh: BearerSecret::generate(Prefix::SessionRefresh),
        }
    }

    /// Of their text; `None` for what has another form.
    pub(super) fn parse(session: &str, refresh: &str) -> Option<Self> {
        Some(Self {
            session: BearerSecret::parse(Prefix::Session, session).ok()?,
            refresh: BearerSecret::parse(Prefix::SessionRefresh, refresh).ok()?,
        })
    }

    pub(super) fn texts(&self) -> [&SecretString; 2] {
        [self.session.text(), self.refresh.text()]
    }

    pub(super) fn hashes(&self) -> Hashes {
        Hashes {
            token: self.session.hash(),
            refresh: self.refresh.hash(),
        }
    }

    pub(super) fn issued(&self, session: Session) -> Issued {
        Issued {
            session,
            session_token: self.session.text().clone(),
            refresh_token: self.refresh.text().clone(),
        }
    }
}

impl Sessions {
    /// Signs in a user whose password was found right.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when they were switched off, or given another password, meanwhile;
    /// or the store's.
    pub async fn create_by_password(
        &self,
        user: &User,
        visitor: &Visitor,
    ) -> Result<Issued, Error> {
        let method = SignInMethod::Password;
        match self.create(user, method, None, visitor).await? {
            Some(issued) => Ok(issued),
            None => {
                let entry =
                    failed(&user.tenant, method, visitor, "USER_CHANGED").on("user", &user.id);
                self.refuse(&entry).await
            }
        }
    }

    /// Signs in the user who has connected an account that was proved to be theirs. `proof` comes to
    /// that account, or to why it proves nothing; it is asked for once the attempt is admitted.
    /// Failures are counted by that sign-in and by address; what could not be judged is none.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the account is no user's or several users', or the user may not
    /// sign in (so): which of these is for the audit trail alone. [`Error::ResourceExhausted`] with the
    /// time to wait after too many failures. Or the store's.
    pub async fn create_by_provider(
        &self,
        tenant: &str,
        authorization_id: &str,
        proof: impl Future<Output = Result<Result<ProvedAccount, NotProved>, Error>>,
        visitor: &Visitor,
    ) -> Result<Issued, Error> {
        let Parts {
            throttle, clock, ..
        } = &self.parts;
        let attempt = Attempt::new(tenant, authorization_id, visitor.origin.ip);
        let admission = throttle.admit(attempt, clock.now()).await?;
        let judged = async {
            let proved = proof.await?;
            self.judge(tenant, authorization_id, proved, visitor).await
        };
        match judged.await {
            Ok(Ok(issued)) => {
                throttle.succeeded(admission, clock.now()).await?;
                Ok(issued)
            }
            Ok(Err(entry)) => self.refuse(&entry).await,
            Err(error) => {
                throttle.withdrawn(admission, clock.now()).await;
                Err(error)
            }
        }
    }

    /// The session of the user whose account was proved, or the entry that says why there is none.
    async fn judge(
        &self,
        tenant: &str,
        authorization_id: &str,
        proved: Result<ProvedAccount, NotProved>,
        visitor: &Visitor,
    ) -> Result<Result<Issued, Entry>, Error> {
        let method = SignInMethod::Provider;
        let proved = match proved {
            Ok(proved) => proved,
            Err(why) => {
                let entry = failed(tenant, method, visitor, why.reason());
                return Ok(Err(match why {
                    // As its resource it could be another's, and be erased with that one.
                    NotProved::Unknown => entry.detail("authorization_id", authorization_id),
                    NotProved::CodeInvalid | NotProved::CodeSpent => {
                        entry.on("authorization", authorization_id)
                    }
                }));
            }
        };
        let provider = proved.provider.as_str();
        let refused = |reason| failed(tenant, method, visitor, reason).provider(provider);
        let user = match self.user_of(tenant, &proved).await? {
            Ok(user) => user,
            Err(reason) => {
                let entry = refused(reason).on("authorization", authorization_id);
                return Ok(Err(entry));
            }
        };
        // On the user, so that erasing them finds it.
        let turned_away = |reason| {
            refused(reason)
                .on("user", &user.id)
                .detail("authorization_id", authorization_id)
        };
        let roles = &self.parts.config.provider_sign_in_roles;
        if !roles.contains(&user.role) {
            return Ok(Err(turned_away("ROLE_NOT_ALLOWED")));
        }
        let proof = Some((provider, authorization_id));
        let made = self.create(&user, method, proof, visitor).await?;
        Ok(made.ok_or_else(|| turned_away("USER_INACTIVE")))
    }

    /// The one user whose connection says that the account is theirs, or why there is none.
    async fn user_of(
        &self,
        tenant: &str,
        proved: &ProvedAccount,
    ) -> Result<Result<User, &'static str>, Error> {
        let mut conn = self.parts.store.read().await?;
        let ids = store::accounts::users_of(&mut conn, tenant, proved).await?;
        let id = match ids.as_slice() {
            [] => return Ok(Err("UNKNOWN_ACCOUNT")),
            [id] => id,
            _ => return Ok(Err("AMBIGUOUS_ACCOUNT")),
        };
        let found = store::users::find(&mut conn, tenant, id).await?;
        Ok(found.ok_or("UNKNOWN_ACCOUNT"))
    }

    /// Makes a session; `None` when the user may not sign in after all. `proof` is the provider and
    /// the authorisation of a sign-in through one, named in the trail so that erasing the user finds it.
    async fn create(
        &self,
        user: &User,
        method: SignInMethod,
        proof: Option<(&str, &str)>,
        visitor: &Visitor,
    ) -> Result<Option<Issued>, Error> {
        let now = self.parts.clock.now();
        let tokens = Tokens::generate();
        let session = self.session(user, method, visitor, now);
        let mut entry = Entry::new(
            Action::SessionCreated,
            Who::user(&user.id, &user.tenant, &visitor.origin),
        )
        .on("session", &session.id)
        .detail("method", method.as_str());
        if let Some((provider, authorization_id)) = proof {
            entry = entry
                .provider(provider)
                .detail("authorization_id", authorization_id);
        }
        if let Some(through) = &visitor.through {
            entry = entry.detail("through", through);
        }
        let keep = i64::from(self.parts.config.max_per_user).saturating_sub(1);
        let made = transact!(self.parts.store, |tx| {
            let (tenant, id) = (&user.tenant, &user.id);
            if !store::sessions::sign_in(&mut tx, user, method, now).await? {
                return Err(Error::Unauthenticated(Unknown::SignInFailed));
            }
            let superseded = store::sessions::supersede(&mut tx, tenant, id, keep, now).await?;
            store::sessions::insert(&mut tx, &session, &tokens.hashes()).await?;
            audit::record(&mut tx, &entry, now).await?;
            for ended in &superseded {
                let entry = Entry::new(Action::SessionRevoked, Who::system("sessions", tenant))
                    .on("session", ended)
                    .reason("superseded");
                audit::record(&mut tx, &entry, now).await?;
            }
            Ok(superseded)
        });
        match made {
            Ok(superseded) => {
                self.ended(&superseded);
                Ok(Some(tokens.issued(session)))
            }
            // Rolled back: nothing was written.
            Err(Error::Unauthenticated(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn session(
        &self,
        user: &User,
        method: SignInMethod,
        visitor: &Visitor,
        now: Timestamp,
    ) -> Session {
        let config = &self.parts.config;
        let refresh_expires_at = now.plus(config.refresh_lifetime);
        Session {
            id: IdKind::Session.new_id(),
            tenant: user.tenant.clone(),
            user_id: user.id.clone(),
            method,
            created_at: now,
            issued_at: now,
            last_used_at: now,
            expires_at: now.plus(config.lifetime).min(refresh_expires_at),
            refresh_expires_at,
            ip: visitor.origin.ip_text(),
            user_agent: Origin::clean_user_agent(&visitor.origin.user_agent),
            revoked_at: None,
            revoke_reason: String::new(),
        }
    }

    /// Forgets sessions that this replica ended, and has the others told at once.
    pub(super) fn ended(&self, ids: &[String]) {
        for id in ids {
            self.forget(id);
        }
        if !ids.is_empty() {
            self.poke();
        }
    }

    pub(super) fn poke(&self) {
        self.parts.poke.notify_one();
    }

    /// Records a failure; all of them look the same to whoever tried.
    async fn refuse<T>(&self, entry: &Entry) -> Result<T, Error> {
        let now = self.parts.clock.now();
        transact!(self.parts.store, |tx| {
            audit::record(&mut tx, entry, now).await?;
            Ok(())
        })?;
        Err(Error::Unauthenticated(Unknown::SignInFailed))
    }
}

fn failed(tenant: &str, method: SignInMethod, visitor: &Visitor, reason: &str) -> Entry {
    let who = Who::anonymous(tenant, &visitor.origin);
    let entry = Entry::new(Action::SessionCreated, who)
        .detail("method", method.as_str())
        .failed(reason);
    match &visitor.through {
        Some(through) => entry.detail("through", through),
        None => entry,
    }
}
