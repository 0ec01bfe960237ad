//! What an access token says of its person (OpenID Connect Core section 5.3).

use super::issue::has;
use super::{Issuer, Proof};
use crate::error::Error;
use crate::model::{IssuedTokenKind, OauthErrorCode};

/// Claims about a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserInfo {
    /// The user's id.
    pub subject: String,
    /// With the scope `email`.
    pub email: Option<String>,
    /// With the scope `email`.
    pub email_verified: Option<bool>,
    /// With the scope `profile`, where they have a name.
    pub name: Option<String>,
}

impl Issuer {
    /// Claims about the person of an access token. A caller of a tenant (`within`) asks about that one's
    /// tokens alone. `scheme_is_dpop` says how the token was sent, where that is known: one that is bound
    /// to a key is no bearer token (RFC 9449 section 7.1).
    ///
    /// # Errors
    /// `invalid_token`, `insufficient_scope`, `invalid_dpop_proof`, `use_dpop_nonce`, or the store's.
    pub async fn user_info(
        &self,
        within: Option<&str>,
        access_token: &str,
        scheme_is_dpop: Option<bool>,
        proof: Option<&Proof>,
    ) -> Result<UserInfo, Error> {
        let held = self.look_up(access_token).await?.ok_or_else(invalid)?;
        let token = &held.introspection.token;
        if within.is_some_and(|tenant| tenant != token.tenant) {
            return Err(invalid());
        }
        let bound = !token.dpop_jkt.is_empty();
        // One that is for others' resources is not for us: they could ask about the person with it.
        let here = self.parts.config.identifier();
        let elsewhere = !token.resources.is_empty() && !token.resources.iter().any(|it| it == here);
        if elsewhere
            || token.kind != IssuedTokenKind::Access
            || scheme_is_dpop.is_some_and(|it| it != bound)
        {
            return Err(invalid());
        }
        if bound {
            let proof = proof.ok_or_else(|| {
                Error::oauth(
                    OauthErrorCode::InvalidDpopProof,
                    "the access token is bound to a key: a proof is required",
                )
            })?;
            if self.verify_proof(proof, Some(access_token)).await? != token.dpop_jkt {
                return Err(invalid());
            }
        }
        let insufficient = || {
            Error::oauth(
                OauthErrorCode::InsufficientScope,
                "the access token needs the scope openid and a person",
            )
        };
        let openid = has(&token.scopes, "openid");
        let user = held.user.as_ref().filter(|_| openid);
        let user = user.ok_or_else(insufficient)?;
        let email = has(&token.scopes, "email");
        let name = has(&token.scopes, "profile") && !user.name.is_empty();
        self.used(&held);
        Ok(UserInfo {
            subject: user.id.clone(),
            email: email.then(|| user.email.clone()),
            email_verified: email.then_some(user.email_verified),
            name: name.then(|| user.name.clone()),
        })
    }
}

fn invalid() -> Error {
    Error::oauth(
        OauthErrorCode::InvalidToken,
        "the access token is not valid, has expired or was revoked",
    )
}
