//! Browser automation of authorisations: a queue of jobs that workers fetch under leases, and the
//! accounts and browser profiles that the jobs are about.
//!
//! A job's row is the truth of it; every move of a job is computed by `moves` from the locked row and
//! written on the condition that the row is still so. A claim gives a lease and the next fencing token,
//! the first of which is random: whoever presents another one is told that the lease is lost. What
//! nobody asks for, such as jobs whose time has come or whose worker was lost, is looked after by
//! [`Automation::tend`].

mod accounts;
mod batches;
mod claims;
mod credentials;
mod dead_letters;
mod jobs;
mod kept;
mod line;
mod moves;
mod named;
mod profiles;
mod retry;
mod steps;
mod tend;
mod waiting;
mod work;

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::access::{Caller, Permission};
use crate::clock::Clock;
use crate::config;
use crate::crypto::Keyring;
use crate::error::Error;
use crate::model::{Event, EventKind, JobState};
use crate::store::{Engine, Store, Tx};
use crate::telemetry::Metrics;

pub use accounts::{AccountChanges, AccountFilter, NewAccount};
pub use batches::NewBatch;
pub use claims::{Claim, Claimed};
pub use credentials::{Credentials, JobCredentials};
pub use dead_letters::DeadFilter;
pub use jobs::{Authorized, Checked, JobFilter, NewJob};
pub use moves::{Failure, ProgressReport};
pub use profiles::{NewProfile, ProfileChanges, ProfileFilter};
pub use retry::Retry;
pub use work::Beat;

/// What browser automation is made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Seals credentials and links.
    pub keyring: Keyring,
    /// The time.
    pub clock: Clock,
    /// Leases, attempts, limits.
    pub config: config::Automation,
    /// Wakes the relay of events after a commit.
    pub poke: Arc<Notify>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Ends the waits of claims.
    pub stopping: CancellationToken,
}

/// Browser automation. Shared behind an `Arc`.
pub struct Automation {
    parts: Parts,
    heard: tend::Heard,
    waiting: waiting::Waiting,
}

impl Automation {
    /// Of these parts.
    pub fn new(parts: Parts) -> Self {
        // Where there may be more writers than one, jobs are looked for while others are flushed. Each
        // passes by what the other has locked, as replicas do.
        let turns = match parts.store.engine() {
            Engine::Sqlite => 1,
            Engine::Postgres => 2,
        };
        Self {
            parts,
            heard: tend::Heard::default(),
            waiting: waiting::Waiting::new(turns),
        }
    }

    /// Hears of an event of any replica: wakes claims that wait, and remembers what to look after soon.
    /// What it misses is found by the next scan.
    pub fn hear(&self, event: &Event) {
        let event = &event.event;
        match event.kind {
            EventKind::AuthorizationEnded => self.heard.authorization(&event.subject),
            // One that waits for its next attempt leaves its profile and its place at the provider to
            // another, as one that ended does.
            EventKind::JobPending | EventKind::JobRetryable | EventKind::JobSnoozed => {
                self.waiting.wake(&event.tenant);
            }
            EventKind::JobCompleted | EventKind::JobFailed | EventKind::JobCancelled => {
                self.waiting.wake(&event.tenant);
                if let Some(batch_id) = &event.batch_id {
                    self.heard.batch(&event.tenant, batch_id);
                }
            }
            _ => {}
        }
    }

    /// Counts jobs that came into a state, once that is committed.
    fn count(&self, tx: &mut Tx, state: JobState, jobs: usize) {
        let metrics = Arc::clone(&self.parts.metrics);
        tx.on_commit(move || metrics.jobs_moved(state.as_str(), jobs));
    }

    /// Has the relay told at once of what was committed.
    fn poke(&self) {
        self.parts.poke.notify_one();
    }
}

/// What is kept here is a tenant's as a whole: whoever is held to a part of it is refused.
fn permit(caller: &Caller, permission: Permission) -> Result<(), Error> {
    caller.require(permission)?;
    caller.require_unconstrained(permission)
}
