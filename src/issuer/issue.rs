//! Tokens, made from what was judged elsewhere: signed and sealed before the transaction that keeps
//! their hashes, so that it holds its locks no longer than it must.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};

use super::exchange::Tokens;
use super::{Issuer, redeem};
use crate::access::Origin;
use crate::access::bearer::{BearerSecret, Prefix};
use crate::crypto::digest;
use crate::crypto::jwt::JWT_MAX;
use crate::error::Error;
use crate::model::{
    ClientGrantType, IdKind, IssuedGrant, IssuedToken, IssuedTokenKind, OauthClient,
    OauthErrorCode, Timestamp, TokenFormat, User,
};
use crate::store::{self, Tx};

/// What tokens are to be made of.
pub(super) struct Wanted<'a> {
    pub(super) client: &'a OauthClient,
    /// None where the client acts for itself.
    pub(super) consent: Option<Consent<'a>>,
    pub(super) scopes: Vec<String>,
    pub(super) resources: Vec<String>,
    /// The thumbprint of the key that the access token is bound to; empty for none.
    pub(super) jkt: &'a str,
    pub(super) origin: &'a Origin,
    pub(super) now: Timestamp,
}

/// On whose word.
#[derive(Clone, Copy)]
pub(super) struct Consent<'a> {
    pub(super) grant: &'a IssuedGrant,
    pub(super) user: &'a User,
    /// Of the authorisation request; empty for none.
    pub(super) nonce: &'a str,
    /// The thumbprint of the key that refresh tokens are bound to; empty for none.
    pub(super) refresh_jkt: &'a str,
}

/// Tokens that are made and not kept yet.
pub(super) struct Minted {
    pub(super) access: IssuedToken,
    pub(super) refresh: Option<IssuedToken>,
    pub(super) tokens: Tokens,
}

impl Issuer {
    /// Makes tokens. They are good once [`Issuer::keep`] has kept them.
    pub(super) fn mint(&self, wanted: &Wanted<'_>) -> Result<Minted, Error> {
        let (text, access) = self.access_token(wanted)?;
        let (refresh_token, refresh) = self.refresh_token(wanted).unzip();
        let id_token = match wanted.consent {
            Some(consent) if has(&wanted.scopes, "openid") => {
                Some(self.id_token(wanted, consent, &text, &access)?)
            }
            _ => None,
        };
        let tokens = Tokens {
            access_token: text,
            token_type: token_type(wanted.jkt),
            expires_in: access.expires_at.since(wanted.now),
            refresh_token,
            scopes: wanted.scopes.clone(),
            id_token,
        };
        Ok(Minted {
            access,
            refresh,
            tokens,
        })
    }

    /// When a grant ends in any case.
    pub(super) fn end_of(&self, grant: &IssuedGrant) -> Timestamp {
        grant.created_at.plus(self.parts.config.grant_max_age)
    }

    /// Keeps tokens of a grant that this transaction has locked, as its next generation.
    ///
    /// # Errors
    /// `invalid_grant` where the grant has ended.
    pub(super) async fn keep(
        &self,
        tx: &mut Tx,
        minted: &Minted,
        grant: &IssuedGrant,
        refresh_jkt: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        redeem::require_alive(grant)?;
        let all = [Some(&minted.access), minted.refresh.as_ref()];
        let ends = all.iter().flatten().map(|token| token.expires_at).max();
        let ends = ends.unwrap_or(now);
        let IssuedGrant { tenant, id, .. } = grant;
        let was = grant.generation;
        if !store::issuer::grants::advance(tx, tenant, id, was, ends, refresh_jkt, now).await? {
            return Err(redeem::ended());
        }
        for token in all.into_iter().flatten() {
            let token = IssuedToken {
                generation: was + 1,
                ..token.clone()
            };
            store::issuer::tokens::insert(tx, &token).await?;
        }
        Ok(())
    }

    fn access_token(&self, wanted: &Wanted<'_>) -> Result<(SecretString, IssuedToken), Error> {
        let settings = &wanted.client.settings;
        let ends = self.capped(wanted, wanted.now.plus(settings.access_token_lifetime));
        let mut token = row(wanted, IssuedTokenKind::Access, ends);
        wanted.jkt.clone_into(&mut token.dpop_jkt);
        token.scopes.clone_from(&wanted.scopes);
        token.resources.clone_from(&wanted.resources);
        token.format = settings.access_token_format;
        // What is over can no longer be misused: nothing is noticed by it.
        token.keep_until = ends;
        let text = match token.format {
            TokenFormat::Opaque => BearerSecret::generate(Prefix::AccessToken).text().clone(),
            TokenFormat::Jwt => {
                let text = self.sign("at+jwt", &self.access_claims(wanted, &token))?;
                // A longer one could be given, and never again be asked about or revoked.
                if text.len() > JWT_MAX {
                    return Err(Error::oauth(
                        OauthErrorCode::InvalidScope,
                        "the scopes make a token that is too long: ask for fewer",
                    ));
                }
                SecretString::from(text)
            }
        };
        token.hash = hash(&text);
        Ok((text, token))
    }

    /// A JWT access token (RFC 9068 section 2.2).
    fn access_claims(&self, wanted: &Wanted<'_>, token: &IssuedToken) -> Value {
        let issuer = self.parts.config.identifier();
        let audience = match token.resources.as_slice() {
            [] => json!(issuer),
            [one] => json!(one),
            several => json!(several),
        };
        let subject = wanted.consent.map_or(&wanted.client.id, |it| &it.user.id);
        let mut claims = Map::from_iter([
            ("iss".to_owned(), json!(issuer)),
            ("sub".to_owned(), json!(subject)),
            ("aud".to_owned(), audience),
            ("client_id".to_owned(), json!(wanted.client.id)),
            ("jti".to_owned(), json!(token.id)),
            ("iat".to_owned(), seconds(token.created_at)),
            ("exp".to_owned(), seconds(token.expires_at)),
        ]);
        if !token.scopes.is_empty() {
            claims.insert("scope".to_owned(), json!(token.scopes.join(" ")));
        }
        if let Some(consent) = wanted.consent {
            claims.insert("auth_time".to_owned(), seconds(consent.grant.auth_time));
        }
        if !token.dpop_jkt.is_empty() {
            claims.insert("cnf".to_owned(), json!({ "jkt": token.dpop_jkt }));
        }
        Value::Object(claims)
    }

    /// A refresh token, where the client has them and there is a person's consent.
    fn refresh_token(&self, wanted: &Wanted<'_>) -> Option<(SecretString, IssuedToken)> {
        let settings = &wanted.client.settings;
        let consent = wanted.consent?;
        if !settings
            .grant_types
            .contains(&ClientGrantType::RefreshToken)
        {
            return None;
        }
        let ends = self.capped(wanted, wanted.now.plus(settings.refresh_token_lifetime));
        let mut token = row(wanted, IssuedTokenKind::Refresh, ends);
        // All that was granted: a client that asks for less once can ask for the rest the next time.
        token.scopes.clone_from(&consent.grant.scopes);
        token.resources.clone_from(&consent.grant.resources);
        consent.refresh_jkt.clone_into(&mut token.dpop_jkt);
        token.keep_until = ends.plus(self.parts.config.keep_spent);
        let text = BearerSecret::generate(Prefix::RefreshToken).text().clone();
        token.hash = hash(&text);
        Some((text, token))
    }

    /// Who the person is (OpenID Connect Core section 2).
    fn id_token(
        &self,
        wanted: &Wanted<'_>,
        consent: Consent<'_>,
        access_token: &SecretString,
        access: &IssuedToken,
    ) -> Result<SecretString, Error> {
        let user = consent.user;
        let mut claims = Map::from_iter([
            ("iss".to_owned(), json!(self.parts.config.identifier())),
            ("sub".to_owned(), json!(user.id)),
            ("aud".to_owned(), json!(wanted.client.id)),
            ("iat".to_owned(), seconds(access.created_at)),
            ("exp".to_owned(), seconds(access.expires_at)),
            ("auth_time".to_owned(), seconds(consent.grant.auth_time)),
            ("at_hash".to_owned(), json!(at_hash(access_token))),
        ]);
        if !consent.nonce.is_empty() {
            claims.insert("nonce".to_owned(), json!(consent.nonce));
        }
        if has(&wanted.scopes, "email") {
            claims.insert("email".to_owned(), json!(user.email));
            claims.insert("email_verified".to_owned(), json!(user.email_verified));
        }
        if has(&wanted.scopes, "profile") && !user.display_name.is_empty() {
            claims.insert("name".to_owned(), json!(user.display_name));
        }
        self.sign("JWT", &Value::Object(claims))
            .map(SecretString::from)
    }

    fn capped(&self, wanted: &Wanted<'_>, ends: Timestamp) -> Timestamp {
        match wanted.consent {
            Some(consent) => ends.min(self.end_of(consent.grant)),
            None => ends,
        }
    }
}

/// What any token has.
fn row(wanted: &Wanted<'_>, kind: IssuedTokenKind, ends: Timestamp) -> IssuedToken {
    IssuedToken {
        id: IdKind::IssuedToken.new_id(),
        hash: Vec::new(),
        tenant: wanted.client.tenant.clone(),
        client_id: wanted.client.id.clone(),
        grant_id: wanted.consent.map(|consent| consent.grant.id.clone()),
        kind,
        format: TokenFormat::Opaque,
        scopes: Vec::new(),
        resources: Vec::new(),
        dpop_jkt: String::new(),
        generation: 0,
        created_at: wanted.now,
        expires_at: ends,
        revoked_at: None,
        revoke_reason: String::new(),
        consumed_at: None,
        reuse_count: 0,
        successor: None,
        use_count: 0,
        last_used_at: None,
        ip: wanted.origin.ip_text(),
        user_agent: Origin::clean_user_agent(&wanted.origin.user_agent),
        keep_until: ends,
    }
}

/// How an access token is sent that is bound to this key, or to none.
pub(super) const fn token_type(jkt: &str) -> &'static str {
    if jkt.is_empty() { "Bearer" } else { "DPoP" }
}

pub(super) fn has(scopes: &[String], scope: &str) -> bool {
    scopes.iter().any(|other| other == scope)
}

/// What is stored of a token.
fn hash(text: &SecretString) -> Vec<u8> {
    digest::sha256(text.expose_secret().as_bytes()).to_vec()
}

/// The left half of the access token's hash (OpenID Connect Core section 3.1.3.6).
fn at_hash(access_token: &SecretString) -> String {
    let hash = digest::sha256(access_token.expose_secret().as_bytes());
    let (half, _) = hash.split_at(hash.len() / 2);
    URL_SAFE_NO_PAD.encode(half)
}

/// As JWTs have times.
fn seconds(at: Timestamp) -> Value {
    json!(at.micros().div_euclid(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of OpenID Connect Core, appendix A.3.
    #[test]
    fn the_hash_of_an_access_token_is_half_of_it() {
        let token = SecretString::from("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y");
        assert_eq!(at_hash(&token), "77QmUPtjPfzWtF2AnpK9RQ");
    }

    #[test]
    fn times_are_whole_seconds_and_never_late() {
        assert_eq!(seconds(Timestamp::from_micros(1_999_999)), json!(1));
        assert_eq!(token_type(""), "Bearer");
        assert_eq!(token_type("a"), "DPoP");
    }
}
