//! Signatures: Ed25519 (RFC 8032) with keys derived from those that seal.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::{KEY_BYTES, digest};

/// Label under which the seeds of signing keys are derived. Frozen: what was signed is verified with
/// it for ever.
const LABEL: &[u8] = b"tokenbroker audit signing v1";

/// Length of a public key in bytes.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// A key that signs.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl Signer {
    /// The one that belongs to a sealing key.
    pub(super) fn derived_from(key: &[u8; KEY_BYTES]) -> Option<Self> {
        let seed = Zeroizing::new(digest::hmac_sha256(key, &[LABEL]));
        Self::from_seed(&seed)
    }

    /// Of a seed (RFC 8032 section 5.1.5). `None` for no seed that is 32 bytes long.
    fn from_seed(seed: &[u8; 32]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        let public = pair.public_key().as_ref().try_into().ok()?;
        Some(Self { pair, public })
    }

    /// What others verify with.
    pub fn public_key(&self) -> &[u8; PUBLIC_KEY_BYTES] {
        &self.public
    }

    /// The signature of `bytes`; the same bytes have the same one.
    pub fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.pair.sign(bytes).as_ref().to_vec()
    }
}

/// Shows nothing of the key.
impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signer")
            .field("public", &digest::hex(&self.public))
            .finish_non_exhaustive()
    }
}

/// Whether this is the signature of `bytes` by the holder of the key.
pub fn verifies(public_key: &[u8; PUBLIC_KEY_BYTES], bytes: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, public_key)
        .verify(bytes, signature)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn signs_as_in_rfc_8032() {
        let seed = unhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb");
        let signer = Signer::from_seed(&seed.try_into().unwrap()).unwrap();
        assert_eq!(
            digest::hex(signer.public_key()),
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
        );
        let signature = signer.sign(&[0x72]);
        assert_eq!(
            digest::hex(&signature),
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert!(verifies(signer.public_key(), &[0x72], &signature));
        assert!(!verifies(signer.public_key(), &[0x73], &signature));
        assert!(!verifies(signer.public_key(), &[0x72], b"short"));
    }

    /// Checkpoints that others keep are verified with this key.
    #[test]
    fn the_derivation_is_frozen() {
        let signer = Signer::derived_from(&[7; KEY_BYTES]).unwrap();
        assert_eq!(
            digest::hex(signer.public_key()),
            "22052952a4b71980531c68111ec172c0cb39d6b0adc93290562a6a789035ab9f"
        );
        assert!(!format!("{signer:?}").contains("pair"));
    }

    fn unhex(text: &str) -> Vec<u8> {
        let pairs = text.as_bytes().chunks(2);
        pairs
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }
}
