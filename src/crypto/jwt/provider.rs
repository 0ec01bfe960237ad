//! The signatures behind `jsonwebtoken`: ring's, which TLS uses too. Public keys only, so that no
//! token can be verified with a secret that others hold.

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{self, Verifier};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::signature as schemes;

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: signer,
    verifier_factory: verifier,
    // Keys are read as they were published; none is derived from another, or measured.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(unsupported()),
        rsa_pub_components_from_public_key: |_| Err(unsupported()),
        ec_pub_components_from_private_key: |_, _| Err(unsupported()),
        ed_pub_components_from_private_key: |_, _| Err(unsupported()),
        compute_digest: |_, _| Err(unsupported()),
    },
};

/// Makes ring the library's provider. It has one a process, and its own default panics.
pub(super) fn install() {
    // Whoever comes second finds it there.
    PROVIDER.install_default().ok();
}

fn unsupported() -> Error {
    ErrorKind::UnsupportedAlgorithm.into()
}

fn signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(unsupported())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let fits = algorithm.family() == key.family() && key.family() != AlgorithmFamily::Hmac;
    if !fits {
        return Err(ErrorKind::InvalidKeyFormat.into());
    }
    Ok(Box::new(RingVerifier {
        algorithm: *algorithm,
        key: key.clone(),
    }))
}

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match self.key.kind() {
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                let parameters = rsa(self.algorithm).ok_or_else(signature::Error::new)?;
                schemes::RsaPublicKeyComponents { n, e }.verify(parameters, message, signature)
            }
            DecodingKeyKind::SecretOrDer(point) => {
                let scheme = curve(self.algorithm).ok_or_else(signature::Error::new)?;
                schemes::UnparsedPublicKey::new(scheme, point).verify(message, signature)
            }
        };
        verified.map_err(|_| signature::Error::new())
    }
}

/// All of them refuse keys of less than 2048 bits.
fn rsa(algorithm: Algorithm) -> Option<&'static schemes::RsaParameters> {
    match algorithm {
        Algorithm::RS256 => Some(&schemes::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Some(&schemes::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Some(&schemes::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Some(&schemes::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Some(&schemes::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Some(&schemes::RSA_PSS_2048_8192_SHA512),
        _ => None,
    }
}

/// RFC 7518 section 3.4: the signature is R and S one after the other, not ASN.1.
fn curve(algorithm: Algorithm) -> Option<&'static dyn schemes::VerificationAlgorithm> {
    match algorithm {
        Algorithm::ES256 => Some(&schemes::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Some(&schemes::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Some(&schemes::ED25519),
        _ => None,
    }
}
