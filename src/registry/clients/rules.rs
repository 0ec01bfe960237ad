//! What a client may be set to: RFC 7591 for the fields, RFC 9700 and OAuth 2.1 for what goes with
//! what.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::redirects::{self, REDIRECT_URIS_MAX};
use crate::crypto::jwt::{KeySet, is_private};
use crate::error::FieldViolation;
use crate::model::{ClientAuthMethod, ClientGrantType, ClientResponseType, ClientSettings};

const NAME_MAX: usize = 255;
const DESCRIPTION_MAX: usize = 1_000;
const URL_MAX: usize = 2_048;
const JWKS_MAX: usize = 16_384;
const KEYS_MAX: usize = 10;
const SCOPES_MAX: usize = 100;
const SCOPE_MAX: usize = 256;
const EVENTS_MAX: usize = 50;
const EVENT_MAX: usize = 64;
/// A list of grant or response types that is longer holds something twice.
const KINDS_MAX: usize = 8;
const RATE_MAX: u32 = 1_000_000;

const ACCESS_LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(24 * 60 * 60);
const REFRESH_LIFETIME: RangeInclusive<Duration> =
    Duration::from_secs(60 * 60)..=Duration::from_secs(365 * 24 * 60 * 60);

/// Every field that is not as it must be, as paths in CreateClient's and UpdateClient's requests.
pub fn faults(settings: &ClientSettings) -> Vec<FieldViolation> {
    let mut faults = Faults(Vec::new());
    let it = settings;
    faults.check(!it.name.is_empty(), "name", "is required");
    faults.text("name", &it.name, NAME_MAX);
    faults.text("description", &it.description, DESCRIPTION_MAX);
    faults.page("logo_url", &it.logo_url);
    faults.page("homepage_url", &it.homepage_url);
    faults.keys(it);
    faults.redirects(it);
    faults.grants(it);
    faults.scopes(&it.allowed_scopes);
    faults.check(
        ACCESS_LIFETIME.contains(&it.access_token_lifetime),
        "access_token_lifetime",
        "1 minute to 24 hours are allowed",
    );
    faults.check(
        REFRESH_LIFETIME.contains(&it.refresh_token_lifetime),
        "refresh_token_lifetime",
        "1 hour to 365 days are allowed",
    );
    faults.check(
        it.rate_limit_per_hour
            .is_none_or(|limit| (1..=RATE_MAX).contains(&limit)),
        "rate_limit_per_hour",
        format!("1 to {RATE_MAX} is needed, or 0 for none"),
    );
    faults.webhook(it);
    faults.0
}

/// Collects faults.
struct Faults(Vec<FieldViolation>);

impl Faults {
    fn check(&mut self, fine: bool, field: impl AsRef<str>, description: impl Into<String>) {
        if !fine {
            let field = format!("client.{}", field.as_ref());
            self.0.push(FieldViolation::new(field, description));
        }
    }

    fn text(&mut self, field: &str, value: &str, max: usize) {
        self.check(
            value.chars().count() <= max,
            field,
            format!("at most {max} characters are allowed"),
        );
        self.check(
            !value.chars().any(char::is_control),
            field,
            "control characters are not allowed",
        );
    }

    fn count(&mut self, field: &str, count: usize, max: usize) {
        self.check(
            count <= max,
            field,
            format!("at most {max} entries are allowed"),
        );
    }

    /// A page or picture that browsers are shown.
    fn page(&mut self, field: &str, value: &str) {
        let fine = value.is_empty()
            || (redirects::fault(value).is_none()
                && Url::parse(value).is_ok_and(|url| !url.scheme().contains('.')));
        self.check(
            fine,
            field,
            "an absolute https URL is needed (http on loopback), without fragment and user info",
        );
    }

    /// Something that this server calls: which addresses it may is judged apart.
    fn endpoint(&mut self, field: &str, value: &str) {
        let fine = value.is_empty()
            || (value.len() <= URL_MAX
                && redirects::fault(value).is_none()
                && Url::parse(value).is_ok_and(|url| url.scheme() == "https"));
        self.check(
            fine,
            field,
            "an absolute https URL is needed, without fragment and user info",
        );
    }

    fn keys(&mut self, it: &ClientSettings) {
        self.check(
            it.jwks.len() <= JWKS_MAX,
            "jwks",
            format!("at most {JWKS_MAX} characters are allowed"),
        );
        self.endpoint("jwks_uri", &it.jwks_uri);
        let (inline, fetched) = (!it.jwks.is_empty(), !it.jwks_uri.is_empty());
        if it.auth_method == ClientAuthMethod::PrivateKeyJwt {
            self.check(
                inline || fetched,
                "jwks",
                "is required by this authentication method, unless jwks_uri is set",
            );
            self.check(
                !(inline && fetched),
                "jwks_uri",
                "must not be set beside jwks",
            );
        } else {
            let reason = "belongs to the authentication method PRIVATE_KEY_JWT only";
            self.check(!inline, "jwks", reason);
            self.check(!fetched, "jwks_uri", reason);
        }
        if inline
            && it.jwks.len() <= JWKS_MAX
            && let Some(fault) = key_set_fault(&it.jwks)
        {
            self.check(false, "jwks", fault);
        }
    }

    fn redirects(&mut self, it: &ClientSettings) {
        let field = "redirect_uris";
        let uris = &it.redirect_uris;
        self.count(field, uris.len(), REDIRECT_URIS_MAX);
        for (index, uri) in uris.iter().take(REDIRECT_URIS_MAX).enumerate() {
            let path = format!("{field}[{index}]");
            if let Some(fault) = redirects::fault(uri) {
                self.check(false, &path, fault);
            }
            let again = uris.iter().take(index).any(|other| other == uri);
            self.check(!again, &path, "is there twice");
        }
    }

    fn grants(&mut self, it: &ClientSettings) {
        let has = |grant| it.grant_types.contains(&grant);
        let codes = has(ClientGrantType::AuthorizationCode);
        let public = it.auth_method == ClientAuthMethod::None;
        self.check(!it.grant_types.is_empty(), "grant_types", "is required");
        self.distinct("grant_types", &it.grant_types);
        self.distinct("response_types", &it.response_types);
        self.check(
            codes || has(ClientGrantType::DeviceCode) || !has(ClientGrantType::RefreshToken),
            "grant_types",
            "refresh tokens are issued with authorisation codes and device codes only",
        );
        self.check(
            !public || !has(ClientGrantType::ClientCredentials),
            "grant_types",
            "a public client has no credentials to exchange",
        );
        self.check(
            codes == it.response_types.contains(&ClientResponseType::Code),
            "response_types",
            "CODE goes with the grant type AUTHORIZATION_CODE, and that with it",
        );
        self.check(
            !codes || !it.redirect_uris.is_empty(),
            "redirect_uris",
            "at least one is required for authorisation codes",
        );
        self.check(
            !public || it.require_pkce,
            "require_pkce",
            "a public client can't do without PKCE",
        );
        // On the way to such an address others may see a code, which a secret alone does not bind
        // to who asked for it (RFC 8252 section 8.1).
        let secure = |uri: &String| Url::parse(uri).is_ok_and(|url| url.scheme() == "https");
        self.check(
            public || it.require_pkce || it.redirect_uris.iter().all(secure),
            "require_pkce",
            "redirect URIs other than https ones can't do without PKCE",
        );
    }

    fn distinct<T: PartialEq>(&mut self, field: &str, list: &[T]) {
        let again = |index: usize, value: &T| list.iter().take(index).any(|other| other == value);
        let twice = list.len() > KINDS_MAX
            || list
                .iter()
                .enumerate()
                .any(|(index, value)| again(index, value));
        self.check(!twice, field, "holds something twice");
    }

    fn scopes(&mut self, scopes: &[String]) {
        let field = "allowed_scopes";
        self.count(field, scopes.len(), SCOPES_MAX);
        for (index, scope) in scopes.iter().take(SCOPES_MAX).enumerate() {
            let path = format!("{field}[{index}]");
            // RFC 6749 section 3.3.
            let fine = (1..=SCOPE_MAX).contains(&scope.len())
                && scope
                    .bytes()
                    .all(|byte| (0x21..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
            self.check(
                fine,
                &path,
                format!("1 to {SCOPE_MAX} printable ASCII characters without blanks are needed"),
            );
            let again = scopes.iter().take(index).any(|other| other == scope);
            self.check(!again, &path, "is there twice");
        }
    }

    fn webhook(&mut self, it: &ClientSettings) {
        self.endpoint("webhook_url", &it.webhook_url);
        let field = "webhook_events";
        let events = &it.webhook_events;
        self.count(field, events.len(), EVENTS_MAX);
        self.check(
            events.is_empty() || !it.webhook_url.is_empty(),
            field,
            "needs a webhook_url",
        );
        for (index, event) in events.iter().take(EVENTS_MAX).enumerate() {
            let path = format!("{field}[{index}]");
            self.check(
                is_event(event),
                &path,
                format!("1 to {EVENT_MAX} letters, digits, underscores and dots are needed"),
            );
            let again = events.iter().take(index).any(|other| other == event);
            self.check(!again, &path, "is there twice");
        }
    }
}

/// Words with dots between them, as Standard Webhooks has it.
fn is_event(text: &str) -> bool {
    text.len() <= EVENT_MAX
        && text.split('.').all(|word| {
            !word.is_empty()
                && word
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        })
}

/// Why a text is no set of public keys that we can verify with, every one of them.
fn key_set_fault(jwks: &str) -> Option<String> {
    let parsed: Value = match serde_json::from_str(jwks) {
        Ok(parsed) => parsed,
        Err(_) => return Some("is not JSON".to_owned()),
    };
    let Some(keys) = parsed.get("keys").and_then(Value::as_array) else {
        return Some("is not a JWK set: an object with a list `keys`".to_owned());
    };
    // The set is kept and told as it is: a single private key beside the list would be, too.
    if parsed.as_object().is_none_or(|set| set.len() != 1) {
        return Some("has other members than `keys`; leave them out".to_owned());
    }
    if !(1..=KEYS_MAX).contains(&keys.len()) {
        return Some(format!("1 to {KEYS_MAX} keys are needed"));
    }
    if keys.iter().any(is_private) {
        return Some("holds a private key; register public keys only, and replace it".to_owned());
    }
    let usable = KeySet::parse(jwks.as_bytes()).map_or(0, |set| set.len());
    (usable != keys.len()).then(|| {
        "every key must be one to verify with: RSA from 2048 bits on, P-256, P-384 or Ed25519"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TokenFormat;
    use crate::registry::clients::{DEFAULT_ACCESS_LIFETIME, DEFAULT_REFRESH_LIFETIME};

    /// The example of RFC 8037 appendix A.2.
    const ED25519: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

    fn settings() -> ClientSettings {
        ClientSettings {
            name: "Zapier".to_owned(),
            description: String::new(),
            logo_url: String::new(),
            homepage_url: String::new(),
            auth_method: ClientAuthMethod::SecretBasic,
            jwks: String::new(),
            jwks_uri: String::new(),
            redirect_uris: vec!["https://acme.example/cb".to_owned()],
            grant_types: vec![
                ClientGrantType::AuthorizationCode,
                ClientGrantType::RefreshToken,
            ],
            response_types: vec![ClientResponseType::Code],
            allowed_scopes: Vec::new(),
            access_token_lifetime: DEFAULT_ACCESS_LIFETIME,
            refresh_token_lifetime: DEFAULT_REFRESH_LIFETIME,
            require_pkce: true,
            trusted: false,
            rate_limit_per_hour: None,
            webhook_url: String::new(),
            webhook_events: Vec::new(),
            access_token_format: TokenFormat::Opaque,
            dpop_bound: false,
            require_pushed: false,
        }
    }

    fn faulty(change: impl FnOnce(&mut ClientSettings)) -> Vec<String> {
        let mut settings = settings();
        change(&mut settings);
        let fields = faults(&settings).into_iter().map(|fault| fault.field);
        fields.collect()
    }

    #[test]
    fn what_goes_together_is_taken() {
        assert_eq!(faulty(|_| {}), Vec::<String>::new());
        let service = faulty(|it| {
            it.grant_types = vec![ClientGrantType::ClientCredentials];
            it.response_types.clear();
            it.redirect_uris.clear();
        });
        assert_eq!(service, Vec::<String>::new());
        let public = faulty(|it| it.auth_method = ClientAuthMethod::None);
        assert_eq!(public, Vec::<String>::new());
        let device = faulty(|it| {
            it.grant_types = vec![ClientGrantType::DeviceCode, ClientGrantType::RefreshToken];
            it.response_types.clear();
            it.redirect_uris.clear();
        });
        assert_eq!(device, Vec::<String>::new());
        let secret = faulty(|it| it.require_pkce = false);
        assert_eq!(secret, Vec::<String>::new());
        let keys = faulty(|it| {
            it.auth_method = ClientAuthMethod::PrivateKeyJwt;
            it.jwks = ED25519.to_owned();
        });
        assert_eq!(keys, Vec::<String>::new());
    }

    #[test]
    fn what_does_not_is_named() {
        let public = faulty(|it| {
            it.auth_method = ClientAuthMethod::None;
            it.grant_types.push(ClientGrantType::ClientCredentials);
            it.require_pkce = false;
        });
        assert_eq!(public, ["client.grant_types", "client.require_pkce"]);
        let no_code = faulty(|it| {
            it.grant_types = vec![ClientGrantType::RefreshToken];
            it.redirect_uris.clear();
        });
        assert_eq!(no_code, ["client.grant_types", "client.response_types"]);
        let own = "com.acme.app:/cb".to_owned();
        let exposed = faulty(|it| {
            it.redirect_uris.push(own);
            it.require_pkce = false;
        });
        assert_eq!(exposed, ["client.require_pkce"]);
        let nowhere = faulty(|it| it.redirect_uris.clear());
        assert_eq!(nowhere, ["client.redirect_uris"]);
        let twice = faulty(|it| it.redirect_uris.extend_from_within(..));
        assert_eq!(twice, ["client.redirect_uris[1]"]);
        let events = faulty(|it| it.webhook_events = vec!["token..revoked".to_owned()]);
        assert_eq!(
            events,
            ["client.webhook_events", "client.webhook_events[0]"]
        );
        let short = faulty(|it| it.access_token_lifetime = Duration::from_secs(59));
        assert_eq!(short, ["client.access_token_lifetime"]);
    }

    #[test]
    fn keys_are_public_and_go_with_their_method() {
        let with = |jwks: &str| {
            faulty(|it| {
                it.auth_method = ClientAuthMethod::PrivateKeyJwt;
                it.jwks = jwks.to_owned();
            })
        };
        let beside = ED25519.replace(r#"{"keys""#, r#"{"d":"AA","keys""#);
        let private = ED25519.replace(r#""crv""#, r#""d":"AA","crv""#);
        let unknown = r#"{"keys":[{"kty":"oct","k":"AA"}]}"#;
        let weak = r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#;
        for bad in [
            "",
            "x",
            "[]",
            "{}",
            r#"{"keys":[]}"#,
            &beside,
            &private,
            unknown,
            weak,
        ] {
            assert_eq!(with(bad), ["client.jwks"], "{bad}");
        }
        assert_eq!(faulty(|it| it.jwks = ED25519.to_owned()), ["client.jwks"]);
        let both = faulty(|it| {
            it.auth_method = ClientAuthMethod::PrivateKeyJwt;
            it.jwks = ED25519.to_owned();
            it.jwks_uri = "https://acme.example/jwks".to_owned();
        });
        assert_eq!(both, ["client.jwks_uri"]);
        let fetched = faulty(|it| {
            it.auth_method = ClientAuthMethod::PrivateKeyJwt;
            it.jwks_uri = "http://127.0.0.1/jwks".to_owned();
        });
        assert_eq!(fetched, ["client.jwks_uri"]);
    }
}
