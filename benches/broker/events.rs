//! From a commit to those who watch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokenbroker::pb;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::callers::Caller;
use crate::database;
use crate::ground::{Engine, Ground};
use crate::process::Cores;
use crate::provider::LocalProvider;
use crate::report::Section;
use crate::spread::{Spread, grouped, show};
use crate::{Fault, Outcome, Scale};

const TEXT: &str = "\
`UpdateConnection` writes an event; the time runs from the one stamped in the event, which is taken \
inside the transaction, before its commit, to its arrival at a watcher of the same machine: so it \
includes the commit (flushed to disk), the hub that reads or numbers events, and decoding by the measuring \
process, which shares the cores. The next event is written once every watcher has the one before. \
*Writing call* is the time of the `UpdateConnection` itself, for comparison. Every watcher gets every \
event; each delivery counts.";

const HEAD: &[&str] = &[
    "Engine",
    "Watchers on",
    "Watchers",
    "Deliveries",
    "p50",
    "p99",
    "Largest",
    "Writing call p50",
];

/// How long one event may take to everybody.
const PATIENCE: Duration = Duration::from_secs(20);

/// Watchers on one HTTP/2 connection.
const SHARING: usize = 125;

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Events from commit to watcher", TEXT.to_owned(), HEAD);
    let crowds = scale.of([1, 100, 1_000], [1, 20, 100]);
    let events = scale.of(100, 20);
    for engine in Engine::ALL {
        let ground = Ground::new(engine).await?;
        let provider = LocalProvider::start()?;
        let first = ground.start("a", Cores::All).await?;
        let key = ground.key("admin")?;
        let mut writer = Caller::new(first.address, &key)?;
        let app = writer.register(&provider).await?;
        let connections = writer.import(&app, 1).await?;
        let connection = connections.first().ok_or("nothing was imported")?;
        let second = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(ground.start("b", Cores::All).await?),
        };
        let places = [
            ("the same replica", Some(&first)),
            ("another replica", second.as_ref()),
        ];
        for (place, server) in places {
            let Some(server) = server else { continue };
            for crowd in crowds {
                let watching = Watching::begin(server.address, &key, crowd).await?;
                let (deliveries, calls) = watching.follow(&mut writer, connection, events).await?;
                section.row(vec![
                    engine.name().to_owned(),
                    place.to_owned(),
                    grouped(crowd as u64),
                    grouped(crowd as u64 * events),
                    show(deliveries.median()),
                    show(deliveries.p99()),
                    show(deliveries.most()),
                    show(calls.median()),
                ]);
            }
        }
        first.process.stop()?;
        if let Some(second) = second {
            second.process.stop()?;
        }
        ground.remove().await?;
    }
    Ok(section)
}

/// Watchers that watch.
struct Watching {
    crowd: usize,
    tasks: JoinSet<Outcome<()>>,
    arrivals: mpsc::UnboundedReceiver<Duration>,
}

impl Watching {
    /// Returns when every watcher has its first heartbeat: from then on nothing escapes it.
    async fn begin(address: std::net::SocketAddr, key: &str, crowd: usize) -> Outcome<Self> {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (ready, mut readied) = mpsc::unbounded_channel();
        let (arrived, ready) = (Arc::new(arrived), Arc::new(ready));
        let mut tasks = JoinSet::new();
        let mut caller = Caller::new(address, key)?;
        for number in 0..crowd {
            if number % SHARING == 0 {
                caller = Caller::new(address, key)?;
            }
            let (caller, arrived, ready) =
                (caller.clone(), Arc::clone(&arrived), Arc::clone(&ready));
            tasks.spawn(watch(caller, arrived, ready));
        }
        for _ in 0..crowd {
            tokio::time::timeout(PATIENCE, readied.recv())
                .await?
                .ok_or("a watcher did not begin")?;
        }
        Ok(Self {
            crowd,
            tasks,
            arrivals,
        })
    }

    /// Writes events and waits for each to reach everybody: the times of deliveries and of the
    /// writing calls.
    async fn follow(
        mut self,
        writer: &mut Caller,
        connection: &str,
        events: u64,
    ) -> Outcome<(Spread, Spread)> {
        let (mut deliveries, mut calls) = (Vec::new(), Vec::new());
        // The first event warms up.
        for number in 0..=events {
            let request = pb::UpdateConnectionRequest {
                connection: Some(pb::Connection {
                    id: connection.to_owned(),
                    display_name: format!("Name {}", fastrand::u64(..)),
                    ..Default::default()
                }),
                update_mask: Some(prost_types::FieldMask {
                    paths: vec!["display_name".to_owned()],
                }),
            };
            let began = Instant::now();
            writer.broker.update_connection(request).await?;
            let called = began.elapsed();
            for _ in 0..self.crowd {
                let arrival = tokio::time::timeout(PATIENCE, self.arrivals.recv())
                    .await
                    .map_err(|_| "an event did not reach every watcher")?
                    .ok_or("the watchers have ended")?;
                if number > 0 {
                    deliveries.push(arrival);
                }
            }
            if number > 0 {
                calls.push(called);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.tasks.shutdown().await;
        Ok((Spread::of(deliveries), Spread::of(calls)))
    }
}

async fn watch(
    mut caller: Caller,
    arrived: Arc<mpsc::UnboundedSender<Duration>>,
    ready: Arc<mpsc::UnboundedSender<()>>,
) -> Outcome<()> {
    let request = pb::WatchTokenEventsRequest::default();
    let mut stream = caller
        .broker
        .watch_token_events(request)
        .await?
        .into_inner();
    let gone = |_| Fault::from("nobody listens");
    let mut begun = false;
    while let Some(message) = stream.message().await? {
        let Some(event) = message.event else {
            if !std::mem::replace(&mut begun, true) {
                ready.send(()).map_err(gone)?;
            }
            continue;
        };
        let stamped = event.event_time.ok_or("an event without a time")?;
        let micros = stamped.seconds * 1_000_000 + i64::from(stamped.nanos) / 1_000;
        let took = u64::try_from(database::now() - micros).unwrap_or(0);
        arrived
            .send(Duration::from_micros(took))
            .map_err(|_| "nobody listens")?;
    }
    Ok(())
}
