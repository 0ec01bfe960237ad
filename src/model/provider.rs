//! What is known of a provider: where its endpoints are and where it departs from the RFCs.
//! Catalogue entries and custom providers are the same data. [`Default`] is a plain OAuth 2.0
//! provider (RFC 6749, RFC 7636), so that a well-behaved one is a few lines.
//!
//! Three small languages occur in the fields:
//! - *template*: text with `{name}`, where `name` is one of the provider's [`Variable`]s;
//! - *path*: a dotted path into JSON (`authed_user.access_token`, `workspaces.0.id`), with
//!   alternatives separated by `|`, of which the first that is present and not null counts;
//! - *period*: a duration such as `90d`, `1h 30m` or `20s`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod answers;
mod period;
mod template;
mod validation;

pub use answers::*;
pub use template::expand_template;

/// How a connection authenticates to its provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConnectionKind {
    /// OAuth 2.0 authorization code grant (RFC 6749 §4.1).
    #[default]
    Oauth2,
    /// OAuth 1.0a with HMAC-SHA1 signatures (RFC 5849).
    Oauth1,
    /// A key that the owner pastes; never refreshed.
    ApiKey,
}

/// A provider, of the catalogue or custom.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Provider {
    /// Slug: lower-case letters, digits and hyphens, 1 to 63 characters, begins with a letter.
    pub id: String,
    /// Name shown to people.
    pub display_name: String,
    /// Further slugs that name this provider.
    pub aliases: Vec<String>,
    /// How connections to this provider authenticate.
    pub kind: ConnectionKind,
    /// Where the provider documents its OAuth.
    pub documentation_url: Option<String>,
    /// Variables of this provider's templates, by name.
    pub variables: BTreeMap<String, Variable>,
    /// Issuer identifier (RFC 8414 §2), a template. Compared with the callback's `iss`.
    pub issuer: Option<String>,
    /// Whether the callback always carries `iss` (RFC 9207), so that one without is refused.
    pub sends_issuer: bool,

    /// Authorization endpoint, a template. Empty for [`ConnectionKind::ApiKey`].
    pub authorization_endpoint: String,
    /// Parameters added to the authorization request; the values are templates.
    pub authorization_params: BTreeMap<String, String>,
    /// Standard parameters of the authorization request under another name: `client_id` →
    /// `client_key`. An empty new name drops the parameter.
    pub authorization_param_renames: BTreeMap<String, String>,
    /// PKCE (RFC 7636).
    pub pkce: Pkce,
    /// Whether the authorization request carries a `nonce` (OpenID Connect).
    pub sends_nonce: bool,
    /// Scopes asked for when the app and the caller name none.
    pub default_scopes: Vec<String>,
    /// Friendly names of scopes: `gmail_readonly` → the URL that Google means by it.
    pub named_scopes: BTreeMap<String, String>,
    /// What stands between scopes in requests.
    pub scope_separator: String,
    /// A second scope parameter, where a provider has one.
    pub additional_scopes: Option<AdditionalScopes>,
    /// Name of the callback's parameter that carries the code.
    pub callback_code_parameter: String,
    /// Callback parameters kept as connection metadata, such as `realmId`.
    pub callback_metadata: Vec<String>,

    /// OAuth 1.0a temporary credential endpoint (RFC 5849 §2.1), a template.
    pub request_token_endpoint: Option<String>,
    /// Token endpoint, a template.
    pub token_endpoint: String,
    /// Parameters added to the code exchange; the values are templates.
    pub token_params: BTreeMap<String, String>,
    /// Standard parameters of token requests under another name; an empty new name drops one.
    pub token_param_renames: BTreeMap<String, String>,
    /// Headers added to every token request; the values are templates.
    pub token_headers: BTreeMap<String, String>,
    /// How the client proves itself at the token endpoint. An app without a secret is a public
    /// client and sends its `client_id` in the body whatever stands here.
    pub client_authentication: ClientAuthentication,
    /// How token requests carry their parameters.
    pub token_body_format: BodyFormat,
    /// Method of token requests.
    pub token_method: Method,
    /// Where things are in the token endpoint's answers.
    pub token_response: TokenResponse,
    /// Refresh endpoint where it is not the token endpoint, a template.
    pub refresh_endpoint: Option<String>,
    /// Parameters added to a refresh; the values are templates.
    pub refresh_params: BTreeMap<String, String>,
    /// Whether a refresh repeats the granted scopes.
    pub refresh_scopes: RefreshScopes,
    /// Whether a refresh carries the `redirect_uri` (GitLab demands it).
    pub refresh_redirect_uri: bool,

    /// Lifetime of an access token whose answer tells none.
    #[serde(with = "period::optional")]
    pub default_lifetime: Option<Duration>,
    /// Upper bound on any access token's lifetime, whatever the answer claims.
    #[serde(with = "period::optional")]
    pub max_lifetime: Option<Duration>,
    /// How long before expiry a token is refreshed, and the default of a caller's `min_validity`.
    #[serde(with = "period")]
    pub refresh_margin: Duration,
    /// Upper bound on a caller's `min_validity`; more than this is cut down to it.
    #[serde(with = "period")]
    pub min_validity_cap: Duration,
    /// Deadline of one request to this provider, from sending to the last byte of the answer.
    #[serde(with = "period")]
    pub http_timeout: Duration,
    /// Whether a refresh replaces the refresh token.
    pub rotation: Rotation,
    /// How long after its use a spent refresh token may be sent again (lost answers). Zero means
    /// never: a second use can cost the whole grant.
    #[serde(with = "period")]
    pub reuse_grace: Duration,
    /// Whether a refresh also kills the access token that was valid until then.
    pub old_access_token_dies: bool,
    /// A refresh token dies when not used for this long.
    #[serde(with = "period::optional")]
    pub refresh_token_idle_lifetime: Option<Duration>,
    /// A refresh token, and every successor of it, dies this long after the consent.
    #[serde(with = "period::optional")]
    pub refresh_token_absolute_lifetime: Option<Duration>,

    /// How tokens are revoked; none where the provider has no way.
    pub revocation: Option<RevocationEndpoint>,
    /// How the account behind a token is identified.
    pub userinfo: Option<Userinfo>,
    /// How API requests carry the token or the key.
    pub token_header: TokenHeader,
    /// What the provider's own error answers mean. The first rule that matches decides, before
    /// RFC 6749 §5.2 is asked.
    pub error_map: Vec<ErrorRule>,
}

/// A variable of URL templates, such as `{tenant}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Variable {
    /// What the value is and where to find it.
    pub description: String,
    /// Used when an app gives no value; without one the app must.
    pub default: Option<String>,
    /// What a value may look like.
    pub pattern: VariablePattern,
}

/// The forms a variable may take. None admits a character that could leave its place in a URL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VariablePattern {
    /// One DNS label: letters, digits and inner hyphens, at most 63.
    Label,
    /// A host name with an optional port.
    Host,
    /// Letters, digits, `-`, `_` and `.`, at most 128; not `.` or `..`.
    #[default]
    Segment,
}

/// Use of PKCE with S256; `plain` is never used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pkce {
    /// The provider refuses requests without it.
    Required,
    /// Sent; providers that do not know it ignore it.
    #[default]
    Use,
    /// Not sent: the provider is known to refuse it.
    Off,
}

/// Client authentication at the token endpoint (RFC 6749 §2.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthentication {
    /// HTTP Basic.
    #[default]
    Basic,
    /// `client_id` and `client_secret` in the body.
    Post,
    /// Public client: `client_id` in the body only.
    None,
}

/// How a request carries its parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyFormat {
    /// `application/x-www-form-urlencoded`, as RFC 6749 says.
    #[default]
    Form,
    /// A JSON object.
    Json,
    /// The query of the URL. Secrets then stand in the provider's access log: a last resort.
    Query,
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// POST.
    #[default]
    Post,
    /// GET.
    Get,
    /// DELETE; for revocation only.
    Delete,
}

/// Whether a refresh repeats scopes (RFC 6749 §6 makes it optional).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefreshScopes {
    /// Left out: the scopes granted stay.
    #[default]
    Omit,
    /// The granted scopes are sent again.
    Send,
}

/// What a refresh does to the refresh token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotation {
    /// It stays; a refresh whose answer was lost can be repeated.
    Never,
    /// Every refresh answers a new one and spends the old.
    Always,
    /// Not known, or a setting of the app: treated as rotating.
    #[default]
    Maybe,
}

impl Default for Provider {
    fn default() -> Self {
        Self {
            id: String::new(),
            display_name: String::new(),
            aliases: Vec::new(),
            kind: ConnectionKind::default(),
            documentation_url: None,
            variables: BTreeMap::new(),
            issuer: None,
            sends_issuer: false,
            authorization_endpoint: String::new(),
            authorization_params: BTreeMap::new(),
            authorization_param_renames: BTreeMap::new(),
            pkce: Pkce::default(),
            sends_nonce: false,
            default_scopes: Vec::new(),
            named_scopes: BTreeMap::new(),
            scope_separator: " ".to_owned(),
            additional_scopes: None,
            callback_code_parameter: "code".to_owned(),
            callback_metadata: Vec::new(),
            request_token_endpoint: None,
            token_endpoint: String::new(),
            token_params: BTreeMap::new(),
            token_param_renames: BTreeMap::new(),
            token_headers: BTreeMap::new(),
            client_authentication: ClientAuthentication::default(),
            token_body_format: BodyFormat::default(),
            token_method: Method::default(),
            token_response: TokenResponse::default(),
            refresh_endpoint: None,
            refresh_params: BTreeMap::new(),
            refresh_scopes: RefreshScopes::default(),
            refresh_redirect_uri: false,
            default_lifetime: None,
            max_lifetime: None,
            refresh_margin: Duration::from_secs(300),
            min_validity_cap: Duration::from_secs(900),
            http_timeout: Duration::from_secs(20),
            rotation: Rotation::default(),
            reuse_grace: Duration::ZERO,
            old_access_token_dies: false,
            refresh_token_idle_lifetime: None,
            refresh_token_absolute_lifetime: None,
            revocation: None,
            userinfo: None,
            token_header: TokenHeader::default(),
            error_map: Vec::new(),
        }
    }
}
