//! Clients of our own authorisation server.

use std::time::Duration;

use super::{Sealed, Timestamp, TokenFormat};

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientState {
    /// Registered, and not approved yet.
    Pending,
    /// It may be used.
    Active,
    /// Shut out until somebody lets it in again.
    Suspended,
    /// Shut out for good.
    Revoked,
}

/// How a client proves who it is at the token endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthMethod {
    /// Not at all: a public client.
    None,
    /// By its secret, in HTTP Basic authentication.
    SecretBasic,
    /// By its secret, in the body of the request.
    SecretPost,
    /// By a JWT signed with a key of its own.
    PrivateKeyJwt,
}

impl ClientAuthMethod {
    /// Whether it needs a secret.
    pub const fn has_secret(self) -> bool {
        matches!(self, Self::SecretBasic | Self::SecretPost)
    }
}

/// What a client may exchange for tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientGrantType {
    /// A code that a person's consent gave.
    AuthorizationCode,
    /// A refresh token.
    RefreshToken,
    /// Its own credentials.
    ClientCredentials,
    /// A device code.
    DeviceCode,
}

/// What a client may be answered at the authorisation endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientResponseType {
    /// An authorisation code.
    Code,
}

/// What callers set of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientSettings {
    /// Its name for people.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its logo; empty for none.
    pub logo_url: String,
    /// Its home page; empty for none.
    pub homepage_url: String,
    /// How it proves who it is.
    pub auth_method: ClientAuthMethod,
    /// Its public keys as a JWK set in JSON; empty for none.
    pub jwks: String,
    /// Where its public keys are fetched; empty for nowhere.
    pub jwks_uri: String,
    /// Where people are sent back to, matched exactly but for the port of a loopback address.
    pub redirect_uris: Vec<String>,
    /// What it may exchange for tokens.
    pub grant_types: Vec<ClientGrantType>,
    /// What it may be answered.
    pub response_types: Vec<ClientResponseType>,
    /// The scopes that it may ask for.
    pub allowed_scopes: Vec<String>,
    /// How long its access tokens live, in whole seconds.
    pub access_token_lifetime: Duration,
    /// How long its refresh tokens live, in whole seconds.
    pub refresh_token_lifetime: Duration,
    /// Whether codes need PKCE.
    pub require_pkce: bool,
    /// Whether it is one of the tenant's own.
    pub trusted: bool,
    /// How many tokens it may ask for in an hour; none for no limit of its own.
    pub rate_limit_per_hour: Option<u32>,
    /// Where events about its tokens are to be delivered; empty for nowhere.
    pub webhook_url: String,
    /// Which events.
    pub webhook_events: Vec<String>,
    /// What its access tokens look like.
    pub access_token_format: TokenFormat,
    /// Whether its access tokens must be bound to a key.
    pub dpop_bound: bool,
    /// Whether it must push its authorisation requests.
    pub require_pushed: bool,
}

/// A third party's program that uses our authorisation server.
#[derive(Clone, Debug)]
pub struct OauthClient {
    /// `client_…`: also its `client_id`.
    pub id: String,
    /// The tenant it belongs to.
    pub tenant: String,
    /// What callers set of it.
    pub settings: ClientSettings,
    /// What webhooks are signed with; none without a URL.
    pub webhook_secret: Option<Sealed>,
    /// Where it stands.
    pub state: ClientState,
    /// Why.
    pub state_reason: String,
    /// Since when.
    pub state_changed_at: Timestamp,
    /// Who registered it.
    pub created_by: String,
    /// Grows by one with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it was deleted; such a client is found by nobody.
    pub deleted_at: Option<Timestamp>,
}

/// A secret of a client. The secret itself is known to the client alone.
#[derive(Clone, Debug)]
pub struct ClientSecret {
    /// SHA-256 of it.
    pub hash: Vec<u8>,
    /// The tenant.
    pub tenant: String,
    /// The client.
    pub client_id: String,
    /// Its first characters.
    pub prefix: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is no longer good.
    pub expires_at: Timestamp,
    /// When another was made in its place; none for the current one.
    pub superseded_at: Option<Timestamp>,
}

/// How a client is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientUsage {
    /// How many consents led it to a code.
    pub authorizations: i64,
    /// How many access tokens it was given.
    pub tokens: i64,
    /// When it was last given one.
    pub last_used_at: Option<Timestamp>,
    /// How many people gave it something that is still kept.
    pub unique_users: i64,
}
