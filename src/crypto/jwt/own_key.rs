//! JWTs that bring the key that they are signed with: proofs of possession (RFC 9449). They tell that
//! whoever sent them holds that key, and nothing of who that is.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::decode_header;
use serde_json::Value;

use super::keys::{Key, bytes, is_private, number};
use super::{Claims, JWT_MAX, verify};
use crate::crypto::digest::sha256;

/// A JWT whose signature is right by the key that it brings.
#[derive(Clone, Debug)]
pub struct OwnKeyed {
    /// What sort of token it is (`typ`).
    pub media_type: Option<String>,
    /// The RFC 7638 thumbprint of its key: SHA-256 in base64url.
    pub thumbprint: String,
    /// All claims.
    pub claims: Claims,
}

/// Why a JWT with its own key is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnKeyFault {
    /// Not three parts in base64url, not JSON, too long, without a key, not signed at all, or with
    /// a header that demands what is not understood.
    #[error("it is no JWT with a key of its own")]
    Malformed,
    /// The key is there with its private half, so that it proves nothing any more.
    #[error("its jwk holds a private key")]
    PrivateKey,
    /// The key is weak, symmetric, of another type, or for another algorithm.
    #[error("its jwk can't verify signatures of its alg")]
    UnfitKey,
    /// The signature is wrong, or the claims are no JSON object.
    #[error("its signature is wrong")]
    Signature,
}

/// Verifies a JWT by the key in its header (`jwk`). The claims are not judged.
///
/// # Errors
/// [`OwnKeyFault`].
pub fn verify_by_own_key(text: &str) -> Result<OwnKeyed, OwnKeyFault> {
    if text.len() > JWT_MAX {
        return Err(OwnKeyFault::Malformed);
    }
    let header = decode_header(text).map_err(|_| OwnKeyFault::Malformed)?;
    // RFC 7515 section 4.1.11: what is critical must be understood, and no extension is.
    if header.crit.is_some() {
        return Err(OwnKeyFault::Malformed);
    }
    // As it was sent: the library's own reading leaves out the members of a private key.
    let jwk = own_key(text).ok_or(OwnKeyFault::Malformed)?;
    if is_private(&jwk) {
        return Err(OwnKeyFault::PrivateKey);
    }
    let thumbprint = thumbprint(&jwk).ok_or(OwnKeyFault::UnfitKey)?;
    let key = Key::read(jwk)
        .filter(|key| key.fits(header.alg))
        .ok_or(OwnKeyFault::UnfitKey)?;
    let claims = verify(text, header.alg, &key.decoding).map_err(|_| OwnKeyFault::Signature)?;
    Ok(OwnKeyed {
        media_type: header.typ,
        thumbprint,
        claims,
    })
}

fn own_key(text: &str) -> Option<Value> {
    let (header, _) = text.split_once('.')?;
    let mut header: Value = serde_json::from_slice(&bytes(header)?).ok()?;
    header.get_mut("jwk").map(Value::take)
}

/// The RFC 7638 thumbprint of a public key. Numbers are written anew, so that a key has one
/// thumbprint however it was sent.
pub(super) fn thumbprint(jwk: &Value) -> Option<String> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let kept = |name: &str| Some(text(name)?.to_owned());
    let point = |name: &str| Some(URL_SAFE_NO_PAD.encode(bytes(text(name)?)?));
    let counted = |name: &str| Some(URL_SAFE_NO_PAD.encode(number(text(name)?)?));
    // Section 3.2: what is required of its type, and nothing else.
    let mut members = match text("kty")? {
        "EC" => BTreeMap::from([
            ("crv", kept("crv")?),
            ("x", point("x")?),
            ("y", point("y")?),
        ]),
        "OKP" => BTreeMap::from([("crv", kept("crv")?), ("x", point("x")?)]),
        "RSA" => BTreeMap::from([("e", counted("e")?), ("n", counted("n")?)]),
        _ => return None,
    };
    members.insert("kty", kept("kty")?);
    let canonical = serde_json::to_vec(&members).ok()?;
    Some(URL_SAFE_NO_PAD.encode(sha256(&canonical)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::jwt::SigningKey;
    use serde_json::json;

    /// RFC 9449 section 4.1, figure 2.
    const PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6\
        Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFR\
        sY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjI\
        iwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYy\
        NjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3\
        Lg";

    #[test]
    fn the_proof_of_rfc_9449_verifies() {
        let proof = verify_by_own_key(PROOF).unwrap();
        assert_eq!(proof.media_type.as_deref(), Some("dpop+jwt"));
        // Section 6.1, figure 9.
        assert_eq!(
            proof.thumbprint,
            "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
        );
        assert_eq!(proof.claims["htu"], "https://server.example.com/token");
        let altered = PROOF.replace(".2-GxA6T8", ".3-GxA6T8");
        assert_eq!(
            verify_by_own_key(&altered).unwrap_err(),
            OwnKeyFault::Signature
        );
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_7638() {
        let mut key = json!({
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc\
                _BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_F\
                DW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vM\
                QFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
            "alg": "RS256",
            "kid": "2011-04-29",
        });
        let expected = Some("NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs".to_owned());
        assert_eq!(thumbprint(&key), expected);
        // With a zero before it, it is the same key.
        key["e"] = json!("AAEAAQ");
        assert_eq!(thumbprint(&key), expected);
    }

    /// A JWT with this header and a signature of this key over it.
    fn signed(key: &SigningKey, header: &Value) -> String {
        key.sign_with_header(header, &json!({ "jti": "1" }))
            .unwrap()
    }

    #[test]
    fn a_proof_brings_a_public_key_that_fits() {
        let key = SigningKey::generate().unwrap().0;
        let jwk = key.public_jwk();
        let fine = signed(&key, &json!({ "alg": "ES256", "jwk": jwk }));
        let thumbprint = verify_by_own_key(&fine).unwrap().thumbprint;
        assert_eq!(thumbprint, key.id());
        let mut private = jwk.clone();
        private["d"] = json!("AAAA");
        let other = SigningKey::generate().unwrap().0;
        for (header, fault) in [
            (json!({ "alg": "ES256" }), OwnKeyFault::Malformed),
            (json!({ "alg": "none", "jwk": jwk }), OwnKeyFault::Malformed),
            (
                json!({ "alg": "ES256", "jwk": jwk, "crit": ["b64"], "b64": true }),
                OwnKeyFault::Malformed,
            ),
            (
                json!({ "alg": "ES256", "jwk": private }),
                OwnKeyFault::PrivateKey,
            ),
            (
                json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AAAA" } }),
                OwnKeyFault::PrivateKey,
            ),
            (json!({ "alg": "HS256", "jwk": jwk }), OwnKeyFault::UnfitKey),
            (json!({ "alg": "ES384", "jwk": jwk }), OwnKeyFault::UnfitKey),
            (
                json!({ "alg": "ES256", "jwk": other.public_jwk() }),
                OwnKeyFault::Signature,
            ),
        ] {
            let refused = verify_by_own_key(&signed(&key, &header)).unwrap_err();
            assert_eq!(refused, fault, "{header}");
        }
        assert_eq!(
            verify_by_own_key(&"x".repeat(JWT_MAX + 1)).unwrap_err(),
            OwnKeyFault::Malformed
        );
    }
}
