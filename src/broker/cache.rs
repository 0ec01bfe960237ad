//! Opened tokens in memory: what `GetAccessToken` answers from without touching the database.

mod uses;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use moka::sync::Cache;
use secrecy::SecretString;
use serde_json::{Map, Value};

pub use uses::Taken;
use uses::Uses;

use crate::access::Principal;
use crate::access::audit::reads::{Counted, Minute, Subject};
use crate::freshness::{Epochs, Freshness};
use crate::model::{App, Connection, ConnectionKind, Event, EventKind, Grant, Provider, Timestamp};

/// A token that can be handed out, with all that is needed to judge whether it may be.
#[derive(Debug)]
pub struct Held {
    /// The tenant.
    pub tenant: String,
    /// The connection.
    pub connection_id: String,
    /// Its app.
    pub app_id: String,
    /// The app's other names: client id and external key.
    pub app_names: [Option<String>; 2],
    /// Its provider.
    pub provider: String,
    /// Its owner.
    pub owner: String,
    /// What it is.
    pub kind: ConnectionKind,
    /// The grant it comes from.
    pub grant_id: String,
    /// The grant's generation.
    pub generation: i64,
    /// The token.
    pub token: SecretString,
    /// The OAuth 1.0a token's secret.
    pub token_secret: Option<SecretString>,
    /// How it is sent.
    pub token_type: String,
    /// Names this set of tokens.
    pub token_id: String,
    /// The scopes granted.
    pub scopes: Vec<String>,
    /// What the provider said beside the token.
    pub metadata: Map<String, Value>,
    /// When it ends; none when not known.
    pub expires_at: Option<Timestamp>,
    /// How long before its end it is refreshed, unless the caller says otherwise.
    pub margin: Duration,
    /// The most validity worth refreshing for.
    pub cap: Duration,
    /// Whether there is anything to refresh it with.
    pub refreshable: bool,
    /// Whether a refresh elsewhere would kill it: then it is not trusted within its margin.
    pub dies_on_refresh: bool,
    /// No refresh is tried before this.
    pub not_before: Option<Timestamp>,
    uses: Arc<Uses>,
}

/// Counts of reads before those of the running minute are written early, for the memory that they
/// take.
const READS_OPEN_MAX: usize = 100_000;

/// How a held token meets a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is good for long enough.
    Good,
    /// It is good, but not for long enough.
    Short,
    /// It has ended.
    Ended,
}

impl Held {
    /// A token of a grant for one of its connections.
    pub(super) fn new(
        connection: &Connection,
        grant: &Grant,
        app: &App,
        provider: &Provider,
        margin: Duration,
        (token, token_secret): (SecretString, Option<SecretString>),
        uses: Arc<Uses>,
    ) -> Self {
        let refreshable = grant.refresh_token.is_some() && grant.kind == ConnectionKind::Oauth2;
        // A token can't be made to last longer than it lives: asking for nearly all of its life
        // would refresh on every call.
        let cap = grant.expires_at.map_or(Duration::ZERO, |end| {
            end.since(grant.issued_at)
                .mul_f64(0.8)
                .min(provider.min_validity_cap)
        });
        let mut metadata = grant.metadata.clone();
        let token_type = match connection.kind {
            ConnectionKind::ApiKey => {
                let prefix = provider.token_header.prefix.clone();
                metadata.insert("prefix".to_owned(), Value::String(prefix));
                provider.token_header.name.clone()
            }
            ConnectionKind::Oauth1 => "OAuth".to_owned(),
            // A provider that takes its tokens in a header of its own (Shopify).
            ConnectionKind::Oauth2 if provider.token_header.name != "Authorization" => {
                provider.token_header.name.clone()
            }
            ConnectionKind::Oauth2 => grant.token_type.clone(),
        };
        Self {
            tenant: connection.tenant.clone(),
            connection_id: connection.id.clone(),
            app_id: connection.app_id.clone(),
            app_names: [app.client_id.clone(), app.external_key.clone()],
            provider: connection.provider.clone(),
            owner: connection.owner.clone(),
            kind: connection.kind,
            grant_id: grant.id.clone(),
            generation: grant.generation,
            token,
            token_secret,
            token_type,
            token_id: grant.token_id(),
            scopes: grant.scopes.clone(),
            metadata,
            expires_at: grant.expires_at,
            margin,
            cap,
            refreshable,
            dies_on_refresh: provider.old_access_token_dies && refreshable,
            not_before: grant.not_before,
            uses,
        }
    }

    /// Whether it is good for `wanted` (its margin when not said) from now.
    pub fn fit(&self, wanted: Option<Duration>, now: Timestamp) -> Fit {
        let Some(end) = self.expires_at else {
            return Fit::Good;
        };
        if end <= now {
            return Fit::Ended;
        }
        let mut wanted = wanted.map_or(self.margin, |wanted| wanted.min(self.cap));
        if self.dies_on_refresh {
            wanted = wanted.max(self.margin);
        }
        if end.since(now) >= wanted {
            Fit::Good
        } else {
            Fit::Short
        }
    }

    /// Whether it is good for less than was asked, whatever can be had.
    pub fn is_below(&self, wanted: Option<Duration>, now: Timestamp) -> bool {
        let wanted = wanted.unwrap_or(self.margin);
        self.expires_at.is_some_and(|end| end.since(now) < wanted)
    }

    /// Counts a use, in memory.
    pub fn count_use(&self, caller: &Arc<Principal>, now: Timestamp) {
        self.uses.count_use(caller, now);
    }

    /// Counts for the audit trail that it was handed out, in memory.
    pub fn count_read(&self, caller: &Arc<Principal>, ip: Option<IpAddr>, now: Timestamp) {
        self.uses.count_read(caller, ip, now);
    }

    /// Counts both: the hot path.
    pub fn count(&self, caller: &Arc<Principal>, ip: Option<IpAddr>, now: Timestamp) {
        self.uses.count_both(caller, ip, now);
    }

    /// What the audit trail says of it.
    pub fn subject(&self) -> &Arc<Subject> {
        &self.uses.subject
    }

    fn is_named(&self, app: &str) -> bool {
        self.app_id == app
            || self
                .app_names
                .iter()
                .any(|name| name.as_deref() == Some(app))
    }
}

/// Two hashes under random keys: an alias found by them is still compared with what it leads to.
type AliasKey = (u64, u64);

/// The tokens held in memory, bounded in number.
pub struct TokenCache {
    freshness: Arc<Freshness>,
    held: Cache<String, Arc<Held>>,
    /// An app and an owner, as a caller names them, to a connection; with the app's epoch.
    aliases: Cache<AliasKey, (Arc<str>, u64)>,
    hashers: (RandomState, RandomState),
    /// By connection: a value read before a change of it is not cached after it.
    connections: Epochs,
    /// By tenant: names of apps, and which connections an owner has.
    names: Epochs,
    uses: Mutex<HashMap<String, Arc<Uses>>>,
}

impl TokenCache {
    /// Holds at most `capacity` tokens.
    pub fn new(capacity: u64, freshness: Arc<Freshness>) -> Self {
        Self {
            freshness,
            held: Cache::new(capacity),
            aliases: Cache::new(capacity),
            hashers: (RandomState::new(), RandomState::new()),
            connections: Epochs::default(),
            names: Epochs::default(),
            uses: Mutex::default(),
        }
    }

    /// The token of a connection, while everything committed was heard of lately enough.
    pub fn get(&self, tenant: &str, connection_id: &str) -> Option<Arc<Held>> {
        if !self.freshness.holds() {
            return None;
        }
        self.held
            .get(connection_id)
            .filter(|held| held.tenant == tenant)
    }

    /// The token that an app and an owner lead to.
    pub fn get_named(&self, tenant: &str, app: &str, owner: Option<&str>) -> Option<Arc<Held>> {
        let (connection_id, epoch) = self.aliases.get(&self.alias(tenant, app, owner))?;
        if self.names.at(tenant) != epoch {
            return None;
        }
        self.get(tenant, &connection_id)
            .filter(|held| held.is_named(app) && owner.is_none_or(|owner| held.owner == owner))
    }

    fn alias(&self, tenant: &str, app: &str, owner: Option<&str>) -> AliasKey {
        let key = (tenant, app, owner);
        (self.hashers.0.hash_one(key), self.hashers.1.hash_one(key))
    }

    /// Where a connection's epoch stands; take it before reading the connection.
    pub fn epoch(&self, connection_id: &str) -> u64 {
        self.connections.at(connection_id)
    }

    /// Where a tenant's names stand; take it before resolving one.
    pub fn name_epoch(&self, tenant: &str) -> u64 {
        self.names.at(tenant)
    }

    /// Keeps a token that was read after `epoch` was taken; refused when the connection changed
    /// meanwhile, or when a newer generation is held.
    pub fn keep(&self, held: &Arc<Held>, epoch: u64) {
        let id = &held.connection_id;
        self.held
            .entry_by_ref(id.as_str())
            .and_upsert_with(|present| match present {
                Some(entry)
                    if entry.value().grant_id == held.grant_id
                        && entry.value().generation > held.generation =>
                {
                    entry.into_value()
                }
                _ => Arc::clone(held),
            });
        if self.connections.at(id.as_str()) != epoch {
            self.held.invalidate(id.as_str());
        }
    }

    /// Remembers which connection an app and an owner lead to.
    pub fn keep_name(
        &self,
        tenant: &str,
        app: &str,
        owner: Option<&str>,
        connection_id: &str,
        epoch: u64,
    ) {
        self.aliases.insert(
            self.alias(tenant, app, owner),
            (Arc::from(connection_id), epoch),
        );
    }

    /// The uses of a connection, to be counted in its held token.
    pub(super) fn uses(&self, connection: &Connection) -> Arc<Uses> {
        let mut uses = self.all_uses();
        Arc::clone(
            uses.entry(connection.id.clone())
                .or_insert_with(|| Arc::new(Uses::of(connection))),
        )
    }

    /// Takes the uses counted since the last time, for storing.
    pub fn take_uses(&self) -> Vec<Taken> {
        self.all_uses().values().filter_map(Uses::take).collect()
    }

    /// Takes who was handed tokens, for the audit trail: in minutes that are over, or in this one
    /// too, where `all` says so or memory holds very many. Connections that are no longer held are
    /// dropped once everything of theirs is taken.
    pub fn take_reads(&self, now: Timestamp, all: bool) -> Vec<Counted> {
        let minute = Minute::of(now);
        let mut uses = self.all_uses();
        let open: usize = uses.values().map(|uses| uses.open()).sum();
        let all = all || open > READS_OPEN_MAX;
        let mut taken = Vec::new();
        uses.retain(|_, uses| {
            // Nobody else has it, so nobody counts in it: asked before its counts are taken.
            let alone = Arc::strong_count(uses) == 1;
            taken.extend(uses.take_reads(minute, all));
            !(alone && uses.is_empty())
        });
        taken
    }

    /// Counts uses again that could not be stored.
    pub fn give_back(&self, taken: &Taken) {
        let mut all = self.all_uses();
        all.entry(taken.connection_id().to_owned())
            .or_insert_with(|| Arc::clone(&taken.uses))
            .give_back(&taken.usage);
    }

    fn all_uses(&self) -> MutexGuard<'_, HashMap<String, Arc<Uses>>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many tokens are held; roughly.
    pub fn len(&self) -> u64 {
        self.held.entry_count()
    }

    /// Whether none is held; roughly.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets what an event, of this replica or another, made stale.
    pub fn hear(&self, event: &Event) {
        let event = &event.event;
        if let Some(connection_id) = event.connection_id.as_deref() {
            self.connections.advance(connection_id);
            let known = event.kind == EventKind::Refreshed
                && self
                    .held
                    .get(connection_id)
                    .is_some_and(|held| held.generation >= event.generation);
            if !known {
                self.held.invalidate(connection_id);
            }
        }
        match event.kind {
            EventKind::Created
            | EventKind::Activated
            | EventKind::Reconnected
            | EventKind::Revoked
            | EventKind::Deleted => self.names.advance(event.tenant.as_str()),
            EventKind::AppChanged | EventKind::ProviderChanged => {
                self.names.advance(event.tenant.as_str());
                // Seldom, and what it touches is not told by the event: everything of everybody.
                self.connections.advance_all();
                self.held.invalidate_all();
            }
            EventKind::Refreshed
            | EventKind::RefreshFailed
            | EventKind::ReauthorizationRequired
            | EventKind::Expiring
            | EventKind::Updated
            | EventKind::ApiKeyChanged
            | EventKind::SessionsEnded
            | EventKind::IssuedEnded
            | EventKind::AuthorizationEnded
            | EventKind::JobScheduled
            | EventKind::JobPending
            | EventKind::JobRunning
            | EventKind::JobProgressed
            | EventKind::JobRetryable
            | EventKind::JobSnoozed
            | EventKind::JobCompleted
            | EventKind::JobFailed
            | EventKind::JobCancelled
            | EventKind::JobCancelRequested
            | EventKind::BatchFinished => {}
        }
    }

    /// Forgets one connection's token.
    pub fn forget(&self, connection_id: &str) {
        self.connections.advance(connection_id);
        self.held.invalidate(connection_id);
    }
}
