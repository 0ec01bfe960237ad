//! Sealing of secrets, and the small cryptography around it. The cipher crates are used here and
//! nowhere else.
//!
//! Read [`Keyring`] first: `seal` and `open` are all that most callers need. What a sealed value
//! is bound to (tenant, purpose, row) stands in [`Context`].

pub mod digest;
mod envelope;
mod error;
pub mod jwt;
pub mod keyfile;
mod keyring;
pub mod password;
pub mod private_file;
pub mod random;
pub mod signing;
pub mod totp;

pub use envelope::{Context, Purpose};
pub use error::{Error, KeyFileFault};
pub use keyring::Keyring;

/// Length of a sealing key in bytes.
pub const KEY_BYTES: usize = 32;

/// Longest key id in bytes: it is kept in every envelope.
pub const KEY_ID_MAX: usize = 32;

/// Whether `id` can name a key: 1 to 32 of ASCII letters, digits, `-` and `_`.
pub(crate) fn is_key_id(id: &str) -> bool {
    (1..=KEY_ID_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
