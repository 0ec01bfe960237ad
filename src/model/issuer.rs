//! What our own authorisation server keeps: requests, codes, grants, tokens, devices, keys.

use super::{Sealed, Timestamp};

/// An error of OAuth 2.0, by the code that the RFCs give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OauthErrorCode {
    /// A parameter is missing, twice there, or no good (RFC 6749 section 5.2).
    InvalidRequest,
    /// The client is not known, or could not prove who it is.
    InvalidClient,
    /// The code, refresh token or device code is nobody's, spent, or has ended.
    InvalidGrant,
    /// The client may not do this.
    UnauthorizedClient,
    /// A grant type that is not offered.
    UnsupportedGrantType,
    /// A response type that is not offered.
    UnsupportedResponseType,
    /// A scope that is not known, or more than the client may ask for.
    InvalidScope,
    /// The person or the server said no.
    AccessDenied,
    /// A defect; try later.
    ServerError,
    /// Too many, or a part is down; try later.
    TemporarilyUnavailable,
    /// A resource that is not known (RFC 8707).
    InvalidTarget,
    /// The access token is nobody's, or has ended (RFC 6750).
    InvalidToken,
    /// The access token is for less (RFC 6750).
    InsufficientScope,
    /// The proof of possession is not good (RFC 9449).
    InvalidDpopProof,
    /// The proof must carry the nonce that comes with this (RFC 9449).
    UseDpopNonce,
    /// The device's person has not decided yet (RFC 8628).
    AuthorizationPending,
    /// The device asks too often (RFC 8628).
    SlowDown,
    /// The device code's time is over (RFC 8628).
    ExpiredToken,
    /// Nobody may be shown a page, and somebody would have to be (OpenID Connect Core).
    LoginRequired,
    /// A `request` object is not taken (OpenID Connect Core).
    RequestNotSupported,
    /// The `request_uri` is nobody's, spent, or has ended (RFC 9126).
    InvalidRequestUri,
}

/// A refusal of our authorisation server, as its clients are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthError {
    /// The code.
    pub code: OauthErrorCode,
    /// What is wrong, for the client's developer. Never repeats a secret; visible ASCII without `"`
    /// and `\` (RFC 6749 section 5.2).
    pub description: String,
    /// The nonce to use, with [`OauthErrorCode::UseDpopNonce`].
    pub dpop_nonce: Option<String>,
}

impl OauthError {
    /// This code, for this reason.
    pub fn new(code: OauthErrorCode, description: impl Into<String>) -> Self {
        Self {
            code,
            description: description.into(),
            dpop_nonce: None,
        }
    }
}

/// Where an authorisation request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestState {
    /// The client pushed it (RFC 9126); no browser has come with it yet.
    Pushed,
    /// A browser came; nobody has signed in.
    Pending,
    /// Somebody signed in; they have not decided.
    SignedIn,
    /// They agreed; the code is not made yet.
    Accepted,
    /// They, or who asks them, said no.
    Rejected,
    /// The browser was sent back.
    Finished,
}

/// One attempt of a client to have a person's consent.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest {
    /// `areq_…`.
    pub id: String,
    /// The client's tenant.
    pub tenant: String,
    /// The client.
    pub client_id: String,
    /// The device that waits for it; none where a browser is sent back.
    pub device_id: Option<String>,
    /// Where the browser is sent back to; empty for a device.
    pub redirect_uri: String,
    /// Whether the client named it.
    pub redirect_uri_sent: bool,
    /// What it asks for.
    pub scopes: Vec<String>,
    /// For which resources (RFC 8707).
    pub resources: Vec<String>,
    /// The client's own state; empty for none.
    pub client_state: String,
    /// The client's nonce; empty for none.
    pub nonce: String,
    /// The PKCE challenge, S256; empty for none.
    pub code_challenge: String,
    /// The thumbprint of the key that the code is bound to (RFC 9449 section 10); empty for none.
    pub dpop_jkt: String,
    /// Who is expected to sign in; empty for anybody.
    pub login_hint: String,
    /// SHA-256 of the `request_uri`, until it is used.
    pub request_uri_hash: Option<Vec<u8>>,
    /// SHA-256 of the cookie of the browser that began it.
    pub cookie_hash: Option<Vec<u8>>,
    /// Where it stands.
    pub state: RequestState,
    /// Who signed in.
    pub user_id: Option<String>,
    /// When.
    pub auth_time: Option<Timestamp>,
    /// What they agreed to.
    pub granted_scopes: Vec<String>,
    /// Why it was rejected; empty where it was not.
    pub error: String,
    /// In words.
    pub error_description: String,
    /// The browser's address.
    pub ip: String,
    /// The browser.
    pub user_agent: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it lapses.
    pub expires_at: Timestamp,
}

/// A code. The code itself is known to the client alone.
#[derive(Clone, Debug)]
pub struct AuthorizationCode {
    /// SHA-256 of it.
    pub hash: Vec<u8>,
    /// The tenant.
    pub tenant: String,
    /// Whose it is.
    pub client_id: String,
    /// What it gives.
    pub grant_id: String,
    /// Where it was sent.
    pub redirect_uri: String,
    /// Whether the client named that.
    pub redirect_uri_sent: bool,
    /// The client's own state.
    pub client_state: String,
    /// For the ID token; empty for none.
    pub nonce: String,
    /// The PKCE challenge, S256; empty for none.
    pub code_challenge: String,
    /// The thumbprint of the key that it is bound to; empty for none.
    pub dpop_jkt: String,
    /// The browser's address.
    pub ip: String,
    /// The browser.
    pub user_agent: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it is no longer good.
    pub expires_at: Timestamp,
    /// When it was used.
    pub consumed_at: Option<Timestamp>,
    /// When it may be deleted.
    pub keep_until: Timestamp,
}

/// What a person gave a client by one consent: the family of all tokens that came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedGrant {
    /// `ogrant_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// Who has it.
    pub client_id: String,
    /// Who gave it.
    pub user_id: String,
    /// What for.
    pub scopes: Vec<String>,
    /// For which resources.
    pub resources: Vec<String>,
    /// The thumbprint of the key that its refresh tokens are bound to; empty for none.
    pub dpop_jkt: String,
    /// Grows by one with each exchange for new tokens.
    pub generation: i64,
    /// When the person proved who they are.
    pub auth_time: Timestamp,
    /// Their browser's address.
    pub ip: String,
    /// Their browser.
    pub user_agent: String,
    /// When it was given.
    pub created_at: Timestamp,
    /// When it last led to tokens.
    pub last_issued_at: Timestamp,
    /// No token of it lives longer.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// Why; empty where it was not.
    pub revoke_reason: String,
}

/// What a token is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssuedTokenKind {
    /// For resource servers.
    Access,
    /// For more tokens.
    Refresh,
}

/// What a token looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenFormat {
    /// A random text that only we can read something from.
    #[default]
    Opaque,
    /// A JWT (RFC 9068).
    Jwt,
}

/// A token that we issued. The token itself is known to the client alone.
#[derive(Clone, Debug)]
pub struct IssuedToken {
    /// `itok_…`: also the `jti` of a JWT.
    pub id: String,
    /// SHA-256 of the token.
    pub hash: Vec<u8>,
    /// The tenant.
    pub tenant: String,
    /// Whose it is.
    pub client_id: String,
    /// What it came of; none where the client acts for itself.
    pub grant_id: Option<String>,
    /// What it is for.
    pub kind: IssuedTokenKind,
    /// What it looks like.
    pub format: TokenFormat,
    /// What it is good for.
    pub scopes: Vec<String>,
    /// At which resources; anywhere when empty.
    pub resources: Vec<String>,
    /// The thumbprint of the key that it is bound to; empty for a bearer token.
    pub dpop_jkt: String,
    /// The grant's generation that it belongs to; 0 without a grant.
    pub generation: i64,
    /// When it was issued.
    pub created_at: Timestamp,
    /// From when on it is no longer good.
    pub expires_at: Timestamp,
    /// When it was revoked by itself.
    pub revoked_at: Option<Timestamp>,
    /// Why; empty where it was not.
    pub revoke_reason: String,
    /// When a refresh token was exchanged first. Never moved.
    pub consumed_at: Option<Timestamp>,
    /// How often it was exchanged again within the grace.
    pub reuse_count: i32,
    /// What it was exchanged for, for a repeated answer.
    pub successor: Option<Sealed>,
    /// How often it was looked at.
    pub use_count: i64,
    /// When last.
    pub last_used_at: Option<Timestamp>,
    /// Where it was asked for.
    pub ip: String,
    /// By which program.
    pub user_agent: String,
    /// When it may be deleted.
    pub keep_until: Timestamp,
}

/// Where a device's authorisation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// Its person has not decided.
    Pending,
    /// They agreed.
    Accepted,
    /// They said no.
    Rejected,
    /// The device has its tokens.
    Finished,
}

/// A device that waits for its person's consent (RFC 8628).
#[derive(Clone, Debug)]
pub struct DeviceAuthorization {
    /// `dev_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The client.
    pub client_id: String,
    /// SHA-256 of the device's code.
    pub device_code_hash: Vec<u8>,
    /// SHA-256 of what the person types: letters and digits alone, in upper case.
    pub user_code_hash: Vec<u8>,
    /// What it asks for.
    pub scopes: Vec<String>,
    /// For which resources.
    pub resources: Vec<String>,
    /// Where it stands.
    pub state: DeviceState,
    /// What the person gave.
    pub grant_id: Option<String>,
    /// How many seconds to wait between two questions.
    pub interval_seconds: i64,
    /// When it last asked.
    pub polled_at: Option<Timestamp>,
    /// The device's address.
    pub ip: String,
    /// Its program.
    pub user_agent: String,
    /// When it began.
    pub created_at: Timestamp,
    /// When it lapses.
    pub expires_at: Timestamp,
}

/// A key that tokens are signed with.
#[derive(Clone, Debug)]
pub struct IssuerKey {
    /// Its `kid`: the RFC 7638 thumbprint.
    pub id: String,
    /// Sealed: PKCS #8.
    pub private_key: Sealed,
    /// The public half as a JWK.
    pub public_jwk: serde_json::Value,
    /// When it was made.
    pub created_at: Timestamp,
    /// From when on it signs: it is published before.
    pub signs_from: Timestamp,
    /// Until when.
    pub signs_until: Timestamp,
    /// When nothing that it signed is good any more.
    pub expires_at: Timestamp,
}
