//! `[issuer]`: our own authorisation server.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use url::Url;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE, SECOND, Web, web};

/// Our own authorisation server.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// The address of the form-encoded endpoints; none where they are off.
    pub listen: Option<SocketAddr>,
    /// The issuer identifier (RFC 8414 section 2), which is also where clients reach the endpoints.
    /// Its text has no slash at its end: [`Issuer::identifier`].
    pub url: Url,
    /// The operator's own sign-in and consent application; none where our pages do that.
    pub interaction_url: Option<Url>,
    /// How long a person has to sign in and decide.
    pub request_lifetime: Duration,
    /// How long a code is good.
    pub code_lifetime: Duration,
    /// How long a `request_uri` is good.
    pub pushed_request_lifetime: Duration,
    /// How long a device code is good.
    pub device_code_lifetime: Duration,
    /// How long a device waits between two questions.
    pub device_interval: Duration,
    /// How long after its first exchange a refresh token is answered with the same successor again.
    pub refresh_grace: Duration,
    /// How often.
    pub refresh_grace_uses: u32,
    /// How long a grant lives in any case.
    pub grant_max_age: Duration,
    /// How long what is spent or over is kept, so that a second use is noticed.
    pub keep_spent: Duration,
    /// How long a key signs.
    pub key_rotation: Duration,
    /// Whether proofs of possession must carry a nonce of ours.
    pub require_dpop_nonce: bool,
    /// The most introspections kept in memory.
    pub cache_capacity: u64,
    /// The resources that tokens may be for (RFC 8707).
    pub resources: Vec<String>,
    /// Scopes in words.
    pub scopes: BTreeMap<String, String>,
}

impl Issuer {
    /// The issuer identifier: what `iss` says.
    pub fn identifier(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }

    /// Where clients reach an endpoint, such as `oauth2/token`: what their proofs of possession name.
    pub fn endpoint(&self, path: &str) -> String {
        format!("{}/{path}", self.identifier())
    }

    /// Whether clients elsewhere are told to look for us on their own machine: browsers reach us from
    /// elsewhere, and `issuer.url` is a loopback address.
    pub fn is_out_of_reach(&self, web: &Web) -> bool {
        web::is_loopback(&self.url) && !web::is_loopback(&web.public_url)
    }
}

/// The longest words for a scope, in characters: they stand in a list on the consent page.
const WORDS_MAX: usize = 200;

impl Issuer {
    /// `None` only if `issuer.url` can't be read at all.
    pub(super) fn read(reader: &mut Reader) -> Option<Self> {
        let listen = listen(reader);
        let url = reader.url("issuer.url");
        if let Some(problem) = url.as_ref().and_then(web::problem_of) {
            reader.fault("issuer.url", problem);
        }
        let refresh_grace = reader.duration("issuer.refresh_grace", Duration::ZERO..=5 * MINUTE);
        let keep_spent = reader.duration("issuer.keep_spent", MINUTE..=365 * DAY);
        if reader.sound(&["issuer.refresh_grace", "issuer.keep_spent"])
            && keep_spent < refresh_grace
        {
            reader.fault(
                "issuer.keep_spent",
                "this must not be shorter than issuer.refresh_grace",
            );
        }
        let read = Self {
            listen,
            url: url?,
            interaction_url: interaction_url(reader),
            request_lifetime: reader.duration("issuer.request_lifetime", MINUTE..=DAY),
            code_lifetime: reader.duration("issuer.code_lifetime", 10 * SECOND..=10 * MINUTE),
            pushed_request_lifetime: reader
                .duration("issuer.pushed_request_lifetime", 5 * SECOND..=10 * MINUTE),
            device_code_lifetime: reader.duration("issuer.device_code_lifetime", MINUTE..=HOUR),
            device_interval: reader.duration("issuer.device_interval", SECOND..=MINUTE),
            refresh_grace,
            refresh_grace_uses: reader.integer("issuer.refresh_grace_uses", 0..=100),
            grant_max_age: reader.duration("issuer.grant_max_age", HOUR..=3_650 * DAY),
            keep_spent,
            key_rotation: reader.duration("issuer.key_rotation", HOUR..=3_650 * DAY),
            require_dpop_nonce: reader.boolean("issuer.require_dpop_nonce"),
            cache_capacity: reader.integer("issuer.cache_capacity", 1..=10_000_000),
            resources: resources(reader),
            scopes: scopes(reader),
        };
        Some(read)
    }
}

fn listen(reader: &mut Reader) -> Option<SocketAddr> {
    let text = reader.optional_text("issuer.listen")?;
    let parsed = text.trim().parse().ok();
    if parsed.is_none() {
        let problem = format!("{text:?} is not an address such as \"127.0.0.1:7482\"");
        reader.fault("issuer.listen", problem);
    }
    parsed
}

fn interaction_url(reader: &mut Reader) -> Option<Url> {
    let url = reader.optional_url("issuer.interaction_url")?;
    let problem = match url.scheme() {
        "https" | "http" if !url.username().is_empty() || url.password().is_some() => {
            Some("this must not hold a user name or password")
        }
        "https" | "http" if url.fragment().is_some() => Some("this must not have a fragment"),
        "https" => None,
        "http" if web::is_loopback(&url) => None,
        _ => Some("this must be https (http is for loopback addresses only)"),
    };
    if let Some(problem) = problem {
        reader.fault("issuer.interaction_url", problem);
    }
    Some(url)
}

/// RFC 8707 section 2: absolute and without a fragment. They are compared as they are written.
fn resources(reader: &mut Reader) -> Vec<String> {
    let resources = reader.texts("issuer.resources");
    for resource in &resources {
        if !Url::parse(resource).is_ok_and(|url| url.fragment().is_none()) {
            let problem = format!("{resource:?} is not an absolute URI without a fragment");
            reader.fault("issuer.resources", problem);
        }
    }
    resources
}

fn scopes(reader: &mut Reader) -> BTreeMap<String, String> {
    let scopes = reader.text_map("issuer.scopes");
    for (scope, words) in &scopes {
        // RFC 6749 section 3.3.
        let token = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
        let problem = if scope.is_empty() || !scope.chars().all(token) {
            "the name is no scope: visible ASCII without quotes and backslashes".to_owned()
        } else if words.trim().is_empty() || words.chars().count() > WORDS_MAX {
            format!("1 to {WORDS_MAX} characters")
        } else {
            continue;
        };
        reader.fault(&format!("issuer.scopes.{scope}"), problem);
    }
    scopes
}
