//! Exchanging a session's tokens. A refresh token is good once; seen again, somebody else has it, and
//! the session ends (RFC 9700 section 4.14.2). What tells a lost answer from a thief is the
//! request id.

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::issue::{Issued, Tokens};
use super::{Parts, Sessions};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::access::requests::{self, Once};
use crate::access::throttle::{Attempt, Refusal};
use crate::error::{Error, Unknown};
use crate::model::{Session, Timestamp};
use crate::store::sessions::{Holder, Rotation};
use crate::store::{self, Conn, Tx, transact};

/// Why a session ended whose spent refresh token was seen.
const REUSED: &str = "refresh_token_reused";

/// What an exchange came to.
enum Exchanged {
    Made(Session),
    /// The same request made it before.
    Before(Issued),
    /// The refresh token was spent; the session has ended.
    Reused,
    /// The session had ended.
    Over,
}

impl Sessions {
    /// Exchanges a session's tokens for new ones. With a request id, a retry within ten minutes gets
    /// the same ones again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] for a refresh token that is nobody's, was used, or whose session has
    /// ended; which of these is not said but in the audit trail. [`Error::ResourceExhausted`] after
    /// too many of these from one address, or of one session; a good token is taken all the same.
    /// [`Error::InvalidArgument`] for a request id of another request; [`Error::RateLimited`]; or the
    /// store's.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        request_id: &str,
        origin: &Origin,
    ) -> Result<Issued, Error> {
        let text = refresh_token.expose_secret();
        let Ok(secret) = BearerSecret::parse(Prefix::SessionRefresh, text) else {
            return self.refused(None, "NO_REFRESH_TOKEN", origin).await;
        };
        let hash = secret.hash();
        let found = {
            let mut conn = self.parts.store.read().await?;
            match store::sessions::any_tenant_find_refresh(&mut conn, &hash).await? {
                Some((session, holder)) => {
                    let Session { tenant, id, .. } = &session;
                    let current = store::sessions::is_current(&mut conn, tenant, id, &hash).await?;
                    Some((session, holder, current))
                }
                None => None,
            }
        };
        let Some((session, holder, current)) = found else {
            return self.refused(None, "UNKNOWN_REFRESH_TOKEN", origin).await;
        };
        if let Some(reason) = over(&session, &holder, self.parts.clock.now()) {
            return self.refused(Some(&session), reason, origin).await;
        }
        // Every exchange leaves a row behind, and the gate does not know who calls. Whoever has a spent
        // token does not use up the calls of its user.
        let limiter = self.parts.limits.of(&session.user_id, holder.role, None);
        if current {
            limiter.charge()?;
        }
        let once = Once::of(
            &session.tenant,
            "RefreshSession",
            request_id,
            text.as_bytes(),
        );
        let tokens = Tokens::generate();
        let exchanged = transact!(self.parts.store, |tx| {
            self.exchange(&mut tx, &session, &hash, &tokens, once.as_ref(), origin)
                .await
        })?;
        match exchanged {
            Exchanged::Made(renewed) => {
                // The old session token is good nowhere any more.
                self.ended(std::slice::from_ref(&session.id));
                Ok(tokens.issued(renewed))
            }
            Exchanged::Before(issued) => {
                limiter.charge()?;
                Ok(issued)
            }
            Exchanged::Reused => {
                self.ended(std::slice::from_ref(&session.id));
                Err(invalid())
            }
            Exchanged::Over => Err(invalid()),
        }
    }

    /// Records that a refresh token was no good, and counts it: one that is nobody's by where it came
    /// from, apart from sign-ins, a dead one by its session alone, since an application's users share its
    /// address.
    async fn refused(
        &self,
        session: Option<&Session>,
        reason: &str,
        origin: &Origin,
    ) -> Result<Issued, Error> {
        let Parts {
            throttle,
            clock,
            store,
            ..
        } = &self.parts;
        let now = clock.now();
        let attempt = match session {
            Some(session) => Attempt::new(&session.tenant, &session.id, None),
            None => Attempt::refresh_from(origin.ip),
        };
        let (reason, error) = match throttle.admit(attempt, now).await {
            // It failed already, and stays counted.
            Ok(_) => (reason, invalid()),
            Err(refusal @ Refusal::Blocked { first: true, .. }) => ("THROTTLED", refusal.into()),
            Err(refusal) => return Err(refusal.into()),
        };
        let tenant = session.map_or("", |session| session.tenant.as_str());
        let mut entry = Entry::new(Action::SessionRefreshed, Who::anonymous(tenant, origin));
        if let Some(session) = session {
            entry = entry
                .on("session", &session.id)
                .detail("user_id", &session.user_id);
        }
        let entry = entry.failed(reason);
        transact!(store, |tx| {
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })?;
        Err(error)
    }

    /// The conditional update comes first: of two at once, the second waits for the first one's
    /// commit, and then finds what it left, be it the answer to the same request or a spent token.
    async fn exchange(
        &self,
        tx: &mut Tx,
        session: &Session,
        hash: &[u8; 32],
        tokens: &Tokens,
        once: Option<&Once<'_>>,
        origin: &Origin,
    ) -> Result<Exchanged, Error> {
        let Session { tenant, id, .. } = session;
        let now = self.parts.clock.now();
        let rotation = Rotation {
            hashes: tokens.hashes(),
            now,
            lifetime: self.parts.config.lifetime,
        };
        if let Some(renewed) = store::sessions::rotate(tx, hash, session, &rotation).await? {
            if let Some(once) = once {
                let keyring = &self.parts.keyring;
                let answer = joined(tokens);
                if !requests::remember(tx, keyring, once, id, Some(answer.as_str()), now).await? {
                    return Err(Error::invalid(
                        "request_id",
                        "was used for another request; take a new one for each",
                    ));
                }
            }
            let who = Who::user(&session.user_id, tenant, origin);
            let entry = Entry::new(Action::SessionRefreshed, who).on("session", id);
            audit::record(tx, &entry, now).await?;
            return Ok(Exchanged::Made(renewed));
        }
        if let Some(once) = once
            && let Some(issued) = self.repeated(tx, once, session).await?
        {
            return Ok(Exchanged::Before(issued));
        }
        if !store::sessions::any_tenant_is_spent(tx, hash).await? {
            return Ok(Exchanged::Over);
        }
        // Of two at once, one ends the session and records it.
        if store::sessions::revoke(tx, tenant, id, REUSED, now).await? {
            let who = Who::anonymous(tenant, origin);
            let entry = Entry::new(Action::SessionRefreshed, who)
                .on("session", id)
                .detail("user_id", &session.user_id)
                .failed(REUSED);
            audit::record(tx, &entry, now).await?;
        }
        Ok(Exchanged::Reused)
    }

    /// What the same request was answered within the last ten minutes; `None` when it was not, so
    /// that the token counts as spent.
    async fn repeated(
        &self,
        conn: &mut Conn,
        once: &Once<'_>,
        session: &Session,
    ) -> Result<Option<Issued>, Error> {
        let now = self.parts.clock.now();
        let keyring = &self.parts.keyring;
        let replayed = match requests::replayed(conn, keyring, once, now).await {
            Ok(Some(replayed)) => replayed,
            // The id of another refresh excuses nothing: a thief could take one that is used up.
            Ok(None) | Err(Error::AlreadyExists { .. } | Error::InvalidArgument(_)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let Some(answer) = replayed.response else {
            return Ok(None);
        };
        let tokens = split(&answer)
            .ok_or_else(|| Error::internal("a refresh was remembered in another form"))?;
        let Session { tenant, id, .. } = session;
        // A retry that comes so late that its answer was used, or the session ended, is no theft; nor
        // is what it would get of any use.
        let refresh_hash = tokens.hashes().refresh;
        if !store::sessions::is_current(conn, tenant, id, &refresh_hash).await? {
            return Err(invalid());
        }
        let current = store::sessions::find(conn, tenant, id).await?;
        Ok(Some(tokens.issued(current.ok_or_else(invalid)?)))
    }
}

/// Why nothing is exchanged any more, whatever the token.
fn over(session: &Session, holder: &Holder, now: Timestamp) -> Option<&'static str> {
    if session.revoked_at.is_some() {
        Some("SESSION_ENDED")
    } else if session.refresh_expires_at <= now {
        Some("SESSION_EXPIRED")
    } else if !holder.active {
        Some("USER_INACTIVE")
    } else {
        None
    }
}

/// The tokens as they are sealed for a retry.
fn joined(tokens: &Tokens) -> Zeroizing<String> {
    let [session, refresh] = tokens.texts();
    Zeroizing::new(format!(
        "{} {}",
        session.expose_secret(),
        refresh.expose_secret()
    ))
}

fn split(answer: &SecretString) -> Option<Tokens> {
    let (session, refresh) = answer.expose_secret().split_once(' ')?;
    Tokens::parse(session, refresh)
}

/// The one answer to a refresh token that is not good.
fn invalid() -> Error {
    Error::Unauthenticated(Unknown::RefreshTokenInvalid)
}
