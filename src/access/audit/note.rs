//! Signed notes: text with signatures that others can verify without us
//! (<https://c2sp.org/signed-note>, golang.org/x/mod/sumdb/note).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::crypto::Keyring;
use crate::crypto::digest;
use crate::crypto::signing::{self, PUBLIC_KEY_BYTES, Signer};

/// The most bytes of a note that is read.
pub const NOTE_MAX: usize = 4_096;

/// The signature type of Ed25519.
const ED25519: u8 = 1;

/// What a signature line begins with: an em dash and a blank.
const SIGNATURE_LINE: &str = "\u{2014} ";

/// The most signatures that are looked at; the Go implementation has the same limit.
const SIGNATURES_MAX: usize = 100;

/// Length of a key's hash in bytes.
const KEY_HASH_BYTES: usize = 4;

/// A key that notes are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    key: [u8; PUBLIC_KEY_BYTES],
    /// Its name where it is known by one only; those of the keyring verify under any.
    name: Option<String>,
}

impl Verifier {
    /// From its text, `NAME+HASH+BASE64`; `None` for what is none, or of another algorithm.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '+');
        let (name, hash, key) = (parts.next()?, parts.next()?, parts.next()?);
        let decoded = STANDARD.decode(key).ok()?;
        let key: [u8; PUBLIC_KEY_BYTES] = decoded.strip_prefix(&[ED25519])?.try_into().ok()?;
        (digest::hex(&key_hash(name, &key)) == hash).then(|| Self {
            key,
            name: Some(name.to_owned()),
        })
    }

    /// Those of a keyring and of keys that have left it.
    pub fn all(keyring: &Keyring, former: &[String]) -> Vec<Self> {
        let own = keyring.public_keys().into_iter();
        own.map(|key| Self { key, name: None })
            .chain(former.iter().filter_map(|text| Self::parse(text)))
            .collect()
    }
}

/// The text of the verifier's key, for others.
pub fn verifier_key(name: &str, key: &[u8; PUBLIC_KEY_BYTES]) -> String {
    let mut bytes = vec![ED25519];
    bytes.extend(key);
    let hash = digest::hex(&key_hash(name, key));
    format!("{name}+{hash}+{}", STANDARD.encode(bytes))
}

/// What tells keys apart: the beginning of a hash over name, algorithm and key.
fn key_hash(name: &str, key: &[u8; PUBLIC_KEY_BYTES]) -> [u8; KEY_HASH_BYTES] {
    let mut bytes = Vec::from(name.as_bytes());
    bytes.extend([b'\n', ED25519]);
    bytes.extend(key);
    let hash = digest::sha256(&bytes);
    hash.first_chunk().copied().unwrap_or_default()
}

/// Signs a text, which ends with a line break and has no empty line.
pub fn sign(text: &str, name: &str, signer: &Signer) -> String {
    let mut signature = key_hash(name, signer.public_key()).to_vec();
    signature.extend(signer.sign(text.as_bytes()));
    format!(
        "{text}\n{SIGNATURE_LINE}{name} {}\n",
        STANDARD.encode(signature)
    )
}

/// What a note's signatures come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opened<'a> {
    /// One is by a key that is known.
    Verified {
        /// The text, with its last line break.
        text: &'a str,
        /// The name that it is signed under.
        name: &'a str,
        /// The verifier's key, as text.
        verifier_key: String,
    },
    /// None is by a key that is known; the text is anybody's.
    Unknown {
        /// The text, with its last line break.
        text: &'a str,
    },
    /// One names a key that is known, and is not by it.
    Forged {
        /// The text, with its last line break.
        text: &'a str,
    },
}

/// Opens a note. `None` for what is none.
pub fn open<'a>(note: &'a str, verifiers: &[Verifier]) -> Option<Opened<'a>> {
    if note.len() > NOTE_MAX || note.chars().any(|c| c.is_control() && c != '\n') {
        return None;
    }
    let border = note.rfind("\n\n")?;
    let text = note.get(..=border)?;
    let lines = note.get(border + 2..)?.strip_suffix('\n')?;
    let signatures: Vec<_> = lines.split('\n').map(signature).collect::<Option<_>>()?;
    if signatures.len() > SIGNATURES_MAX {
        return None;
    }
    for (name, hash, signature) in signatures {
        let known = verifiers.iter().find(|verifier| {
            verifier.name.as_deref().is_none_or(|own| own == name)
                && key_hash(name, &verifier.key) == hash
        });
        let Some(known) = known else { continue };
        if !signing::verifies(&known.key, text.as_bytes(), &signature) {
            return Some(Opened::Forged { text });
        }
        return Some(Opened::Verified {
            text,
            name,
            verifier_key: verifier_key(name, &known.key),
        });
    }
    Some(Opened::Unknown { text })
}

/// Name, key hash and signature of a line. Signatures of other algorithms may have other lengths.
fn signature(line: &str) -> Option<(&str, [u8; KEY_HASH_BYTES], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix(SIGNATURE_LINE)?.split_once(' ')?;
    let fine = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    let decoded = fine.then(|| STANDARD.decode(encoded).ok()).flatten()?;
    let (hash, signature) = decoded.split_first_chunk::<KEY_HASH_BYTES>()?;
    (!signature.is_empty()).then(|| (name, *hash, signature.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example in the documentation of golang.org/x/mod/sumdb/note.
    const GO_KEY: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const GO_NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\
        \n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
    /// The example of C2SP signed-note.
    const C2SP_KEY: &str = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
    const C2SP_NOTE: &str = "This is an example message.\n\
        \n\
        \u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";

    fn keyring() -> Keyring {
        let key = zeroize::Zeroizing::new([7; crate::crypto::KEY_BYTES]);
        Keyring::new("k1", [("k1".to_owned(), key)]).unwrap()
    }

    #[test]
    fn opens_the_notes_of_others() {
        for (key, note) in [(GO_KEY, GO_NOTE), (C2SP_KEY, C2SP_NOTE)] {
            let verifier = Verifier::parse(key).unwrap();
            let opened = open(note, std::slice::from_ref(&verifier)).unwrap();
            assert!(
                matches!(&opened, Opened::Verified { verifier_key, .. } if verifier_key == key),
                "{opened:?}"
            );
            assert!(matches!(open(note, &[]), Some(Opened::Unknown { .. })));
            let altered = note.replacen("is", "was", 1);
            assert!(matches!(
                open(&altered, &[verifier]),
                Some(Opened::Forged { .. })
            ));
        }
    }

    #[test]
    fn signs_what_it_opens() {
        let keyring = keyring();
        let note = sign("a\nb\n", "here/audit", &keyring.signer().unwrap());
        let opened = open(&note, &Verifier::all(&keyring, &[])).unwrap();
        let Opened::Verified {
            text,
            name,
            verifier_key,
        } = &opened
        else {
            panic!("{opened:?}");
        };
        assert_eq!((*text, *name), ("a\nb\n", "here/audit"));
        let alone = Verifier::parse(verifier_key).unwrap();
        assert!(matches!(
            open(&note, std::slice::from_ref(&alone)),
            Some(Opened::Verified { .. })
        ));
        let elsewhere = note.replace("here/audit", "there/audit");
        assert!(matches!(
            open(&elsewhere, &[alone]),
            Some(Opened::Unknown { .. })
        ));
    }

    #[test]
    fn refuses_what_is_no_note() {
        for text in [
            "",
            "text\n",
            "text\n\n",
            "text\n\nsignature\n",
            "text\n\n\u{2014} name\n",
            "text\n\n\u{2014} name AAAA\n",
            "text\n\n- name AAAAAAAA\n",
            "te\rxt\n\n\u{2014} name AAAAAAAA\n",
            "text\n\n\u{2014} name AAAAAAAA",
        ] {
            assert_eq!(open(text, &[]), None, "{text:?}");
        }
        for key in [
            "",
            "name+c74f20a3",
            // Another name, and another algorithm.
            "Peter+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
            "PeterNeumann+173116ae+ZRpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        ] {
            assert_eq!(Verifier::parse(key), None, "{key}");
        }
    }
}
