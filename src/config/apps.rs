//! `[[apps]]`: apps declared in the configuration. They are created or updated at start; what is
//! not declared is left alone.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;
use url::Url;

use super::reader::Reader;
use super::web::is_loopback;

/// The tenant of an app that names none.
const DEFAULT_TENANT: &str = "default";

/// An app, our registration at a provider, declared in the configuration.
#[derive(Clone, Debug)]
pub struct DeclaredApp {
    /// The tenant that owns the app.
    pub tenant: String,
    /// The provider's name in the catalogue, such as `github`.
    pub provider: String,
    /// The client id that the provider gave.
    pub client_id: String,
    /// The client secret; `None` for a public client.
    pub client_secret: Option<SecretString>,
    /// The caller's own name for the app, such as a branch id.
    pub external_key: Option<String>,
    /// The name shown to people.
    pub display_name: Option<String>,
    /// The scopes asked for by default.
    pub scopes: Vec<String>,
    /// Where the browser may be sent after an authorisation.
    pub allowed_return_urls: Vec<String>,
    /// Values for the placeholders in the provider's endpoints, such as Microsoft's `tenant`.
    pub variables: BTreeMap<String, String>,
}

impl DeclaredApp {
    pub(super) fn read_all(reader: &mut Reader) -> Vec<Self> {
        let positions = reader.positions("apps");
        let mut apps: Vec<Self> = Vec::with_capacity(positions.len());
        for position in positions {
            let key = |name: &str| format!("apps.{position}.{name}");
            let app = Self::read(reader, &key);
            let same = |other: &Self| {
                (&other.tenant, &other.provider, &other.client_id)
                    == (&app.tenant, &app.provider, &app.client_id)
            };
            if reader.sound(&[&key("provider"), &key("client_id")]) && apps.iter().any(same) {
                reader.fault(&key("client_id"), "an app above has the same client id");
            }
            let same =
                |other: &Self| other.tenant == app.tenant && other.external_key == app.external_key;
            if app.external_key.is_some() && apps.iter().any(same) {
                reader.fault(&key("external_key"), "an app above has the same key");
            }
            apps.push(app);
        }
        apps
    }

    fn read(reader: &mut Reader, key: &dyn Fn(&str) -> String) -> Self {
        Self {
            tenant: reader
                .optional_text(&key("tenant"))
                .unwrap_or_else(|| DEFAULT_TENANT.to_owned()),
            provider: reader.text(&key("provider")),
            client_id: reader.text(&key("client_id")),
            client_secret: client_secret(reader, key),
            external_key: reader.optional_text(&key("external_key")),
            display_name: reader.optional_text(&key("display_name")),
            scopes: scopes(reader, &key("scopes")),
            allowed_return_urls: return_urls(reader, &key("allowed_return_urls")),
            variables: reader.text_map(&key("variables")),
        }
    }
}

fn client_secret(reader: &mut Reader, key: &dyn Fn(&str) -> String) -> Option<SecretString> {
    let in_variable = key("client_secret_env");
    let secret = reader.secret(&key("client_secret"));
    let from_variable = reader.secret_variable(&in_variable);
    if secret.is_some() && reader.is_set(&in_variable) {
        reader.fault(
            &in_variable,
            "set one of client_secret, client_secret_file and client_secret_env",
        );
    }
    secret.or(from_variable)
}

/// Scopes, each without blanks (RFC 6749 section 3.3 separates them with blanks).
fn scopes(reader: &mut Reader, key: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut scopes = Vec::new();
    for scope in reader.texts(key) {
        if scope.is_empty() || scope.contains(char::is_whitespace) {
            reader.fault(key, format!("{scope:?} is not one scope"));
        } else if seen.insert(scope.clone()) {
            scopes.push(scope);
        }
    }
    scopes
}

fn return_urls(reader: &mut Reader, key: &str) -> Vec<String> {
    let urls = reader.texts(key);
    for text in &urls {
        let fit = Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)
        });
        if !fit {
            reader.fault(
                key,
                format!("{text:?} is not an https URL (http is for loopback only)"),
            );
        }
    }
    urls
}
