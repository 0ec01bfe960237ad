//! What a provider's endpoints besides the authorization endpoint take and answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ClientAuthentication, Method};

/// A second scope parameter of the authorization request (Slack's `user_scope`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdditionalScopes {
    /// Name of the parameter.
    pub parameter: String,
    /// Scopes that begin with this go to the parameter, without the prefix: `user:`.
    pub prefix: String,
    /// Path of these scopes in the token answer; they get the prefix back.
    pub response: Option<String>,
}

/// Where things are in a token endpoint's answer; every field is a path.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenResponse {
    /// Objects in which the token fields are looked for; the first that holds an access token
    /// gives them all, so that two tokens' fields never mix. Empty text is the answer itself.
    pub roots: Vec<String>,
    /// Access token.
    pub access_token: String,
    /// Refresh token.
    pub refresh_token: String,
    /// ID token (OpenID Connect).
    pub id_token: String,
    /// Token type.
    pub token_type: String,
    /// Granted scopes: text or an array.
    pub scope: String,
    /// What separates scopes in a text; a blank and a comma are both understood by default.
    pub scope_separator: Option<String>,
    /// Expiry of the access token.
    pub expires_in: String,
    /// Expiry of the refresh token.
    pub refresh_expires_in: String,
    /// Unit of both expiries.
    pub expires_unit: ExpiryUnit,
    /// Whether the expiries are lifetimes or points in time.
    pub expires_style: ExpiryStyle,
    /// Flag that is `false` when the request failed although the status says 200 (Slack's `ok`).
    pub success_flag: Option<String>,
    /// Error code.
    pub error: String,
    /// Error text.
    pub error_description: String,
    /// Values kept as connection metadata: name → path, looked up from the answer itself.
    pub metadata: BTreeMap<String, String>,
}

/// Unit of an expiry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryUnit {
    /// Seconds, as RFC 6749 §5.1 says.
    #[default]
    Seconds,
    /// Milliseconds.
    Milliseconds,
}

/// What an expiry counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpiryStyle {
    /// From the answer.
    #[default]
    In,
    /// From the Unix epoch.
    At,
}

/// How tokens are revoked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RevocationEndpoint {
    /// Template, in which `{client_id}` and `{token}` are known too.
    pub endpoint: String,
    /// Method.
    pub method: Method,
    /// Form of the request.
    pub style: RevocationStyle,
    /// Which tokens are sent.
    pub tokens: RevokedTokens,
    /// Client authentication here, where it differs from the token endpoint's.
    pub client_authentication: Option<ClientAuthentication>,
}

/// Form of a revocation request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevocationStyle {
    /// `token` and `token_type_hint` with client authentication (RFC 7009).
    #[default]
    Rfc7009,
    /// JSON `{"access_token": …}` with HTTP Basic (GitHub).
    JsonBasic,
    /// The token to be revoked is the bearer token of the request.
    Bearer,
    /// The token stands in the path, no authentication (HubSpot).
    PathToken,
}

/// Which tokens a revocation sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RevokedTokens {
    /// The access token only; it takes the grant with it.
    Access,
    /// The refresh token if there is one, else the access token; it takes the grant with it.
    #[default]
    Refresh,
    /// Both, the refresh token first.
    Both,
}

/// How the account behind a token is identified. Paths are looked up in the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Userinfo {
    /// What the paths look into.
    pub source: IdentitySource,
    /// Endpoint, a template, in which `{access_token}` is known too. Empty for other sources.
    pub endpoint: String,
    /// Method; GET unless told otherwise.
    pub method: Method,
    /// Headers added; the values are templates, in which `{client_id}` is known too.
    pub headers: BTreeMap<String, String>,
    /// Body sent, with the content type that `headers` names.
    pub body: Option<String>,
    /// Path of the account's id at the provider.
    pub account_id: String,
    /// Path of the name shown to people.
    pub display_name: Option<String>,
    /// Path of the picture's URL.
    pub avatar: Option<String>,
    /// Path of the e-mail address.
    pub email: Option<String>,
    /// Values kept as connection metadata: name → path.
    pub metadata: BTreeMap<String, String>,
}

/// What an identity is read from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// The userinfo endpoint's answer.
    #[default]
    Endpoint,
    /// The ID token's claims.
    IdToken,
    /// The metadata taken from the token answer.
    TokenResponse,
}

/// How API requests carry a token or a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TokenHeader {
    /// Name of the header.
    pub name: String,
    /// What stands before the token, its blank included.
    pub prefix: String,
}

/// Gives a provider's error answer its meaning; the conditions named must all hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRule {
    /// HTTP status.
    #[serde(default)]
    pub status: Option<u16>,
    /// Error code, exactly.
    #[serde(default)]
    pub code: Option<String>,
    /// Text within the description, regardless of case.
    #[serde(default)]
    pub message_contains: Option<String>,
    /// What it means.
    pub class: ErrorClass,
}

/// What an error answer means for the grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The refresh token or code is dead; the owner has to consent again.
    GrantDead,
    /// The app's registration is wrong; no user can mend it.
    ClientMisconfigured,
    /// Worth another attempt later; the refresh token was not spent.
    Transient,
    /// This request was refused; the grant is as it was.
    Rejected,
    /// Nobody knows whether the refresh token was spent.
    Ambiguous,
}

impl Default for TokenResponse {
    fn default() -> Self {
        Self {
            roots: vec![String::new()],
            access_token: "access_token".to_owned(),
            refresh_token: "refresh_token".to_owned(),
            id_token: "id_token".to_owned(),
            token_type: "token_type".to_owned(),
            scope: "scope".to_owned(),
            scope_separator: None,
            expires_in: "expires_in".to_owned(),
            refresh_expires_in: "refresh_token_expires_in|refresh_expires_in".to_owned(),
            expires_unit: ExpiryUnit::default(),
            expires_style: ExpiryStyle::default(),
            success_flag: None,
            error: "error".to_owned(),
            error_description: "error_description".to_owned(),
            metadata: BTreeMap::new(),
        }
    }
}

impl Default for TokenHeader {
    fn default() -> Self {
        Self {
            name: "Authorization".to_owned(),
            prefix: "Bearer ".to_owned(),
        }
    }
}

impl Default for Userinfo {
    fn default() -> Self {
        Self {
            source: IdentitySource::default(),
            endpoint: String::new(),
            method: Method::Get,
            headers: BTreeMap::new(),
            body: None,
            account_id: "sub".to_owned(),
            display_name: None,
            avatar: None,
            email: None,
            metadata: BTreeMap::new(),
        }
    }
}
