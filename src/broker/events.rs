//! The hub: numbers committed events, follows their history, tells caches and watchers.
//!
//! One loop a replica. Each round first numbers whatever is committed and has no number, then reads on
//! from where it stopped; a round that ends without error has heard of everything committed before it began,
//! which is what the caches' bound on staleness counts from.

mod watch;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

pub use crate::store::events::Filter;
pub use watch::{Delivery, WatchFilter, Watcher};

use crate::access::Callers;
use crate::config;
use crate::crypto::random::random_bytes;
use crate::error::Error;
use crate::freshness::Freshness;
use crate::model::{Event, Horizon};
use crate::store::{self, Engine, Store};
use crate::telemetry::Metrics;

/// How long what is committed may gather at most. A round takes about as long for one event as for some:
/// where they come one after the other, rounds rest as long as they took, and leave the database to
/// those who commit.
const GATHER_MAX: Duration = Duration::from_millis(5);

/// Told of every event before watchers are.
pub type Listener = Box<dyn Fn(&Event) + Send + Sync>;

/// Follows the history of events.
pub struct Hub {
    store: Store,
    config: config::Events,
    freshness: Arc<Freshness>,
    poke: Arc<Notify>,
    callers: Arc<Callers>,
    metrics: Arc<Metrics>,
    live: broadcast::Sender<Arc<Vec<Event>>>,
    listeners: Vec<Listener>,
    position: AtomicI64,
    epoch: OnceLock<String>,
    /// Tells its own notifications from those of other replicas.
    name: String,
    stopping: CancellationToken,
}

impl Hub {
    /// Not running yet; `poke` is notified by whoever commits events.
    #[allow(clippy::too_many_arguments, reason = "wired in one place")]
    pub fn new(
        store: Store,
        config: config::Events,
        freshness: Arc<Freshness>,
        poke: Arc<Notify>,
        callers: Arc<Callers>,
        metrics: Arc<Metrics>,
        listeners: Vec<Listener>,
        stopping: CancellationToken,
    ) -> Self {
        let (live, _) = broadcast::channel(config.watcher_buffer);
        Self {
            store,
            config,
            freshness,
            poke,
            callers,
            metrics,
            live,
            listeners,
            position: AtomicI64::new(0),
            epoch: OnceLock::new(),
            name: format!("{:016x}", u64::from_ne_bytes(random_bytes())),
            stopping,
        }
    }

    /// Begins at the end of history: the caches are empty, so nothing before matters to them. Call
    /// it before anything is served.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin(&self) -> Result<(), Error> {
        let began = Instant::now();
        let horizon = self.horizon().await?;
        self.position.store(horizon.position, Ordering::Release);
        let _ = self.epoch.set(horizon.epoch);
        self.round(began).await
    }

    /// Follows until cancelled. An error ends a round, never the loop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let heard = Arc::clone(&self.poke);
        let listening = store::events::listen(&self.store, &self.name, heard);
        let following = async {
            loop {
                tokio::select! {
                    () = self.poke.notified() => {}
                    () = tokio::time::sleep(self.config.poll_interval) => {}
                }
                let began = Instant::now();
                if let Err(error) = self.round(began).await {
                    crate::error::log(&error);
                }
                tokio::time::sleep(began.elapsed().min(GATHER_MAX)).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = following => {}
            // Ends at once where there is no other replica to hear; then only cancelling ends it.
            () = async { listening.await; std::future::pending().await } => {}
        }
    }

    async fn round(&self, began: Instant) -> Result<(), Error> {
        let batch = self.config.batch;
        let most = usize::try_from(batch).unwrap_or(usize::MAX);
        let batch = i64::from(batch);
        loop {
            let numbered = store::events::number(&self.store, batch, &self.name).await?;
            // On SQLite they are counted as they are read, below.
            if self.store.engine() == Engine::Postgres {
                self.count_numbered(numbered);
            }
            // All that was committed by then.
            if numbered < most {
                break;
            }
        }
        loop {
            let after = self.position.load(Ordering::Acquire);
            let mut conn = self.store.read().await?;
            let events = store::events::any_tenant_after(&mut conn, after, batch).await?;
            drop(conn);
            let Some(last) = events.last() else { break };
            if self.store.engine() == Engine::Sqlite {
                self.count_numbered(events.len());
            }
            self.position.store(last.position, Ordering::Release);
            for event in &events {
                self.callers.hear(&event.event);
                for listener in &self.listeners {
                    listener(event);
                }
            }
            let all = events.len() < most;
            // Nobody watching is no error.
            let _ = self.live.send(Arc::new(events));
            if all {
                break;
            }
        }
        self.freshness.heard(began);
        Ok(())
    }

    fn count_numbered(&self, count: usize) {
        self.metrics
            .events_numbered(u64::try_from(count).unwrap_or(0));
    }

    async fn horizon(&self) -> Result<Horizon, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::events::horizon(&mut conn).await?)
    }

    /// Past events of a tenant, oldest first, with positions after `after`.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(
        &self,
        tenant: &str,
        filter: &Filter,
        after: i64,
        limit: i64,
    ) -> Result<Vec<Event>, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::events::list(&mut conn, tenant, filter, after, limit).await?)
    }
}
