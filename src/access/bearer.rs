//! The text form of the secrets that we make for others: API keys and session tokens, which callers
//! send as `authorization: Bearer`, refresh tokens of sessions, and secrets of OAuth clients.
//!
//! A prefix of four characters, 43 random characters of base62 (256 bits), 6 characters of base62 that hold the CRC-32
//! of all before them. One word of letters, digits and an underscore, so that a double click
//! takes the whole of it; a prefix and a checksum, so that secret scanners find it, and a mistyped
//! key is refused before the database is asked. The form follows GitHub's tokens
//! ("Behind GitHub's new authentication token formats").

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::crypto::{digest, random};

/// What sort of secret it is: how it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// An API key, `tbk_`.
    ApiKey,
    /// A session token, `tbs_`.
    Session,
    /// The refresh token of a session, `tbr_`.
    SessionRefresh,
    /// The secret of an OAuth client, `tbc_`.
    ClientSecret,
    /// An access token of our own authorisation server, `tba_`.
    AccessToken,
    /// A refresh token of our own authorisation server, `tbf_`.
    RefreshToken,
    /// An authorisation code, `tbo_`.
    AuthorizationCode,
    /// A device code, `tbd_`.
    DeviceCode,
    /// What a `request_uri` ends with, `tbp_`.
    PushedRequest,
}

impl Prefix {
    /// The four characters.
    pub const fn text(self) -> &'static str {
        match self {
            Self::ApiKey => "tbk_",
            Self::Session => "tbs_",
            Self::SessionRefresh => "tbr_",
            Self::ClientSecret => "tbc_",
            Self::AccessToken => "tba_",
            Self::RefreshToken => "tbf_",
            Self::AuthorizationCode => "tbo_",
            Self::DeviceCode => "tbd_",
            Self::PushedRequest => "tbp_",
        }
    }
}

/// Length of a prefix in characters.
const PREFIX_CHARS: usize = 4;

/// Random characters: 43 of base62 hold 256 bits.
const BODY_CHARS: usize = 43;

/// Characters of the checksum: six of base62 hold 32 bits.
const CHECKSUM_CHARS: usize = 6;

/// Length of a key in characters.
pub const KEY_CHARS: usize = PREFIX_CHARS + BODY_CHARS + CHECKSUM_CHARS;

/// Characters shown in listings to tell keys apart: the prefix and 8 of the 43.
const DISPLAY_CHARS: usize = 12;

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Such a secret in plaintext, well formed. Only its hash is ever stored.
pub struct BearerSecret(SecretString);

/// Why a text is no such secret. It says nothing about the text itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins otherwise.
    #[error("it does not begin as it should")]
    Prefix,
    /// It is cut short, or something follows.
    #[error("it is not {KEY_CHARS} characters long")]
    Length,
    /// A character that keys do not have.
    #[error("it has other characters than ASCII letters and digits after its prefix")]
    Alphabet,
    /// The last characters do not fit those before.
    #[error("its checksum does not fit: it was mistyped or altered")]
    Checksum,
}

impl BearerSecret {
    /// A new random secret.
    pub fn generate(prefix: Prefix) -> Self {
        let mut text = Zeroizing::new(String::with_capacity(KEY_CHARS));
        text.push_str(prefix.text());
        while text.len() < PREFIX_CHARS + BODY_CHARS {
            let draw = Zeroizing::new(random::random_bytes::<64>());
            // A byte has four times 62 values and 8 to spare, which would favour the first 8
            // characters: they are drawn again.
            let fair = draw.iter().filter(|byte| **byte < 4 * 62);
            let room = PREFIX_CHARS + BODY_CHARS - text.len();
            text.extend(fair.take(room).map(|byte| letter(u32::from(*byte))));
        }
        let checksum = checksum(&text);
        text.extend(checksum);
        Self(SecretString::from(text.as_str()))
    }

    /// Takes `text` for such a secret when it has the form: prefix, length, alphabet, checksum. That
    /// tells typing errors from keys, not genuine keys from forged ones.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(prefix: Prefix, text: &str) -> Result<Self, Malformed> {
        let after = text.strip_prefix(prefix.text()).ok_or(Malformed::Prefix)?;
        if text.len() != KEY_CHARS {
            return Err(Malformed::Length);
        }
        if !after.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Malformed::Alphabet);
        }
        let (covered, check) = text
            .split_at_checked(KEY_CHARS - CHECKSUM_CHARS)
            .ok_or(Malformed::Length)?;
        if !checksum(covered).into_iter().eq(check.chars()) {
            return Err(Malformed::Checksum);
        }
        Ok(Self(SecretString::from(text)))
    }

    /// SHA-256 of the key: what is stored and looked up. A plain hash is enough for 256 random
    /// bits.
    pub fn hash(&self) -> [u8; 32] {
        digest::sha256(self.0.expose_secret().as_bytes())
    }

    /// The first 12 characters, which listings show. The 209 bits after them stay secret.
    pub fn display_prefix(&self) -> &str {
        let text = self.0.expose_secret();
        text.get(..DISPLAY_CHARS).unwrap_or_default()
    }

    /// The whole key, to be shown once to whoever made it.
    pub fn text(&self) -> &SecretString {
        &self.0
    }
}

/// Shows the part that listings show.
impl fmt::Debug for BearerSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BearerSecret({}…)", self.display_prefix())
    }
}

/// The base62 digit of `value` modulo 62.
fn letter(value: u32) -> char {
    let place = usize::try_from(value % 62).unwrap_or_default();
    ALPHABET.get(place).copied().map_or('0', char::from)
}

/// CRC-32 (IEEE) of `covered` in base62, the highest digit first, padded with zeros.
fn checksum(covered: &str) -> [char; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(covered.as_bytes());
    let mut digits = ['0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = letter(rest);
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(text: &str) -> Malformed {
        BearerSecret::parse(Prefix::ApiKey, text).unwrap_err()
    }

    #[test]
    fn a_generated_key_parses() {
        let key = BearerSecret::generate(Prefix::ApiKey);
        let text = key.text().expose_secret();
        assert_eq!(text.len(), 53);
        let parsed = BearerSecret::parse(Prefix::ApiKey, text).unwrap();
        assert_eq!(parsed.hash(), key.hash());
        assert_eq!(parsed.display_prefix(), &text[..12]);
        assert!(!format!("{key:?}").contains(&text[12..]));
        assert_ne!(BearerSecret::generate(Prefix::ApiKey).hash(), key.hash());
    }

    /// Keys are kept by their owners for years: the form must not drift.
    #[test]
    fn the_form_is_frozen() {
        let body = "tbk_0000000000000000000000000000000000000000000";
        let text: String = body.chars().chain(checksum(body)).collect();
        insta::assert_snapshot!(text, @"tbk_00000000000000000000000000000000000000000002GtKfd");
        BearerSecret::parse(Prefix::ApiKey, &text).unwrap();
    }

    #[test]
    fn every_altered_character_is_noticed() {
        let key = BearerSecret::generate(Prefix::ApiKey);
        let text = key.text().expose_secret();
        for position in PREFIX_CHARS..text.len() {
            let mut bytes = text.as_bytes().to_vec();
            bytes[position] = if bytes[position] == b'a' { b'b' } else { b'a' };
            let altered = String::from_utf8(bytes).unwrap();
            assert_eq!(reject(&altered), Malformed::Checksum, "at {position}");
        }
    }

    #[test]
    fn other_texts_are_named_for_what_they_lack() {
        let key = BearerSecret::generate(Prefix::ApiKey);
        let text = key.text().expose_secret();
        assert_eq!(reject(""), Malformed::Prefix);
        assert_eq!(reject(&text.replace("tbk_", "ghp_")), Malformed::Prefix);
        assert_eq!(reject(&text[..52]), Malformed::Length);
        assert_eq!(reject(&format!("{text}0")), Malformed::Length);
        assert_eq!(reject(&format!("{}é", &text[..51])), Malformed::Alphabet);
        assert_eq!(reject(&format!("{}-", &text[..52])), Malformed::Alphabet);
    }

    #[test]
    fn every_letter_of_the_alphabet_is_drawn() {
        let drawn: String = (0..200)
            .map(|_| {
                BearerSecret::generate(Prefix::ApiKey)
                    .text()
                    .expose_secret()[4..47]
                    .to_owned()
            })
            .collect();
        for letter in ALPHABET {
            assert!(drawn.contains(char::from(*letter)));
        }
    }
}
