//! A client to be registered, and what is to change of one.

use std::time::Duration;

use crate::model::{
    ClientAuthMethod, ClientGrantType, ClientResponseType, ClientSettings, TokenFormat, put,
};

/// How long access tokens live where nothing else is asked for.
pub const DEFAULT_ACCESS_LIFETIME: Duration = Duration::from_secs(60 * 60);

/// The same of refresh tokens.
pub const DEFAULT_REFRESH_LIFETIME: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A client to be registered.
#[derive(Clone, Debug)]
pub struct NewClient {
    /// What is set of it.
    pub settings: ClientSettings,
    /// How long its secret is good; none for the default.
    pub secret_lifetime: Option<Duration>,
    /// Makes a retry answer what the first call answered; empty for none.
    pub request_id: String,
}

/// Changes of a client; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of ClientSettings")]
pub struct ClientChanges {
    pub name: Option<String>,
    pub description: Option<String>,
    pub logo_url: Option<String>,
    pub homepage_url: Option<String>,
    pub auth_method: Option<ClientAuthMethod>,
    pub jwks: Option<String>,
    pub jwks_uri: Option<String>,
    pub redirect_uris: Option<Vec<String>>,
    pub grant_types: Option<Vec<ClientGrantType>>,
    pub response_types: Option<Vec<ClientResponseType>>,
    pub allowed_scopes: Option<Vec<String>>,
    pub access_token_lifetime: Option<Duration>,
    pub refresh_token_lifetime: Option<Duration>,
    pub require_pkce: Option<bool>,
    pub trusted: Option<bool>,
    pub rate_limit_per_hour: Option<Option<u32>>,
    pub webhook_url: Option<String>,
    pub webhook_events: Option<Vec<String>>,
    pub access_token_format: Option<TokenFormat>,
    pub dpop_bound: Option<bool>,
    pub require_pushed: Option<bool>,
}

/// What a client may be answered where nothing else is asked for.
pub fn default_responses(grants: &[ClientGrantType]) -> Vec<ClientResponseType> {
    if grants.contains(&ClientGrantType::AuthorizationCode) {
        vec![ClientResponseType::Code]
    } else {
        Vec::new()
    }
}

impl ClientChanges {
    /// Makes the changes; the names of the fields that are others now, in the order of the message.
    pub(super) fn apply(&self, settings: &mut ClientSettings) -> Vec<&'static str> {
        let it = settings;
        let grants = self.grant_types.as_ref().unwrap_or(&it.grant_types);
        let emptied = self.response_types.as_ref().filter(|list| list.is_empty());
        let default = emptied.map(|_| default_responses(grants));
        let response_types = default.as_ref().or(self.response_types.as_ref());
        [
            put("name", &mut it.name, self.name.as_ref()),
            put(
                "description",
                &mut it.description,
                self.description.as_ref(),
            ),
            put("logo_url", &mut it.logo_url, self.logo_url.as_ref()),
            put(
                "homepage_url",
                &mut it.homepage_url,
                self.homepage_url.as_ref(),
            ),
            put(
                "auth_method",
                &mut it.auth_method,
                self.auth_method.as_ref(),
            ),
            put("jwks", &mut it.jwks, self.jwks.as_ref()),
            put("jwks_uri", &mut it.jwks_uri, self.jwks_uri.as_ref()),
            put(
                "redirect_uris",
                &mut it.redirect_uris,
                self.redirect_uris.as_ref(),
            ),
            put(
                "grant_types",
                &mut it.grant_types,
                self.grant_types.as_ref(),
            ),
            put("response_types", &mut it.response_types, response_types),
            put(
                "allowed_scopes",
                &mut it.allowed_scopes,
                self.allowed_scopes.as_ref(),
            ),
            put(
                "access_token_lifetime",
                &mut it.access_token_lifetime,
                self.access_token_lifetime.as_ref(),
            ),
            put(
                "refresh_token_lifetime",
                &mut it.refresh_token_lifetime,
                self.refresh_token_lifetime.as_ref(),
            ),
            put(
                "require_pkce",
                &mut it.require_pkce,
                self.require_pkce.as_ref(),
            ),
            put("trusted", &mut it.trusted, self.trusted.as_ref()),
            put(
                "rate_limit_per_hour",
                &mut it.rate_limit_per_hour,
                self.rate_limit_per_hour.as_ref(),
            ),
            put(
                "webhook_url",
                &mut it.webhook_url,
                self.webhook_url.as_ref(),
            ),
            put(
                "webhook_events",
                &mut it.webhook_events,
                self.webhook_events.as_ref(),
            ),
            put(
                "access_token_format",
                &mut it.access_token_format,
                self.access_token_format.as_ref(),
            ),
            put(
                "dpop_bound_access_tokens",
                &mut it.dpop_bound,
                self.dpop_bound.as_ref(),
            ),
            put(
                "require_pushed_authorization_requests",
                &mut it.require_pushed,
                self.require_pushed.as_ref(),
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
