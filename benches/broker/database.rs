//! The databases from below, where the service has no way to make a million rows.

use std::path::Path;

use diesel::connection::SimpleConnection as _;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use tokio_postgres::{Client, NoTls};

use crate::Outcome;
use crate::ground::{Engine, Ground};
use crate::process::Cores;

/// Where the throwaway PostgreSQL is.
pub fn postgres_url() -> Outcome<String> {
    std::env::var("TEST_POSTGRES_URL")
        .map_err(|_| "TEST_POSTGRES_URL is not set: run this with `make bench`".into())
}

async fn postgres() -> Outcome<Client> {
    let (client, connection) = tokio_postgres::connect(&postgres_url()?, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Tests run without flushing to disk; a benchmark must not.
pub async fn make_durable() -> Outcome<()> {
    let client = postgres().await?;
    for (setting, value) in [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
    ] {
        client
            .batch_execute(&format!("ALTER SYSTEM SET {setting} = {value}"))
            .await?;
    }
    client.batch_execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// Has PostgreSQL stay there: its postmaster, whose children inherit that, and those it has.
pub fn pin(cores: Cores) -> Outcome<()> {
    let folder = std::env::var("PGHOST")?;
    let file = std::fs::read_to_string(Path::new(&folder).join("data/postmaster.pid"))?;
    let postmaster = file.lines().next().unwrap_or_default().trim().to_owned();
    cores.pin(postmaster.parse()?)?;
    for process in std::fs::read_dir("/proc")? {
        let process = process?;
        // proc_pid_stat(5): behind the name in brackets come its state and its parent.
        let stat = std::fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let parent = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.split(' ').nth(1));
        let pid = process.file_name().to_string_lossy().parse();
        if let (Some(parent), Ok(pid)) = (parent, pid)
            && parent == postmaster
        {
            // It may have ended since.
            let _ = cores.pin(pid);
        }
    }
    Ok(())
}

/// Its version.
pub async fn postgres_version() -> Outcome<String> {
    let row = postgres()
        .await?
        .query_one("SHOW server_version", &[])
        .await?;
    let version: String = row.get(0);
    Ok(version.split(' ').next().unwrap_or_default().to_owned())
}

#[derive(QueryableByName)]
struct Said {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Its version.
pub fn sqlite_version() -> Outcome<String> {
    let mut memory = SqliteConnection::establish(":memory:")?;
    let said: Said =
        diesel::sql_query("SELECT sqlite_version() AS text").get_result(&mut memory)?;
    Ok(said.text)
}

/// A database that is open beside the service.
pub enum Below {
    /// A file.
    Sqlite(SqliteConnection),
    /// A session in the ground's schema.
    Postgres(Client),
}

impl Below {
    /// Opens the ground's database, for bulk work: without flushing, without checking references.
    pub async fn open(ground: &Ground) -> Outcome<Self> {
        if let Some(schema) = ground.schema() {
            let client = postgres().await?;
            client
                .batch_execute(&format!(
                    "SET search_path = {schema}; SET session_replication_role = replica; \
                     SET synchronous_commit = off; SET maintenance_work_mem = '256MB'"
                ))
                .await?;
            return Ok(Self::Postgres(client));
        }
        let file = ground.sqlite_file();
        let mut file = SqliteConnection::establish(&file.to_string_lossy())?;
        file.batch_execute(
            "PRAGMA busy_timeout = 30000; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; \
             PRAGMA cache_size = -262144;",
        )?;
        Ok(Self::Sqlite(file))
    }

    /// Makes a schema; PostgreSQL only.
    pub async fn create_schema(name: &str) -> Outcome<()> {
        let client = postgres().await?;
        Ok(client
            .batch_execute(&format!("CREATE SCHEMA {name}"))
            .await?)
    }

    /// Drops it with all it holds.
    pub async fn drop_schema(name: &str) -> Outcome<()> {
        let client = postgres().await?;
        Ok(client
            .batch_execute(&format!("DROP SCHEMA {name} CASCADE"))
            .await?)
    }

    /// Runs statements.
    pub async fn run(&mut self, statements: &str) -> Outcome<()> {
        match self {
            Self::Sqlite(file) => file.batch_execute(statements)?,
            Self::Postgres(client) => client.batch_execute(statements).await?,
        }
        Ok(())
    }

    /// The one number that a query answers as `number`.
    pub async fn number(&mut self, query: &str) -> Outcome<i64> {
        Ok(match self {
            Self::Sqlite(file) => {
                let counted: Counted = diesel::sql_query(query).get_result(file)?;
                counted.number
            }
            Self::Postgres(client) => client.query_one(query, &[]).await?.get(0),
        })
    }

    /// SQL for a time given in microseconds since the epoch.
    pub fn time(&self, micros: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("({micros})"),
            Self::Postgres(_) => format!("to_timestamp(({micros}) / 1e6)"),
        }
    }

    /// Copies the one stored connection and its grant until there are `wanted`, due far ahead.
    /// `stored` are there already.
    pub async fn fill(&mut self, stored: u64, wanted: u64) -> Outcome<()> {
        // A TypeID's suffix has 26 characters; digits are letters of its alphabet.
        let id =
            |prefix: &str| format!("'{prefix}_0000000000000000' || CAST(1000000000 + i AS text)");
        let ahead = self.time(&format!("{} + i", in_a_day()));
        let numbers = format!(
            "WITH RECURSIVE n(i) AS (SELECT {stored} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {wanted})"
        );
        let changed = [
            ("grants", "id", id("grant")),
            ("grants", "next_refresh_at", ahead),
            ("connections", "id", id("conn")),
            ("connections", "grant_id", id("grant")),
            ("connections", "owner", "'owner-' || i".to_owned()),
            ("connections", "account_key", "'account-' || i".to_owned()),
        ];
        self.run("BEGIN").await?;
        for (table, columns) in [("grants", GRANTS), ("connections", CONNECTIONS)] {
            let names: Vec<&str> = columns.split_whitespace().collect();
            let values: Vec<&str> = names
                .iter()
                .map(|name| {
                    let change = changed
                        .iter()
                        .find(|(of, column, _)| *of == table && column == name);
                    change.map_or(*name, |(_, _, value)| value.as_str())
                })
                .collect();
            let statement = format!(
                "INSERT INTO {table} ({}) {numbers} SELECT {} FROM n, \
                 (SELECT * FROM {table} ORDER BY created_at LIMIT 1) AS model",
                names.join(", "),
                values.join(", "),
            );
            self.run(&statement).await?;
        }
        self.run("COMMIT").await?;
        match self {
            // What the planner knows would otherwise be of an empty table; SQLite is not analysed by
            // the service either.
            Self::Postgres(client) => {
                client
                    .batch_execute("VACUUM ANALYZE grants, connections")
                    .await?
            }
            Self::Sqlite(file) => file.batch_execute("PRAGMA wal_checkpoint(TRUNCATE)")?,
        }
        Ok(())
    }

    /// Size of the database, in KiB.
    pub async fn size(&mut self, ground: &Ground) -> Outcome<u64> {
        match ground.engine() {
            Engine::Sqlite => Ok(std::fs::metadata(ground.sqlite_file())?.len() / 1024),
            Engine::Postgres => {
                let query = "SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class c \
                             WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r'";
                Ok(u64::try_from(self.number(query).await?)? / 1024)
            }
        }
    }
}

/// Microseconds since the epoch, of tomorrow.
fn in_a_day() -> i64 {
    now() + 86_400_000_000
}

/// Microseconds since the epoch.
pub fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

const GRANTS: &str = "id tenant app_id kind state state_reason generation access_token \
    refresh_token token_secret token_type scopes metadata refresh_fingerprint issued_at expires_at \
    refresh_expires_at absolute_expires_at refresh_policy last_refreshed_at next_refresh_at \
    notice_at not_before failure_count last_error lease_holder lease_until attempt_generation \
    attempt_started_at attempt_retried created_at updated_at";

const CONNECTIONS: &str = "id tenant app_id grant_id provider owner account_key account_id kind \
    state state_reason display_name avatar_url email team_id provider_tenant_id requested_scopes \
    labels metadata refresh_policy version created_at updated_at";
