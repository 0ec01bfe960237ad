//! E-mail addresses as names of users.

/// Longest address, in characters (RFC 5321 section 4.5.3.1.3, less the angle brackets).
pub const EMAIL_MAX: usize = 254;

/// Shortest: a name, an `@` and a domain.
const EMAIL_MIN: usize = 3;

/// What an address must be, for people.
pub const EMAIL_FORM: &str =
    "an e-mail address is needed: 3 to 254 characters, one @, no blanks or control characters";

/// The address in lower case, which is how users are found; `None` for what is no address. Whether
/// mail arrives there is not looked at, nor is anything cut off: what was typed is the name.
pub fn normalised(email: &str) -> Option<String> {
    let email = email.to_lowercase();
    let (local, domain) = email.split_once('@')?;
    let fine = (EMAIL_MIN..=EMAIL_MAX).contains(&email.chars().count())
        && !local.is_empty()
        && !domain.is_empty()
        && !domain.contains('@')
        && !email.chars().any(|c| c.is_whitespace() || c.is_control());
    fine.then_some(email)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_does_not_matter_in_any_script() {
        assert_eq!(normalised("Ada@Example.COM").unwrap(), "ada@example.com");
        assert_eq!(normalised("ЁЖ@пример.рф").unwrap(), "ёж@пример.рф");
        assert_eq!(normalised("a@b").unwrap(), "a@b");
    }

    #[test]
    fn what_is_no_address_is_none() {
        for bad in [
            "", "a@", "@b", "ab", "a@b@c", "a b@c", " a@b", "a@b\n", "a\u{7}@b",
        ] {
            assert_eq!(normalised(bad), None, "{bad:?}");
        }
        assert_eq!(normalised(&format!("{}@b", "a".repeat(253))), None);
    }
}
