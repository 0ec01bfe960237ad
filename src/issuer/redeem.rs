//! What a person's consent gave, redeemed once: codes, and device codes. One that comes again was taken
//! by somebody, so all that came of it is revoked; but only for who could have used it themselves, or
//! whoever sees a code could end what others have.

mod device;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};

use super::Issuer;
use super::exchange::{Asked, Tokens};
use super::issue::{Consent, Minted, Wanted};
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::crypto::digest;
use crate::error::Error;
use crate::model::{
    AuthorizationCode, ClientAuthMethod, ClientGrantType, IssuedGrant, OauthClient, OauthErrorCode,
    Timestamp, User, UserState,
};
use crate::store::{self, Conn, Tx, transact};

/// Why a grant ended whose code was used twice.
const CODE_REPLAYED: &str = "code_replayed";

/// Characters of a PKCE verifier (RFC 7636 section 4.1).
const VERIFIER_CHARS: std::ops::RangeInclusive<usize> = 43..=128;

/// What became of something that is good once.
enum Redeemed {
    Made,
    /// It was used before; what came of it was revoked.
    Replayed,
}

impl Issuer {
    /// Gives tokens for a code (RFC 6749 section 4.1.3). Whatever does not fit leaves the code as it was:
    /// who only saw it can neither use it nor use it up.
    pub(super) async fn redeem_code(
        &self,
        asked: &Asked<'_>,
        code: &SecretString,
        redirect_uri: &str,
        verifier: &SecretString,
    ) -> Result<Tokens, Error> {
        let secret = BearerSecret::parse(Prefix::AuthorizationCode, code.expose_secret())
            .map_err(|_| no_code())?;
        let hash = secret.hash();
        let mut conn = self.parts.store.read().await?;
        let found = store::issuer::codes::any_tenant_find(&mut conn, &hash).await?;
        let code = found
            .filter(|code| code.client_id == asked.client.id)
            .ok_or_else(no_code)?;
        judge_code(&code, redirect_uri, verifier, asked.jkt)?;
        if code.consumed_at.is_some() {
            drop(conn);
            let grant_id = &code.grant_id;
            return self
                .replayed(asked, grant_id, CODE_REPLAYED, no_code())
                .await;
        }
        let now = self.parts.clock.now();
        if code.expires_at <= now {
            return Err(invalid_grant("the code has expired"));
        }
        let (grant, user) = self
            .consent(&mut conn, &code.tenant, &code.grant_id)
            .await?;
        drop(conn);
        self.hourly.charge(asked.client)?;
        let consent = Consent {
            grant: &grant,
            user: &user,
            nonce: &code.nonce,
            refresh_jkt: bound_to(asked),
        };
        let minted = self.mint(&self.wanted(asked, consent, now)?)?;
        let redeemed = transact!(self.parts.store, |tx| {
            self.consume_code(&mut tx, asked, &code, &minted).await
        })?;
        self.outcome(redeemed, minted, no_code())
    }

    async fn consume_code(
        &self,
        tx: &mut Tx,
        asked: &Asked<'_>,
        code: &AuthorizationCode,
        minted: &Minted,
    ) -> Result<Redeemed, Error> {
        let now = self.parts.clock.now();
        let (tenant, id) = (&code.tenant, &code.grant_id);
        let locked = store::issuer::grants::lock(tx, tenant, id).await?;
        let grant = locked.ok_or_else(no_code)?;
        if !store::issuer::codes::consume(tx, tenant, &code.hash, now).await? {
            let found = store::issuer::codes::any_tenant_find(tx, &code.hash).await?;
            if found.is_none_or(|code| code.consumed_at.is_none()) {
                return Err(invalid_grant("the code has expired"));
            }
            self.revoke_family(tx, asked.who(), &grant, CODE_REPLAYED)
                .await?;
            return Ok(Redeemed::Replayed);
        }
        let kind = ClientGrantType::AuthorizationCode;
        self.keep_first(tx, asked, minted, &grant, kind).await?;
        Ok(Redeemed::Made)
    }

    /// What was used before comes again, with all that it takes to use it.
    async fn replayed(
        &self,
        asked: &Asked<'_>,
        grant_id: &str,
        reason: &str,
        refusal: Error,
    ) -> Result<Tokens, Error> {
        let tenant = &asked.client.tenant;
        transact!(self.parts.store, |tx| {
            if let Some(grant) = store::issuer::grants::lock(&mut tx, tenant, grant_id).await? {
                self.revoke_family(&mut tx, asked.who(), &grant, reason)
                    .await?;
            }
            Ok(())
        })?;
        self.forget_now(grant_id);
        Err(refusal)
    }

    /// What tokens of a grant are to be made of.
    fn wanted<'a>(
        &self,
        asked: &Asked<'a>,
        consent: Consent<'a>,
        now: Timestamp,
    ) -> Result<Wanted<'a>, Error> {
        Ok(Wanted {
            client: asked.client,
            consent: Some(consent),
            scopes: still_allowed(asked.client, &consent.grant.scopes),
            resources: asked.resources(&consent.grant.resources, &self.parts.config.resources)?,
            jkt: asked.jkt,
            origin: asked.origin,
            now,
        })
    }

    /// A grant that is alive, and its user, who may sign in.
    ///
    /// # Errors
    /// `invalid_grant`.
    pub(super) async fn consent(
        &self,
        conn: &mut Conn,
        tenant: &str,
        grant_id: &str,
    ) -> Result<(IssuedGrant, User), Error> {
        let found = store::issuer::grants::find(conn, tenant, grant_id).await?;
        let grant = found.ok_or_else(ended)?;
        require_alive(&grant)?;
        if self.end_of(&grant) <= self.parts.clock.now() {
            return Err(ended());
        }
        let user = store::users::find(conn, tenant, &grant.user_id).await?;
        match user {
            Some(user) if user.state == UserState::Active => Ok((grant, user)),
            _ => Err(invalid_grant("the person may not sign in any more")),
        }
    }

    async fn keep_first(
        &self,
        tx: &mut Tx,
        asked: &Asked<'_>,
        minted: &Minted,
        grant: &IssuedGrant,
        kind: ClientGrantType,
    ) -> Result<(), Error> {
        let now = self.parts.clock.now();
        self.keep(tx, minted, grant, bound_to(asked), now).await?;
        let entry = on_grant(Action::IssuedTokens, asked.who(), grant)
            .detail("grant_type", kind.as_str())
            .detail("token_id", &minted.access.id)
            .detail("scopes", minted.access.scopes.join(" "));
        audit::record(tx, &entry, now).await?;
        Ok(())
    }

    /// Revokes a grant that this transaction has locked, and records it; nothing where it had ended.
    pub(super) async fn revoke_family(
        &self,
        tx: &mut Tx,
        who: Who,
        grant: &IssuedGrant,
        reason: &str,
    ) -> Result<(), Error> {
        let now = self.parts.clock.now();
        let IssuedGrant { tenant, id, .. } = grant;
        if store::issuer::grants::revoke(tx, tenant, id, reason, now).await? {
            let entry = on_grant(Action::IssuedGrantRevoked, who, grant).reason(reason);
            audit::record(tx, &entry, now).await?;
        }
        Ok(())
    }

    fn outcome(&self, redeemed: Redeemed, minted: Minted, refused: Error) -> Result<Tokens, Error> {
        match redeemed {
            Redeemed::Made => Ok(minted.tokens),
            Redeemed::Replayed => {
                if let Some(grant_id) = &minted.access.grant_id {
                    self.forget_now(grant_id);
                }
                Err(refused)
            }
        }
    }
}

/// What is recorded of a grant.
pub(super) fn on_grant(action: Action, who: Who, grant: &IssuedGrant) -> Entry {
    Entry::new(action, who)
        .on("issued_grant", &grant.id)
        .detail("client_id", &grant.client_id)
        .detail("user_id", &grant.user_id)
}

/// Everything about a code but whether it was used.
fn judge_code(
    code: &AuthorizationCode,
    redirect_uri: &str,
    verifier: &SecretString,
    jkt: &str,
) -> Result<(), Error> {
    let named = !redirect_uri.is_empty();
    if (code.redirect_uri_sent || named) && code.redirect_uri != redirect_uri {
        return Err(invalid_grant(
            "redirect_uri is not the one of the authorization request",
        ));
    }
    require_verifier(&code.code_challenge, verifier.expose_secret())?;
    if !code.dpop_jkt.is_empty() && code.dpop_jkt != jkt {
        return Err(invalid_grant(
            "the code is bound to a key, and the proof is missing or of another",
        ));
    }
    Ok(())
}

/// The verifier that answers the challenge, if and only if there was one: a code that was asked for
/// without must not be slipped to a client that asks with one (RFC 9700 section 4.8).
fn require_verifier(challenge: &str, verifier: &str) -> Result<(), Error> {
    if challenge.is_empty() && verifier.is_empty() {
        return Ok(());
    }
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let formed = VERIFIER_CHARS.contains(&verifier.len()) && verifier.bytes().all(unreserved);
    let answer = URL_SAFE_NO_PAD.encode(digest::sha256(verifier.as_bytes()));
    if formed && digest::constant_time_eq(answer.as_bytes(), challenge.as_bytes()) {
        return Ok(());
    }
    Err(invalid_grant(
        "code_verifier does not answer the code_challenge of the authorization request",
    ))
}

/// The key that refresh tokens are bound to. A confidential client's are bound to it by its credentials
/// (RFC 9449 section 5).
fn bound_to<'a>(asked: &Asked<'a>) -> &'a str {
    match asked.client.settings.auth_method {
        ClientAuthMethod::None => asked.jkt,
        _ => "",
    }
}

/// What was granted, as far as the client may still have it.
pub(super) fn still_allowed(client: &OauthClient, granted: &[String]) -> Vec<String> {
    let allowed = &client.settings.allowed_scopes;
    let kept = granted.iter().filter(|scope| allowed.contains(scope));
    kept.cloned().collect()
}

/// # Errors
/// `invalid_grant` for one that was revoked.
pub(super) fn require_alive(grant: &IssuedGrant) -> Result<(), Error> {
    if grant.revoked_at.is_none() {
        Ok(())
    } else {
        Err(ended())
    }
}

pub(super) fn ended() -> Error {
    invalid_grant("what the person gave has ended or was taken back")
}

pub(super) fn invalid_grant(description: &str) -> Error {
    Error::oauth(OauthErrorCode::InvalidGrant, description)
}

/// The one answer to a code that is nobody's, another client's or used.
fn no_code() -> Error {
    invalid_grant("the code is not valid")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

    #[test]
    fn a_verifier_is_needed_exactly_where_there_was_a_challenge() {
        require_verifier(CHALLENGE, VERIFIER).unwrap();
        require_verifier("", "").unwrap();
        for (challenge, verifier) in [
            (CHALLENGE, ""),
            ("", VERIFIER),
            (CHALLENGE, "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXl"),
            (CHALLENGE, CHALLENGE),
        ] {
            require_verifier(challenge, verifier).unwrap_err();
        }
        let short = "a".repeat(42);
        let of_short = URL_SAFE_NO_PAD.encode(digest::sha256(short.as_bytes()));
        require_verifier(&of_short, &short).unwrap_err();
    }

    fn code(redirect_uri_sent: bool, dpop_jkt: &str) -> AuthorizationCode {
        AuthorizationCode {
            hash: Vec::new(),
            tenant: "default".to_owned(),
            client_id: "client_1".to_owned(),
            grant_id: "ogrant_1".to_owned(),
            redirect_uri: "https://a.example/cb".to_owned(),
            redirect_uri_sent,
            client_state: String::new(),
            nonce: String::new(),
            code_challenge: String::new(),
            dpop_jkt: dpop_jkt.to_owned(),
            ip: String::new(),
            user_agent: String::new(),
            created_at: Timestamp::default(),
            expires_at: Timestamp::default(),
            consumed_at: None,
            keep_until: Timestamp::default(),
        }
    }

    #[test]
    fn a_code_is_good_where_it_was_sent_and_for_the_key_it_is_bound_to() {
        let none = SecretString::from("");
        let judged = |code: &AuthorizationCode, uri: &str, jkt: &str| {
            judge_code(code, uri, &none, jkt).is_ok()
        };
        assert!(judged(&code(true, ""), "https://a.example/cb", ""));
        assert!(!judged(&code(true, ""), "", ""));
        assert!(!judged(&code(true, ""), "https://a.example/cb/", ""));
        assert!(judged(&code(false, ""), "", "any"));
        assert!(!judged(&code(false, ""), "https://b.example/cb", ""));
        assert!(judged(&code(false, "key"), "", "key"));
        assert!(!judged(&code(false, "key"), "", ""));
        assert!(!judged(&code(false, "key"), "", "other"));
    }
}
