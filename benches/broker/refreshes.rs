//! Refreshes end to end: lease, request to the provider, journal, commit, event.

use std::time::{Duration, Instant};

use crate::callers::Caller;
use crate::database::{self, Below};
use crate::ground::{Engine, Ground};
use crate::process::Cores;
use crate::provider::LocalProvider;
use crate::report::Section;
use crate::spread::{grouped, show};
use crate::{Outcome, Scale};

const TEXT: &str = "\
Each refresh takes the lease, asks a provider on loopback that answers at once and rotates the refresh \
token, flushes the sealed answer to the journal, and commits tokens, log and event; both databases \
flush to disk (PostgreSQL with `fsync` and `synchronous_commit` on). *By callers*: `RefreshAccessToken` \
on connections that are all different, the time as the caller sees it. *By the worker*: all connections \
made due at once, until the provider has seen the last; default settings. The server shares its cores \
with callers, provider and PostgreSQL.";

const HEAD: &[&str] = &[
    "Engine",
    "Set off",
    "At once",
    "Refreshes",
    "Refreshes/s",
    "p50",
    "p99",
];

/// How long the worker may go without a refresh.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Refreshes a second", TEXT.to_owned(), HEAD);
    let connections = scale.of(3_000, 400);
    for engine in Engine::ALL {
        let ground = Ground::new(engine).await?;
        let provider = LocalProvider::start()?;
        let server = ground.start("a", Cores::All).await?;
        let mut caller = Caller::new(server.address, &ground.key("admin")?)?;
        let app = caller.register(&provider).await?;
        let ids = caller.import(&app, connections).await?;

        let one_by_one = ids.get(..scale.of(500, 50)).unwrap_or(&ids);
        for (at_once, ids) in [(1, one_by_one), (32, ids.as_slice())] {
            let (times, took) = caller.refresh(ids, at_once).await?;
            section.row(vec![
                engine.name().to_owned(),
                "by callers".to_owned(),
                at_once.to_string(),
                grouped(ids.len() as u64),
                rate(ids.len() as u64, took),
                show(times.median()),
                show(times.p99()),
            ]);
        }

        let took = by_the_worker(&ground, &provider, connections).await?;
        section.row(vec![
            engine.name().to_owned(),
            "by the worker".to_owned(),
            ground.config()?.refresh.concurrency.to_string(),
            grouped(connections),
            rate(connections, took),
            "".to_owned(),
            "".to_owned(),
        ]);
        server.process.stop()?;
        ground.remove().await?;
    }
    Ok(section)
}

/// Makes every grant due, and waits until each has been refreshed.
async fn by_the_worker(
    ground: &Ground,
    provider: &LocalProvider,
    connections: u64,
) -> Outcome<Duration> {
    let mut below = Below::open(ground).await?;
    let before = provider.given()?;
    let due = below.time(&database::now().to_string());
    let began = Instant::now();
    below
        .run(&format!("UPDATE grants SET next_refresh_at = {due}"))
        .await?;
    let (mut seen, mut moved) = (before, Instant::now());
    loop {
        let given = provider.given()?;
        if given - before >= connections {
            return Ok(began.elapsed());
        }
        if given > seen {
            (seen, moved) = (given, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            return Err(format!("the worker stopped after {} refreshes", given - before).into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn rate(count: u64, took: Duration) -> String {
    grouped((count as f64 / took.as_secs_f64()).round() as u64)
}
