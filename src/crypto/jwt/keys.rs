//! The keys of an issuer: a JWK set (RFC 7517 section 5).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::{Refusal, Unverified, Verified, verify};
use crate::crypto::digest::sha256;

/// Most keys in a set.
const KEYS_MAX: usize = 100;

/// Bits of an RSA modulus: at least (NIST SP 800-131A), and at most, since each verification
/// costs their square.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;

/// Longest RSA exponent in bytes; published ones have three.
const RSA_EXPONENT_MAX: usize = 4;

/// Members of a JWK that are for its owner alone (RFC 7518 section 6).
const PRIVATE_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Why a key set can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetFault {
    /// It is no JSON object with a list `keys`.
    #[error("the answer is no JWK set")]
    Malformed,
    /// It has more than 100 keys.
    #[error("the JWK set has more than {KEYS_MAX} keys")]
    TooMany,
}

/// The public keys of an issuer that can verify signatures.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

/// A public key that can verify signatures.
#[derive(Clone, Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// SHA-256 of all that makes it this key.
    thumbprint: [u8; 32],
    /// The one algorithm that it is published for (`alg`).
    only: Option<Algorithm>,
    material: Material,
    pub(super) decoding: DecodingKey,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Material {
    Rsa,
    P256,
    P384,
    Ed25519,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// Reads a JWK set. Keys of other types and for other uses are left out, as RFC 7517 section
    /// 5 asks, and so are weak ones, those that are told twice, and those that come with their
    /// private half: anybody may hold them. None may be left.
    ///
    /// # Errors
    /// [`KeySetFault`].
    pub fn parse(json: &[u8]) -> Result<Self, KeySetFault> {
        let document: Document =
            serde_json::from_slice(json).map_err(|_| KeySetFault::Malformed)?;
        if document.keys.len() > KEYS_MAX {
            return Err(KeySetFault::TooMany);
        }
        let mut keys: Vec<Key> = Vec::with_capacity(document.keys.len());
        let readable = document.keys.into_iter().filter_map(Key::read);
        for key in readable {
            if keys.iter().all(|other| other.thumbprint != key.thumbprint) {
                keys.push(key);
            }
        }
        Ok(Self(keys))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the key of this thumbprint is among them.
    pub fn holds(&self, thumbprint: &[u8; 32]) -> bool {
        self.0.iter().any(|key| key.thumbprint == *thumbprint)
    }

    /// Verifies the signature of a JWT of which [`super::read`] said this.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, text: &str, token: &Unverified) -> Result<Verified, Refusal> {
        let key = self.key_of(token)?;
        let claims = verify(text, token.algorithm, &key.decoding).map_err(|refusal| {
            // A key without a name may have been replaced by another.
            match token.key_id {
                Some(_) => refusal,
                None => Refusal::UnknownKey,
            }
        })?;
        Ok(Verified {
            claims,
            key: key.thumbprint,
        })
    }

    /// The one key that a JWT can mean.
    fn key_of(&self, token: &Unverified) -> Result<&Key, Refusal> {
        let named = |key: &&Key| token.key_id.is_none() || key.id == token.key_id;
        if !self.0.iter().any(|key| named(&key)) {
            return Err(Refusal::UnknownKey);
        }
        let mut fitting = self
            .0
            .iter()
            .filter(named)
            .filter(|key| key.fits(token.algorithm));
        match (fitting.next(), fitting.next()) {
            (Some(key), None) => Ok(key),
            (None, _) if token.key_id.is_none() => Err(Refusal::UnknownKey),
            (None, _) => Err(Refusal::UnfitKey),
            (Some(_), Some(_)) => Err(Refusal::AmbiguousKey),
        }
    }
}

impl Key {
    /// The key of a JWK; `None` for one that is of another type, for another use, weak, or not
    /// public.
    pub(super) fn read(value: Value) -> Option<Self> {
        if is_private(&value) {
            return None;
        }
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if !is_for_signatures(&jwk.common) {
            return None;
        }
        let (material, decoding, published) = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) => {
                let (n, e) = (number(&rsa.n)?, number(&rsa.e)?);
                let bits = n.len() * 8 - usize::try_from(n.first()?.leading_zeros()).ok()?;
                if !RSA_BITS.contains(&bits) || e.is_empty() || e.len() > RSA_EXPONENT_MAX {
                    return None;
                }
                let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
                (Material::Rsa, decoding, [n, vec![0], e].concat())
            }
            AlgorithmParameters::EllipticCurve(point) => {
                let (material, length) = match point.curve {
                    EllipticCurve::P256 => (Material::P256, 32),
                    EllipticCurve::P384 => (Material::P384, 48),
                    _ => return None,
                };
                let (x, y) = (bytes(&point.x)?, bytes(&point.y)?);
                if x.len() != length || y.len() != length {
                    return None;
                }
                let decoding = DecodingKey::from_ec_components(&point.x, &point.y).ok()?;
                (material, decoding, [x, y].concat())
            }
            AlgorithmParameters::OctetKeyPair(point) => {
                let x = bytes(&point.x)?;
                if point.curve != EllipticCurve::Ed25519 || x.len() != 32 {
                    return None;
                }
                (Material::Ed25519, DecodingKey::from_ed_der(&x), x)
            }
            // Symmetric keys have no place in what is published.
            _ => return None,
        };
        let only = match jwk.common.key_algorithm {
            None => None,
            Some(published) => Some(Algorithm::try_from(published).ok()?),
        };
        let id = jwk.common.key_id;
        let named = serde_json::to_vec(&(&id, format!("{material:?} {only:?}"))).ok()?;
        Some(Self {
            thumbprint: sha256(&[sha256(&named), sha256(&published)].concat()),
            id,
            only,
            material,
            decoding,
        })
    }

    /// Whether it can verify signatures of this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        let able = match self.material {
            Material::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Material::P256 => algorithm == Algorithm::ES256,
            Material::P384 => algorithm == Algorithm::ES384,
            Material::Ed25519 => algorithm == Algorithm::EdDSA,
        };
        able && self.only.is_none_or(|only| only == algorithm)
    }
}

/// RFC 7517 sections 4.2 and 4.3.
fn is_for_signatures(common: &CommonParameters) -> bool {
    let used = common.public_key_use.as_ref();
    let operations = common.key_operations.as_ref();
    used.is_none_or(|used| *used == PublicKeyUse::Signature)
        && operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

/// Whether a JWK holds what only its owner may know.
pub fn is_private(jwk: &Value) -> bool {
    PRIVATE_MEMBERS.iter().any(|name| jwk.get(name).is_some())
}

pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// A number in base64url; some issuers put a zero before it, which the library refuses.
pub(super) fn number(text: &str) -> Option<Vec<u8>> {
    let bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).map(<[u8]>::to_vec)
}
