//! Watching the trail: what was written, then what is being written, each entry once and in order.
//! A watcher reads the database at its own pace, so a slow one costs nobody anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::reading::{Stretch, reading};
use super::trail::Trail;
use super::{Filter, Who};
use crate::access::{Caller, Callers, Principal};
use crate::error::Error;
use crate::model::Chained;
use crate::store;

/// How often the database is asked for what another replica chained.
const POLL: Duration = Duration::from_secs(1);

/// After which a watcher is judged again: so soon at the latest a revoked key sees nothing more.
const JUDGED_FOR: Duration = Duration::from_secs(2);

/// Entries of one query.
const BATCH: i64 = 500;

/// Deliveries that wait for a watcher before its task waits for it.
const IN_FLIGHT: usize = 64;

/// What a watcher gets.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where to resume.
    pub position: i64,
    /// The entry; none in a heartbeat.
    pub event: Option<Chained>,
}

/// The watcher's end.
pub type Watcher = mpsc::Receiver<Result<Delivery, Error>>;

/// One watcher, on the way.
struct Watch {
    trail: Arc<Trail>,
    callers: Arc<Callers>,
    principal: Arc<Principal>,
    filter: Filter,
    position: i64,
    judged: Instant,
    out: mpsc::Sender<Result<Delivery, Error>>,
}

/// The watcher hung up, the server stops, or an error was delivered.
struct Ended;

impl Trail {
    /// Begins to watch a tenant's entries behind a place, 0 for all that are kept, none for those from
    /// now on. The deliveries end with an error, or when the receiver is dropped.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] for a place that the trail does not have, or no longer has, and the
    /// store's.
    pub async fn watch(
        self: &Arc<Self>,
        callers: Arc<Callers>,
        caller: &Caller,
        after: Option<i64>,
        action: String,
    ) -> Result<Watcher, Error> {
        let head = self.grow().await?;
        let position = match after {
            None => head.position,
            Some(0) => head.trimmed,
            Some(after) if after > head.position => {
                return Err(Error::OutOfRange(format!(
                    "the trail ends at place {}: the place is of another trail",
                    head.position
                )));
            }
            Some(after) if after < head.trimmed => return Err(gone(head.trimmed)),
            Some(after) => after,
        };
        let filter = Filter {
            action,
            ..Filter::default()
        };
        self.record(&reading(&Who::from(caller), "watch", &filter))
            .await?;
        let (out, watcher) = mpsc::channel(IN_FLIGHT);
        let watch = Watch {
            trail: Arc::clone(self),
            callers,
            principal: Arc::clone(caller.principal()),
            filter,
            position,
            judged: Instant::now(),
            out,
        };
        tokio::spawn(watch.run());
        Ok(watcher)
    }
}

fn gone(trimmed: i64) -> Error {
    Error::OutOfRange(format!(
        "retention has removed the entries up to place {trimmed}; begin with 0"
    ))
}

impl Watch {
    async fn run(mut self) {
        let stopping = self.trail.stopping.clone();
        let out = self.out.clone();
        tokio::select! {
            () = stopping.cancelled() => {
                // A watcher that does not read is not waited for.
                let _ = out.try_send(Err(Error::stopping()));
            }
            () = out.closed() => {}
            _ = self.follow() => {}
        }
    }

    async fn follow(&mut self) -> Result<(), Ended> {
        // At once, so that a client knows that it is connected and where it stands.
        self.heartbeat().await?;
        let trail = Arc::clone(&self.trail);
        let mut beat = tokio::time::interval(trail.heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        loop {
            // Before reading: what gets its place from here on wakes this up again.
            let mut grown = std::pin::pin!(trail.grown.notified());
            grown.as_mut().enable();
            self.read_on().await?;
            tokio::select! {
                () = grown => {}
                () = tokio::time::sleep(POLL) => {}
                _ = beat.tick() => self.heartbeat().await?,
            }
            self.judge_again().await?;
        }
    }

    /// Whatever has its place by now, a batch at a time.
    async fn read_on(&mut self) -> Result<(), Ended> {
        loop {
            match self.batch().await {
                Ok((events, reached)) => {
                    let more = !events.is_empty();
                    for event in events {
                        self.deliver(event).await?;
                    }
                    if !more {
                        // What lies between belongs to others, or is not wanted.
                        self.position = self.position.max(reached);
                        return Ok(());
                    }
                }
                // The database being away ends a round, not the stream, unless it lasts; then the
                // judgement fails too, and the watcher sees heartbeats that stand still.
                Err(Error::Store(error)) => {
                    crate::error::log(&Error::Store(error));
                    return Ok(());
                }
                Err(error) => return self.fail(error).await,
            }
        }
    }

    async fn batch(&self) -> Result<(Vec<Chained>, i64), Error> {
        let mut conn = self.trail.store.read().await?;
        // Places become visible in their order: up to here nothing can come in between.
        let reached = store::audit::chain::head(&mut conn)
            .await?
            .map_or(self.position, |head| head.position);
        let stretch = Stretch {
            after: self.position,
            until: reached,
        };
        let tenant = &self.principal.tenant;
        let events =
            store::audit::reading::list(&mut conn, tenant, &self.filter, stretch, BATCH).await?;
        // Asked again behind the reading: what left meanwhile may have been missed.
        let head = store::audit::chain::head(&mut conn).await?;
        match head.map(|head| head.trimmed) {
            Some(trimmed) if trimmed > self.position => Err(gone(trimmed)),
            _ => Ok((events, reached)),
        }
    }

    async fn deliver(&mut self, event: Chained) -> Result<(), Ended> {
        self.judge_again().await?;
        self.position = event.position.unwrap_or(self.position);
        let delivery = Delivery {
            position: self.position,
            event: Some(event),
        };
        self.send(Ok(delivery)).await
    }

    async fn heartbeat(&mut self) -> Result<(), Ended> {
        let delivery = Delivery {
            position: self.position,
            event: None,
        };
        self.send(Ok(delivery)).await
    }

    /// Ends the stream when its caller has ended since.
    async fn judge_again(&mut self) -> Result<(), Ended> {
        if self.judged.elapsed() < JUDGED_FOR {
            return Ok(());
        }
        match self.callers.reauthenticate(&self.principal).await {
            // The database being away is no judgement.
            Ok(()) | Err(Error::Store(_)) => {
                self.judged = Instant::now();
                Ok(())
            }
            Err(error) => self.fail(error).await,
        }
    }

    async fn fail(&mut self, error: Error) -> Result<(), Ended> {
        self.send(Err(error)).await?;
        Err(Ended)
    }

    async fn send(&mut self, delivery: Result<Delivery, Error>) -> Result<(), Ended> {
        self.out.send(delivery).await.map_err(|_| Ended)
    }
}
