//! What many stored connections cost when few are due.

use std::time::{Duration, Instant};

use tokenbroker::bootstrap;
use tokenbroker::model::Timestamp;
use tokenbroker::store;

use crate::callers::Caller;
use crate::database::{self, Below};
use crate::ground::{Engine, Ground};
use crate::process::Cores;
use crate::provider::LocalProvider;
use crate::report::Section;
use crate::spread::{Spread, grouped, mebibytes, show};
use crate::{Outcome, Scale};

const TEXT: &str = "\
The worker's scan for what is due, over a pooled connection, with the same 200 grants due (one full \
batch, rows read and all) and with none due; then a server started on that database: the time to its \
first answer, one `GetAccessToken` that memory does not hold, and its memory after its background \
loops have run for a while. All should be flat.";

const HEAD: &[&str] = &[
    "Engine",
    "Connections stored",
    "Database",
    "Scan, 200 due p50",
    "p99",
    "Scan, none due p50",
    "p99",
    "First answer",
    "Cold GetAccessToken",
    "Server's memory",
];

/// As many as one scan takes.
const DUE: u64 = 200;

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Many connections stored", TEXT.to_owned(), HEAD);
    let sizes = scale.of([10_000, 100_000, 1_000_000], [1_000, 10_000, 50_000]);
    for engine in Engine::ALL {
        let ground = Ground::new(engine).await?;
        let provider = LocalProvider::start()?;
        let server = ground.start("a", Cores::All).await?;
        let key = ground.key("admin")?;
        let mut caller = Caller::new(server.address, &key)?;
        let app = caller.register(&provider).await?;
        let connections = caller.import(&app, 1).await?;
        let connection = connections.first().ok_or("nothing was imported")?;
        server.process.stop()?;

        let mut below = Below::open(&ground).await?;
        let mut there = 1;
        for size in sizes {
            below.fill(there, size).await?;
            there = size;
            let stored = below
                .number("SELECT count(*) AS number FROM connections")
                .await?;
            let (due, none) = scans(&ground, &mut below, scale).await?;

            let server = ground.start("a", Cores::All).await?;
            let mut caller = Caller::new(server.address, &key)?;
            let asked = Instant::now();
            caller.token(connection).await?;
            let cold = asked.elapsed();
            // Its loops are to have run before its memory is read.
            tokio::time::sleep(Duration::from_secs(scale.of(5, 2))).await;
            section.row(vec![
                engine.name().to_owned(),
                grouped(u64::try_from(stored)?),
                mebibytes(below.size(&ground).await?),
                show(due.median()),
                show(due.p99()),
                show(none.median()),
                show(none.p99()),
                show(server.started_in),
                show(cold),
                mebibytes(server.process.memory("VmRSS")?),
            ]);
            server.process.stop()?;
        }
        drop(below);
        ground.remove().await?;
    }
    Ok(section)
}

/// Scans with a batch due and with nothing due. Nothing is due afterwards.
async fn scans(ground: &Ground, below: &mut Below, scale: Scale) -> Outcome<(Spread, Spread)> {
    let store = bootstrap::open(&ground.config()?.database).await?;
    let now = database::now();
    let (past, ahead) = (
        below.time(&(now - 1_000_000).to_string()),
        below.time(&(now + 86_400_000_000).to_string()),
    );
    // Spread over the table: those that are due together were not stored together.
    let some = "SELECT id FROM grants ORDER BY refresh_fingerprint, id";
    let stored = below
        .number("SELECT count(*) AS number FROM grants")
        .await?;
    let step = stored / i64::try_from(DUE)?;
    let chosen = format!(
        "id IN (SELECT id FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM ({some}) AS a) AS b \
         WHERE place % {step} = 0 LIMIT {DUE})"
    );
    below
        .run(&format!(
            "UPDATE grants SET next_refresh_at = {past} WHERE {chosen}"
        ))
        .await?;
    let due = scan(&store, now, DUE, scale).await?;
    below
        .run(&format!(
            "UPDATE grants SET next_refresh_at = {ahead} WHERE next_refresh_at = {past}"
        ))
        .await?;
    let none = scan(&store, now, 0, scale).await?;
    Ok((due, none))
}

async fn scan(store: &store::Store, now: i64, expected: u64, scale: Scale) -> Outcome<Spread> {
    let mut took = Vec::new();
    for round in 0..scale.of(500, 100) {
        let began = Instant::now();
        let mut conn = store.read().await?;
        let limit = i64::try_from(DUE)?;
        let found =
            store::grants::any_tenant_due(&mut conn, Timestamp::from_micros(now), &[], limit)
                .await?;
        drop(conn);
        if found.len() as u64 != expected {
            return Err(format!("{} are due, not {expected}", found.len()).into());
        }
        // The first rounds fill caches and prepare statements.
        if round >= 10 {
            took.push(began.elapsed());
        }
    }
    Ok(Spread::of(took))
}
