//! Refresh tokens: each is exchanged once, for the next. One that comes again was taken by somebody, so
//! all that came of the consent is revoked; but for a short while after the first exchange the same
//! answer is given again, so that a lost one costs nobody their access (RFC 9700 section 4.14.2).

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use super::exchange::{Asked, Tokens};
use super::issue::{self, Consent, Minted, Wanted};
use super::redeem::{ended, invalid_grant, on_grant, require_alive, still_allowed};
use super::{Issuer, scopes};
use crate::access::audit::{self, Action};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::crypto::{Context, Purpose};
use crate::error::Error;
use crate::model::{IssuedGrant, IssuedToken, IssuedTokenKind, OauthErrorCode, Sealed, Timestamp};
use crate::store::{self, Tx, transact};

/// Why a grant ended whose spent refresh token was seen.
const REUSED: &str = "refresh_token_reused";

/// What a refresh token was exchanged for, as it is sealed for a repeated answer.
#[derive(Deserialize, Serialize)]
struct Successor {
    access_token: String,
    refresh_token: Option<String>,
    id_token: Option<String>,
    scopes: Vec<String>,
    resources: Vec<String>,
    /// Microseconds.
    access_expires_at: i64,
    /// The key of the proof that came with the exchange; empty for none.
    dpop_jkt: String,
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.access_token.zeroize();
        self.refresh_token.zeroize();
        self.id_token.zeroize();
    }
}

impl Successor {
    fn of(minted: &Minted) -> Self {
        let text = |secret: &SecretString| secret.expose_secret().to_owned();
        let Tokens {
            access_token,
            refresh_token,
            id_token,
            scopes,
            ..
        } = &minted.tokens;
        Self {
            access_token: text(access_token),
            refresh_token: refresh_token.as_ref().map(text),
            id_token: id_token.as_ref().map(text),
            scopes: scopes.clone(),
            resources: minted.access.resources.clone(),
            access_expires_at: minted.access.expires_at.micros(),
            dpop_jkt: minted.access.dpop_jkt.clone(),
        }
    }

    fn tokens(mut self, now: Timestamp) -> Tokens {
        let ends = Timestamp::from_micros(self.access_expires_at);
        Tokens {
            access_token: SecretString::from(std::mem::take(&mut self.access_token)),
            token_type: issue::token_type(&self.dpop_jkt),
            expires_in: ends.since(now),
            refresh_token: self.refresh_token.take().map(SecretString::from),
            scopes: std::mem::take(&mut self.scopes),
            id_token: self.id_token.take().map(SecretString::from),
        }
    }
}

/// What became of an exchange.
enum Rotated {
    Made,
    /// It was exchanged a moment ago: for this.
    Before(Tokens),
    /// It was exchanged before; what came of the consent was revoked.
    Reused,
}

impl Issuer {
    /// Gives tokens for a refresh token (RFC 6749 section 6). One of another client, or without the key
    /// that it is bound to, is refused and stays as it was.
    pub(super) async fn refresh(
        &self,
        asked: &Asked<'_>,
        token: &SecretString,
        wanted: &[String],
    ) -> Result<Tokens, Error> {
        let secret = BearerSecret::parse(Prefix::RefreshToken, token.expose_secret())
            .map_err(|_| no_token())?;
        let mut conn = self.parts.store.read().await?;
        let found = store::issuer::tokens::any_tenant_find(&mut conn, &secret.hash()).await?;
        let token = found
            .filter(|token| token.kind == IssuedTokenKind::Refresh)
            .filter(|token| token.client_id == asked.client.id)
            .ok_or_else(no_token)?;
        if !token.dpop_jkt.is_empty() && token.dpop_jkt != asked.jkt {
            return Err(invalid_grant(
                "the refresh token is bound to a key, and the proof is missing or of another",
            ));
        }
        let grant_id = token.grant_id.as_deref().ok_or_else(no_token)?;
        let now = self.parts.clock.now();
        // A spent one is judged whatever its time: that it comes again says that somebody has it.
        if token.consumed_at.is_none() {
            require_good(&token, now)?;
        }
        let (grant, user) = self.consent(&mut conn, &token.tenant, grant_id).await?;
        drop(conn);
        let wanted = Wanted {
            client: asked.client,
            consent: Some(Consent {
                grant: &grant,
                user: &user,
                nonce: "",
                refresh_jkt: &token.dpop_jkt,
            }),
            scopes: narrowed(wanted, &still_allowed(asked.client, &grant.scopes))?,
            resources: asked.resources(&grant.resources, &self.parts.config.resources)?,
            jkt: asked.jkt,
            origin: asked.origin,
            now,
        };
        if token.consumed_at.is_none() {
            self.hourly.charge(asked.client)?;
        }
        let minted = self.mint(&wanted)?;
        let sealed = self.seal_successor(&token, &minted)?;
        let rotated = transact!(self.parts.store, |tx| {
            self.rotate(&mut tx, asked, &token, grant_id, &minted, &sealed)
                .await
        })?;
        match rotated {
            Rotated::Made => Ok(minted.tokens),
            Rotated::Before(tokens) => Ok(tokens),
            Rotated::Reused => {
                self.forget_now(grant_id);
                Err(no_token())
            }
        }
    }

    /// The grant's lock comes first: of two exchanges at once, or an exchange and a revocation, the second
    /// finds what the first one left.
    async fn rotate(
        &self,
        tx: &mut Tx,
        asked: &Asked<'_>,
        token: &IssuedToken,
        grant_id: &str,
        minted: &Minted,
        sealed: &Sealed,
    ) -> Result<Rotated, Error> {
        let now = self.parts.clock.now();
        let IssuedToken { tenant, hash, .. } = token;
        let locked = store::issuer::grants::lock(tx, tenant, grant_id).await?;
        let grant = locked.ok_or_else(ended)?;
        require_alive(&grant)?;
        if !store::issuer::tokens::consume_refresh(tx, tenant, hash, now, sealed).await? {
            return self.spent(tx, asked, hash, &grant, minted).await;
        }
        // A token of an older generation that was never spent can't be: the next one came of it.
        if grant.generation != token.generation {
            return Err(no_token());
        }
        self.keep(tx, minted, &grant, &grant.dpop_jkt, now).await?;
        let entry = on_grant(Action::IssuedRefreshed, asked.who(), &grant)
            .detail("token_id", &minted.access.id)
            .detail("scopes", minted.access.scopes.join(" "));
        audit::record(tx, &entry, now).await?;
        Ok(Rotated::Made)
    }

    /// A refresh token that was exchanged before, or revoked.
    async fn spent(
        &self,
        tx: &mut Tx,
        asked: &Asked<'_>,
        hash: &[u8],
        grant: &IssuedGrant,
        minted: &Minted,
    ) -> Result<Rotated, Error> {
        let found = store::issuer::tokens::any_tenant_find(tx, hash).await?;
        let token = found.ok_or_else(no_token)?;
        if token.consumed_at.is_none() {
            return Err(no_token());
        }
        let now = self.parts.clock.now();
        if let Some(tokens) = self.repeated(tx, asked, &token, grant, minted).await? {
            let entry = on_grant(Action::IssuedRefreshed, asked.who(), grant)
                .detail("repeated", token.reuse_count.saturating_add(1));
            audit::record(tx, &entry, now).await?;
            return Ok(Rotated::Before(tokens));
        }
        self.revoke_family(tx, asked.who(), grant, REUSED).await?;
        Ok(Rotated::Reused)
    }

    /// The same answer again: a moment after the first exchange, for who holds the same key, as long as
    /// nobody has used it.
    async fn repeated(
        &self,
        tx: &mut Tx,
        asked: &Asked<'_>,
        token: &IssuedToken,
        grant: &IssuedGrant,
        minted: &Minted,
    ) -> Result<Option<Tokens>, Error> {
        let now = self.parts.clock.now();
        let config = &self.parts.config;
        let (Some(at), Some(sealed)) = (token.consumed_at, &token.successor) else {
            return Ok(None);
        };
        let unused = grant.generation == token.generation.saturating_add(1);
        if now >= at.plus(config.refresh_grace) || !unused || token.revoked_at.is_some() {
            return Ok(None);
        }
        let text = self.parts.keyring.open_text(&context(token), sealed)?;
        let successor: Successor =
            serde_json::from_str(text.expose_secret()).map_err(Error::internal)?;
        if successor.dpop_jkt != asked.jkt {
            return Ok(None);
        }
        // Who asks for something else is not the one whose answer was lost; nor need they be a thief.
        let same = successor.scopes == minted.tokens.scopes
            && successor.resources == minted.access.resources;
        if !same {
            return Err(no_token());
        }
        let most = i32::try_from(config.refresh_grace_uses).unwrap_or(i32::MAX);
        let counted =
            store::issuer::tokens::count_reuse(tx, &token.tenant, &token.hash, most).await?;
        Ok(counted.then(|| successor.tokens(now)))
    }

    fn seal_successor(&self, token: &IssuedToken, minted: &Minted) -> Result<Sealed, Error> {
        let text = serde_json::to_string(&Successor::of(minted)).map_err(Error::internal)?;
        let text = Zeroizing::new(text);
        let keyring = &self.parts.keyring;
        Ok(keyring.seal(&context(token), text.as_bytes())?)
    }
}

fn context(token: &IssuedToken) -> Context<'_> {
    Context {
        tenant: &token.tenant,
        purpose: Purpose::IssuedSuccessor,
        row: &token.id,
    }
}

/// What is wanted of what may be had; all of it where nothing is named.
fn narrowed(wanted: &[String], granted: &[String]) -> Result<Vec<String>, Error> {
    if wanted.is_empty() {
        return Ok(granted.to_vec());
    }
    scopes::within(wanted, granted).ok_or_else(|| {
        Error::oauth(
            OauthErrorCode::InvalidScope,
            "the scope goes beyond what was granted",
        )
    })
}

fn require_good(token: &IssuedToken, now: Timestamp) -> Result<(), Error> {
    if token.revoked_at.is_some() {
        return Err(no_token());
    }
    if token.expires_at <= now {
        return Err(invalid_grant("the refresh token has expired"));
    }
    Ok(())
}

/// The one answer to a token that is nobody's, another client's, used or revoked.
fn no_token() -> Error {
    invalid_grant("the refresh token is not valid")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn scopes_can_be_narrowed_and_never_widened() {
        let granted = texts(&["read", "write"]);
        assert_eq!(narrowed(&[], &granted).unwrap(), granted);
        assert_eq!(narrowed(&texts(&["read"]), &granted).unwrap(), ["read"]);
        narrowed(&texts(&["read", "admin"]), &granted).unwrap_err();
    }

    #[test]
    fn a_successor_is_the_same_answer_with_less_time_left() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000);
        let successor = Successor {
            access_token: "a".to_owned(),
            refresh_token: Some("r".to_owned()),
            id_token: None,
            scopes: texts(&["read"]),
            resources: Vec::new(),
            access_expires_at: at(60).micros(),
            dpop_jkt: "key".to_owned(),
        };
        let text = serde_json::to_string(&successor).unwrap();
        let again: Successor = serde_json::from_str(&text).unwrap();
        let tokens = again.tokens(at(20));
        assert_eq!(tokens.access_token.expose_secret(), "a");
        assert_eq!(tokens.refresh_token.unwrap().expose_secret(), "r");
        assert_eq!(tokens.expires_in, Duration::from_secs(40));
        assert_eq!(tokens.token_type, "DPoP");
    }
}
