//! JWTs (RFC 7519), as signed by others and by us: their form, their signature, and the keys for it.
//! What the claims must say is for the caller to judge, by a clock that is not this module's.

mod keys;
mod own_key;
mod provider;
mod signer;

use std::str::FromStr as _;

use jsonwebtoken::{Validation, dangerous, decode, decode_header};
use serde::Deserialize;
use serde_json::{Map, Value};

pub use jsonwebtoken::Algorithm;
pub use keys::{KeySet, KeySetFault, is_private};
pub use own_key::{OwnKeyFault, OwnKeyed, verify_by_own_key};
pub use signer::{SigningFault, SigningKey};

use crate::model::Timestamp;

/// Longest JWT that is looked at, in bytes.
pub const JWT_MAX: usize = 8 * 1_024;

/// The end of the year 9999, in seconds.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// The claims of a JWT.
pub type Claims = Map<String, Value>;

/// A claim is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("exp, nbf or iat is no time")]
pub struct NoTime;

/// The NumericDate (RFC 7519 section 2) that a claim says, if it is there: seconds, perhaps with a
/// fraction.
///
/// # Errors
/// [`NoTime`].
pub fn time(claims: &Claims, name: &str) -> Result<Option<Timestamp>, NoTime> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let seconds = value
        .as_f64()
        .filter(|seconds| (0.0..=LAST_SECOND).contains(seconds))
        .ok_or(NoTime)?;
    #[allow(
        clippy::cast_possible_truncation,
        reason = "the range was judged, and less than a microsecond does not count"
    )]
    let micros = (seconds * 1_000_000.0) as i64;
    Ok(Some(Timestamp::from_micros(micros)))
}

/// The text is no JWT that can be judged: not three parts in base64url, not JSON, without an
/// issuer, longer than [`JWT_MAX`], or with a header that demands what is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text is no JWT of a known form")]
pub struct Malformed;

/// What a JWT says of itself before its signature is verified: enough to choose whose key is to
/// be asked for. Its header's own keys and addresses of keys (`jwk`, `jku`, `x5c`, `x5u`) are not
/// in here: whoever writes a token could name their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unverified {
    /// How it claims to be signed (`alg`).
    pub algorithm: Algorithm,
    /// Which key it claims to be signed with (`kid`).
    pub key_id: Option<String>,
    /// What sort of token it claims to be (`typ`).
    pub media_type: Option<String>,
    /// Who it claims to come from (`iss`).
    pub issuer: String,
}

/// A JWT whose signature is right.
#[derive(Clone, Debug)]
pub struct Verified {
    /// All claims.
    pub claims: Claims,
    /// The thumbprint of the key that signed it; see [`KeySet::holds`].
    pub key: [u8; 32],
}

/// Why a signature is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The key set has no such key: a later one may.
    #[error("the key set has no such key")]
    UnknownKey,
    /// The key is for another algorithm or use.
    #[error("the key is for another algorithm or use")]
    UnfitKey,
    /// Several keys answer to the token's name for its key, or it names none and several fit.
    #[error("several keys could be meant")]
    AmbiguousKey,
    /// The signature is wrong, or the claims are no JSON object.
    #[error("the signature is wrong")]
    Signature,
}

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

/// The algorithms that others may sign with, by their JOSE names.
pub const ALGORITHMS: [&str; 9] = [
    "ES256", "ES384", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
];

/// The algorithm of a JOSE name such as `ES256`, where it is one with a public key.
pub fn algorithm(name: &str) -> Option<Algorithm> {
    use jsonwebtoken::AlgorithmFamily::Hmac;
    let algorithm = Algorithm::from_str(name).ok()?;
    (algorithm.family() != Hmac).then_some(algorithm)
}

/// Reads what a JWT says of itself. Nothing of it may be believed yet.
///
/// # Errors
/// [`Malformed`].
pub fn read(text: &str) -> Result<Unverified, Malformed> {
    if text.len() > JWT_MAX {
        return Err(Malformed);
    }
    let header = decode_header(text).map_err(|_| Malformed)?;
    // RFC 7515 section 4.1.11: what is critical must be understood, and no extension is.
    if header.crit.is_some() {
        return Err(Malformed);
    }
    let Issued { iss } = dangerous::insecure_decode_claims(text).map_err(|_| Malformed)?;
    Ok(Unverified {
        algorithm: header.alg,
        key_id: header.kid,
        media_type: header.typ,
        issuer: iss,
    })
}

/// The claims, if the key signed them so. Times, audience and issuer are not judged.
fn verify(
    text: &str,
    algorithm: Algorithm,
    key: &jsonwebtoken::DecodingKey,
) -> Result<Claims, Refusal> {
    provider::install();
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    decode::<Claims>(text, key, &validation)
        .map(|token| token.claims)
        .map_err(|_| Refusal::Signature)
}

#[cfg(test)]
mod tests;
