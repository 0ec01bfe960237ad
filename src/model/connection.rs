//! Accounts, connected, and the grants that hold their tokens.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{ConnectionKind, Sealed, Timestamp};

/// Whether a connection can be used, apart from its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// Its owner has not confirmed it yet.
    Pending,
    /// It serves tokens.
    Active,
    /// It was revoked.
    Revoked,
}

/// Whether a grant is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantState {
    /// It is.
    Active,
    /// The provider no longer accepts it.
    ReauthorizationRequired,
    /// It was revoked.
    Revoked,
}

/// How a connection's tokens are kept fresh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum RefreshPolicy {
    /// When asked for; idle refresh tokens are still kept alive.
    OnDemand,
    /// Ahead of expiry while used lately.
    WhenUsed,
    /// Ahead of expiry.
    #[default]
    Always,
}

/// One account of one owner, connected through one app.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `conn_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The app.
    pub app_id: String,
    /// The grant that holds its tokens.
    pub grant_id: String,
    /// The provider's id.
    pub provider: String,
    /// Whom it belongs to.
    pub owner: String,
    /// What makes it unique for its owner: the account's id, or the authorisation's.
    pub account_key: String,
    /// The account's id at the provider; empty when not told.
    pub account_id: String,
    /// What it holds.
    pub kind: ConnectionKind,
    /// Whether it can be used.
    pub state: ConnectionState,
    /// Why not.
    pub state_reason: String,
    /// The account's name.
    pub display_name: String,
    /// The account's picture.
    pub avatar_url: String,
    /// The account's e-mail address.
    pub email: String,
    /// The team at the provider.
    pub team_id: String,
    /// The tenant at the provider.
    pub provider_tenant_id: String,
    /// The scopes asked for.
    pub requested_scopes: Vec<String>,
    /// The caller's labels.
    pub labels: BTreeMap<String, String>,
    /// What the provider said beside the tokens.
    pub metadata: Map<String, Value>,
    /// How its tokens are kept fresh.
    pub refresh_policy: RefreshPolicy,
    /// Grows by one with each change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// A set of tokens. Connections may share one.
#[derive(Clone, Debug)]
pub struct Grant {
    /// `grant_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The app.
    pub app_id: String,
    /// What it holds.
    pub kind: ConnectionKind,
    /// Whether it is good.
    pub state: GrantState,
    /// Why not.
    pub state_reason: String,
    /// Grows by one with every new set of tokens.
    pub generation: i64,
    /// The access token, API key or OAuth 1.0a token.
    pub access_token: Option<Sealed>,
    /// The refresh token.
    pub refresh_token: Option<Sealed>,
    /// The OAuth 1.0a token's secret.
    pub token_secret: Option<Sealed>,
    /// How the token is sent.
    pub token_type: String,
    /// The scopes granted.
    pub scopes: Vec<String>,
    /// What the provider said beside the tokens, for the caller to use with them.
    pub metadata: Map<String, Value>,
    /// Keyed fingerprint of the refresh token.
    pub refresh_fingerprint: Option<String>,
    /// When the access token was asked for.
    pub issued_at: Timestamp,
    /// When the access token ends; none when the provider does not say.
    pub expires_at: Option<Timestamp>,
    /// When the refresh token ends, by idleness or for good.
    pub refresh_expires_at: Option<Timestamp>,
    /// When it ends for good, however much it is used.
    pub absolute_expires_at: Option<Timestamp>,
    /// The most eager policy of its connections.
    pub refresh_policy: RefreshPolicy,
    /// When it was last refreshed.
    pub last_refreshed_at: Option<Timestamp>,
    /// When the worker is to look at it.
    pub next_refresh_at: Option<Timestamp>,
    /// When to warn that its refresh token is about to lapse.
    pub notice_at: Option<Timestamp>,
    /// No trigger refreshes before this.
    pub not_before: Option<Timestamp>,
    /// Failures in a row.
    pub failure_count: i32,
    /// The last failure, without secrets.
    pub last_error: String,
    /// Who is refreshing it.
    pub lease_holder: Option<String>,
    /// Until when, by the database's clock.
    pub lease_until: Option<Timestamp>,
    /// The generation whose refresh token is being spent, or may have been.
    pub attempt_generation: Option<i64>,
    /// Since when, by the database's clock.
    pub attempt_started_at: Option<Timestamp>,
    /// Whether the refresh token was tried once more after a lost answer.
    pub attempt_retried: bool,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Grant {
    /// Whether the outcome of spending the current refresh token is unknown: an attempt began and
    /// its end was never recorded. While a lease runs this is simply work in progress.
    pub fn is_ambiguous(&self) -> bool {
        self.attempt_generation == Some(self.generation)
    }

    /// Names this set of tokens, without being secret.
    pub fn token_id(&self) -> String {
        format!("{}.{}", self.id, self.generation)
    }
}

/// How often and when last a connection's token was handed out.
#[derive(Clone, Debug)]
pub struct Usage {
    /// When last.
    pub last_used_at: Timestamp,
    /// How often.
    pub use_count: i64,
    /// To whom last.
    pub last_caller: String,
}

/// A connection with all that is shown of it.
#[derive(Clone, Debug)]
pub struct ConnectionDetails {
    /// The connection.
    pub connection: Connection,
    /// Its grant.
    pub grant: Grant,
    /// Its use, if it was ever used.
    pub usage: Option<Usage>,
    /// How its last synchronisation ended.
    pub sync_status: Option<SyncStatus>,
}

/// How a synchronisation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncStatus {
    /// It went through.
    Succeeded,
    /// It went through in part.
    Partial,
    /// It failed.
    Failed,
}

/// One synchronisation of data through a connection.
#[derive(Clone, Debug)]
pub struct SyncRecord {
    /// `sync_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The connection.
    pub connection_id: String,
    /// What was done, in the consumer's words.
    pub action: String,
    /// How it ended.
    pub status: SyncStatus,
    /// Bytes moved.
    pub data_size: i64,
    /// How long it took.
    pub duration: std::time::Duration,
    /// What went wrong.
    pub error: String,
    /// When it was recorded.
    pub created_at: Timestamp,
}

/// What sets a refresh off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshTrigger {
    /// A caller needs a token.
    Demand,
    /// The worker, ahead of expiry.
    Ahead,
    /// The worker, before an idle refresh token lapses.
    KeepAlive,
    /// A caller asked for it.
    Forced,
    /// A caller reported the token as rejected.
    Rejected,
    /// A journal was replayed.
    Recovery,
}

/// How an attempt to refresh ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefreshOutcome {
    /// New tokens are held.
    Succeeded,
    /// Tried again later.
    Transient,
    /// Nobody knows whether the refresh token was spent.
    Ambiguous,
    /// The owner must consent again.
    GrantDead,
    /// The app's operator must act.
    ClientMisconfigured,
    /// The result was not kept: the grant was revoked or renewed meanwhile.
    Superseded,
}

/// One attempt to refresh.
#[derive(Clone, Debug)]
pub struct RefreshAttempt {
    /// `ref_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The grant.
    pub grant_id: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub duration: std::time::Duration,
    /// What set it off.
    pub trigger: RefreshTrigger,
    /// How it ended.
    pub outcome: RefreshOutcome,
    /// The provider's error code or our own.
    pub error_code: String,
    /// For a person.
    pub error_message: String,
    /// Keyed fingerprint of the refresh token sent.
    pub fingerprint: String,
    /// Keyed fingerprint of the one received; empty if the old one was kept.
    pub new_fingerprint: String,
    /// The generation spent.
    pub generation: i64,
}
