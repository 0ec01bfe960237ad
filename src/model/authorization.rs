//! Attempts to connect an account.

use std::collections::BTreeMap;

use super::{RefreshPolicy, Sealed, Timestamp};

/// How an authorisation is bound to its owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthorizationMode {
    /// The owner's session confirms the connection.
    #[default]
    Confirmed,
    /// Whoever opens the link connects.
    LinkOnly,
}

/// What an authorisation is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthorizationIntent {
    /// To connect an account.
    #[default]
    Connect,
    /// To sign in: the account is learnt, and no token is kept.
    SignIn,
}

/// Where an authorisation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationState {
    /// Waiting for consent.
    Pending,
    /// The tokens are kept; the connection is being made.
    Exchanged,
    /// Waiting for the owner's session.
    AwaitingConfirmation,
    /// The connection is active.
    Succeeded,
    /// It failed.
    Failed,
    /// Nobody finished it in time.
    Expired,
}

impl AuthorizationState {
    /// Whether nothing more will happen to it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Expired)
    }
}

/// Why an authorisation failed. Empty strings while it did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthorizationFailure {
    /// Machine-readable, UPPER_SNAKE_CASE.
    pub reason: String,
    /// For a person.
    pub message: String,
    /// The provider's `error`.
    pub provider_error: String,
    /// The provider's `error_description`.
    pub provider_description: String,
}

/// One attempt to connect an account.
#[derive(Clone, Debug)]
pub struct Authorization {
    /// `auth_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The app.
    pub app_id: String,
    /// What it is for.
    pub intent: AuthorizationIntent,
    /// Whom the connection will belong to; empty for a sign-in.
    pub owner: String,
    /// How it is bound to them.
    pub mode: AuthorizationMode,
    /// Where it stands.
    pub state: AuthorizationState,
    /// SHA-256 of the ticket in the link; none where the caller owns the redirect URI.
    pub ticket_hash: Option<Vec<u8>>,
    /// The scopes to ask for.
    pub scopes: Vec<String>,
    /// Where the browser goes at the end; empty for our own page.
    pub return_url: String,
    /// The caller's own redirect URI; empty for ours.
    pub redirect_uri: String,
    /// Which account to preselect.
    pub login_hint: String,
    /// More parameters for the authorisation endpoint.
    pub parameters: BTreeMap<String, String>,
    /// How the connection is to be kept fresh.
    pub refresh_policy: RefreshPolicy,
    /// The connection it is to renew.
    pub renews: Option<String>,
    /// The connection it made.
    pub connection_id: Option<String>,
    /// The sealed answer of the token endpoint, until the connection has it.
    pub tokens: Option<Sealed>,
    /// The account that a sign-in learnt; empty until then, and for what connects.
    pub account_id: String,
    /// SHA-256 of the one-time code for its confirmation, or for the sign-in.
    pub confirmation_hash: Option<Vec<u8>>,
    /// Why it failed.
    pub failure: AuthorizationFailure,
    /// Who started it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
    /// When it lapses.
    pub expires_at: Timestamp,
}

/// An account that somebody proved to be theirs by signing in at its provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvedAccount {
    /// The provider.
    pub provider: String,
    /// The account's id there; not empty.
    pub account_id: String,
    /// The variables of the app that they signed in through: with others it may be another
    /// installation of the provider, whose account ids mean other people.
    pub variables: BTreeMap<String, String>,
}

/// Why a sign-in's code proves nothing. For the audit trail: whoever sent it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotProved {
    /// The tenant has no such sign-in. What was sent for its id may be anything, another owner's
    /// authorisation too.
    Unknown,
    /// The sign-in has another code, or none yet.
    CodeInvalid,
    /// The code was redeemed, or its time is over.
    CodeSpent,
}

impl NotProved {
    /// Machine-readable.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "SIGN_IN_UNKNOWN",
            Self::CodeInvalid => "CODE_INVALID",
            Self::CodeSpent => "CODE_SPENT",
        }
    }
}

/// One visit of an authorisation's link.
#[derive(Clone, Debug)]
pub struct Visit {
    /// SHA-256 of its `state`.
    pub state_hash: Vec<u8>,
    /// The tenant.
    pub tenant: String,
    /// The authorisation.
    pub authorization_id: String,
    /// The sealed PKCE verifier; none where the provider does not take one.
    pub verifier: Option<Sealed>,
    /// The sealed nonce; none without `openid`.
    pub nonce: Option<Sealed>,
    /// SHA-256 of the cookie that ties the browser to it; none where the caller does that.
    pub cookie_hash: Option<Vec<u8>>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it lapses.
    pub expires_at: Timestamp,
}
