//! Deleting what is too old: refresh attempts, synchronisations, answered requests, sessions, deleted
//! users, OAuth clients and their secrets, counts of failed sign-ins, jobs and batches, events, the audit
//! trail.

use std::sync::Arc;
use std::time::Duration;

use crate::access::audit::{self, Action, Entry, Trail, Who};
use crate::access::requests::SECRET_REPEATED_FOR;
use crate::access::throttle::FORGOTTEN_AFTER;
use crate::clock::Clock;
use crate::config;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::{self, Store, transact};

/// The most batches of one kind in a sweep. What is left after them is the next sweep's, so that a
/// backlog of one kind does not keep the others waiting.
const BATCHES_MAX: usize = 10_000;

/// How long secrets of OAuth clients are kept after their time.
const SECRETS_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// Deletes what is too old. Replicas may sweep at the same time.
pub struct Retention {
    store: Store,
    clock: Clock,
    config: config::Retention,
    events: Duration,
    trail: Arc<Trail>,
}

/// How many rows a sweep deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Refresh attempts.
    pub refresh_attempts: usize,
    /// Synchronisations.
    pub sync_records: usize,
    /// Answered requests.
    pub requests: usize,
    /// Sessions that ended.
    pub sessions: usize,
    /// Users who were deleted.
    pub users: usize,
    /// OAuth clients that were deleted.
    pub clients: usize,
    /// Secrets of OAuth clients whose time was over.
    pub client_secrets: usize,
    /// Counts of failed sign-ins.
    pub sign_in_failures: usize,
    /// Jobs that were completed or called off.
    pub jobs: usize,
    /// Jobs that failed.
    pub dead_letters: usize,
    /// Batches, and their jobs.
    pub batches: usize,
    /// Events.
    pub events: usize,
    /// Entries of the audit trail.
    pub audit_events: usize,
}

/// What is deleted.
#[derive(Clone, Copy)]
enum Kind {
    RefreshAttempts,
    SyncRecords,
    Requests,
    Sessions,
    Users,
    Clients,
    ClientSecrets,
    SignInFailures,
    Jobs,
    DeadLetters,
    Batches,
    Events,
}

impl Retention {
    /// Over a store, with the `[retention]` section, `events.retention`, and the trail, which knows how
    /// long it is kept.
    pub fn new(
        store: Store,
        clock: Clock,
        config: config::Retention,
        events: Duration,
        trail: Arc<Trail>,
    ) -> Self {
        Self {
            store,
            clock,
            config,
            events,
            trail,
        }
    }

    /// Deletes what is too old by now, batch by batch, and logs how much that was.
    ///
    /// # Errors
    /// The store's; what was deleted until then stays deleted.
    pub async fn sweep(&self) -> Result<Swept, Error> {
        let now = self.clock.now();
        let swept = Swept {
            // First: sealed answers hold secrets, and their time is the shortest.
            requests: self.prune(Kind::Requests, now).await?,
            refresh_attempts: self.prune(Kind::RefreshAttempts, now).await?,
            sync_records: self.prune(Kind::SyncRecords, now).await?,
            sessions: self.prune(Kind::Sessions, now).await?,
            users: self.prune(Kind::Users, now).await?,
            clients: self.prune(Kind::Clients, now).await?,
            client_secrets: self.prune(Kind::ClientSecrets, now).await?,
            sign_in_failures: self.prune(Kind::SignInFailures, now).await?,
            jobs: self.prune(Kind::Jobs, now).await?,
            dead_letters: self.prune(Kind::DeadLetters, now).await?,
            batches: self.prune(Kind::Batches, now).await?,
            events: self.prune(Kind::Events, now).await?,
            // Last: a trail that is not as it was refuses to let anything go.
            audit_events: self.trail.trim(i64::from(self.config.batch)).await?,
        };
        if swept != Swept::default() {
            tracing::info!(
                requests = swept.requests,
                users = swept.users,
                clients = swept.clients,
                client_secrets = swept.client_secrets,
                sign_in_failures = swept.sign_in_failures,
                refresh_attempts = swept.refresh_attempts,
                sync_records = swept.sync_records,
                sessions = swept.sessions,
                jobs = swept.jobs,
                dead_letters = swept.dead_letters,
                batches = swept.batches,
                events = swept.events,
                audit_events = swept.audit_events,
                "deleted what was too old"
            );
        }
        Ok(swept)
    }

    async fn prune(&self, kind: Kind, now: Timestamp) -> Result<usize, Error> {
        let limit = self.config.batch;
        let full = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut pruned = 0;
        for _ in 0..BATCHES_MAX {
            let deleted = self.prune_batch(kind, now, i64::from(limit)).await?;
            pruned += deleted;
            if deleted < full {
                break;
            }
        }
        Ok(pruned)
    }

    /// Takes a connection for one batch only: other writers get their turn in between.
    async fn prune_batch(&self, kind: Kind, now: Timestamp, limit: i64) -> Result<usize, Error> {
        use store::{clients, events, idempotency, records, sessions, sign_in_failures};
        let deleted = match kind {
            Kind::RefreshAttempts => {
                let mut conn = self.store.write().await?;
                let before = now.minus(self.config.refresh_attempts);
                records::any_tenant_prune_attempts(&mut conn, before, limit).await
            }
            Kind::SyncRecords => {
                let mut conn = self.store.write().await?;
                let before = now.minus(self.config.sync_records);
                records::any_tenant_prune_syncs(&mut conn, before, limit).await
            }
            Kind::Requests => {
                let mut conn = self.store.write().await?;
                let before = now.minus(SECRET_REPEATED_FOR);
                idempotency::any_tenant_prune(&mut conn, now, before, limit).await
            }
            Kind::Sessions => {
                let mut conn = self.store.write().await?;
                let before = now.minus(self.config.sessions);
                sessions::any_tenant_prune(&mut conn, before, limit).await
            }
            Kind::Users => return self.purge_users(now, limit).await,
            Kind::Clients => {
                let mut conn = self.store.write().await?;
                let before = now.minus(self.config.deleted_clients);
                clients::any_tenant_delete_deleted(&mut conn, before, limit).await
            }
            Kind::ClientSecrets => {
                let mut conn = self.store.write().await?;
                let before = now.minus(SECRETS_KEPT);
                clients::any_tenant_delete_expired_secrets(&mut conn, before, limit).await
            }
            Kind::SignInFailures => {
                let mut conn = self.store.write().await?;
                let before = now.minus(FORGOTTEN_AFTER);
                sign_in_failures::any_tenant_prune(&mut conn, before, limit).await
            }
            Kind::Jobs | Kind::DeadLetters | Kind::Batches => {
                return self.prune_jobs(kind, now, limit).await;
            }
            Kind::Events => {
                let before = now.minus(self.events);
                events::trim(&self.store, before, limit).await
            }
        };
        Ok(deleted?)
    }

    /// Jobs that are of no batch, and batches with their jobs.
    async fn prune_jobs(&self, kind: Kind, now: Timestamp, limit: i64) -> Result<usize, Error> {
        use store::automation::{batches, jobs};
        let done = now.minus(self.config.jobs);
        let dead = now.minus(self.config.dead_letters);
        transact!(self.store, |tx| {
            let deleted = match kind {
                Kind::Batches => batches::any_tenant_delete_old(&mut tx, done, dead, limit).await,
                Kind::DeadLetters => jobs::any_tenant_delete_dead(&mut tx, dead, limit).await,
                _ => jobs::any_tenant_delete_finished(&mut tx, done, limit).await,
            };
            Ok(deleted?)
        })
    }

    /// Removes users who were deleted long enough ago. Each leaves one entry: that of the replica that
    /// removed the row.
    async fn purge_users(&self, now: Timestamp, limit: i64) -> Result<usize, Error> {
        let before = now.minus(self.config.deleted_users);
        transact!(self.store, |tx| {
            let due = store::users::any_tenant_deleted_before(&mut tx, before, limit).await?;
            let mut removed = 0;
            for (tenant, id) in &due {
                if !store::users::remove(&mut tx, tenant, id).await? {
                    continue;
                }
                removed += 1;
                let entry = Entry::new(Action::UserPurged, Who::system("retention", tenant));
                audit::record(&mut tx, &entry.on("user", id), now).await?;
            }
            Ok(removed)
        })
    }
}
