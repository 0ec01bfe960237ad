//! What an app is registered with, and whether it fits its provider.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use zeroize::Zeroizing;

use super::{Registry, definition};
use crate::error::FieldViolation;
use crate::model::{App, AppState, ConnectionKind, IdKind, Provider, Timestamp};
use crate::oauth::{Credentials, ProviderClient};

/// What callers set of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppFields {
    /// The client id that the provider gave.
    pub client_id: Option<String>,
    /// The caller's own key.
    pub external_key: Option<String>,
    /// Its name for people.
    pub display_name: String,
    /// The scopes asked for when an authorisation names none.
    pub default_scopes: Vec<String>,
    /// Where authorisations may send the browser, matched exactly.
    pub allowed_return_urls: Vec<String>,
    /// The caller's own redirect URIs.
    pub redirect_uris: Vec<String>,
    /// Values of the provider's variables.
    pub variables: BTreeMap<String, String>,
    /// The workspace's e-mail address.
    pub workspace_email: String,
    /// The workspace's name.
    pub workspace_name: String,
    /// Whether it can be used.
    pub state: AppState,
}

/// An app to be made.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// Its provider's id or alias.
    pub provider: String,
    /// What is set of it.
    pub fields: AppFields,
    /// The client secret; none for a public client.
    pub client_secret: Option<SecretString>,
    /// Makes a retry answer what the first call answered; empty for none.
    pub request_id: String,
}

/// Changes of an app; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of AppFields")]
pub struct AppChanges {
    pub client_id: Option<Option<String>>,
    pub external_key: Option<Option<String>>,
    pub display_name: Option<String>,
    pub default_scopes: Option<Vec<String>>,
    pub allowed_return_urls: Option<Vec<String>>,
    pub redirect_uris: Option<Vec<String>>,
    pub variables: Option<BTreeMap<String, String>>,
    pub workspace_email: Option<String>,
    pub workspace_name: Option<String>,
    pub state: Option<AppState>,
}

impl AppFields {
    /// Those of an app.
    pub(super) fn of(app: &App) -> Self {
        let app = app.clone();
        Self {
            client_id: app.client_id,
            external_key: app.external_key,
            display_name: app.display_name,
            default_scopes: app.default_scopes,
            allowed_return_urls: app.allowed_return_urls,
            redirect_uris: app.redirect_uris,
            variables: app.variables,
            workspace_email: app.workspace_email,
            workspace_name: app.workspace_name,
            state: app.state,
        }
    }

    /// Sets them.
    pub(super) fn set(self, app: &mut App) {
        app.client_id = self.client_id;
        app.external_key = self.external_key;
        app.display_name = self.display_name;
        app.default_scopes = self.default_scopes;
        app.allowed_return_urls = self.allowed_return_urls;
        app.redirect_uris = self.redirect_uris;
        app.variables = self.variables;
        app.workspace_email = self.workspace_email;
        app.workspace_name = self.workspace_name;
        app.state = self.state;
    }

    /// The names of those that differ from `before`'s, in the order of the message.
    pub(super) fn differing(&self, before: &Self) -> Vec<&'static str> {
        [
            ("client_id", self.client_id != before.client_id),
            ("external_key", self.external_key != before.external_key),
            ("display_name", self.display_name != before.display_name),
            (
                "default_scopes",
                self.default_scopes != before.default_scopes,
            ),
            (
                "allowed_return_urls",
                self.allowed_return_urls != before.allowed_return_urls,
            ),
            ("redirect_uris", self.redirect_uris != before.redirect_uris),
            ("variables", self.variables != before.variables),
            (
                "workspace_email",
                self.workspace_email != before.workspace_email,
            ),
            (
                "workspace_name",
                self.workspace_name != before.workspace_name,
            ),
            ("state", self.state != before.state),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }

    /// Whether this, in the place of `before`, may end what the provider objects to.
    pub(super) fn mends(&self, before: &Self) -> bool {
        let switched_on = before.state == AppState::Inactive && self.state == AppState::Active;
        switched_on
            || self.client_id != before.client_id
            || self.redirect_uris != before.redirect_uris
            || self.variables != before.variables
    }
}

impl AppChanges {
    pub(super) fn apply(&self, fields: &mut AppFields) {
        put(&mut fields.client_id, self.client_id.as_ref());
        put(&mut fields.external_key, self.external_key.as_ref());
        put(&mut fields.display_name, self.display_name.as_ref());
        put(&mut fields.default_scopes, self.default_scopes.as_ref());
        let urls = self.allowed_return_urls.as_ref();
        put(&mut fields.allowed_return_urls, urls);
        put(&mut fields.redirect_uris, self.redirect_uris.as_ref());
        put(&mut fields.variables, self.variables.as_ref());
        put(&mut fields.workspace_email, self.workspace_email.as_ref());
        put(&mut fields.workspace_name, self.workspace_name.as_ref());
        put(&mut fields.state, self.state.as_ref());
    }
}

fn put<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}

impl NewApp {
    /// The request's bytes, the secret among them.
    pub(super) fn message(&self) -> Zeroizing<Vec<u8>> {
        let fields = &self.fields;
        let message = json!([
            self.provider,
            fields.client_id,
            fields.external_key,
            fields.display_name,
            fields.default_scopes,
            fields.allowed_return_urls,
            fields.redirect_uris,
            fields.variables,
            fields.workspace_email,
            fields.workspace_name,
            fields.state.as_str(),
        ]);
        let mut bytes = Zeroizing::new(message.to_string().into_bytes());
        if let Some(secret) = &self.client_secret {
            bytes.push(0);
            bytes.extend_from_slice(secret.expose_secret().as_bytes());
        }
        bytes
    }

    pub(super) fn into_app(self, tenant: &str, provider: &Provider, now: Timestamp) -> App {
        let mut app = App {
            id: IdKind::App.new_id(),
            tenant: tenant.to_owned(),
            provider: provider.id.clone(),
            client_id: None,
            external_key: None,
            display_name: String::new(),
            client_secret: None,
            previous_secret: None,
            previous_secret_expires_at: None,
            default_scopes: Vec::new(),
            allowed_return_urls: Vec::new(),
            redirect_uris: Vec::new(),
            variables: BTreeMap::new(),
            workspace_email: String::new(),
            workspace_name: String::new(),
            state: AppState::Active,
            misconfiguration: String::new(),
            misconfigured_at: None,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        self.fields.set(&mut app);
        app
    }
}

impl Registry {
    /// What of an app does not fit its provider, with `prefix` before the fields' names.
    pub(super) fn faults(
        &self,
        provider: &Provider,
        fields: &AppFields,
        prefix: &str,
    ) -> Vec<FieldViolation> {
        let mut faults = Vec::new();
        let mut fault = |field: String, text: &str| {
            faults.push(FieldViolation::new(format!("{prefix}{field}"), text));
        };
        if provider.kind != ConnectionKind::ApiKey && fields.client_id.is_none() {
            fault("client_id".to_owned(), "is required by this provider");
        }
        if fields.external_key.as_deref().is_some_and(looks_like_an_id) {
            fault("external_key".to_owned(), "must not look like an app's id");
        }
        if fields.client_id.as_deref().is_some_and(looks_like_an_id) {
            fault("client_id".to_owned(), "must not look like an app's id");
        }
        match provider.resolve_variables(&fields.variables) {
            Err(found) => {
                for (name, text) in found {
                    fault(format!("variables[{name}]"), &text);
                }
            }
            Ok(values) if !values.is_empty() => {
                // Whoever registers apps must not lead us into our own network by a variable.
                let credentials = Credentials {
                    client_id: fields.client_id.clone().unwrap_or_default(),
                    secrets: Vec::new(),
                };
                match ProviderClient::new(provider, credentials, &fields.variables, None) {
                    Ok(client) => {
                        let found =
                            definition::address_faults(client.provider(), self.http.filter());
                        // One is enough: a host stands in all of them.
                        if let Some((endpoint, text)) = found.first() {
                            fault("variables".to_owned(), &format!("{endpoint} {text}"));
                        }
                    }
                    Err(error) => fault("variables".to_owned(), &error.to_string()),
                }
            }
            Ok(_) => {}
        }
        faults
    }
}

fn looks_like_an_id(text: &str) -> bool {
    IdKind::App.matches(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> AppFields {
        AppFields {
            client_id: Some("id".to_owned()),
            external_key: None,
            display_name: "Acme".to_owned(),
            default_scopes: Vec::new(),
            allowed_return_urls: Vec::new(),
            redirect_uris: Vec::new(),
            variables: BTreeMap::from([
                ("one".to_owned(), "1".to_owned()),
                ("two".to_owned(), "2".to_owned()),
            ]),
            workspace_email: String::new(),
            workspace_name: String::new(),
            state: AppState::Active,
        }
    }

    #[test]
    fn changes_leave_the_rest_alone() {
        let mut changed = fields();
        let changes = AppChanges {
            external_key: Some(Some("branch-7".to_owned())),
            display_name: Some(String::new()),
            ..AppChanges::default()
        };
        changes.apply(&mut changed);
        let expected = AppFields {
            external_key: Some("branch-7".to_owned()),
            display_name: String::new(),
            ..fields()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn only_what_the_provider_sees_mends() {
        let before = fields();
        let mends = |change: fn(&mut AppFields)| {
            let mut after = fields();
            change(&mut after);
            after.mends(&before)
        };
        assert!(mends(|it| it.client_id = Some("other".to_owned())));
        assert!(mends(|it| it.variables.clear()));
        assert!(!mends(|it| it.display_name.clear()));
        assert!(!mends(|it| it.state = AppState::Inactive));
        let off = AppFields {
            state: AppState::Inactive,
            ..fields()
        };
        assert!(fields().mends(&off));
    }

    #[test]
    fn a_request_is_known_by_all_of_it() {
        let new = |secret: &str| NewApp {
            provider: "github".to_owned(),
            fields: fields(),
            client_secret: Some(SecretString::from(secret)),
            request_id: String::new(),
        };
        assert_eq!(new("one").message(), new("one").message());
        assert_ne!(new("one").message(), new("two").message());
        let other = NewApp {
            provider: "gitlab".to_owned(),
            ..new("one")
        };
        assert_ne!(new("one").message(), other.message());
    }
}
