//! `[access]`: callers that are known by something else than an API key or a session.

mod certificates;
mod jwt;
pub mod spiffe;

use std::collections::BTreeSet;

pub use certificates::{CertificateName, CertificateRule};
pub use jwt::{JwtIssuer, JwtKeySource, JwtRule};

use super::reader::Reader;
use crate::model::{Constraints, RateLimit, Role};

/// The tenant of a caller that names none.
const DEFAULT_TENANT: &str = "default";

/// Callers that are known by something else than an API key or a session.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Holders of client certificates (`[[access.certificates]]`), the first that fits counts.
    pub certificates: Vec<CertificateRule>,
    /// Trusted issuers of JWTs (`[[access.jwt]]`).
    pub jwt: Vec<JwtIssuer>,
}

impl Access {
    /// `asks` says whether client certificates are asked for at all.
    pub(super) fn read(reader: &mut Reader, asks: bool) -> Self {
        Self {
            certificates: CertificateRule::read_all(reader, asks),
            jwt: JwtIssuer::read_all(reader),
        }
    }
}

/// What the configuration gives a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// What the caller is called; 1 to 63 bytes.
    pub name: String,
    /// The tenant it acts in.
    pub tenant: String,
    /// What it may do; never [`Role::User`].
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// Its own limit; none for the role's.
    pub rate_limit: Option<RateLimit>,
}

impl Granted {
    /// From the table whose keys `key` spells.
    pub(super) fn read(reader: &mut Reader, key: &dyn Fn(&str) -> String) -> Self {
        let name = reader.text(&key("name"));
        if reader.sound(&[&key("name")]) && !is_name(&name) {
            let problem = format!("{name:?} is not 1 to 63 letters, digits, '.', '-' or '_'");
            reader.fault(&key("name"), problem);
        }
        Self::read_called(reader, key, name)
    }

    /// The same for callers whose name is not the table's to give.
    pub(super) fn read_called(
        reader: &mut Reader,
        key: &dyn Fn(&str) -> String,
        name: String,
    ) -> Self {
        const ROLES: [(&str, Role); 6] = [
            (Role::Admin.as_str(), Role::Admin),
            (Role::Operator.as_str(), Role::Operator),
            (Role::Auditor.as_str(), Role::Auditor),
            (Role::Consumer.as_str(), Role::Consumer),
            (Role::Worker.as_str(), Role::Worker),
            (Role::IssuerUi.as_str(), Role::IssuerUi),
        ];
        let tenant = reader
            .optional_text(&key("tenant"))
            .unwrap_or_else(|| DEFAULT_TENANT.to_owned());
        if !is_tenant(&tenant) {
            let problem = format!("{tenant:?} is not 1 to 63 lower-case letters, digits and '-'");
            reader.fault(&key("tenant"), problem);
        }
        let role = reader.choice(&key("role"), &ROLES);
        let mut entries = |name: &str| {
            let texts = reader.texts(&key(name));
            if texts.iter().any(|text| text.trim().is_empty()) {
                reader.fault(&key(name), "an empty entry allows nothing");
            }
            texts
        };
        let (apps, owners, providers) = (entries("apps"), entries("owners"), entries("providers"));
        Self {
            name,
            tenant,
            role: role.unwrap_or(Role::Auditor),
            constraints: Constraints {
                apps,
                owners,
                providers,
                link_only: reader.optional_boolean(&key("link_only")),
            },
            rate_limit: rate_limit(reader, key),
        }
    }
}

/// Both or neither.
fn rate_limit(reader: &mut Reader, key: &dyn Fn(&str) -> String) -> Option<RateLimit> {
    let (rate, burst) = (key("requests_per_second"), key("burst"));
    let requests_per_second = reader.optional_integer(&rate, 1..=1_000_000);
    let most_at_once = reader.optional_integer(&burst, 1..=1_000_000);
    match (requests_per_second, most_at_once) {
        (None, None) => None,
        (Some(requests_per_second), most_at_once) => Some(RateLimit {
            requests_per_second,
            burst: most_at_once.unwrap_or(requests_per_second),
        }),
        (None, Some(_)) => {
            reader.fault(&burst, "this needs requests_per_second beside it");
            None
        }
    }
}

/// Records a fault for each name that an entry above has: `section` is `access.certificates`.
pub(super) fn names_are_unique<'a>(
    reader: &mut Reader,
    section: &str,
    entries: impl Iterator<Item = (usize, &'a Granted)>,
) {
    let mut seen = BTreeSet::new();
    for (position, granted) in entries {
        if !granted.name.is_empty() && !seen.insert(granted.name.as_str()) {
            reader.fault(
                &format!("{section}.{position}.name"),
                format!("an entry above is called {:?}", granted.name),
            );
        }
    }
}

fn is_name(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    (1..=63).contains(&text.len()) && text.bytes().all(fit)
}

fn is_tenant(text: &str) -> bool {
    let fit = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(fit)
}
