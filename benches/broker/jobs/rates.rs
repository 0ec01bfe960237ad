//! Jobs a second, with many waiting, beside the claim alone.

use std::time::{Duration, Instant};

use super::bare::Bare;
use super::{BATCH, HAND, Held, Stage, WORKERS};
use super::{claim_share, complete_share, create_batch, create_share, together};
use crate::database;
use crate::ground::Engine;
use crate::process::Cores;
use crate::report::Section;
use crate::spread::{self, Spread, grouped, show};
use crate::throughput;
use crate::{Outcome, Scale};

const TEXT: &str = "\
With that many jobs waiting all the time; each round asks for as many as it then claims and completes. \
*Bare claim*: what the same database gives a claim of ten jobs and nothing else, on a table of the same \
columns and indexes with as many rows waiting: `UPDATE … WHERE id IN (…)` of the first ten, with \
`FOR UPDATE SKIP LOCKED` by pgbench on PostgreSQL, in a transaction that begins as a writer in the \
measuring process on SQLite, which lets one write at a time anyway. The service does that, too, and \
besides asks who calls, looks at profiles and limits, writes an event a job and sends the jobs. Both \
databases flush to disk at each commit. The share is the median of the rounds' own; times are those of \
calls. *All cores*: PostgreSQL, the server and its callers compete for them, where pgbench has them \
almost to itself. *Database apart*: PostgreSQL is on one core, and on another the server with its \
callers, or pgbench; SQLite is part of its process, so there it is the server, or the bare claim, that \
is on one core and the callers on another. So the database is what limits, and the share, aimed at 0.6 \
at least, is what is left of it.";

const HEAD: &[&str] = &[
    "Engine",
    "Cores",
    "Jobs waiting",
    "What",
    "At once",
    "Jobs/s",
    "p50",
    "p99",
    "Of the bare claim",
];

/// What was measured of one thing, round by round.
struct Measured {
    what: &'static str,
    at_once: usize,
    rates: Vec<f64>,
    times: Vec<Duration>,
}

impl Measured {
    fn new(what: &'static str, at_once: usize) -> Self {
        Self {
            what,
            at_once,
            rates: Vec::new(),
            times: Vec::new(),
        }
    }

    fn add(&mut self, jobs: usize, took: Duration, times: impl IntoIterator<Item = Duration>) {
        self.rates.push(jobs as f64 / took.as_secs_f64());
        self.times.extend(times);
    }

    /// What a round was that only warmed up.
    fn forget(&mut self) {
        self.rates.clear();
        self.times.clear();
    }

    fn cells(self, engine: Engine, cores: &str, waiting: u64, share: String) -> Vec<String> {
        let shown = (!self.times.is_empty()).then(|| Spread::of(self.times));
        let time =
            |at: fn(&Spread) -> Duration| shown.as_ref().map_or_else(String::new, |s| show(at(s)));
        vec![
            engine.name().to_owned(),
            cores.to_owned(),
            grouped(waiting),
            self.what.to_owned(),
            self.at_once.to_string(),
            grouped(spread::median(&self.rates) as u64),
            time(Spread::median),
            time(Spread::p99),
            share,
        ]
    }
}

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Jobs a second", TEXT.to_owned(), HEAD);
    let waiting = scale.of(100_000, 5_000);
    for engine in Engine::ALL {
        let stage = Stage::start(engine).await?;
        stage.fill(waiting).await?;
        let mut bare = Bare::of(&stage.ground).await?;
        rounds(&stage, &mut bare, "all", scale, waiting, &mut section).await?;
        if let (database @ Cores::One(_), others) = Cores::apart()? {
            let server = match engine {
                Engine::Sqlite => database,
                Engine::Postgres => {
                    database::pin(database)?;
                    others
                }
            };
            stage.server.process.pin(server)?;
            others.pin(std::process::id())?;
            rounds(
                &stage,
                &mut bare,
                "database apart",
                scale,
                waiting,
                &mut section,
            )
            .await?;
            Cores::All.pin(std::process::id())?;
            if engine == Engine::Postgres {
                database::pin(Cores::All)?;
            }
        }
        drop(bare);
        stage.end().await?;
    }
    Ok(section)
}

/// Rounds of which each asks for, claims and completes as many jobs.
async fn rounds(
    stage: &Stage,
    bare: &mut Bare,
    cores: &str,
    scale: Scale,
    waiting: u64,
    section: &mut Section,
) -> Outcome<()> {
    // As many in which the bare claim is first as in which it is second: whole rounds differ by a third.
    let rounds = scale.of(6, 2);
    // Enough for what a round begins with, such as connections of the bare claim, to be nothing.
    let batches = scale.of(12, 1);
    // Of each of the crew, and with the batches a whole number of hands for each of them.
    let singles = scale.of(60, 35);
    let mut single = Measured::new("CreateJob", WORKERS);
    let mut many = Measured::new("CreateBatch of 1,000", 1);
    let mut claims = Measured::new("ClaimJobs of 10", WORKERS);
    let mut bare_claims = Measured::new("bare claim of 10", bare.clients());
    let mut completions = Measured::new("CompleteJob", WORKERS);
    for round in 0..=rounds {
        if round == 1 {
            for one in [
                &mut single,
                &mut many,
                &mut claims,
                &mut bare_claims,
                &mut completions,
            ] {
                one.forget();
            }
        }
        let work = stage
            .crew
            .iter()
            .map(|one| create_share(one.clone(), singles));
        let (times, took) = together(work).await?;
        single.add(singles * WORKERS, took, times.into_iter().flatten());

        let (mut times, began) = (Vec::new(), Instant::now());
        for _ in 0..batches {
            let asked = Instant::now();
            create_batch(stage.one()?, BATCH).await?;
            times.push(asked.elapsed());
        }
        let new = usize::try_from(batches * BATCH)?;
        many.add(new, began.elapsed(), times);

        bare.fill().await?;
        // Whoever is first in a round has another machine than whoever is second.
        let all = new + singles * WORKERS;
        let first = round % 2 == 0;
        if first {
            bare_claims.add(all, bare.claim(all)?, []);
        }
        let held = claimed(stage, all, &mut claims).await?;
        if !first {
            bare_claims.add(all, bare.claim(all)?, []);
        }

        let work = stage.crew.iter().zip(held);
        let (times, took) =
            together(work.map(|(one, held)| complete_share(one.clone(), held))).await?;
        completions.add(all, took, times.into_iter().flatten());
        bare.complete(all, waiting).await?;
    }
    let share = throughput::share(&claims.rates, &bare_claims.rates);
    let itself = throughput::share(&bare_claims.rates, &bare_claims.rates);
    for (measured, share) in [
        (single, String::new()),
        (many, String::new()),
        (bare_claims, itself),
        (claims, share),
        (completions, String::new()),
    ] {
        section.row(measured.cells(stage.ground.engine(), cores, waiting, share));
    }
    Ok(())
}

/// Claims so many, by all of the crew: what each has.
async fn claimed(stage: &Stage, all: usize, claims: &mut Measured) -> Outcome<Vec<Vec<Held>>> {
    let share = all / WORKERS;
    if !all.is_multiple_of(WORKERS * usize::try_from(HAND)?) {
        return Err(format!("{all} jobs are no whole hands for each").into());
    }
    let work = stage.crew.iter().map(|one| claim_share(one.clone(), share));
    let (done, took) = together(work).await?;
    let (held, times): (Vec<_>, Vec<_>) = done.into_iter().unzip();
    claims.add(
        held.iter().map(Vec::len).sum(),
        took,
        times.into_iter().flatten(),
    );
    Ok(held)
}
