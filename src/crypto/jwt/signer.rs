//! Signing JWTs: ES256, the one algorithm of ours (RFC 7518 section 3.4).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::own_key;

/// Length of a coordinate of P-256 in bytes.
const COORDINATE_BYTES: usize = 32;

/// A key could not be made or read, or nothing could be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningFault {
    /// The operating system gives no random bytes.
    #[error("no signing key or signature could be made")]
    Random,
    /// The bytes are no P-256 key in PKCS #8.
    #[error("the bytes are no P-256 key in PKCS #8")]
    Malformed,
}

/// A key that signs JWTs.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    id: String,
    public: Value,
}

impl SigningKey {
    /// A new one, and its private half in PKCS #8, to be sealed.
    ///
    /// # Errors
    /// [`SigningFault`].
    pub fn generate() -> Result<(Self, Zeroizing<Vec<u8>>), SigningFault> {
        let document =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .map_err(|_| SigningFault::Random)?;
        let private = Zeroizing::new(document.as_ref().to_vec());
        Ok((Self::from_pkcs8(&private)?, private))
    }

    /// The one whose private half this is.
    ///
    /// # Errors
    /// [`SigningFault::Malformed`].
    pub fn from_pkcs8(private: &[u8]) -> Result<Self, SigningFault> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private, &random)
            .map_err(|_| SigningFault::Malformed)?;
        // SEC 1 section 2.3.3: a 4, then both coordinates.
        let point = pair.public_key().as_ref();
        let (x, y) = point
            .strip_prefix(&[4])
            .and_then(|point| point.split_at_checked(COORDINATE_BYTES))
            .ok_or(SigningFault::Malformed)?;
        let mut public = json!({
            "kty": "EC",
            "crv": "P-256",
            "x": URL_SAFE_NO_PAD.encode(x),
            "y": URL_SAFE_NO_PAD.encode(y),
            "use": "sig",
            "alg": "ES256",
        });
        let id = own_key::thumbprint(&public).ok_or(SigningFault::Malformed)?;
        if let Some(members) = public.as_object_mut() {
            members.insert("kid".to_owned(), Value::String(id.clone()));
        }
        Ok(Self {
            pair,
            random,
            id,
            public,
        })
    }

    /// Its `kid`: the RFC 7638 thumbprint.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its public half, with what it is for.
    pub fn public_jwk(&self) -> &Value {
        &self.public
    }

    /// A JWT of this media type (`typ`) with these claims.
    ///
    /// # Errors
    /// [`SigningFault::Random`].
    pub fn sign(&self, media_type: &str, claims: &Value) -> Result<String, SigningFault> {
        let header = json!({ "typ": media_type, "alg": "ES256", "kid": self.id });
        self.sign_with_header(&header, claims)
    }

    pub(super) fn sign_with_header(
        &self,
        header: &Value,
        claims: &Value,
    ) -> Result<String, SigningFault> {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut text = format!("{}.{}", part(header), part(claims));
        let signature = self
            .pair
            .sign(&self.random, text.as_bytes())
            .map_err(|_| SigningFault::Random)?;
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.as_ref(), &mut text);
        Ok(text)
    }
}

/// Shows nothing of the key.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::jwt::{KeySet, read};

    #[test]
    fn what_it_signs_is_verified_by_its_public_half() {
        let (key, private) = SigningKey::generate().unwrap();
        let claims = json!({ "iss": "https://as.example", "sub": "user_1" });
        let text = key.sign("at+jwt", &claims).unwrap();
        let token = read(&text).unwrap();
        assert_eq!(token.media_type.as_deref(), Some("at+jwt"));
        assert_eq!(token.key_id.as_deref(), Some(key.id()));
        let set = json!({ "keys": [key.public_jwk()] }).to_string();
        let set = KeySet::parse(set.as_bytes()).unwrap();
        let verified = set.verify(&text, &token).unwrap();
        assert_eq!(verified.claims["sub"], "user_1");
        let again = SigningKey::from_pkcs8(&private).unwrap();
        assert_eq!(again.public_jwk(), key.public_jwk());
    }

    #[test]
    fn keys_differ_and_show_nothing_of_themselves() {
        let (one, other) = (
            SigningKey::generate().unwrap().0,
            SigningKey::generate().unwrap().0,
        );
        assert_ne!(one.id(), other.id());
        assert!(one.public_jwk().get("d").is_none());
        assert!(!format!("{one:?}").contains("pair"));
        assert_eq!(
            SigningKey::from_pkcs8(b"no key").unwrap_err(),
            SigningFault::Malformed
        );
    }
}
