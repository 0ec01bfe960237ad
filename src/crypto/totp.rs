//! One-time codes as authenticators show them: RFC 6238 with SHA-1, 6 digits and steps of 30 seconds.

use secrecy::{ExposeSecret as _, SecretString};
use totp_rs::{Algorithm, Builder, Secret};
use zeroize::Zeroizing;

use crate::model::Timestamp;

const DIGITS: u8 = 6;
const STEP_SECONDS: u64 = 30;

/// Fewest and most characters of a seed.
const CHARACTERS: std::ops::RangeInclusive<usize> = 8..=256;

/// The bytes of a seed that is written in Base32 (RFC 4648 section 6), as sites show it: spaces, case
/// and padding do not matter. `None` when it is none, or too short or too long for one.
///
/// A text that Base32 never comes to is refused, since what an authenticator makes of it differs from
/// one to the next: a character was lost.
pub fn seed(text: &SecretString) -> Option<Zeroizing<Vec<u8>>> {
    let mut digits = Zeroizing::new(String::with_capacity(text.expose_secret().len()));
    for digit in text.expose_secret().chars().filter(|c| *c != ' ') {
        digits.push(digit.to_ascii_uppercase());
    }
    let digits = digits.trim_end_matches('=');
    let sound = CHARACTERS.contains(&digits.len())
        && !matches!(digits.len() % 8, 1 | 3 | 6)
        && digits
            .bytes()
            .all(|digit| matches!(digit, b'A'..=b'Z' | b'2'..=b'7'));
    let secret = Secret::try_from_base32(digits).ok().filter(|_| sound)?;
    Some(Zeroizing::new(secret.as_bytes().to_vec()))
}

/// The code of a seed now, and until when it is good.
pub fn code(seed: &[u8], now: Timestamp) -> (SecretString, Timestamp) {
    let seconds = u64::try_from(now.micros().div_euclid(1_000_000)).unwrap_or_default();
    // Not the build that checks: it refuses seeds of less than 128 bits, and 80 are common.
    let totp = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(DIGITS)
        .with_step_duration(STEP_SECONDS)
        .with_secret(seed)
        .build_noncompliant();
    let code = SecretString::from(totp.generate(seconds).to_string());
    let end = i64::try_from(totp.next_step(seconds)).unwrap_or(i64::MAX);
    let end = Timestamp::from_micros(end.saturating_mul(1_000_000));
    (code, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Appendix B of RFC 6238, cut to 6 digits.
    #[test]
    fn codes_are_those_of_rfc_6238() {
        for (time, expected) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            let (code, _) = code(b"12345678901234567890", seconds(time));
            assert_eq!(code.expose_secret(), expected, "at {time}");
        }
    }

    #[test]
    fn a_code_is_good_to_the_end_of_its_step() {
        let end = |time| code(b"1234567890", time).1;
        assert_eq!(end(seconds(59)), seconds(60));
        assert_eq!(end(seconds(60)), seconds(90));
        let just_before = Timestamp::from_micros(seconds(90).micros() - 1);
        assert_eq!(end(just_before), seconds(90));
    }

    #[test]
    fn a_seed_is_read_as_sites_show_it() {
        let seed = |text: &str| seed(&SecretString::from(text));
        let expected = b"12345678901234567890";
        for text in [
            "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ",
            "gezd gnbv gy3t qojq gezd gnbv gy3t qojq",
        ] {
            assert_eq!(
                seed(text).as_deref().map(Vec::as_slice),
                Some(&expected[..])
            );
        }
        assert_eq!(seed("GEZDGNBVGY======").map(|it| it.len()), Some(6));
        for none in [
            "",
            "GEZDGNB",
            "GEZDGNBVG",
            "GEZDGNB1",
            "GEZDGNBé",
            "========",
        ] {
            assert!(seed(none).is_none(), "{none}");
        }
        assert!(seed(&"A".repeat(257)).is_none());
    }
}
