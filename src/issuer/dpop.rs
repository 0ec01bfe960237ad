//! Proofs of possession of a key (RFC 9449): a token that is bound to one is of no use to whoever took
//! the token alone.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use url::Url;

use super::{Issuer, Parts};
use crate::clock::Clock;
use crate::crypto::jwt::{self, Claims};
use crate::crypto::{Keyring, digest};
use crate::error::Error;
use crate::model::{OauthError, OauthErrorCode, Timestamp};
use crate::store::issuer::proofs;
use crate::store::transact;

/// What sort of JWT it must say it is.
const MEDIA_TYPE: &str = "dpop+jwt";

/// How far from now a proof may have been made, into the past and, by a clock that is ahead, into the
/// future.
const WINDOW: Duration = Duration::from_secs(60);

/// Longest `jti`, in bytes.
const JTI_MAX: usize = 128;

/// Frozen while rows live.
const SPENT_LABEL: &str = "tokenbroker.dpop.v1";

/// How long one nonce is given out; it is taken for as long again.
const NONCE_STRETCH: Duration = Duration::from_secs(150);

/// A proof, as it came with a request.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The `DPoP` header.
    pub jwt: SecretString,
    /// The request's method, such as `POST`.
    pub method: String,
    /// The address that the client sent the request to.
    pub uri: String,
}

/// The nonces that proofs must carry. They are a keyed hash of the time: all replicas know them, and
/// none is stored.
pub(super) struct Nonces {
    keyring: Keyring,
    clock: Clock,
}

impl Nonces {
    /// With the keys and the clock.
    pub(super) fn new(parts: &Parts) -> Self {
        Self {
            keyring: parts.keyring.clone(),
            clock: parts.clock.clone(),
        }
    }

    /// The one to use now.
    fn current(&self) -> String {
        self.keyring.nonce(self.stretch())
    }

    /// The one before is taken too, and the next, of a replica whose clock is ahead.
    fn takes(&self, nonce: &str) -> bool {
        let now = self.stretch();
        let taken = [now.saturating_sub(1), now, now.saturating_add(1)];
        taken.into_iter().fold(false, |taken, stretch| {
            let known = self.keyring.nonce(stretch);
            taken | digest::constant_time_eq(known.as_bytes(), nonce.as_bytes())
        })
    }

    fn stretch(&self) -> u64 {
        self.clock.now().since(Timestamp::default()).as_secs() / NONCE_STRETCH.as_secs()
    }
}

impl Issuer {
    /// The nonce that a client's next proof should carry, to be sent with answers; none where proofs
    /// need none.
    pub fn dpop_nonce(&self) -> Option<String> {
        let required = self.parts.config.require_dpop_nonce;
        required.then(|| self.nonces.current())
    }

    /// Judges a proof, which is good once: the RFC 7638 thumbprint of its key. With an access token it
    /// must be for that token.
    ///
    /// # Errors
    /// `invalid_dpop_proof`, or `use_dpop_nonce` with the nonce to use; or the store's.
    pub async fn verify_proof(
        &self,
        proof: &Proof,
        access_token: Option<&str>,
    ) -> Result<String, Error> {
        let brought = jwt::verify_by_own_key(proof.jwt.expose_secret())
            .map_err(|fault| invalid(&fault.to_string()))?;
        let media_type = brought.media_type.as_deref().unwrap_or_default();
        if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
            return Err(invalid("its typ is not dpop+jwt"));
        }
        let (claims, now) = (&brought.claims, self.parts.clock.now());
        let Judged { jti, issued_at } = judge(claims, proof, access_token, now).map_err(invalid)?;
        if self.parts.config.require_dpop_nonce {
            let nonce = claims.get("nonce").and_then(Value::as_str);
            if !nonce.is_some_and(|nonce| self.nonces.takes(nonce)) {
                return Err(self.nonce_needed());
            }
        }
        let spent = [SPENT_LABEL, brought.thumbprint.as_str(), jti];
        // Twice the window is longer than it is taken, whatever the clock of the replica that asks.
        if !self.spend(spent, issued_at.plus(2 * WINDOW)).await? {
            return Err(invalid("it was used before"));
        }
        Ok(brought.thumbprint)
    }

    fn nonce_needed(&self) -> Error {
        Error::Oauth(OauthError {
            code: OauthErrorCode::UseDpopNonce,
            description: "the DPoP proof must carry the nonce of the DPoP-Nonce header".to_owned(),
            dpop_nonce: Some(self.nonces.current()),
        })
    }

    /// Marks something as used that is good once: what for, whose, and its own name. `false` where it
    /// was used before. It is remembered until it would no longer be taken anyway.
    pub(super) async fn spend(
        &self,
        parts: [&str; 3],
        expires_at: Timestamp,
    ) -> Result<bool, Error> {
        let mut bytes = Vec::new();
        for part in parts {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        let hash = digest::sha256(&bytes);
        transact!(self.parts.store, |tx| {
            Ok(proofs::spend(&mut tx, &hash, expires_at).await?)
        })
    }
}

/// What is kept of a proof that is right.
#[derive(Debug, PartialEq, Eq)]
struct Judged<'a> {
    jti: &'a str,
    issued_at: Timestamp,
}

/// Judges the claims (RFC 9449 section 4.3) but for the nonce.
fn judge<'a>(
    claims: &'a Claims,
    proof: &Proof,
    access_token: Option<&str>,
    now: Timestamp,
) -> Result<Judged<'a>, &'static str> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if text("htm") != Some(proof.method.as_str()) {
        return Err("its htm is not the request's method");
    }
    let meant = text("htu").and_then(normalised);
    if meant.is_none() || meant != normalised(&proof.uri) {
        return Err("its htu is not the request's address");
    }
    let issued_at = jwt::time(claims, "iat")
        .ok()
        .flatten()
        .ok_or("its iat is missing, or no time")?;
    if now.since(issued_at).max(issued_at.since(now)) > WINDOW {
        return Err("its iat is too far from now");
    }
    let jti = text("jti").filter(|jti| (1..=JTI_MAX).contains(&jti.len()));
    let jti = jti.ok_or("its jti is missing, or too long")?;
    if let Some(token) = access_token {
        let hash = URL_SAFE_NO_PAD.encode(digest::sha256(token.as_bytes()));
        let meant = text("ath").unwrap_or_default();
        if !digest::constant_time_eq(meant.as_bytes(), hash.as_bytes()) {
            return Err("its ath is not the access token's");
        }
    }
    Ok(Judged { jti, issued_at })
}

/// An address as addresses are compared: without query and fragment, in the form that parsing gives.
fn normalised(uri: &str) -> Option<Url> {
    let mut url = Url::parse(uri).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    Some(url)
}

fn invalid(reason: &str) -> Error {
    let description = format!("the DPoP proof is not good: {reason}");
    Error::oauth(OauthErrorCode::InvalidDpopProof, description)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The time and address of RFC 9449 figure 13.
    const IAT: i64 = 1_562_262_618;
    const TOKEN: &str = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn proof() -> Proof {
        Proof {
            jwt: SecretString::from(""),
            method: "GET".to_owned(),
            uri: "https://resource.example.org/protectedresource".to_owned(),
        }
    }

    fn claims() -> Value {
        json!({
            "jti": "e1j3V_bKic8-LAEB",
            "htm": "GET",
            "htu": "https://resource.example.org/protectedresource",
            "iat": IAT,
            "ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo",
        })
    }

    fn judged(claims: &Value, now: i64) -> Result<(), &'static str> {
        let claims = claims.as_object().unwrap();
        judge(claims, &proof(), Some(TOKEN), at(now)).map(drop)
    }

    #[test]
    fn the_claims_of_rfc_9449_are_right_for_a_minute() {
        for now in [IAT - 60, IAT, IAT + 60] {
            assert_eq!(judged(&claims(), now), Ok(()));
        }
        for now in [IAT - 61, IAT + 61] {
            assert_eq!(judged(&claims(), now), Err("its iat is too far from now"));
        }
    }

    #[test]
    fn a_proof_is_for_one_request_and_one_token() {
        for (name, value) in [
            ("htm", json!("POST")),
            ("htm", json!("get")),
            ("htu", json!("https://resource.example.org/other")),
            (
                "htu",
                json!("http://resource.example.org/protectedresource"),
            ),
            ("htu", json!("protectedresource")),
            ("htu", json!(null)),
            ("iat", json!("1562262618")),
            ("jti", json!("")),
            ("jti", json!("x".repeat(129))),
            ("jti", json!(1)),
            ("ath", json!("fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEp")),
            ("ath", json!(null)),
        ] {
            let mut claims = claims();
            claims[name] = value.clone();
            assert!(judged(&claims, IAT).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn addresses_are_compared_as_addresses() {
        for same in [
            "HTTPS://Resource.Example.org:443/protectedresource",
            "https://resource.example.org/protectedresource?a=b#c",
            "https://resource.example.org/x/../protectedresource",
        ] {
            let mut claims = claims();
            claims["htu"] = json!(same);
            assert_eq!(judged(&claims, IAT), Ok(()), "{same}");
        }
    }

    #[test]
    fn a_nonce_is_taken_until_the_next_one_is_over() {
        let keys = [("k1".to_owned(), [1_u8; crate::crypto::KEY_BYTES].into())];
        let clock = Clock::manual(at(IAT / 150 * 150));
        let nonces = Nonces {
            keyring: Keyring::new("k1", keys).unwrap(),
            clock: clock.clone(),
        };
        let nonce = nonces.current();
        assert!(nonces.takes(&nonce));
        assert!(!nonces.takes("") && !nonces.takes("nonce"));
        clock.advance(2 * NONCE_STRETCH - Duration::from_secs(1));
        assert!(nonces.takes(&nonce));
        assert_ne!(nonces.current(), nonce);
        clock.advance(Duration::from_secs(1));
        assert!(!nonces.takes(&nonce));
    }
}
