//! Who calls, and what keys they have.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What a caller may do in general.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Everything but secrets, and but deciding who may do what.
    Operator,
    /// The audit trail, and nothing else.
    Auditor,
    /// Tokens of the apps and owners it is allowed.
    Consumer,
    /// Automation jobs.
    Worker,
    /// An application that signs people in.
    IssuerUi,
    /// A person who sees and revokes their own connections.
    User,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 7] = [
        Self::Admin,
        Self::Operator,
        Self::Auditor,
        Self::Consumer,
        Self::Worker,
        Self::IssuerUi,
        Self::User,
    ];
}

/// How often a caller may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimit {
    /// Calls a second in the long run; not 0.
    pub requests_per_second: u32,
    /// Calls at once; not 0.
    pub burst: u32,
}

/// What narrows a role down, and what widens it by single permissions. Empty lists allow all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraints {
    /// Only these apps, by id.
    pub apps: Vec<String>,
    /// Only these owners; one that ends in `*` allows a prefix.
    pub owners: Vec<String>,
    /// Only these providers, by id.
    pub providers: Vec<String>,
    /// May start authorisations that no session confirms.
    pub link_only: bool,
}

/// An API key as it is stored: never the key itself.
#[derive(Clone, Debug)]
pub struct ApiKey {
    /// `key_…`.
    pub id: String,
    /// The tenant it acts in.
    pub tenant: String,
    /// What it is called.
    pub name: String,
    /// SHA-256 of the key.
    pub hash: Vec<u8>,
    /// The beginning of the key, to recognise it by.
    pub prefix: String,
    /// What it may do.
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// Its own limit; none for the role's.
    pub rate_limit: Option<RateLimit>,
    /// The key that took its place.
    pub replaced_by: Option<String>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it ends; none for never.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// When it was last used; up to a minute behind.
    pub last_used_at: Option<Timestamp>,
}
