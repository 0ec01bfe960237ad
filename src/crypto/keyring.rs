//! The keys that values are sealed and opened with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::envelope::{self, Context};
use super::signing::{PUBLIC_KEY_BYTES, Signer};
use super::{Error, KEY_BYTES, digest, is_key_id};
use crate::model::Sealed;

/// Label under which the fingerprint key is derived. Frozen, as the purposes are.
const FINGERPRINT_LABEL: &[u8] = b"tokenbroker fingerprint v1";

/// Label under which the key of nonces is derived.
const NONCE_LABEL: &[u8] = b"tokenbroker nonce v1";

/// Bytes of a nonce: enough that nobody guesses one.
const NONCE_BYTES: usize = 16;

/// Bytes of a fingerprint: enough that no two secrets share one by chance.
const FINGERPRINT_BYTES: usize = 16;

/// One active key that seals, and any number of older ones that only open. Cheap to clone.
#[derive(Clone)]
pub struct Keyring(Arc<Ring>);

struct Ring {
    active: String,
    keys: BTreeMap<String, Zeroizing<[u8; KEY_BYTES]>>,
    fingerprint_key: Zeroizing<[u8; 32]>,
    nonce_key: Zeroizing<[u8; 32]>,
}

impl Keyring {
    /// A keyring of `keys`, which seals with the key that `active` names.
    ///
    /// # Errors
    /// [`Error::NoKeys`], [`Error::KeyId`], [`Error::KeyRepeated`] or [`Error::ActiveMissing`].
    pub fn new(
        active: &str,
        keys: impl IntoIterator<Item = (String, Zeroizing<[u8; KEY_BYTES]>)>,
    ) -> Result<Self, Error> {
        let mut ring = BTreeMap::new();
        for (id, key) in keys {
            if !is_key_id(&id) {
                return Err(Error::KeyId);
            }
            if ring.contains_key(&id) {
                return Err(Error::KeyRepeated { id });
            }
            ring.insert(id, key);
        }
        let Some(primary) = ring.values().next() else {
            return Err(Error::NoKeys);
        };
        let derived =
            |label: &[u8]| Zeroizing::new(digest::hmac_sha256(primary.as_slice(), &[label]));
        let (fingerprint_key, nonce_key) = (derived(FINGERPRINT_LABEL), derived(NONCE_LABEL));
        if !is_key_id(active) {
            return Err(Error::KeyId);
        }
        if !ring.contains_key(active) {
            return Err(Error::ActiveMissing {
                id: active.to_owned(),
            });
        }
        Ok(Self(Arc::new(Ring {
            active: active.to_owned(),
            keys: ring,
            fingerprint_key,
            nonce_key,
        })))
    }

    /// Seals `plaintext` with the active key for the place that `context` names.
    ///
    /// # Errors
    /// [`Error::TooLong`] beyond the cipher's limit of 256 GiB.
    pub fn seal(&self, context: &Context<'_>, plaintext: &[u8]) -> Result<Sealed, Error> {
        let key = self.key(&self.0.active)?;
        envelope::seal(&self.0.active, key, context, plaintext).map(Sealed::from_envelope)
    }

    /// Opens a value that was sealed for the place that `context` names.
    ///
    /// # Errors
    /// [`Error::UnknownKey`], [`Error::Damaged`] or [`Error::Malformed`].
    pub fn open(
        &self,
        context: &Context<'_>,
        sealed: &Sealed,
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        self.open_bytes(context, sealed.as_bytes())
    }

    /// As [`open`](Self::open), for an envelope that is kept outside the database: a journal
    /// file or a backup.
    ///
    /// # Errors
    /// [`Error::UnknownKey`], [`Error::Damaged`] or [`Error::Malformed`].
    pub fn open_bytes(
        &self,
        context: &Context<'_>,
        envelope: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        let parts = envelope::parse(envelope)?;
        envelope::open(&parts, self.key(parts.key_id)?, context)
    }

    /// Opens a value that is text.
    ///
    /// # Errors
    /// As [`open`](Self::open), and [`Error::NotText`] when it is not UTF-8.
    pub fn open_text(&self, context: &Context<'_>, sealed: &Sealed) -> Result<SecretString, Error> {
        let plain = self.open(context, sealed)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Error::NotText)?;
        Ok(SecretString::from(text))
    }

    /// Seals again with the active key what any key of the ring opens: the step of a rotation.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn rewrap(&self, context: &Context<'_>, sealed: &Sealed) -> Result<Sealed, Error> {
        self.seal(context, &self.open(context, sealed)?)
    }

    /// The id of the key that a value says it is sealed with. It is not proven until the value
    /// opens.
    ///
    /// # Errors
    /// [`Error::Malformed`].
    pub fn key_id_of<'a>(&self, sealed: &'a Sealed) -> Result<&'a str, Error> {
        envelope::parse(sealed.as_bytes()).map(|parts| parts.key_id)
    }

    /// The id of the key that seals.
    pub fn active_id(&self) -> &str {
        &self.0.active
    }

    /// The ids of all keys, in byte order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys.keys().map(String::as_str)
    }

    /// A name for `secret` that shows whether two records speak of the same one, and nothing
    /// about it: HMAC-SHA256 over tenant and secret, cut to 16 bytes, in hexadecimal. The refresh
    /// log keeps it to tell which refresh token was spent and which replaced it.
    ///
    /// Its key is derived from the key whose id comes first in byte order. Ids that this program
    /// makes begin with their time, so that is the oldest: fingerprints stay comparable when a
    /// key is added, and every replica agrees on them while keys are rolled out. When the oldest
    /// key is dropped, those of before and after can no longer be compared. Nothing but the
    /// reading of old log lines depends on it.
    pub fn fingerprint(&self, tenant: &str, secret: &[u8]) -> String {
        let length = (tenant.len() as u64).to_be_bytes();
        let mac = digest::hmac_sha256(
            self.0.fingerprint_key.as_slice(),
            &[&length, tenant.as_bytes(), secret],
        );
        digest::hex(
            mac.first_chunk::<FINGERPRINT_BYTES>()
                .unwrap_or(&[0; FINGERPRINT_BYTES]),
        )
    }

    /// What is the nonce of a stretch of time: the same on all replicas, as fingerprints are, and
    /// told beforehand by nobody without these keys.
    pub fn nonce(&self, stretch: u64) -> String {
        let mac = digest::hmac_sha256(self.0.nonce_key.as_slice(), &[&stretch.to_be_bytes()]);
        digest::hex(
            mac.first_chunk::<NONCE_BYTES>()
                .unwrap_or(&[0; NONCE_BYTES]),
        )
    }

    /// What signs: derived from the active key. `None` for no keyring that could be made.
    pub fn signer(&self) -> Option<Signer> {
        Signer::derived_from(self.key(&self.0.active).ok()?)
    }

    /// The public keys of all that could sign, older keys included.
    pub fn public_keys(&self) -> Vec<[u8; PUBLIC_KEY_BYTES]> {
        let signers = self
            .0
            .keys
            .values()
            .filter_map(|key| Signer::derived_from(key));
        signers.map(|signer| *signer.public_key()).collect()
    }

    fn key(&self, id: &str) -> Result<&[u8; KEY_BYTES], Error> {
        let key = self
            .0
            .keys
            .get(id)
            .ok_or_else(|| Error::UnknownKey { id: id.to_owned() })?;
        Ok(key)
    }
}

/// Shows key ids only.
impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("active", &self.0.active)
            .field("ids", &self.0.keys.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::crypto::Purpose;

    const HERE: Context<'static> = Context {
        tenant: "acme",
        purpose: Purpose::GrantRefreshToken,
        row: "grnt_1",
    };

    fn ring(active: &str, keys: &[(&str, u8)]) -> Keyring {
        let keys = keys
            .iter()
            .map(|(id, fill)| ((*id).to_owned(), Zeroizing::new([*fill; KEY_BYTES])));
        Keyring::new(active, keys).unwrap()
    }

    #[test]
    fn opens_what_it_sealed() {
        let keys = ring("k1", &[("k1", 1)]);
        let sealed = keys.seal(&HERE, b"refresh token").unwrap();
        assert_eq!(keys.key_id_of(&sealed).unwrap(), "k1");
        assert_eq!(&**keys.open(&HERE, &sealed).unwrap(), b"refresh token");
        let text = keys.open_text(&HERE, &sealed).unwrap();
        assert_eq!(text.expose_secret(), "refresh token");
        assert_ne!(sealed, keys.seal(&HERE, b"refresh token").unwrap());
    }

    #[test]
    fn opens_nowhere_else() {
        let keys = ring("k1", &[("k1", 1)]);
        let sealed = keys.seal(&HERE, b"refresh token").unwrap();
        let elsewhere = [
            Context {
                row: "grnt_2",
                ..HERE
            },
            Context {
                tenant: "other",
                ..HERE
            },
            Context {
                purpose: Purpose::GrantAccessToken,
                ..HERE
            },
        ];
        for context in elsewhere {
            assert!(matches!(keys.open(&context, &sealed), Err(Error::Damaged)));
        }
    }

    #[test]
    fn any_altered_byte_is_noticed() {
        let keys = ring("k1", &[("k1", 1), ("k2", 2)]);
        let sealed = keys.seal(&HERE, b"refresh token").unwrap();
        for position in 0..sealed.as_bytes().len() {
            let mut bytes = sealed.as_bytes().to_vec();
            bytes[position] ^= 1;
            assert!(keys.open_bytes(&HERE, &bytes).is_err(), "byte {position}");
        }
        // The id of another key that the ring holds does not help either.
        let mut bytes = sealed.as_bytes().to_vec();
        bytes[3] = b'2';
        assert!(matches!(
            keys.open_bytes(&HERE, &bytes),
            Err(Error::Damaged)
        ));
    }

    #[test]
    fn an_old_key_still_opens_and_rewraps() {
        let before = ring("k1", &[("k1", 1)]);
        let sealed = before.seal(&HERE, b"refresh token").unwrap();
        let after = ring("k2", &[("k1", 1), ("k2", 2)]);
        assert_eq!(&**after.open(&HERE, &sealed).unwrap(), b"refresh token");
        let rewrapped = after.rewrap(&HERE, &sealed).unwrap();
        let dropped = ring("k2", &[("k2", 2)]);
        assert_eq!(
            &**dropped.open(&HERE, &rewrapped).unwrap(),
            b"refresh token"
        );
        assert!(matches!(
            dropped.open(&HERE, &sealed),
            Err(Error::UnknownKey { id }) if id == "k1"
        ));
    }

    #[test]
    fn refuses_keys_that_do_not_fit_together() {
        let key = || Zeroizing::new([1; KEY_BYTES]);
        let new = |active, ids: &[&str]| {
            Keyring::new(active, ids.iter().map(|id| ((*id).to_owned(), key()))).map(drop)
        };
        assert!(matches!(new("k1", &[]), Err(Error::NoKeys)));
        assert!(matches!(
            new("k2", &["k1"]),
            Err(Error::ActiveMissing { .. })
        ));
        assert!(matches!(
            new("k1", &["k1", "k1"]),
            Err(Error::KeyRepeated { .. })
        ));
        assert!(matches!(new("k1", &["k1", "k 2"]), Err(Error::KeyId)));
    }

    #[test]
    fn debug_shows_ids_only() {
        let keys = ring("k1", &[("k1", 1), ("k2", 2)]);
        insta::assert_snapshot!(
            format!("{keys:?}"),
            @r#"Keyring { active: "k1", ids: ["k1", "k2"], .. }"#
        );
    }

    #[test]
    fn nonces_differ_by_time_and_by_oldest_key() {
        let before = ring("k1", &[("k1", 1)]);
        let after = ring("k2", &[("k1", 1), ("k2", 2)]);
        assert_eq!(before.nonce(7), after.nonce(7));
        assert_ne!(before.nonce(7), before.nonce(8));
        assert_ne!(before.nonce(7), ring("k2", &[("k2", 2)]).nonce(7));
    }

    #[test]
    fn fingerprints_survive_a_new_key_and_hold_a_tenant() {
        let before = ring("k1", &[("k1", 1)]);
        let after = ring("k2", &[("k1", 1), ("k2", 2)]);
        let mark = before.fingerprint("acme", b"refresh token");
        assert_eq!(mark.len(), 32);
        assert_eq!(mark, after.fingerprint("acme", b"refresh token"));
        assert_ne!(mark, after.fingerprint("acme", b"other token"));
        assert_ne!(mark, after.fingerprint("acmer", b"efresh token"));
        assert_ne!(
            mark,
            ring("k2", &[("k2", 2)]).fingerprint("acme", b"refresh token")
        );
    }
}
