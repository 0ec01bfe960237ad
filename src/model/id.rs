//! Ids: TypeIDs, a prefix and a UUIDv7, such as `conn_01h455vb4pex5vsknk084sn02q`. They sort by
//! the time they were made.

use type_safe_id::{DynamicType, TypeSafeId};
use uuid::Uuid;

/// What an id names; its text is the prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    /// An API key.
    ApiKey,
    /// A registration at a provider.
    App,
    /// An attempt to connect an account.
    Authorization,
    /// An account, connected.
    Connection,
    /// A set of tokens.
    Grant,
    /// An attempt to refresh.
    RefreshAttempt,
    /// A synchronisation.
    Sync,
    /// A person who signs in.
    User,
    /// A user, signed in somewhere.
    Session,
    /// An entry of the audit trail.
    AuditEvent,
    /// A client of our own authorisation server.
    Client,
    /// A request at our own authorisation server.
    AuthorizationRequest,
    /// What a person gave a client.
    IssuedGrant,
    /// A token that we issued.
    IssuedToken,
    /// A device that waits for its person.
    Device,
    /// An account that is connected by browser automation.
    Account,
    /// A browser profile.
    Profile,
    /// A piece of work for a worker.
    Job,
    /// Many of those; callers may give ids of their own.
    Batch,
}

impl IdKind {
    /// The prefix.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::ApiKey => "key",
            Self::App => "app",
            Self::Authorization => "auth",
            Self::Connection => "conn",
            Self::Grant => "grant",
            Self::RefreshAttempt => "ref",
            Self::Sync => "sync",
            Self::User => "user",
            Self::Session => "sess",
            Self::AuditEvent => "aud",
            Self::Client => "client",
            Self::AuthorizationRequest => "areq",
            Self::IssuedGrant => "ogrant",
            Self::IssuedToken => "itok",
            Self::Device => "dev",
            Self::Account => "acct",
            Self::Profile => "prof",
            Self::Job => "job",
            Self::Batch => "batch",
        }
    }

    /// A new id.
    pub fn new_id(self) -> String {
        let uuid = Uuid::now_v7();
        match DynamicType::new(self.prefix()) {
            Ok(prefix) => TypeSafeId::from_type_and_uuid(prefix, uuid).to_string(),
            // The prefixes above are all well-formed.
            Err(_) => format!("{}_{}", self.prefix(), uuid.simple()),
        }
    }

    /// Whether `text` is an id of this kind.
    pub fn matches(self, text: &str) -> bool {
        text.parse::<TypeSafeId<DynamicType>>()
            .is_ok_and(|id| id.type_prefix() == self.prefix())
    }
}
