//! Judging requests field by field, so that a caller hears of every fault at once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::access::users::ME;
use crate::error::{Error, FieldViolation};
use crate::model::IdKind;

/// Longest owner, external key, display name, reason, …, in characters.
pub const NAME_MAX: usize = 255;
/// Longest client id, in characters.
pub const CLIENT_ID_MAX: usize = 512;
/// Longest token, key or secret, in characters.
pub const SECRET_MAX: usize = 16_384;
/// Longest scope, in characters.
pub const SCOPE_MAX: usize = 256;
/// Most scopes in a request.
pub const SCOPES_MAX: usize = 100;
/// Longest URL, in characters.
pub const URL_MAX: usize = 2_048;

/// Collects faults.
#[derive(Debug, Default)]
pub struct Fields(Vec<FieldViolation>);

impl Fields {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fault of `field` unless `fine`.
    pub fn check(&mut self, fine: bool, field: impl Into<String>, description: impl Into<String>) {
        if !fine {
            self.0.push(FieldViolation::new(field, description));
        }
    }

    /// Text of at most `max` characters without control characters; may be empty.
    pub fn text(&mut self, field: &str, value: &str, max: usize) {
        if value.chars().count() > max {
            self.check(
                false,
                field,
                format!("at most {max} characters are allowed"),
            );
        }
        self.check(
            !value.chars().any(char::is_control),
            field,
            "control characters are not allowed",
        );
    }

    /// The same, and not empty.
    pub fn required(&mut self, field: &str, value: &str, max: usize) {
        self.check(!value.is_empty(), field, "is required");
        self.text(field, value, max);
    }

    /// A secret: not empty, printable ASCII. What is wrong with it is said without repeating it.
    pub fn secret(&mut self, field: &str, value: &str, max: usize) {
        self.check(!value.is_empty(), field, "is required");
        self.check(
            value.len() <= max,
            field,
            format!("at most {max} characters are allowed"),
        );
        self.check(
            value.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
            field,
            "only printable ASCII characters are allowed",
        );
    }

    /// An id of this kind.
    pub fn id(&mut self, field: &str, value: &str, kind: IdKind) {
        // The text is made for a fault only: every call for a token comes through here.
        if !kind.matches(value) {
            let needed = format!("an id that begins with `{}_` is required", kind.prefix());
            self.check(false, field, needed);
        }
    }

    /// A user's id, or `me`.
    pub fn own_or_id(&mut self, field: &str, user_id: &str) {
        self.check(
            user_id == ME || IdKind::User.matches(user_id),
            field,
            "`me`, or an id that begins with `user_`, is required",
        );
    }

    /// A request id (AIP-155): a UUID of the caller's, or empty.
    pub fn request_id(&mut self, value: &str) {
        self.check(
            value.is_empty() || uuid::Uuid::try_parse(value).is_ok(),
            "request_id",
            "is not a UUID",
        );
    }

    /// Scopes: RFC 6749 section 3.3, which excludes blanks, quotes and backslashes.
    pub fn scopes(&mut self, field: &str, scopes: &[String]) {
        self.check(
            scopes.len() <= SCOPES_MAX,
            field,
            format!("at most {SCOPES_MAX} scopes are allowed"),
        );
        for (index, scope) in scopes.iter().take(SCOPES_MAX).enumerate() {
            let fine = !scope.is_empty()
                && scope.len() <= SCOPE_MAX
                && scope
                    .bytes()
                    .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
            self.check(
                fine,
                format!("{field}[{index}]"),
                format!("1 to {SCOPE_MAX} printable ASCII characters without blanks are needed"),
            );
        }
    }

    /// A map of at most `entries`, with keys and values of limited length.
    pub fn map<'a>(
        &mut self,
        field: &str,
        map: impl ExactSizeIterator<Item = (&'a String, &'a String)>,
        entries: usize,
        key_max: usize,
        value_max: usize,
    ) {
        self.check(
            map.len() <= entries,
            field,
            format!("at most {entries} entries are allowed"),
        );
        for (key, value) in map.take(entries) {
            // A key that is out of bounds is not repeated in the error.
            let shown: String = key.chars().take(64).filter(|c| !c.is_control()).collect();
            let path = format!("{field}[{shown}]");
            self.required(&path, key, key_max);
            self.text(&path, value, value_max);
        }
    }

    /// A URL that a browser may be sent to: https, or http on loopback; no fragment, no user info.
    pub fn browser_url(&mut self, field: &str, value: &str) {
        let fine = value.len() <= URL_MAX && is_browser_url(value);
        self.check(
            fine,
            field,
            "an absolute https URL is needed (http on loopback), without fragment and user info",
        );
    }

    /// A duration from a request, within bounds.
    pub fn duration(
        &mut self,
        field: &str,
        value: Option<prost_types::Duration>,
        max: Duration,
    ) -> Option<Duration> {
        let prost_types::Duration { seconds, nanos } = value?;
        // By hand: the conversion that comes with the type can overflow.
        let duration = match (u64::try_from(seconds), u32::try_from(nanos)) {
            (Ok(seconds), Ok(nanos @ 0..1_000_000_000)) => Some(Duration::new(seconds, nanos)),
            _ => None,
        };
        match duration {
            Some(duration) if duration <= max => Some(duration),
            _ => {
                self.check(
                    false,
                    field,
                    format!("a duration from 0 to {} s is needed", max.as_secs()),
                );
                None
            }
        }
    }

    /// # Errors
    /// [`Error::InvalidArgument`] with every fault.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Error::InvalidArgument(self.0))
        }
    }
}

fn is_browser_url(value: &str) -> bool {
    let Ok(url) = url::Url::parse(value) else {
        return false;
    };
    let loopback = match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => return false,
    };
    (url.scheme() == "https" || (url.scheme() == "http" && loopback))
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && !value.chars().any(|c| c.is_control() || c.is_whitespace())
}

/// A map of the wire as the domain has it, in order.
pub fn ordered(map: std::collections::HashMap<String, String>) -> BTreeMap<String, String> {
    map.into_iter().collect()
}
