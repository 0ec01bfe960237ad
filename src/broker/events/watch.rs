//! Watching: what was missed, then what happens, each event once and in order.

use std::collections::HashSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

use super::Hub;
use crate::access::Principal;
use crate::error::Error;
use crate::model::{Event, EventKind, Horizon, NewEvent, Topic};
use crate::store;

/// From the beginning of what is kept.
const START: &str = "START";

/// How many deliveries wait for a watcher before its task waits for it.
const IN_FLIGHT: usize = 64;

/// Which events of its tenant a watcher wants; an empty set matches all.
#[derive(Clone, Debug)]
pub enum WatchFilter {
    /// What happens to connections.
    Tokens {
        /// Only these apps', by id.
        apps: HashSet<String>,
        /// Only these owners'.
        owners: HashSet<String>,
        /// Only these connections'.
        connections: HashSet<String>,
        /// Only these kinds.
        kinds: Vec<EventKind>,
    },
    /// What happens to jobs and batches. For callers without constraints.
    Jobs {
        /// Only these jobs.
        jobs: HashSet<String>,
        /// Only these batches and their jobs.
        batches: HashSet<String>,
        /// Only these kinds.
        kinds: Vec<EventKind>,
    },
}

impl WatchFilter {
    fn matches(&self, principal: &Principal, event: &NewEvent) -> bool {
        let among = |set: &HashSet<String>, id: Option<&str>| {
            set.is_empty() || id.is_some_and(|id| set.contains(id))
        };
        let wanted = |kinds: &[EventKind]| kinds.is_empty() || kinds.contains(&event.kind);
        match self {
            Self::Tokens {
                apps,
                owners,
                connections,
                kinds,
            } => {
                let app = event.app_id.as_deref();
                event.kind.topic() == Topic::Tokens
                    && principal.allows(app.unwrap_or_default(), &event.provider, &event.owner)
                    && among(apps, app)
                    && among(owners, Some(event.owner.as_str()))
                    && among(connections, event.connection_id.as_deref())
                    && wanted(kinds)
            }
            Self::Jobs {
                jobs,
                batches,
                kinds,
            } => {
                event.kind.topic() == Topic::Jobs
                    && among(jobs, event.job_id.as_deref())
                    && among(batches, event.batch_id.as_deref())
                    && wanted(kinds)
            }
        }
    }
}

/// What a watcher gets.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where to resume.
    pub cursor: String,
    /// The event; none in a heartbeat.
    pub event: Option<Event>,
}

/// The watcher's end.
pub type Watcher = mpsc::Receiver<Result<Delivery, Error>>;

/// One watcher, on the way.
struct Watch {
    hub: Arc<Hub>,
    principal: Arc<Principal>,
    filter: WatchFilter,
    epoch: String,
    position: i64,
    /// How far history reached when the watch began.
    reached: i64,
    out: mpsc::Sender<Result<Delivery, Error>>,
}

/// The watcher hung up, the server stops, or an error was delivered.
struct Ended;

impl Hub {
    /// Begins to watch; the deliveries end with an error, or when the receiver is dropped.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what is no cursor, [`Error::OutOfRange`] for one whose place
    /// in history is gone.
    pub async fn watch(
        self: &Arc<Self>,
        principal: Arc<Principal>,
        cursor: &str,
        filter: WatchFilter,
    ) -> Result<Watcher, Error> {
        // Before reading history: what is published from here on arrives live.
        let live = self.live.subscribe();
        let horizon = self.horizon().await?;
        let position = resume_at(cursor, &horizon)?;
        let (out, watcher) = mpsc::channel(IN_FLIGHT);
        let watch = Watch {
            hub: Arc::clone(self),
            principal,
            filter,
            epoch: horizon.epoch,
            position,
            reached: horizon.position,
            out,
        };
        tokio::spawn(watch.run(live));
        Ok(watcher)
    }

    /// The cursor of a position in this history.
    pub fn cursor(&self, position: i64) -> String {
        encode(self.epoch.get().map_or("", String::as_str), position)
    }
}

fn encode(epoch: &str, position: i64) -> String {
    URL_SAFE_NO_PAD.encode(format!("{epoch}.{position}"))
}

fn resume_at(cursor: &str, horizon: &Horizon) -> Result<i64, Error> {
    if cursor.is_empty() {
        return Ok(horizon.position);
    }
    if cursor == START {
        return Ok(horizon.trimmed);
    }
    let invalid = || {
        Error::invalid(
            "cursor",
            "is neither a cursor that this service gave, nor `START`, nor empty",
        )
    };
    if cursor.len() > 256 {
        return Err(invalid());
    }
    let text = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| invalid())?;
    let text = String::from_utf8(text).map_err(|_| invalid())?;
    let (epoch, position) = text.split_once('.').ok_or_else(invalid)?;
    let position: i64 = position.parse().map_err(|_| invalid())?;
    if epoch != horizon.epoch || position > horizon.position {
        return Err(Error::OutOfRange(
            "the cursor is of another history; list what is watched, then watch from the start"
                .to_owned(),
        ));
    }
    if position < horizon.trimmed {
        return Err(Error::OutOfRange(
            "the events after the cursor are no longer kept; list what is watched, then watch \
             from the start"
                .to_owned(),
        ));
    }
    Ok(position)
}

impl Watch {
    async fn run(mut self, live: broadcast::Receiver<Arc<Vec<Event>>>) {
        self.hub.metrics.watcher_joined();
        let stopping = self.hub.stopping.clone();
        let metrics = Arc::clone(&self.hub.metrics);
        let out = self.out.clone();
        tokio::select! {
            () = stopping.cancelled() => {
                // A watcher that does not read is not waited for.
                let _ = out.try_send(Err(Error::stopping()));
            }
            () = out.closed() => {}
            _ = self.follow(live) => {}
        }
        metrics.watcher_left();
    }

    async fn follow(
        &mut self,
        mut live: broadcast::Receiver<Arc<Vec<Event>>>,
    ) -> Result<(), Ended> {
        // At once, so that a client knows that it is connected and where it stands.
        self.heartbeat().await?;
        self.replay().await?;
        let mut beat = tokio::time::interval(self.hub.config.heartbeat_interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        loop {
            tokio::select! {
                batch = live.recv() => match batch {
                    Ok(events) => {
                        for event in events.iter() {
                            self.deliver(event).await?;
                        }
                    }
                    Err(RecvError::Lagged(_)) => return self.fail(Error::WatcherTooSlow).await,
                    Err(RecvError::Closed) => return Err(Ended),
                },
                _ = beat.tick() => {
                    self.judge_again().await?;
                    self.heartbeat().await?;
                }
            }
        }
    }

    /// What was missed, from the database, a page at a time.
    async fn replay(&mut self) -> Result<(), Ended> {
        let limit = i64::from(self.hub.config.batch);
        let everything = store::events::Filter {
            jobs: matches!(self.filter, WatchFilter::Jobs { .. }),
            ..store::events::Filter::default()
        };
        loop {
            let page = self
                .hub
                .list(&self.principal.tenant, &everything, self.position, limit)
                .await;
            let page = match page {
                Ok(page) => page,
                Err(error) => return self.fail(error).await,
            };
            if page.is_empty() {
                // What lies between belongs to others: a cursor there is no older than it need be.
                self.position = self.position.max(self.reached);
                return Ok(());
            }
            for event in &page {
                self.deliver(event).await?;
            }
        }
    }

    async fn deliver(&mut self, event: &Event) -> Result<(), Ended> {
        if event.position <= self.position {
            return Ok(());
        }
        self.position = event.position;
        let about = &event.event;
        if about.kind == EventKind::ApiKeyChanged && about.subject == self.principal.id {
            return self.judge_again().await;
        }
        let wanted =
            about.tenant == self.principal.tenant && self.filter.matches(&self.principal, about);
        if wanted {
            let delivery = Delivery {
                cursor: encode(&self.epoch, event.position),
                event: Some(event.clone()),
            };
            self.send(Ok(delivery)).await?;
        }
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<(), Ended> {
        // Live batches wait in order behind what this task has taken, so everything up to the
        // position was delivered or filtered out.
        let delivery = Delivery {
            cursor: encode(&self.epoch, self.position),
            event: None,
        };
        self.send(Ok(delivery)).await
    }

    /// Ends the stream when its key has ended since.
    async fn judge_again(&mut self) -> Result<(), Ended> {
        match self.hub.callers.reauthenticate(&self.principal).await {
            // The database being away is no judgement.
            Ok(()) | Err(Error::Store(_)) => Ok(()),
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
