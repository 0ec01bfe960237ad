//! What finished jobs cost that are still kept.

use std::time::{Duration, Instant};

use tokenbroker::pb;

use super::{BATCH, HAND, Stage, claim, claim_share, complete_share, create_batch, crew};
use crate::callers::Caller;
use crate::database::{self, Below};
use crate::ground::Engine;
use crate::process::Cores;
use crate::report::Section;
use crate::spread::{Spread, grouped, mebibytes, show};
use crate::{Outcome, Scale};

const TEXT: &str = "\
The same calls, one at a time, with that many finished jobs in the table besides, in batches of a \
thousand: a claim of ten jobs of those that wait, their completion, and `GetBatch` of a batch of a \
thousand, which counts its jobs. All should be flat.";

const HEAD: &[&str] = &[
    "Engine",
    "Finished jobs",
    "Database",
    "ClaimJobs of 10 p50",
    "p99",
    "CompleteJob p50",
    "p99",
    "GetBatch of 1,000 p50",
    "p99",
];

/// How long the first batch may take to be called finished.
const PATIENCE: Duration = Duration::from_secs(30);

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Many finished jobs kept", TEXT.to_owned(), HEAD);
    let sizes = scale.of([10_000, 1_000_000], [1_000, 20_000]);
    let batches = scale.of(3, 1);
    for engine in Engine::ALL {
        let mut stage = Stage::start(engine).await?;
        finish_one(stage.one()?).await?;
        let mut below = Below::open(&stage.ground).await?;
        let mut there = 0;
        for size in sizes {
            stage.server.process.stop()?;
            fill(&mut below, there, size).await?;
            there = size;
            stage.server = stage.ground.start("a", Cores::All).await?;
            stage.crew = crew(&stage.server, &stage.key)?;

            let finished = below
                .number(
                    "SELECT count(*) AS number FROM automation_jobs WHERE finished_at IS NOT NULL",
                )
                .await?;
            let mut batch = String::new();
            for _ in 0..batches {
                batch = create_batch(stage.one()?, BATCH).await?;
            }
            let some = usize::try_from(batches * BATCH)?;
            let (held, claims) = claim_share(stage.one()?, some).await?;
            let counts = counted(stage.one()?, &batch, scale.of(500, 50)).await?;
            let completions = complete_share(stage.one()?, held).await?;
            let claims = Spread::of(claims);
            let completions = Spread::of(completions);
            section.row(vec![
                engine.name().to_owned(),
                grouped(u64::try_from(finished)?),
                mebibytes(below.size(&stage.ground).await?),
                show(claims.median()),
                show(claims.p99()),
                show(completions.median()),
                show(completions.p99()),
                show(counts.median()),
                show(counts.p99()),
            ]);
        }
        drop(below);
        stage.end().await?;
    }
    Ok(section)
}

/// A batch with a job that is done, to copy.
async fn finish_one(mut caller: Caller) -> Outcome<()> {
    let id = create_batch(caller.clone(), 1).await?;
    let held = claim(&mut caller, HAND, Duration::ZERO).await?;
    complete_share(caller.clone(), held).await?;
    let began = Instant::now();
    while get_batch(&mut caller, &id).await?.finish_time.is_none() {
        if began.elapsed() > PATIENCE {
            return Err("a batch is not called finished".into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn get_batch(caller: &mut Caller, id: &str) -> Outcome<pb::Batch> {
    let request = pb::GetBatchRequest {
        batch_id: id.to_owned(),
    };
    let answer = caller.jobs.get_batch(request).await?.into_inner();
    Ok(answer.batch.ok_or("an answer without its batch")?)
}

/// Asks for a batch again and again.
async fn counted(mut caller: Caller, id: &str, times: usize) -> Outcome<Spread> {
    let mut took = Vec::new();
    for _ in 0..times {
        let asked = Instant::now();
        let batch = get_batch(&mut caller, id).await?;
        took.push(asked.elapsed());
        let total = batch.counts.map_or(0, |counts| counts.total);
        if u64::try_from(total)? != BATCH {
            return Err(format!("the batch has {total} jobs").into());
        }
    }
    Ok(Spread::of(took))
}

/// Copies the finished job and its batch until there are so many copies. `stored` are there already.
async fn fill(below: &mut Below, stored: u64, wanted: u64) -> Outcome<()> {
    let now = below.time(&database::now().to_string());
    let changed = [
        // A TypeID's suffix has 26 characters; digits are letters of its alphabet.
        (
            "automation_jobs",
            "id",
            "'job_0000000000000000' || CAST(1000000000 + i AS text)",
        ),
        (
            "automation_jobs",
            "batch_id",
            "'old-' || CAST(i / 1000 AS text)",
        ),
        ("automation_jobs", "finished_at", now.as_str()),
        ("automation_batches", "id", "'old-' || CAST(i AS text)"),
        ("automation_batches", "finished_at", now.as_str()),
    ];
    below.run("BEGIN").await?;
    for (table, columns, from, to) in [
        (
            "automation_batches",
            BATCHES,
            stored / BATCH,
            wanted / BATCH,
        ),
        ("automation_jobs", JOBS, stored, wanted),
    ] {
        let names: Vec<&str> = columns.split_whitespace().collect();
        let value = |name: &&'static str| {
            let mut changes = changed.iter();
            let change = changes.find(|(of, column, _)| of == &table && column == name);
            change.map_or(*name, |(_, _, value)| *value)
        };
        let values: Vec<&str> = names.iter().map(value).collect();
        below
            .run(&format!(
                "INSERT INTO {table} ({}) WITH RECURSIVE n(i) AS \
                 (SELECT {from} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {to}) \
                 SELECT {} FROM n, (SELECT * FROM {table} WHERE finished_at IS NOT NULL \
                 ORDER BY created_at LIMIT 1) AS model",
                names.join(", "),
                values.join(", "),
            ))
            .await?;
    }
    below.run("COMMIT").await?;
    // What the planner knows would otherwise be of an empty table; SQLite is not analysed by the
    // service either.
    let tidy = match below {
        Below::Postgres(_) => "VACUUM ANALYZE automation_batches, automation_jobs",
        Below::Sqlite(_) => "PRAGMA wal_checkpoint(TRUNCATE)",
    };
    below.run(tidy).await
}

const BATCHES: &str = "tenant id display_name created_by fingerprint skipped created_at \
    cancelled_at finished_at";

const JOBS: &str = "id tenant batch_id kind execution_mode profile_id account_id app_id provider \
    state priority turn run_at deadline_at max_attempts attempt lease_token lease_until worker \
    unique_key unique_states payload progress failure_reason failure_message cancel_requested_at \
    authorization_id connect_url connection_id created_by created_at finished_at";
