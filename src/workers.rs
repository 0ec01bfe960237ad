//! Background loops. Each takes a bounded amount at a time, jitters its pauses so that replicas do
//! not march in step, and ends when it is told to, after what it has begun.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::access::Callers;
use crate::access::audit::{Reads, Refusals, Trail};
use crate::automation::Automation;
use crate::broker::cache::Taken;
use crate::broker::{Authorizations, Schedule, TokenCache};
use crate::clock::Clock;
use crate::config::Config;
use crate::error::Error;
use crate::issuer::Issuer;
use crate::maintenance::Retention;
use crate::store::{self, Store, Tx};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// How often uses counted in memory are stored; what a crash loses.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
/// How often the journal is looked through for entries whose commit failed for long.
const RECOVER_INTERVAL: Duration = Duration::from_secs(30);

/// How soon an audit event has its place in the chain.
const CHAIN_INTERVAL: Duration = Duration::from_millis(500);

/// What the loops work on.
pub struct Workers {
    /// The database.
    pub store: Store,
    /// The configuration.
    pub config: Arc<Config>,
    /// Grants that are due.
    pub schedule: Arc<Schedule>,
    /// Authorisations left over.
    pub authorizations: Arc<Authorizations>,
    /// Our own authorisation server: what lapsed, keys that are due, uses counted in memory.
    pub issuer: Arc<Issuer>,
    /// Jobs whose time has come, or whose worker was lost.
    pub automation: Arc<Automation>,
    /// Logs to prune.
    pub retention: Arc<Retention>,
    /// Uses counted in memory.
    pub cache: Arc<TokenCache>,
    /// Callers seen in memory.
    pub callers: Arc<Callers>,
    /// What the audit trail counts in memory.
    pub tallies: Tallies,
    /// The audit trail, which is chained and signed.
    pub trail: Arc<Trail>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Where the loops run.
    pub tasks: Tasks,
}

impl Workers {
    /// Starts the loops; they end soon after `stop`.
    pub fn start(self, stop: &CancellationToken) {
        let Self {
            store,
            config,
            schedule,
            authorizations,
            issuer,
            automation,
            retention,
            cache,
            callers,
            tallies,
            trail,
            metrics,
            tasks,
        } = self;
        tend_what_is_heard(&tasks, stop, Arc::clone(&automation));
        every(&tasks, stop, config.automation.scan_interval, move || {
            let automation = Arc::clone(&automation);
            async move { automation.tend().await }
        });
        let growing = Arc::clone(&trail);
        every(&tasks, stop, CHAIN_INTERVAL, move || {
            let trail = Arc::clone(&growing);
            async move { trail.chain().await.map(drop) }
        });
        every(&tasks, stop, config.audit.checkpoint_interval, move || {
            let trail = Arc::clone(&trail);
            async move { trail.checkpoint(false).await.map(drop) }
        });
        let (refreshing, ending) = (tasks.clone(), stop.clone());
        let due = Arc::clone(&schedule);
        every(&tasks, stop, config.refresh.scan_interval, move || {
            let (due, tasks, stop) = (Arc::clone(&due), refreshing.clone(), ending.clone());
            async move { due.refresh_due(&tasks, &stop).await }
        });
        let noticing = Arc::clone(&schedule);
        every(&tasks, stop, NOTICE_INTERVAL, move || {
            let schedule = Arc::clone(&noticing);
            async move { schedule.send_notices().await }
        });
        every(&tasks, stop, RECOVER_INTERVAL, move || {
            let schedule = Arc::clone(&schedule);
            async move { schedule.recover().await }
        });
        every(
            &tasks,
            stop,
            config.authorizations.sweep_interval,
            move || {
                let authorizations = Arc::clone(&authorizations);
                async move { authorizations.sweep(SWEEP_BATCH).await.map(drop) }
            },
        );
        let sweeping = Arc::clone(&issuer);
        every(
            &tasks,
            stop,
            config.authorizations.sweep_interval,
            move || {
                let issuer = Arc::clone(&sweeping);
                async move { issuer.sweep(SWEEP_BATCH).await.map(drop) }
            },
        );
        let signing = Arc::clone(&issuer);
        every(&tasks, stop, KEYS_INTERVAL, move || {
            let issuer = Arc::clone(&signing);
            async move { issuer.rotate_keys().await.map(drop) }
        });
        every(&tasks, stop, config.retention.sweep_interval, move || {
            let retention = Arc::clone(&retention);
            async move { retention.sweep().await.map(drop) }
        });
        every(&tasks, stop, FLUSH_INTERVAL, move || {
            let (store, cache) = (store.clone(), Arc::clone(&cache));
            let callers = Arc::clone(&callers);
            let (tallies, metrics) = (tallies.clone(), Arc::clone(&metrics));
            let issuer = Arc::clone(&issuer);
            async move {
                metrics.cache_holds(cache.len());
                let told = tallies.flush(&cache, false).await;
                both(flush(&store, &cache, &callers, &issuer).await, told)
            }
        });
    }
}

/// Warnings are due days ahead: a minute more or less is nothing.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// Authorisations taken in one sweep.
const SWEEP_BATCH: i64 = 200;

/// Keys are looked at again this often: other replicas make some, too.
const KEYS_INTERVAL: Duration = Duration::from_secs(60);

/// Stores the uses counted in memory, of connections, of keys and of tokens that we issued. Also called at shutdown, so that
/// an orderly stop loses none.
///
/// # Errors
/// The store's; what was not stored is counted again.
pub async fn flush(
    store: &Store,
    cache: &TokenCache,
    callers: &Callers,
    issuer: &Issuer,
) -> Result<(), Error> {
    let taken = cache.take_uses();
    let add = async |tx: &mut Tx, chunk: &[Taken]| {
        for one in chunk {
            let (tenant, id) = (one.tenant(), one.connection_id());
            store::connections::add_usage(tx, tenant, id, &one.usage).await?;
        }
        Ok(())
    };
    let (done, stored) = store::write_in_chunks(store, &taken, add).await;
    for one in taken.iter().skip(done) {
        cache.give_back(one);
    }
    both(
        issuer.flush_use().await,
        both(callers.flush_use().await, stored),
    )
}

/// One error is returned, and logged by whoever called; a second is logged here.
fn both(one: Result<(), Error>, other: Result<(), Error>) -> Result<(), Error> {
    if let (Err(_), Err(other)) = (&one, &other) {
        crate::error::log(other);
    }
    one.and(other)
}

/// What the audit trail counts in memory until the minute is over.
#[derive(Clone)]
pub struct Tallies {
    /// Tokens that were handed out.
    pub reads: Arc<Reads>,
    /// Callers who were turned away.
    pub refusals: Arc<Refusals>,
    /// The time.
    pub clock: Clock,
}

impl Tallies {
    /// Writes down the minutes that are over; with `all`, at an orderly stop, this one too.
    ///
    /// # Errors
    /// The store's; what was not written waits for the next time.
    pub async fn flush(&self, cache: &TokenCache, all: bool) -> Result<(), Error> {
        let counted = cache.take_reads(self.clock.now(), all);
        let reads = self.reads.flush(counted).await;
        both(self.refusals.flush(all).await, reads)
    }
}

/// Looks after jobs as soon as something is heard of them: scans alone would let a callback wait.
fn tend_what_is_heard(tasks: &Tasks, stop: &CancellationToken, automation: Arc<Automation>) {
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = automation.tend_soon() => {}
            }
            if let Err(error) = automation.tend_heard().await {
                crate::error::log(&error);
            }
        }
    });
}

/// Runs `round` again and again, with pauses of `interval` give or take a tenth. An error is
/// logged and ends the round only.
fn every<F, R>(tasks: &Tasks, stop: &CancellationToken, interval: Duration, mut round: F)
where
    F: FnMut() -> R + Send + 'static,
    R: Future<Output = Result<(), Error>> + Send,
{
    let stop = stop.clone();
    tasks.spawn(async move {
        loop {
            let pause = interval.mul_f64(0.9 + 0.2 * fastrand::f64());
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if let Err(error) = round().await {
                crate::error::log(&error);
            }
        }
    });
}
