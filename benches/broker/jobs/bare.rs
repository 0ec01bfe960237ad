//! The claim alone: the statement that hands out jobs, without a service around it.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::Text;

use super::{HAND, WORKERS};
use crate::Outcome;
use crate::database::{self, Below};
use crate::ground::Ground;

/// A table of jobs beside the service's, with as many waiting.
pub struct Bare {
    place: Place,
    below: Below,
}

enum Place {
    Sqlite(Box<SqliteConnection>),
    Postgres { schema: String, script: PathBuf },
}

#[derive(QueryableByName)]
struct Said {
    #[diesel(sql_type = Text)]
    text: String,
}

impl Bare {
    /// Copies the service's table with all that wait in it.
    pub async fn of(ground: &Ground) -> Outcome<Self> {
        let mut below = Below::open(ground).await?;
        let place = match ground.schema() {
            Some(schema) => {
                below
                    .run("CREATE TABLE bare_jobs (LIKE automation_jobs INCLUDING ALL)")
                    .await?;
                let script = ground.file("claim.sql");
                let lease = "clock_timestamp() + interval '60 seconds'";
                std::fs::write(&script, statement(lease, "FOR UPDATE SKIP LOCKED"))?;
                Place::Postgres {
                    schema: schema.to_owned(),
                    script,
                }
            }
            None => {
                let file = ground.sqlite_file();
                let mut file = SqliteConnection::establish(&file.to_string_lossy())?;
                // As the service has it.
                file.batch_execute(
                    "PRAGMA busy_timeout = 30000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON",
                )?;
                let made: Vec<Said> = diesel::sql_query(
                    "SELECT sql AS text FROM sqlite_master WHERE tbl_name = 'automation_jobs' \
                     AND sql IS NOT NULL ORDER BY type = 'index'",
                )
                .load(&mut file)?;
                for said in made {
                    let same = said.text.replace("automation_jobs", "bare_jobs");
                    file.batch_execute(&same)?;
                }
                Place::Sqlite(Box::new(file))
            }
        };
        let mut bare = Self { place, below };
        bare.fill().await?;
        // What the planner knows is otherwise chance; SQLite is not analysed by the service either.
        if ground.schema().is_some() {
            bare.below
                .run("VACUUM ANALYZE bare_jobs, automation_jobs")
                .await?;
        }
        Ok(bare)
    }

    /// Has all jobs wait that wait in the service's table and were not here before.
    pub async fn fill(&mut self) -> Outcome<()> {
        self.below
            .run(
                "INSERT INTO bare_jobs SELECT * FROM automation_jobs WHERE state = 'pending' \
                 AND NOT EXISTS (SELECT 1 FROM bare_jobs WHERE bare_jobs.id = automation_jobs.id)",
            )
            .await
    }

    /// How many claim at once.
    pub fn clients(&self) -> usize {
        match self.place {
            Place::Sqlite(_) => 1,
            Place::Postgres { .. } => WORKERS,
        }
    }

    /// Claims so many, by hands: how long it took.
    pub fn claim(&mut self, count: usize) -> Outcome<Duration> {
        let hands = count / usize::try_from(HAND)?;
        match &mut self.place {
            Place::Sqlite(file) => {
                let lease = (database::now() + 60_000_000).to_string();
                let statement = statement(&lease, "");
                let began = Instant::now();
                for _ in 0..hands {
                    file.immediate_transaction(|file| {
                        diesel::sql_query(&statement).load::<Claimed>(file)
                    })?;
                }
                Ok(began.elapsed())
            }
            Place::Postgres { schema, script } => {
                let each = hands / WORKERS;
                // Its PG* variables are those of tests/postgres.sh.
                let output = Command::new("pgbench")
                    .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
                    .arg(format!("--client={WORKERS}"))
                    .arg(format!("--transactions={each}"))
                    .arg("--file")
                    .arg(script)
                    .env("PGOPTIONS", format!("-c search_path={schema}"))
                    .stdin(Stdio::null())
                    .output()?;
                let text = String::from_utf8_lossy(&output.stdout);
                let rate = text
                    .lines()
                    .find_map(|line| line.strip_prefix("tps = ")?.split(' ').next())
                    .filter(|_| output.status.success())
                    .ok_or_else(|| {
                        let told = String::from_utf8_lossy(&output.stderr);
                        format!("pgbench did not come to its end:\n{text}{told}")
                    })?;
                Ok(Duration::from_secs_f64(
                    (each * WORKERS) as f64 / rate.parse::<f64>()?,
                ))
            }
        }
    }

    /// Completes what was claimed. Fails unless that is so much, and as many wait here and in the
    /// service's table.
    pub async fn complete(&mut self, claimed: usize, waiting: u64) -> Outcome<()> {
        for (table, state, wanted) in [
            ("bare_jobs", "running", u64::try_from(claimed)?),
            ("bare_jobs", "pending", waiting),
            ("automation_jobs", "pending", waiting),
        ] {
            let query = format!("SELECT count(*) AS number FROM {table} WHERE state = '{state}'");
            let there = self.below.number(&query).await?;
            if u64::try_from(there)? != wanted {
                return Err(format!("{there} of {table} are {state}, not {wanted}").into());
            }
        }
        self.below
            .run(
                "UPDATE bare_jobs SET state = 'completed', lease_until = NULL, \
                 finished_at = run_at WHERE state = 'running'",
            )
            .await
    }
}

#[derive(QueryableByName)]
struct Claimed {
    #[diesel(sql_type = Text)]
    #[expect(dead_code, reason = "a claim reads what it claims")]
    payload: String,
}

/// A CTE that is computed once: a subquery might lock more rows than it hands on.
fn statement(lease: &str, locking: &str) -> String {
    let materialised = if locking.is_empty() {
        ""
    } else {
        "MATERIALIZED"
    };
    format!(
        "WITH next AS {materialised} (SELECT id FROM bare_jobs \
         WHERE tenant = 'default' AND state = 'pending' ORDER BY priority DESC, turn, id \
         LIMIT {HAND} {locking}) \
         UPDATE bare_jobs SET state = 'running', attempt = attempt + 1, \
         lease_token = lease_token + 1, lease_until = {lease}, worker = 'bench' \
         WHERE id IN (SELECT id FROM next) RETURNING *;\n"
    )
}
