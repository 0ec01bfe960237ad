//! Migrations: embedded, each applied once, under a lock, with its checksum kept.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool};
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};
use sha2::{Digest, Sha256};

use super::columns::DbNow;
use super::pool::{Conn, Engine, Store, on};
use super::schema::schema_migrations;
use crate::model::Timestamp;

/// One step of the schema, in both engines' words.
struct Migration {
    name: &'static str,
    sqlite: [&'static str; 2],
    postgres: [&'static str; 2],
}

macro_rules! migration {
    ($name:literal) => {
        Migration {
            name: $name,
            sqlite: [
                include_str!(concat!("../../migrations/sqlite/", $name, "/up.sql")),
                include_str!(concat!("../../migrations/sqlite/", $name, "/down.sql")),
            ],
            postgres: [
                include_str!(concat!("../../migrations/postgres/", $name, "/up.sql")),
                include_str!(concat!("../../migrations/postgres/", $name, "/down.sql")),
            ],
        }
    };
}

/// In order; a released one is never edited.
const MIGRATIONS: [Migration; 11] = [
    migration!("0001_callers"),
    migration!("0002_registry"),
    migration!("0003_connections"),
    migration!("0004_events"),
    migration!("0005_views"),
    migration!("0006_audit"),
    migration!("0007_oauth_clients"),
    migration!("0008_issuer"),
    migration!("0009_automation"),
    migration!("0010_automation_indexes"),
    migration!("0011_event_indexes"),
];

/// The session lock that one migrator at a time holds for a schema.
const TRY_LOCK: &str =
    "pg_try_advisory_lock(hashtextextended('tokenbroker migrate ' || current_schema(), 0))";

impl Migration {
    fn up(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite[0],
            Engine::Postgres => self.postgres[0],
        }
    }

    fn down(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite[1],
            Engine::Postgres => self.postgres[1],
        }
    }

    fn checksum(&self, engine: Engine) -> String {
        let mut digest = Sha256::new();
        digest.update(self.up(engine));
        let digest = digest.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The oldest migration at which a binary may stop and still run on a schema that has this
    /// one: its first line says.
    fn oldest_compatible(&self, engine: Engine) -> &'static str {
        self.up(engine)
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("-- oldest-compatible: "))
            .unwrap_or(self.name)
            .trim()
    }
}

#[derive(Queryable)]
struct Applied {
    name: String,
    checksum: String,
    oldest_compatible: String,
    applied_at: Timestamp,
}

/// How one migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Applied, and the same as in this binary.
    Applied(Timestamp),
    /// Not applied yet.
    Pending,
    /// Applied, but its text was another then: refused.
    Drifted,
    /// Applied by a newer version; whether this binary can run on it.
    Newer {
        /// The schema says that it can.
        compatible: bool,
    },
}

/// A migration and how it stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// How it stands.
    pub state: State,
}

/// Why migrations can't be run, or the server can't start on this schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("{context}: {source}{}", .source.source_text())]
    Store {
        /// What was being done.
        context: String,
        /// The cause.
        source: super::Error,
    },
    /// An applied migration differs from the one in this binary.
    #[error(
        "migration {0} was changed after it was applied; restore its text, or the database from a backup"
    )]
    Drifted(String),
    /// The schema is older than this binary needs.
    #[error("the schema lacks {0} migration(s), beginning with {1}; run `tokenbroker migrate up`")]
    Pending(usize, String),
    /// The schema is newer than this binary can run on.
    #[error(
        "the schema has migration {0}, which this version does not know and which does not admit it; run a newer version"
    )]
    TooNew(String),
    /// Another migrator holds the lock.
    #[error("another process is migrating this database; it did not finish within {0:?}")]
    Locked(Duration),
    /// SQLite: with foreign keys off, as a migration needs them, something lost its parent.
    #[error(
        "{0} row(s) would refer to rows that are not there; nothing was changed. Look for them with `PRAGMA foreign_key_check`"
    )]
    Orphans(i64),
    /// The last migration is of a newer version, so its way back is not known here.
    #[error(
        "migration {0} is not known to this version; roll it back with the version that applied it"
    )]
    Unknown(String),
}

impl super::Error {
    fn source_text(&self) -> String {
        std::error::Error::source(self).map_or_else(String::new, |cause| format!(": {cause}"))
    }
}

fn during(context: impl Into<String>) -> impl FnOnce(super::Error) -> Error {
    let context = context.into();
    |source| Error::Store { context, source }
}

/// How every migration stands, known or newer, in order.
///
/// # Errors
/// [`Error::Store`].
pub async fn status(store: &Store) -> Result<Vec<Status>, Error> {
    let applied = applied(store)
        .await
        .map_err(during("reading the schema's state"))?;
    let engine = store.engine();
    let latest = MIGRATIONS.last().map_or("", |migration| migration.name);
    let known = MIGRATIONS.iter().map(|migration| {
        let state = match applied.iter().find(|row| row.name == migration.name) {
            None => State::Pending,
            Some(row) if row.checksum == migration.checksum(engine) => {
                State::Applied(row.applied_at)
            }
            Some(_) => State::Drifted,
        };
        Status {
            name: migration.name.to_owned(),
            state,
        }
    });
    let newer = applied
        .iter()
        .filter(|row| MIGRATIONS.iter().all(|known| known.name != row.name))
        .map(|row| Status {
            name: row.name.clone(),
            state: State::Newer {
                compatible: row.oldest_compatible.as_str() <= latest,
            },
        });
    Ok(known.chain(newer).collect())
}

/// Refuses a schema that this binary can't run on.
///
/// # Errors
/// [`Error::Pending`], [`Error::Drifted`], [`Error::TooNew`] or [`Error::Store`].
pub async fn check(store: &Store) -> Result<(), Error> {
    let all = status(store).await?;
    let pending: Vec<_> = all
        .iter()
        .filter(|status| status.state == State::Pending)
        .collect();
    if let Some(first) = pending.as_slice().first() {
        return Err(Error::Pending(pending.len(), first.name.clone()));
    }
    for status in all {
        match status.state {
            State::Drifted => return Err(Error::Drifted(status.name)),
            State::Newer { compatible: false } => return Err(Error::TooNew(status.name)),
            State::Applied(_) | State::Pending | State::Newer { compatible: true } => {}
        }
    }
    Ok(())
}

/// Applies what is pending, all of it or none on SQLite, one transaction each on PostgreSQL.
/// Answers the names of those applied.
///
/// # Errors
/// [`Error::Drifted`], [`Error::Locked`], [`Error::Orphans`] or [`Error::Store`].
pub async fn up(store: &Store) -> Result<Vec<String>, Error> {
    let mut run = Run::begin(store).await?;
    let outcome = run.up(store).await;
    run.end(outcome).await
}

/// Rolls back the newest `steps` migrations; answers their names.
///
/// # Errors
/// [`Error::Unknown`], [`Error::Locked`], [`Error::Orphans`] or [`Error::Store`].
pub async fn down(store: &Store, steps: usize) -> Result<Vec<String>, Error> {
    let mut run = Run::begin(store).await?;
    let outcome = run.down(store, steps).await;
    run.end(outcome).await
}

const TABLE: [&str; 2] = [
    "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, checksum text NOT NULL, oldest_compatible text NOT NULL, applied_at integer NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS schema_migrations (name text COLLATE \"C\" PRIMARY KEY, checksum text NOT NULL, oldest_compatible text NOT NULL, applied_at timestamptz NOT NULL)",
];

const TABLE_EXISTS: [&str; 2] = [
    "EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'schema_migrations')",
    "to_regclass('schema_migrations') IS NOT NULL",
];

const fn word(words: [&'static str; 2], engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => words[0],
        Engine::Postgres => words[1],
    }
}

/// Only reads: who serves, or asks how things stand, need not be allowed to make tables.
async fn applied(store: &Store) -> Result<Vec<Applied>, super::Error> {
    let mut conn = store.read().await?;
    let exists = diesel::dsl::sql::<Bool>(word(TABLE_EXISTS, store.engine()));
    let exists: bool = on!(&mut conn, |c| diesel::select(exists).get_result(c).await)?;
    if !exists {
        return Ok(Vec::new());
    }
    Ok(on!(&mut conn, |c| schema_migrations::table
        .order(schema_migrations::name)
        .load(c)
        .await)?)
}

/// A run under the lock.
struct Run(Conn);

impl Run {
    const PATIENCE: Duration = Duration::from_secs(60);

    async fn begin(store: &Store) -> Result<Self, Error> {
        let mut conn = store.write().await.map_err(during("connecting"))?;
        match &mut conn {
            Conn::Sqlite(sqlite) => {
                // Rebuilding a table inside a transaction would delete its children by cascade.
                let begin = "PRAGMA foreign_keys = OFF; BEGIN EXCLUSIVE;";
                if let Err(error) = sqlite.batch_execute(begin).await {
                    // The connection goes back to the pool; the failure is what matters.
                    let _ = sqlite.batch_execute("PRAGMA foreign_keys = ON;").await;
                    return Err(during("locking")(error.into()));
                }
            }
            Conn::Postgres(postgres) => {
                // Tried in a loop: waiting in pg_advisory_lock holds a snapshot, which deadlocks
                // with CREATE INDEX CONCURRENTLY of the migrator that has the lock.
                let deadline = tokio::time::Instant::now() + Self::PATIENCE;
                loop {
                    let locked: bool = diesel::select(diesel::dsl::sql::<Bool>(TRY_LOCK))
                        .get_result(&mut **postgres)
                        .await
                        .map_err(|error| during("locking")(error.into()))?;
                    if locked {
                        break;
                    }
                    if tokio::time::Instant::now() > deadline {
                        return Err(Error::Locked(Self::PATIENCE));
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        Ok(Self(conn))
    }

    async fn up(&mut self, store: &Store) -> Result<Vec<String>, Error> {
        let engine = store.engine();
        let applied = self.applied(store.engine()).await?;
        let mut done = Vec::new();
        for migration in &MIGRATIONS {
            match applied.iter().find(|row| row.name == migration.name) {
                Some(row) if row.checksum != migration.checksum(engine) => {
                    return Err(Error::Drifted(migration.name.to_owned()));
                }
                Some(_) => {}
                None => {
                    self.apply(migration, migration.up(engine), true, engine)
                        .await?;
                    done.push(migration.name.to_owned());
                }
            }
        }
        self.check(&done).await?;
        Ok(done)
    }

    async fn down(&mut self, store: &Store, steps: usize) -> Result<Vec<String>, Error> {
        let applied = self.applied(store.engine()).await?;
        let mut done = Vec::new();
        for row in applied.into_iter().rev().take(steps) {
            let Some(migration) = MIGRATIONS.iter().find(|known| known.name == row.name) else {
                return Err(Error::Unknown(row.name));
            };
            let engine = store.engine();
            self.apply(migration, migration.down(engine), false, engine)
                .await?;
            done.push(row.name);
        }
        self.check(&done).await?;
        Ok(done)
    }

    /// SQLite did not look at foreign keys while migrating; this does, before the commit.
    async fn check(&mut self, done: &[String]) -> Result<(), Error> {
        let Conn::Sqlite(sqlite) = &mut self.0 else {
            return Ok(());
        };
        if done.is_empty() {
            return Ok(());
        }
        let count = "(SELECT count(*) FROM pragma_foreign_key_check)";
        let orphans: i64 = diesel::select(diesel::dsl::sql::<BigInt>(count))
            .get_result(&mut **sqlite)
            .await
            .map_err(|error| during("checking foreign keys")(error.into()))?;
        if orphans > 0 {
            return Err(Error::Orphans(orphans));
        }
        Ok(())
    }

    /// What is applied already; makes the bookkeeping table, under the lock since two that CREATE
    /// TABLE IF NOT EXISTS at once fail.
    async fn applied(&mut self, engine: Engine) -> Result<Vec<Applied>, Error> {
        let table = word(TABLE, engine);
        on!(&mut self.0, |c| c.batch_execute(table).await)
            .map_err(|error| during("preparing")(error.into()))?;
        on!(&mut self.0, |c| schema_migrations::table
            .order(schema_migrations::name)
            .load(c)
            .await)
        .map_err(|error| during("reading the schema's state")(error.into()))
    }

    /// One migration and its bookkeeping; on PostgreSQL in a transaction of its own.
    async fn apply(
        &mut self,
        migration: &Migration,
        sql: &str,
        up: bool,
        engine: Engine,
    ) -> Result<(), Error> {
        let own = engine == Engine::Postgres;
        let outcome = self.statements(migration, sql, up, engine, own).await;
        if outcome.is_err() && own {
            // The failure is what matters; the session ends with the run.
            let _ = on!(&mut self.0, |c| c.batch_execute("ROLLBACK").await);
        }
        outcome.map_err(|error| during(migration.name)(error.into()))
    }

    async fn statements(
        &mut self,
        migration: &Migration,
        sql: &str,
        up: bool,
        engine: Engine,
        own: bool,
    ) -> diesel::QueryResult<()> {
        if own {
            on!(&mut self.0, |c| c.batch_execute("BEGIN").await)?;
        }
        on!(&mut self.0, |c| c.batch_execute(sql).await)?;
        if up {
            let row = (
                schema_migrations::name.eq(migration.name),
                schema_migrations::checksum.eq(migration.checksum(engine)),
                schema_migrations::oldest_compatible.eq(migration.oldest_compatible(engine)),
                schema_migrations::applied_at.eq(DbNow::now()),
            );
            on!(&mut self.0, |c| diesel::insert_into(
                schema_migrations::table
            )
            .values(row)
            .execute(c)
            .await)?;
        } else {
            let row = schema_migrations::table.find(migration.name);
            on!(&mut self.0, |c| diesel::delete(row).execute(c).await)?;
        }
        if own {
            on!(&mut self.0, |c| c.batch_execute("COMMIT").await)?;
        }
        Ok(())
    }

    async fn end(mut self, outcome: Result<Vec<String>, Error>) -> Result<Vec<String>, Error> {
        let finish = match (&self.0, outcome.is_ok()) {
            (Conn::Sqlite(_), true) => "COMMIT; PRAGMA foreign_keys = ON;",
            (Conn::Sqlite(_), false) => "ROLLBACK; PRAGMA foreign_keys = ON;",
            (Conn::Postgres(_), _) => "SELECT pg_advisory_unlock_all()",
        };
        let finished = on!(&mut self.0, |c| c.batch_execute(finish).await);
        let names = outcome?;
        finished.map_err(|error| during("finishing")(error.into()))?;
        Ok(names)
    }
}
