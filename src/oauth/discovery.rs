//! Drafts a provider from what its issuer publishes: OpenID Connect Discovery 1.0 §4, else
//! RFC 8414 §3.

use std::time::Duration;

use http::Request;
use http::header::ACCEPT;
use serde_json::Value;
use url::Url;

use super::answer::{decode, text_at};
use super::classify::{Failure, Refusal, classify};
use super::http::Http;
use crate::model::provider::{ClientAuthentication, Pkce, Provider, RevocationEndpoint, Userinfo};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Reads an issuer's metadata into a provider definition, for an administrator to look over. The
/// metadata must name exactly the issuer that was asked (RFC 8414 §3.3), and the draft passes
/// [`Provider::validate`]; otherwise the issuer is [`Failure::Rejected`].
pub async fn discover(http: &Http, issuer: &Url) -> Result<Provider, Failure> {
    let mut failure = rejected("no_metadata", "the issuer publishes no metadata");
    for address in addresses(issuer) {
        match fetch(http, &address).await {
            Ok(metadata) => return draft(issuer, &metadata),
            // Not here; perhaps at the other place.
            Err(Failure::Rejected { .. } | Failure::ClientMisconfigured { .. }) => {}
            Err(other) => failure = other,
        }
    }
    Err(failure)
}

fn addresses(issuer: &Url) -> Vec<String> {
    let origin = issuer.origin().ascii_serialization();
    let path = issuer.path().trim_end_matches('/');
    let mut addresses = vec![
        format!("{origin}{path}/.well-known/openid-configuration"),
        format!("{origin}/.well-known/oauth-authorization-server{path}"),
    ];
    if issuer.query().is_some() || issuer.fragment().is_some() {
        // RFC 8414 §2: an issuer has neither.
        addresses.clear();
    }
    addresses
}

async fn fetch(http: &Http, address: &str) -> Result<Value, Failure> {
    let request = Request::get(address)
        .header(ACCEPT, "application/json")
        .body(Vec::new())
        .map_err(|_| Failure::NotSent {
            detail: "the issuer is no web address".to_owned(),
        })?;
    let answer = http.send(request, TIMEOUT).await?;
    if !answer.status.is_success() {
        let refusal = Refusal {
            status: answer.status.as_u16(),
            ..Refusal::default()
        };
        return Err(classify(refusal, &[]));
    }
    match decode(&answer) {
        metadata @ Value::Object(_) if !answer.truncated => Ok(metadata),
        _ => Err(rejected("bad_metadata", "the metadata is no JSON object")),
    }
}

fn draft(issuer: &Url, metadata: &Value) -> Result<Provider, Failure> {
    let text = |name: &str| text_at(metadata, name);
    let published = text("issuer").unwrap_or_default();
    // The URL parser gives an empty path its slash; no other difference is forgiven.
    let asked = issuer.as_str();
    let same = published == asked || (issuer.path() == "/" && format!("{published}/") == asked);
    if !same {
        return Err(rejected(
            "issuer_mismatch",
            "the metadata names another issuer",
        ));
    }
    let host = issuer.host_str().unwrap_or_default();
    let scopes = list(metadata, "scopes_supported");
    let openid = scopes.iter().any(|scope| scope == "openid");
    let provider = Provider {
        id: slug(host),
        display_name: host.chars().take(100).collect(),
        issuer: Some(published),
        sends_issuer: metadata.get("authorization_response_iss_parameter_supported")
            == Some(&Value::Bool(true)),
        authorization_endpoint: text("authorization_endpoint").unwrap_or_default(),
        token_endpoint: text("token_endpoint").unwrap_or_default(),
        documentation_url: text("service_documentation").filter(|url| url.starts_with("https://")),
        pkce: pkce(metadata),
        client_authentication: authentication(metadata),
        sends_nonce: openid,
        default_scopes: ["openid", "email", "profile", "offline_access"]
            .into_iter()
            .filter(|name| scopes.iter().any(|scope| scope == name))
            .map(str::to_owned)
            .collect(),
        revocation: text("revocation_endpoint").map(|endpoint| RevocationEndpoint {
            endpoint,
            ..RevocationEndpoint::default()
        }),
        userinfo: text("userinfo_endpoint").map(|endpoint| Userinfo {
            endpoint,
            display_name: Some("name|preferred_username|email".to_owned()),
            avatar: Some("picture".to_owned()),
            email: Some("email".to_owned()),
            ..Userinfo::default()
        }),
        ..Provider::default()
    };
    match provider.validate().into_iter().next() {
        Some((field, fault)) => Err(rejected("bad_metadata", &format!("{field} {fault}"))),
        None => Ok(provider),
    }
}

fn pkce(metadata: &Value) -> Pkce {
    let methods = list(metadata, "code_challenge_methods_supported");
    // RFC 8414 §2: left out means unsupported, but many leave it out; ignoring it does no harm.
    if methods.is_empty() || methods.iter().any(|method| method == "S256") {
        Pkce::Use
    } else {
        Pkce::Off
    }
}

fn authentication(metadata: &Value) -> ClientAuthentication {
    let methods = list(metadata, "token_endpoint_auth_methods_supported");
    let has = |name: &str| methods.iter().any(|method| method == name);
    if methods.is_empty() || has("client_secret_basic") {
        ClientAuthentication::Basic
    } else if has("client_secret_post") {
        ClientAuthentication::Post
    } else if has("none") {
        ClientAuthentication::None
    } else {
        ClientAuthentication::Basic
    }
}

fn list(metadata: &Value, name: &str) -> Vec<String> {
    let items = metadata.get(name).and_then(Value::as_array);
    items
        .into_iter()
        .flatten()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect()
}

/// An id proposed from a host: `auth.acme.example` → `auth-acme-example`.
fn slug(host: &str) -> String {
    let text: String = host
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    let text = text.trim_matches('-');
    let text = match text.starts_with(|first: char| first.is_ascii_lowercase()) {
        true => text.to_owned(),
        false => format!("p-{text}"),
    };
    text.chars().take(63).collect()
}

fn rejected(code: &str, description: &str) -> Failure {
    Failure::Rejected {
        code: code.to_owned(),
        description: description.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn metadata() -> Value {
        json!({
            "issuer": "https://id.acme.example",
            "authorization_endpoint": "https://id.acme.example/authorize",
            "token_endpoint": "https://id.acme.example/token",
            "userinfo_endpoint": "https://id.acme.example/me",
            "scopes_supported": ["openid", "email", "other"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "authorization_response_iss_parameter_supported": true,
        })
    }

    #[test]
    fn metadata_becomes_a_sound_draft() {
        let issuer = Url::parse("https://id.acme.example").unwrap();
        let draft = draft(&issuer, &metadata()).unwrap();
        assert_eq!(draft.id, "id-acme-example");
        assert_eq!(draft.issuer.as_deref(), Some("https://id.acme.example"));
        assert_eq!(draft.default_scopes, ["openid", "email"]);
        assert_eq!(draft.client_authentication, ClientAuthentication::Post);
        assert!(draft.sends_issuer);
    }

    #[test]
    fn another_issuer_or_an_unsafe_endpoint_is_refused() {
        let issuer = Url::parse("https://id.acme.example/tenant").unwrap();
        assert!(draft(&issuer, &metadata()).is_err());
        let issuer = Url::parse("https://id.acme.example").unwrap();
        let mut unsafe_one = metadata();
        unsafe_one["token_endpoint"] = json!("http://id.acme.example/token");
        assert!(draft(&issuer, &unsafe_one).is_err());
        let mut template = metadata();
        template["token_endpoint"] = json!("https://id.acme.example/{x}");
        assert!(draft(&issuer, &template).is_err());
    }

    #[test]
    fn both_places_are_looked_at() {
        let issuer = Url::parse("https://id.acme.example/tenant/").unwrap();
        assert_eq!(
            addresses(&issuer),
            [
                "https://id.acme.example/tenant/.well-known/openid-configuration",
                "https://id.acme.example/.well-known/oauth-authorization-server/tenant"
            ]
        );
    }
}
