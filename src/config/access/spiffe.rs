//! SPIFFE ids, and patterns of them.

/// Every SPIFFE id begins so (SPIFFE-ID section 2).
pub const SCHEME: &str = "spiffe://";

/// The longest SPIFFE id, in bytes (SPIFFE-ID section 2.3).
const ID_MAX: usize = 2_048;

/// The longest trust domain, in bytes (SPIFFE-ID section 2.3).
const TRUST_DOMAIN_MAX: usize = 255;

/// Whether a URI claims to be a SPIFFE id, well formed or not: a scheme has no case (RFC 3986
/// section 3.1).
pub fn claims_to_be_id(uri: &str) -> bool {
    let scheme = uri.split(':').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case("spiffe")
}

/// Whether this is the id of a workload: a trust domain and a path (SPIFFE-ID section 2).
pub fn is_id(text: &str) -> bool {
    text.len() <= ID_MAX
        && parts(text).is_some_and(|(domain, path)| {
            is_trust_domain(domain) && path.split('/').all(is_segment)
        })
}

fn parts(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix(SCHEME)?.split_once('/')
}

fn is_trust_domain(text: &str) -> bool {
    let fit = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
    };
    (1..=TRUST_DOMAIN_MAX).contains(&text.len()) && text.bytes().all(fit)
}

fn is_segment(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !matches!(text, "" | "." | "..") && text.bytes().all(fit)
}

/// One id, or all whose path begins with the same segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpiffePattern {
    /// This id.
    Exact(String),
    /// Everything below; ends with a slash.
    Below(String),
}

impl SpiffePattern {
    /// From an id, or from the beginning of one with `/*` at its end.
    pub fn parse(text: &str) -> Option<Self> {
        if is_id(text) {
            return Some(Self::Exact(text.to_owned()));
        }
        let beginning = text.strip_suffix('*')?;
        let whole = beginning.strip_suffix('/')?;
        let domain = whole.strip_prefix(SCHEME)?;
        (is_id(whole) || is_trust_domain(domain)).then(|| Self::Below(beginning.to_owned()))
    }

    /// Whether it takes a well-formed id. Case matters (SPIFFE-ID section 2.2).
    pub fn takes(&self, id: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == id,
            Self::Below(beginning) => id.starts_with(beginning.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_a_trust_domain_and_a_path() {
        for id in ["spiffe://a.b/c", "spiffe://a/ns/Prod/sa/x_1.y-2"] {
            assert!(is_id(id), "{id}");
        }
        let long = format!("spiffe://a/{}", "x".repeat(2_048));
        for text in [
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///a",
            "spiffe://a//b",
            "spiffe://a/b/",
            "spiffe://a/../b",
            "spiffe://A/b",
            "SPIFFE://a/b",
            "spiffe://a:1/b",
            "spiffe://u@a/b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/b%20c",
            "https://a/b",
            &long,
        ] {
            assert!(!is_id(text), "{text}");
        }
        assert!(claims_to_be_id("Spiffe://A//"));
        assert!(!claims_to_be_id("https://spiffe"));
    }

    #[test]
    fn a_pattern_ends_at_a_segment() {
        let pattern = SpiffePattern::parse("spiffe://a/ns/prod/*").unwrap();
        assert!(pattern.takes("spiffe://a/ns/prod/sa/x"));
        assert!(!pattern.takes("spiffe://a/ns/prod"));
        assert!(!pattern.takes("spiffe://a/ns/production/x"));
        assert!(!pattern.takes("spiffe://a/ns/Prod/x"));
        let all = SpiffePattern::parse("spiffe://a/*").unwrap();
        assert!(all.takes("spiffe://a/x") && !all.takes("spiffe://a.b/x"));
        for text in [
            "*",
            "spiffe://*",
            "spiffe:///*",
            "spiffe://a/x*",
            "spiffe://a/*/x",
            "spiffe://a*",
            "spiffe://a//*",
        ] {
            assert_eq!(SpiffePattern::parse(text), None, "{text}");
        }
    }
}
