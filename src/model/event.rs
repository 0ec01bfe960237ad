//! What happened, for those who follow.

use super::{Connection, Grant, Timestamp};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A connection was made.
    Created,
    /// Its owner confirmed it.
    Activated,
    /// It was connected again.
    Reconnected,
    /// A new access token is held.
    Refreshed,
    /// A refresh failed and will be tried again.
    RefreshFailed,
    /// The owner must consent again.
    ReauthorizationRequired,
    /// Its tokens were revoked.
    Revoked,
    /// It was deleted.
    Deleted,
    /// Its refresh token is about to lapse.
    Expiring,
    /// Its settings changed.
    Updated,
    /// An app changed. For the caches of other replicas; watchers are not told.
    AppChanged,
    /// A provider of a tenant's own changed. For caches.
    ProviderChanged,
    /// An API key was made or revoked. For caches.
    ApiKeyChanged,
    /// Sessions ended: the one that the subject names, or all of the user that it names. For caches.
    SessionsEnded,
    /// What our authorisation server issued ended: a token, or all of a grant, a client or a user;
    /// `subject` is its id. For caches.
    IssuedEnded,
}

impl EventKind {
    /// Whether watchers are told; otherwise it only tells other replicas what to forget.
    pub const fn is_public(self) -> bool {
        !matches!(
            self,
            Self::AppChanged
                | Self::ProviderChanged
                | Self::ApiKeyChanged
                | Self::SessionsEnded
                | Self::IssuedEnded
        )
    }
}

/// An event to append, in the transaction that caused it.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The tenant.
    pub tenant: String,
    /// What happened.
    pub kind: EventKind,
    /// What it is about where that is no connection: an app's, provider's or key's id.
    pub subject: String,
    /// The connection.
    pub connection_id: Option<String>,
    /// The app.
    pub app_id: Option<String>,
    /// The grant.
    pub grant_id: Option<String>,
    /// The owner.
    pub owner: String,
    /// The provider.
    pub provider: String,
    /// The generation of the tokens afterwards.
    pub generation: i64,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// Machine-readable cause.
    pub reason: String,
    /// When.
    pub created_at: Timestamp,
}

/// An event that has its place in history.
#[derive(Clone, Debug)]
pub struct Event {
    /// The row's number.
    pub id: i64,
    /// Its place: what cursors are made of.
    pub position: i64,
    /// What happened.
    pub event: NewEvent,
}

/// How far history reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Names this history; a restored database has another.
    pub epoch: String,
    /// The last position given.
    pub position: i64,
    /// Positions up to this one are gone.
    pub trimmed: i64,
}

impl NewEvent {
    /// An event of a connection whose tokens stand as in `grant`.
    pub fn of(
        kind: EventKind,
        connection: &Connection,
        grant: &Grant,
        reason: &str,
        at: Timestamp,
    ) -> Self {
        Self {
            tenant: connection.tenant.clone(),
            kind,
            subject: connection.id.clone(),
            connection_id: Some(connection.id.clone()),
            app_id: Some(connection.app_id.clone()),
            grant_id: Some(grant.id.clone()),
            owner: connection.owner.clone(),
            provider: connection.provider.clone(),
            generation: grant.generation,
            expires_at: grant.expires_at,
            reason: reason.to_owned(),
            created_at: at,
        }
    }

    /// An event that only tells other replicas what to forget.
    pub fn internal(kind: EventKind, tenant: &str, subject: &str, at: Timestamp) -> Self {
        Self {
            tenant: tenant.to_owned(),
            kind,
            subject: subject.to_owned(),
            connection_id: None,
            app_id: None,
            grant_id: None,
            owner: String::new(),
            provider: String::new(),
            generation: 0,
            expires_at: None,
            reason: String::new(),
            created_at: at,
        }
    }
}
