//! `[[access.jwt]]`: issuers whose JWTs are taken, and what their bearers may do.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::super::reader::Reader;
use super::super::web::is_loopback;
use super::super::{DAY, HOUR, MINUTE, SECOND};
use super::Granted;

/// Longest name of an issuer in characters: it begins the ids of its callers.
const NAME_MAX: usize = 32;

/// The algorithms that can be configured (RFC 7518 section 3.1, RFC 8037). Neither `none` nor a
/// keyed hash: a verifier that shares its key with the issuer could sign for anybody.
const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA",
];

/// Those that are taken where none is configured.
const DEFAULT_ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];

/// Longest path of a claim in characters.
const CLAIM_PATH_MAX: usize = 256;

/// An issuer whose JWTs are taken.
#[derive(Clone, Debug)]
pub struct JwtIssuer {
    /// Its short name; begins the ids of its callers.
    pub name: String,
    /// Exactly what its tokens say in `iss`.
    pub issuer: String,
    /// A token must be meant for one of these (`aud`); at least one.
    pub audiences: Vec<String>,
    /// Where its keys are.
    pub keys: JwtKeySource,
    /// The certificate authorities (PEM) of the server that has the keys, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A file with a bearer token for that server, read anew each time.
    pub bearer_token_file: Option<PathBuf>,
    /// The signature algorithms that are taken, by their JOSE names; at least one.
    pub algorithms: Vec<String>,
    /// How far its clock and ours may be apart.
    pub leeway: Duration,
    /// The longest time from `iat` to `exp`.
    pub max_lifetime: Duration,
    /// After this the keys are fetched again.
    pub jwks_max_age: Duration,
    /// How long keys are used while the issuer can't be reached.
    pub jwks_max_stale: Duration,
    /// Who may do what; the first that matches counts. At least one.
    pub rules: Vec<JwtRule>,
}

/// Where an issuer's keys (JWKS, RFC 7517 section 5) are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JwtKeySource {
    /// At this address.
    Url(Url),
    /// In this file.
    File(PathBuf),
    /// Where the issuer's OpenID Connect metadata says.
    Discovery(Url),
}

/// What bearers of some tokens of an issuer may do.
#[derive(Clone, Debug)]
pub struct JwtRule {
    /// The `sub`, exactly, or how it begins if this ends in `*`.
    pub subject: Option<String>,
    /// Claims by their path, members joined by dots, and the text that each must be or hold.
    pub claims: BTreeMap<String, String>,
    /// What they get; the name is empty, since each has its own.
    pub granted: Granted,
}

impl JwtIssuer {
    pub(super) fn read_all(reader: &mut Reader) -> Vec<Self> {
        let positions = reader.positions("access.jwt");
        let mut issuers: Vec<Self> = Vec::with_capacity(positions.len());
        for position in positions {
            let key = |name: &str| format!("access.jwt.{position}.{name}");
            let Some(issuer) = Self::read(reader, &key) else {
                continue;
            };
            if issuers.iter().any(|other| other.name == issuer.name) {
                reader.fault(&key("name"), "an issuer above has the same name");
            }
            if issuers.iter().any(|other| other.issuer == issuer.issuer) {
                reader.fault(&key("issuer"), "this issuer stands above already");
            }
            issuers.push(issuer);
        }
        issuers
    }

    fn read(reader: &mut Reader, key: &dyn Fn(&str) -> String) -> Option<Self> {
        let name = reader.text(&key("name"));
        if reader.sound(&[&key("name")]) && !is_name(&name) {
            reader.fault(
                &key("name"),
                format!("1 to {NAME_MAX} lower-case letters, digits and hyphens are needed"),
            );
        }
        let issuer = reader.text(&key("issuer"));
        let audiences = reader.texts(&key("audiences"));
        if audiences.is_empty() || audiences.iter().any(String::is_empty) {
            reader.fault(
                &key("audiences"),
                "at least one is needed, and none may be empty: tokens for other services must \
                 not be taken",
            );
        }
        let keys = key_source(reader, key, &issuer);
        let ca_file = reader.optional_path(&key("ca_file"));
        let bearer_token_file = reader.optional_path(&key("bearer_token_file"));
        if matches!(keys, Some(JwtKeySource::File(_))) && ca_file.is_some() {
            reader.fault(&key("ca_file"), "jwks_file needs none");
        }
        if bearer_token_file.is_some() && !matches!(keys, Some(JwtKeySource::Url(_)) | None) {
            reader.fault(
                &key("bearer_token_file"),
                "this goes with jwks_url only, so that nobody else says where the token is sent",
            );
        }
        let read = Self {
            name,
            issuer,
            audiences,
            keys: keys.clone().unwrap_or(JwtKeySource::File(PathBuf::new())),
            ca_file,
            bearer_token_file,
            algorithms: algorithms(reader, &key("algorithms")),
            leeway: duration(
                reader,
                &key("leeway"),
                Duration::ZERO..=5 * MINUTE,
                30 * SECOND,
            ),
            max_lifetime: duration(reader, &key("max_lifetime"), MINUTE..=366 * DAY, DAY),
            jwks_max_age: duration(reader, &key("jwks_max_age"), MINUTE..=DAY, HOUR),
            jwks_max_stale: duration(reader, &key("jwks_max_stale"), MINUTE..=30 * DAY, DAY),
            rules: rules(reader, &key("rules")),
        };
        if reader.sound(&[&key("jwks_max_age"), &key("jwks_max_stale")])
            && read.jwks_max_stale < read.jwks_max_age
        {
            reader.fault(&key("jwks_max_stale"), "this is less than jwks_max_age");
        }
        keys.map(|_| read)
    }
}

fn key_source(
    reader: &mut Reader,
    key: &dyn Fn(&str) -> String,
    issuer: &str,
) -> Option<JwtKeySource> {
    let discovery_key = key("discovery");
    let url = reader.optional_url(&key("jwks_url"));
    let file = reader.optional_path(&key("jwks_file"));
    let discovery = reader.is_set(&discovery_key) && reader.boolean(&discovery_key);
    match (url, file, discovery) {
        (Some(url), None, false) => {
            if !is_safe(&url) {
                let problem = "the keys are all the trust there is: https is needed, or http at \
                               a loopback address, without user name and password";
                reader.fault(&key("jwks_url"), problem);
            }
            Some(JwtKeySource::Url(url))
        }
        (None, Some(file), false) => Some(JwtKeySource::File(file)),
        (None, None, true) => match Url::parse(issuer) {
            Ok(url) if is_safe(&url) && url.query().is_none() && url.fragment().is_none() => {
                Some(JwtKeySource::Discovery(url))
            }
            _ => {
                reader.fault(
                    &discovery_key,
                    "the issuer is no https URL, so that it can't be asked where its keys are; \
                     set jwks_url or jwks_file",
                );
                None
            }
        },
        _ => {
            // A fault of one of them is told where it is.
            if reader.sound(&[&key("jwks_url"), &key("jwks_file"), &discovery_key]) {
                reader.fault(
                    &key("jwks_url"),
                    "exactly one of jwks_url, jwks_file and discovery = true must be set",
                );
            }
            None
        }
    }
}

fn is_safe(url: &Url) -> bool {
    let scheme = url.scheme() == "https" || url.scheme() == "http" && is_loopback(url);
    scheme && url.username().is_empty() && url.password().is_none()
}

fn algorithms(reader: &mut Reader, key: &str) -> Vec<String> {
    let wanted = reader.texts(key);
    for name in &wanted {
        if !ALGORITHMS.contains(&name.as_str()) {
            let known = ALGORITHMS.join(", ");
            reader.fault(key, format!("{name:?} is none of {known}"));
        }
    }
    if wanted.is_empty() {
        return DEFAULT_ALGORITHMS.map(str::to_owned).to_vec();
    }
    wanted
}

fn rules(reader: &mut Reader, key: &str) -> Vec<JwtRule> {
    let positions = reader.positions(key);
    if positions.is_empty() {
        reader.fault(key, "without a rule none of its tokens is of use");
    }
    let read = |position: usize| rule(reader, &format!("{key}.{position}."));
    positions.into_iter().map(read).collect()
}

fn rule(reader: &mut Reader, key: &str) -> JwtRule {
    let subject = reader.optional_text(&format!("{key}subject"));
    if let Some(subject) = &subject
        && subject.strip_suffix('*').unwrap_or(subject).contains('*')
    {
        reader.fault(
            &format!("{key}subject"),
            "a \"*\" can stand at the end only",
        );
    }
    let claims = reader.text_map(&format!("{key}claims"));
    for path in claims.keys() {
        if path.chars().count() > CLAIM_PATH_MAX {
            let problem = format!("a path has at most {CLAIM_PATH_MAX} characters");
            reader.fault(&format!("{key}claims"), problem);
        }
    }
    if subject.is_none() && claims.is_empty() {
        reader.fault(
            &format!("{key}subject"),
            "set this or claims; subject = \"*\" takes every token of the issuer",
        );
    }
    JwtRule {
        subject,
        claims,
        granted: Granted::read_called(reader, &|name| format!("{key}{name}"), String::new()),
    }
}

/// A duration; `default` where none is set, since an array of tables has no defaults of its own.
fn duration(
    reader: &mut Reader,
    key: &str,
    range: RangeInclusive<Duration>,
    default: Duration,
) -> Duration {
    if reader.is_set(key) {
        return reader.duration(key, range);
    }
    // An empty string is "not set", and is asked for all the same.
    reader.optional_text(key);
    default
}

fn is_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Sources};
    use crate::model::Role;

    fn load(text: &str) -> Result<Vec<JwtIssuer>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        let loaded = Config::load(Sources::new(Some(path), []));
        loaded
            .map(|config| config.access.jwt)
            .map_err(|faults| faults.to_string())
    }

    #[test]
    fn an_issuer_needs_little() {
        let issuers = load(
            r#"
            [[access.jwt]]
            name = "cluster"
            issuer = "https://kubernetes.default.svc"
            audiences = ["tokenbroker"]
            jwks_url = "https://10.0.0.1/openid/v1/jwks"
            [[access.jwt.rules]]
            subject = "system:serviceaccount:prod:*"
            claims = { "kubernetes.io.namespace" = "prod" }
            role = "consumer"
            owners = ["customer-*"]
            "#,
        )
        .unwrap();
        let [issuer] = issuers.as_slice() else {
            panic!("{} issuers", issuers.len());
        };
        assert_eq!(issuer.algorithms, DEFAULT_ALGORITHMS);
        assert_eq!((issuer.leeway, issuer.jwks_max_age), (30 * SECOND, HOUR));
        assert_eq!((issuer.max_lifetime, issuer.jwks_max_stale), (DAY, DAY));
        let [rule] = issuer.rules.as_slice() else {
            panic!("{} rules", issuer.rules.len());
        };
        assert_eq!(rule.claims.get("kubernetes.io.namespace").unwrap(), "prod");
        assert_eq!(rule.granted.role, Role::Consumer);
        assert_eq!(rule.granted.tenant, "default");
        assert_eq!(rule.granted.constraints.owners, ["customer-*"]);
    }

    #[test]
    fn every_configurable_algorithm_is_known_and_has_a_public_key() {
        for name in ALGORITHMS {
            assert!(crate::crypto::jwt::algorithm(name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_would_open_the_door_is_a_fault() {
        let report = load(
            r#"
            [[access.jwt]]
            name = "A b"
            issuer = "accounts"
            audiences = []
            discovery = true
            algorithms = ["HS256", "none"]
            leeway = "10m"
            [[access.jwt]]
            name = "second"
            issuer = "https://b.example"
            audiences = ["tokenbroker"]
            jwks_url = "http://b.example/keys"
            jwks_max_age = "2h"
            jwks_max_stale = "1h"
            [[access.jwt.rules]]
            role = "user"
            [[access.jwt]]
            name = "third"
            issuer = "https://c.example"
            audiences = ["tokenbroker"]
            discovery = true
            bearer_token_file = "token"
            [[access.jwt.rules]]
            subject = "a*b"
            role = "admin"
            "#,
        )
        .unwrap_err();
        let keys: Vec<_> = report
            .lines()
            .filter_map(|line| line.split_once(": "))
            .map(|(key, _)| key.strip_prefix("access.jwt.").unwrap_or(key))
            .collect();
        let expected = [
            "0.algorithms",
            "0.algorithms",
            "0.audiences",
            "0.discovery",
            "0.leeway",
            "0.name",
            "0.rules",
            "1.jwks_max_stale",
            "1.jwks_url",
            "1.rules.0.role",
            "1.rules.0.subject",
            "2.bearer_token_file",
            "2.rules.0.subject",
        ];
        assert_eq!(keys, expected, "{report}");
    }

    #[test]
    fn no_two_entries_have_the_same_name_or_issuer() {
        let entry = |name: &str, issuer: &str| {
            format!(
                "[[access.jwt]]\nname = {name:?}\nissuer = {issuer:?}\naudiences = [\"t\"]\n\
                 jwks_file = \"keys.json\"\n[[access.jwt.rules]]\nsubject = \"*\"\nrole = \"worker\"\n"
            )
        };
        load(&[entry("a", "x"), entry("b", "y")].concat()).unwrap();
        let report = load(&[entry("a", "x"), entry("a", "x")].concat()).unwrap_err();
        assert_eq!(report.lines().count(), 2, "{report}");
    }
}
