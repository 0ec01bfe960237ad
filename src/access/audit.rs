//! The audit trail: an entry is written in the transaction of what it tells of, and chained behind it.

pub mod action;
mod chain;
mod checkpoint;
mod note;
mod outbox;
mod reading;
pub mod reads;
pub mod refusals;
mod sign_ins;
pub mod trail;
mod verify;
mod watch;

pub use crate::store::audit::Filter;
pub use action::Action;
pub use note::NOTE_MAX;
pub use reading::{Listed, Stretch};
pub use reads::Reads;
pub use refusals::Refusals;
pub use sign_ins::SignIns;
pub use trail::Trail;
pub use verify::{Fault, Finding, Verification};
pub use watch::{Delivery, Watcher};

use std::collections::BTreeMap;

use crate::access::{Caller, Credential, Origin, Principal};
use crate::crypto::{digest, random};
use crate::error::Error;
use crate::model::{ActorKind, AuditEvent, IdKind, Timestamp};
use crate::store::{self, Tx};

/// Frozen: the hashes of all installations begin with it.
const PERSONAL_TAG: &[u8] = b"tokenbroker.audit.personal.v1";

/// Bytes that a person's address and program are hashed with: without them the few possible values
/// could be tried out.
const SALT_BYTES: usize = 16;

/// Longest value of a detail, a reason or an id, in characters; what is longer is cut.
const VALUE_MAX: usize = 512;

/// Who did it.
#[derive(Clone, Debug)]
pub struct Who {
    kind: ActorKind,
    id: String,
    tenant: String,
    origin: Origin,
}

impl Who {
    /// This service by itself: a worker, such as `refresh`.
    pub fn system(part: &str, tenant: &str) -> Self {
        Self::new(ActorKind::System, part, tenant, Origin::default())
    }

    /// Somebody's browser; `id` is the authorisation's.
    pub fn browser(id: &str, tenant: &str, origin: &Origin) -> Self {
        Self::new(ActorKind::Browser, id, tenant, origin.clone())
    }

    /// Nobody known.
    pub fn anonymous(tenant: &str, origin: &Origin) -> Self {
        Self::new(ActorKind::Anonymous, "", tenant, origin.clone())
    }

    /// The command line, with the system's name of who runs it.
    pub fn command_line(tenant: &str) -> Self {
        Self::from(&Caller::command_line(tenant))
    }

    /// A user who just proved who they are.
    pub fn user(id: &str, tenant: &str, origin: &Origin) -> Self {
        Self::new(ActorKind::User, id, tenant, origin.clone())
    }

    /// A client of our own authorisation server that proved who it is, or can't: a public one.
    pub fn client(id: &str, tenant: &str, origin: &Origin) -> Self {
        Self::new(ActorKind::Client, id, tenant, origin.clone())
    }

    /// A known caller, calling from there.
    pub fn of(principal: &Principal, origin: Origin) -> Self {
        let kind = match principal.credential {
            Credential::ApiKey { .. } => ActorKind::ApiKey,
            Credential::Session { .. } => ActorKind::User,
            Credential::Certificate { .. } => ActorKind::Certificate,
            Credential::Jwt { .. } => ActorKind::Jwt,
            Credential::CommandLine => ActorKind::CommandLine,
        };
        Self::new(kind, &principal.id, &principal.tenant, origin)
    }

    /// The tenant that they act in; empty where none is known.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    fn new(kind: ActorKind, id: &str, tenant: &str, origin: Origin) -> Self {
        Self {
            kind,
            id: clip(id),
            tenant: tenant.to_owned(),
            origin,
        }
    }
}

impl From<&Caller> for Who {
    fn from(caller: &Caller) -> Self {
        Self::of(caller, caller.origin.clone())
    }
}

impl From<&Self> for Who {
    fn from(who: &Self) -> Self {
        who.clone()
    }
}

/// What was done, to be recorded. It came about unless said otherwise.
#[derive(Clone, Debug)]
pub struct Entry {
    who: Who,
    action: Action,
    success: bool,
    reason: String,
    resource: (String, String),
    provider: String,
    details: BTreeMap<String, String>,
}

impl Entry {
    /// `who` did this.
    pub fn new(action: Action, who: impl Into<Who>) -> Self {
        Self {
            who: who.into(),
            action,
            success: true,
            reason: String::new(),
            resource: (String::new(), String::new()),
            provider: String::new(),
            details: BTreeMap::new(),
        }
    }

    /// On what: its kind, such as `connection`, and its id.
    #[must_use]
    pub fn on(mut self, kind: &str, id: &str) -> Self {
        self.resource = (kind.to_owned(), clip(id));
        self
    }

    /// The provider that it concerns.
    #[must_use]
    pub fn provider(mut self, provider: &str) -> Self {
        provider.clone_into(&mut self.provider);
        self
    }

    /// Why; machine-readable where it can be.
    #[must_use]
    pub fn reason(mut self, reason: &str) -> Self {
        self.reason = clip(reason);
        self
    }

    /// It was tried and did not come about.
    #[must_use]
    pub fn failed(mut self, reason: &str) -> Self {
        self.success = false;
        self.reason(reason)
    }

    /// More, by name. Never a secret; a keyed hash of one at most.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl ToString) -> Self {
        self.details
            .insert(name.to_owned(), clip(&value.to_string()));
        self
    }

    /// The row of it.
    fn event(&self, id: String, now: Timestamp) -> AuditEvent {
        let Self { who, .. } = self;
        let ip = who.origin.ip_text();
        let user_agent = Origin::clean_user_agent(&who.origin.user_agent);
        let salt = random::random_bytes::<SALT_BYTES>().to_vec();
        AuditEvent {
            id,
            tenant: who.tenant.clone(),
            occurred_at: now,
            action: self.action.as_str().to_owned(),
            success: self.success,
            reason: self.reason.clone(),
            actor_kind: who.kind.as_str().to_owned(),
            actor_id: who.id.clone(),
            resource_kind: self.resource.0.clone(),
            resource_id: self.resource.1.clone(),
            provider: self.provider.clone(),
            trace_id: who.origin.trace_id.clone(),
            details: self.details.clone(),
            personal_hash: personal_hash(&salt, &ip, &user_agent).to_vec(),
            salt: Some(salt),
            ip,
            user_agent,
            erased_by: None,
        }
    }
}

/// What the chain holds of a person's address and program.
fn personal_hash(salt: &[u8], ip: &str, user_agent: &str) -> [u8; 32] {
    let mut bytes = Vec::from(PERSONAL_TAG);
    for part in [salt, ip.as_bytes(), user_agent.as_bytes()] {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    }
    digest::sha256(&bytes)
}

/// Records what the transaction does. It is written with it or not at all; the id of the entry.
///
/// # Errors
/// The store's.
pub async fn record(tx: &mut Tx, entry: &Entry, now: Timestamp) -> Result<String, Error> {
    let event = entry.event(IdKind::AuditEvent.new_id(), now);
    store::audit::insert(tx, &event).await?;
    Ok(event.id)
}

/// PostgreSQL's text holds no NUL, and an entry must not fail for one.
fn clip(text: &str) -> String {
    text.chars()
        .filter(|c| *c != '\0')
        .take(VALUE_MAX)
        .collect()
}
