//! Exchanging a session's tokens. A refresh token is good once; seen again, somebody else has it, and
//! the session ends (RFC 9700 section 4.14.2). What tells a lost answer from a thief is the
//! request id.

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::Sessions;
use super::issue::{Issued, Tokens};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::access::requests::{self, Once};
use crate::error::{Error, Unknown};
use crate::model::Session;
use crate::store::sessions::Rotation;
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
    /// ended; which of these is not said. [`Error::InvalidArgument`] for a request id of another
    /// request; [`Error::RateLimited`]; or the store's.
    pub async fn refresh(
        &self,
        refresh_token: &SecretString,
        request_id: &str,
        origin: &Origin,
    ) -> Result<Issued, Error> {
        let text = refresh_token.expose_secret();
        let hash = BearerSecret::parse(Prefix::SessionRefresh, text)
            .map_err(|_| invalid())?
            .hash();
        let found = {
            let mut conn = self.parts.store.read().await?;
            store::sessions::any_tenant_find_refresh(&mut conn, &hash).await?
        };
        let (session, holder) = found.ok_or_else(invalid)?;
        // Every exchange leaves a row behind, and the gate does not know who calls.
        let limits = &self.parts.limits;
        limits.of(&session.user_id, holder.role, None).charge()?;
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
            Exchanged::Before(issued) => Ok(issued),
            Exchanged::Reused => {
                self.ended(std::slice::from_ref(&session.id));
                Err(invalid())
            }
            Exchanged::Over => Err(invalid()),
        }
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
        // Recorded once: whoever has a dead token could fill the trail with it.
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
            Ok(None) | Err(Error::AlreadyExists { .. }) => return Ok(None),
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
