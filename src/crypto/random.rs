//! Random bytes and tokens from the operating system.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::SecretString;
use zeroize::Zeroizing;

/// Fills `buffer` with random bytes fit for keys.
///
/// Ends the process when the operating system has none to give: every secret made after that
/// could be guessed, and there is no answer that a caller could give instead.
pub fn fill(buffer: &mut [u8]) {
    if let Err(error) = getrandom::fill(buffer) {
        tracing::error!(%error, "the operating system gives no random bytes; stopping");
        std::process::abort();
    }
}

/// `N` random bytes. Wrap them in `Zeroizing` where they are a secret.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

/// A token of `bytes` random bytes as base64url without padding: 32 bytes give 43 characters.
pub fn random_token(bytes: usize) -> SecretString {
    let mut raw = Zeroizing::new(vec![0; bytes]);
    fill(&mut raw);
    SecretString::from(URL_SAFE_NO_PAD.encode(&*raw))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn tokens_are_long_enough_and_differ() {
        let (one, other) = (random_token(32), random_token(32));
        assert_eq!(one.expose_secret().len(), 43);
        assert_ne!(one.expose_secret(), other.expose_secret());
        assert_ne!(random_bytes::<32>(), random_bytes::<32>());
    }
}
