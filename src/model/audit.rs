//! The audit trail: who did what.

use std::collections::BTreeMap;

use super::Timestamp;

/// What sort of caller did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActorKind {
    /// An API key.
    ApiKey,
    /// A signed-in user.
    User,
    /// The holder of a client certificate.
    Certificate,
    /// The holder of a JWT.
    Jwt,
    /// Somebody's browser, on its way to or from a provider.
    Browser,
    /// Nobody known.
    Anonymous,
    /// This service, by itself.
    System,
    /// The command line.
    CommandLine,
    /// A client of our own authorisation server.
    Client,
}

/// An entry of the trail, as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// `aud_…`.
    pub id: String,
    /// The tenant; empty where none is known.
    pub tenant: String,
    /// When it was done.
    pub occurred_at: Timestamp,
    /// What was done, such as `session.created`.
    pub action: String,
    /// Whether it came about.
    pub success: bool,
    /// Why not, or why; machine-readable.
    pub reason: String,
    /// What sort of caller did it: an [`ActorKind`], as text, so that a row that somebody changed can
    /// still be read and named.
    pub actor_kind: String,
    /// The caller's id.
    pub actor_id: String,
    /// On what, such as `connection`.
    pub resource_kind: String,
    /// Its id.
    pub resource_id: String,
    /// The provider; empty where there is none.
    pub provider: String,
    /// The trace it belongs to; empty where there is none.
    pub trace_id: String,
    /// More, by name. Never a secret.
    pub details: BTreeMap<String, String>,
    /// The caller's address; empty when not known, or erased.
    pub ip: String,
    /// The caller's program; empty when not known, or erased.
    pub user_agent: String,
    /// What the two above are hashed with; none once they are erased.
    pub salt: Option<Vec<u8>>,
    /// Their hash.
    pub personal_hash: Vec<u8>,
    /// The entry that tells of their erasure.
    pub erased_by: Option<String>,
}

/// An entry as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chained {
    /// Its place, from 1; none until it is chained.
    pub position: Option<i64>,
    /// SHA-256 over the hash of the place before and the entry; none until it is chained.
    pub hash: Option<Vec<u8>>,
    /// The entry.
    pub event: AuditEvent,
}

/// How far the chain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainHead {
    /// The last place; 0 for none.
    pub position: i64,
    /// The hash there; 32 zero bytes for none.
    pub hash: Vec<u8>,
    /// Places up to this one have left by retention.
    pub trimmed: i64,
}

/// A signed statement of what the chain comes to at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The place.
    pub position: i64,
    /// The hash there.
    pub hash: Vec<u8>,
    /// When it was signed.
    pub created_at: Timestamp,
    /// The signed note.
    pub note: String,
}
