//! Our registrations at providers.

use std::collections::BTreeMap;

use super::{Sealed, Timestamp};

/// Whether an app can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppState {
    /// It can.
    Active,
    /// It was switched off: no sign-in, no refresh, no tokens.
    Inactive,
}

/// An OAuth client that we registered at a provider.
#[derive(Clone, Debug)]
pub struct App {
    /// `app_…`.
    pub id: String,
    /// The tenant it belongs to.
    pub tenant: String,
    /// The provider's id.
    pub provider: String,
    /// The client id that the provider gave; none for providers of API keys.
    pub client_id: Option<String>,
    /// The caller's own key, such as a branch id.
    pub external_key: Option<String>,
    /// Its name for people.
    pub display_name: String,
    /// The client secret; none for a public client.
    pub client_secret: Option<Sealed>,
    /// The secret before it, still tried during a rotation.
    pub previous_secret: Option<Sealed>,
    /// Until when.
    pub previous_secret_expires_at: Option<Timestamp>,
    /// The scopes asked for when an authorisation names none.
    pub default_scopes: Vec<String>,
    /// Where authorisations may send the browser, matched exactly.
    pub allowed_return_urls: Vec<String>,
    /// The caller's own redirect URIs.
    pub redirect_uris: Vec<String>,
    /// Values of the provider's URL template variables.
    pub variables: BTreeMap<String, String>,
    /// The workspace's e-mail address.
    pub workspace_email: String,
    /// The workspace's name.
    pub workspace_name: String,
    /// Whether it can be used.
    pub state: AppState,
    /// What the provider objects to; empty while it does not.
    pub misconfiguration: String,
    /// Since when.
    pub misconfigured_at: Option<Timestamp>,
    /// Grows by one with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A provider that a tenant added to the catalogue.
#[derive(Clone, Debug)]
pub struct CustomProvider {
    /// The tenant.
    pub tenant: String,
    /// What it is.
    pub definition: super::Provider,
    /// Grows by one with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
