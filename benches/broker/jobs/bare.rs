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

/// How many of the copied jobs were claimed.
const CLAIMED: &str = "SELECT count(*) AS number FROM bare_jobs WHERE state = 'running'";

/// A table of jobs beside the service's, with the same rows waiting.
pub struct Bare {
    place: Place,
    below: Below,
    claimed: usize,
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
        below
            .run("INSERT INTO bare_jobs SELECT * FROM automation_jobs WHERE state = 'pending'")
            .await?;
        // What the planner knows is otherwise chance; SQLite is not analysed by the service either.
        if ground.schema().is_some() {
            below
                .run("VACUUM ANALYZE bare_jobs, automation_jobs")
                .await?;
        }
        Ok(Self {
            place,
            below,
            claimed: 0,
        })
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
        self.claimed += hands * usize::try_from(HAND)?;
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

    /// Whether as many were claimed as were counted.
    pub async fn check(&mut self) -> Outcome<()> {
        let claimed = self.below.number(CLAIMED).await?;
        if usize::try_from(claimed)? != self.claimed {
            return Err(format!("{claimed} bare jobs are claimed, not {}", self.claimed).into());
        }
        Ok(())
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
