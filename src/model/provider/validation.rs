//! What a provider definition must satisfy before anything is sent to its endpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use url::Url;

use super::{
    BodyFormat, ConnectionKind, IdentitySource, Method, Provider, RevocationStyle, expand_template,
};

const LONGEST_TEXT: usize = 2048;
const LONGEST_LIST: usize = 256;
const DAY: Duration = Duration::from_secs(86_400);

/// What the authorization request gets from us alone.
const OUR_AUTHORIZATION_PARAMS: [&str; 6] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "state",
];
/// What a token request gets from us alone.
const OUR_TOKEN_PARAMS: [&str; 6] = [
    "client_id",
    "client_secret",
    "code",
    "code_verifier",
    "redirect_uri",
    "refresh_token",
];
/// Headers that no definition sets: they frame the request or carry our own secrets.
const OUR_HEADERS: [&str; 6] = [
    "authorization",
    "connection",
    "content-length",
    "cookie",
    "host",
    "transfer-encoding",
];

type Faults = Vec<(String, String)>;

impl Provider {
    /// All that is wrong with this definition: (field, what is wrong with it). Empty when sound.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut faults = Faults::new();
        self.check_names(&mut faults);
        self.check_sizes(&mut faults);
        self.check_variables(&mut faults);
        self.check_endpoints(&mut faults);
        self.check_params(&mut faults);
        self.check_answers(&mut faults);
        self.check_periods(&mut faults);
        faults
    }

    fn check_names(&self, faults: &mut Faults) {
        if !is_slug(&self.id) {
            fault(faults, "id", SLUG);
        }
        let shown = self.display_name.trim();
        if shown.is_empty() || self.display_name.chars().count() > 100 {
            fault(faults, "display_name", "must have 1 to 100 characters");
        }
        for alias in &self.aliases {
            if !is_slug(alias) || *alias == self.id {
                fault(
                    faults,
                    "aliases",
                    &format!("{SLUG}, and differ from the id"),
                );
            }
        }
        let scopes = self.default_scopes.iter().chain(self.named_scopes.values());
        for scope in scopes {
            // RFC 6749 §3.3: scope-token.
            if scope.is_empty() || !scope.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
                fault(
                    faults,
                    "default_scopes",
                    "scopes are visible ASCII without blanks",
                );
            }
        }
        if self.scope_separator.is_empty() || self.scope_separator.len() > 3 {
            fault(faults, "scope_separator", "must have 1 to 3 characters");
        }
    }

    /// One walk over the definition as data, so that no text or list of it is without a bound.
    fn check_sizes(&self, faults: &mut Faults) {
        match serde_json::to_value(self) {
            Ok(value) => check_size("", &value, faults),
            Err(_) => fault(faults, "id", "the definition cannot be written as JSON"),
        }
    }

    fn check_variables(&self, faults: &mut Faults) {
        for (name, variable) in &self.variables {
            let field = format!("variables.{name}");
            let named = (1..=32).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if !named || ["client_id", "token", "access_token"].contains(&name.as_str()) {
                fault(
                    faults,
                    &field,
                    "must be a name of lower-case letters and '_' that we do not use ourselves",
                );
            }
            if let Some(default) = &variable.default
                && !variable.pattern.admits(default)
            {
                fault(faults, &field, "the default does not fit the pattern");
            }
        }
    }

    fn check_endpoints(&self, faults: &mut Faults) {
        if self.kind != ConnectionKind::ApiKey {
            let authorization = &self.authorization_endpoint;
            self.check_url("authorization_endpoint", authorization, &[], faults);
            self.check_url("token_endpoint", &self.token_endpoint, &[], faults);
        }
        if self.kind == ConnectionKind::Oauth1 && self.request_token_endpoint.is_none() {
            fault(faults, "request_token_endpoint", "is required for OAuth 1");
        }
        let optional = [
            ("documentation_url", &self.documentation_url),
            ("issuer", &self.issuer),
            ("request_token_endpoint", &self.request_token_endpoint),
            ("refresh_endpoint", &self.refresh_endpoint),
        ];
        for (field, endpoint) in optional {
            if let Some(endpoint) = endpoint {
                self.check_url(field, endpoint, &[], faults);
            }
        }
        if let Some(revocation) = &self.revocation {
            let known = ["client_id", "token"];
            self.check_url("revocation.endpoint", &revocation.endpoint, &known, faults);
            let in_path = revocation.endpoint.contains("{token}");
            if in_path != (revocation.style == RevocationStyle::PathToken) {
                fault(
                    faults,
                    "revocation.style",
                    "path_token, and it alone, has {token} in the endpoint",
                );
            }
            if revocation.method == Method::Get {
                fault(
                    faults,
                    "revocation.method",
                    "a GET must not change anything",
                );
            }
        }
        if let Some(userinfo) = &self.userinfo {
            match userinfo.source {
                IdentitySource::Endpoint => {
                    let known = ["access_token"];
                    self.check_url("userinfo.endpoint", &userinfo.endpoint, &known, faults);
                }
                _ if userinfo.endpoint.is_empty() => {}
                _ => fault(faults, "userinfo.endpoint", "this source has no endpoint"),
            }
            if userinfo.method == Method::Delete {
                fault(faults, "userinfo.method", "must be get or post");
            }
        }
    }

    fn check_url(&self, field: &str, template: &str, also: &[&str], faults: &mut Faults) {
        if template.is_empty() {
            return fault(faults, field, "is required");
        }
        let sample = |name: &str| {
            let variable = self
                .variables
                .get(name)
                .map(|it| it.pattern.sample().to_owned());
            variable.or_else(|| also.contains(&name).then(|| "value".to_owned()))
        };
        // The scheme and what parts it from the host are literal, so that no variable reaches
        // them.
        if !template.starts_with("https://") && !template.starts_with("http://") {
            return fault(faults, field, "must begin with https://");
        }
        let parsed = expand_template(template, sample)
            .and_then(|text| Url::parse(&text).map_err(|_| "is not a URL".to_owned()));
        match parsed {
            Ok(url) if url.scheme() == "http" && !is_loopback(&url) => {
                fault(
                    faults,
                    field,
                    "must be https, unless the host is a loopback address",
                );
            }
            Ok(url) if url.fragment().is_some() && field != "documentation_url" => {
                fault(faults, field, "must not have a fragment");
            }
            Ok(url) if !url.username().is_empty() || url.password().is_some() => {
                fault(faults, field, "must not carry credentials");
            }
            Ok(_) => {}
            Err(text) => fault(faults, field, &text),
        }
    }

    fn check_params(&self, faults: &mut Faults) {
        let authorization = OUR_AUTHORIZATION_PARAMS.as_slice();
        let token = OUR_TOKEN_PARAMS.as_slice();
        let maps = [
            (
                "authorization_params",
                &self.authorization_params,
                authorization,
            ),
            ("token_params", &self.token_params, token),
            ("refresh_params", &self.refresh_params, token),
        ];
        for (field, params, ours) in maps {
            for (name, template) in params {
                let field = format!("{field}.{name}");
                if name.is_empty() || ours.contains(&name.as_str()) {
                    fault(faults, &field, "is set by us");
                }
                self.check_template(&field, template, &[], faults);
            }
        }
        self.check_headers("token_headers", &self.token_headers, &[], faults);
        if let Some(userinfo) = &self.userinfo {
            self.check_headers(
                "userinfo.headers",
                &userinfo.headers,
                &["client_id"],
                faults,
            );
        }
        if !is_token(&self.token_header.name) || !is_header_value(&self.token_header.prefix) {
            fault(faults, "token_header", "must be a header name and a prefix");
        }
        if self.token_method == Method::Delete {
            fault(faults, "token_method", "must be get or post");
        }
        if self.token_method == Method::Get && self.token_body_format != BodyFormat::Query {
            fault(faults, "token_body_format", "a GET carries a query");
        }
    }

    fn check_headers(
        &self,
        field: &str,
        headers: &BTreeMap<String, String>,
        also: &[&str],
        faults: &mut Faults,
    ) {
        for (name, template) in headers {
            let field = format!("{field}.{name}");
            if !is_token(name) || OUR_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                fault(faults, &field, "is not a header that a definition may set");
            }
            if !is_header_value(template) {
                fault(faults, &field, "must be visible ASCII");
            }
            self.check_template(&field, template, also, faults);
        }
    }

    fn check_template(&self, field: &str, template: &str, also: &[&str], faults: &mut Faults) {
        let sample = |name: &str| {
            let known = self.variables.contains_key(name) || also.contains(&name);
            known.then(String::new)
        };
        if let Err(text) = expand_template(template, sample) {
            fault(faults, field, &text);
        }
    }

    fn check_answers(&self, faults: &mut Faults) {
        let answer = &self.token_response;
        if answer.roots.is_empty() {
            fault(faults, "token_response.roots", "must name one at least");
        }
        for (field, path) in [
            ("token_response.access_token", &answer.access_token),
            ("token_response.error", &answer.error),
            ("callback_code_parameter", &self.callback_code_parameter),
        ] {
            if path.is_empty() {
                fault(faults, field, "is required");
            }
        }
        if let Some(userinfo) = &self.userinfo
            && userinfo.account_id.is_empty()
        {
            fault(faults, "userinfo.account_id", "is required");
        }
        if let Some(additional) = &self.additional_scopes
            && (additional.parameter.is_empty() || additional.prefix.is_empty())
        {
            fault(
                faults,
                "additional_scopes",
                "needs a parameter and a prefix",
            );
        }
        for (index, rule) in self.error_map.iter().enumerate() {
            if rule.status.is_none() && rule.code.is_none() && rule.message_contains.is_none() {
                let field = format!("error_map[{index}]");
                fault(faults, &field, "needs a status, a code or a message");
            }
        }
    }

    fn check_periods(&self, faults: &mut Faults) {
        let second = Duration::from_secs(1);
        if self.http_timeout < second || self.http_timeout > 60 * second {
            fault(faults, "http_timeout", "must be between 1s and 60s");
        }
        for (field, value) in [
            ("refresh_margin", self.refresh_margin),
            ("min_validity_cap", self.min_validity_cap),
            ("reuse_grace", self.reuse_grace),
        ] {
            if value > DAY * 30 {
                fault(faults, field, "must be at most 30days");
            }
        }
        for (field, value) in [
            ("default_lifetime", self.default_lifetime),
            ("max_lifetime", self.max_lifetime),
            (
                "refresh_token_idle_lifetime",
                self.refresh_token_idle_lifetime,
            ),
            (
                "refresh_token_absolute_lifetime",
                self.refresh_token_absolute_lifetime,
            ),
        ] {
            if value.is_some_and(|value| value < second || value > DAY * 36_500) {
                fault(faults, field, "must be between a second and a century");
            }
        }
    }
}

const SLUG: &str = "must be 1 to 63 lower-case letters, digits and hyphens, a letter first";

fn fault(faults: &mut Faults, field: &str, text: &str) {
    faults.push((field.to_owned(), text.to_owned()));
}

fn is_slug(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// RFC 9110 §5.6.2: token.
fn is_token(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_header_value(text: &str) -> bool {
    text.bytes().all(|b| (0x20..=0x7e).contains(&b))
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn check_size(field: &str, value: &Value, faults: &mut Faults) {
    match value {
        Value::String(text) if text.len() > LONGEST_TEXT => {
            fault(faults, field, "is longer than 2048 bytes");
        }
        Value::String(text) if text.chars().any(char::is_control) => {
            fault(faults, field, "contains a control character");
        }
        Value::Array(items) if items.len() <= LONGEST_LIST => {
            for (index, item) in items.iter().enumerate() {
                check_size(&format!("{field}[{index}]"), item, faults);
            }
        }
        Value::Object(items) if items.len() <= LONGEST_LIST => {
            for (name, item) in items {
                if name.len() > 128 || name.chars().any(char::is_control) {
                    fault(faults, field, "has a name of more than 128 bytes");
                    continue;
                }
                let inner = match field {
                    "" => name.clone(),
                    _ => format!("{field}.{name}"),
                };
                check_size(&inner, item, faults);
            }
        }
        Value::Array(_) | Value::Object(_) => {
            fault(faults, field, "has more than 256 entries");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> Provider {
        Provider {
            id: "acme".to_owned(),
            display_name: "Acme".to_owned(),
            authorization_endpoint: "https://acme.example/authorize".to_owned(),
            token_endpoint: "https://acme.example/token".to_owned(),
            ..Provider::default()
        }
    }

    fn faulty(change: impl FnOnce(&mut Provider)) -> Vec<String> {
        let mut provider = sound();
        change(&mut provider);
        provider
            .validate()
            .into_iter()
            .map(|(field, _)| field)
            .collect()
    }

    #[test]
    fn a_plain_provider_is_sound() {
        assert_eq!(sound().validate(), Faults::new());
    }

    #[test]
    fn faults_name_their_field() {
        assert_eq!(faulty(|it| it.id = "Acme".to_owned()), ["id"]);
        for url in [
            "http://acme.example/token",
            "https://acme.example/{tenant}",
            "https://user@acme.example/",
            "{tenant}://acme.example",
            "file:///etc/passwd",
        ] {
            assert_eq!(
                faulty(|it| it.token_endpoint = url.to_owned()),
                ["token_endpoint"],
                "{url}"
            );
        }
        assert!(faulty(|it| it.token_endpoint = "http://127.0.0.1:1/t".to_owned()).is_empty());
        let state = |it: &mut Provider| {
            it.authorization_params
                .insert("state".to_owned(), "x".to_owned());
        };
        assert_eq!(faulty(state), ["authorization_params.state"]);
        let host = |it: &mut Provider| {
            it.token_headers.insert("Host".to_owned(), "x".to_owned());
        };
        assert_eq!(faulty(host), ["token_headers.Host"]);
        assert_eq!(
            faulty(|it| it.display_name = "x".repeat(3000)),
            ["display_name", "display_name"]
        );
        assert_eq!(faulty(|it| it.http_timeout = DAY), ["http_timeout"]);
    }
}
