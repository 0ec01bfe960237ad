//! Connections to either engine, and the one way to write a query for both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, SimpleConnection};
use diesel::result::Error::BrokenTransactionManager;
use diesel::{Connection as _, ConnectionError, SqliteConnection};
use diesel_async::pooled_connection::{
    AsyncDieselConnectionManager, ManagerConfig, PoolableConnection as _, RecyclingMethod,
};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncPgConnection, TransactionManager};
use futures_util::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;
use super::postgres::{self, PostgresOptions};

/// SQLite behind tokio's blocking threads.
pub type Sqlite = SyncConnectionWrapper<SqliteConnection>;
type SqlitePool = Pool<AsyncDieselConnectionManager<Sqlite>>;
type PostgresPool = Pool<AsyncDieselConnectionManager<AsyncPgConnection>>;

/// How often a transaction that met another writer is tried in all.
pub(crate) const TRANSACTION_ATTEMPTS: u32 = 8;

/// Which engine a store runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// The embedded default: one process a database.
    Sqlite,
    /// Production: several replicas.
    Postgres,
}

/// Where and how to connect.
#[derive(Clone, Debug)]
pub enum Options {
    /// A SQLite file.
    Sqlite {
        /// The file; made, readable by its owner only, when it is missing.
        path: PathBuf,
        /// How long a statement waits for a lock of another process.
        busy_timeout: Duration,
    },
    /// A PostgreSQL database.
    Postgres(PostgresOptions),
}

/// The database. Clones share the pools.
#[derive(Clone)]
pub struct Store {
    pools: Arc<Pools>,
    options: Arc<Options>,
}

enum Pools {
    // One writer: twenty writers that compete for SQLite's one lock have a p99 forty times higher.
    Sqlite {
        writer: SqlitePool,
        readers: SqlitePool,
    },
    Postgres(PostgresPool),
}

/// A connection of either engine. `on!` runs a query on it.
#[allow(
    clippy::large_enum_variant,
    reason = "short-lived and never in numbers: a box would cost more than it saves"
)]
pub enum Conn {
    /// To SQLite.
    Sqlite(Pooled<AsyncDieselConnectionManager<Sqlite>>),
    /// To PostgreSQL.
    Postgres(Pooled<AsyncDieselConnectionManager<AsyncPgConnection>>),
}

/// A pool that serves in the order of asking. bb8 by itself lets a newcomer take the connection that
/// somebody was woken for, who then waits behind everybody again, and can leave somebody asleep
/// beside a free connection when two come back at once. Whoever has a turn here competes with nobody.
struct Pool<M: bb8::ManageConnection + Send> {
    connections: bb8::Pool<M>,
    turns: Arc<Semaphore>,
    patience: Duration,
}

/// A connection of a pool, while it is somebody's turn.
pub struct Pooled<M: bb8::ManageConnection + Send> {
    // Before the turn, so that it is back when the next one's begins.
    connection: bb8::PooledConnection<'static, M>,
    _turn: OwnedSemaphorePermit,
}

impl<M: bb8::ManageConnection + Send> Pool<M>
where
    Error: From<bb8::RunError<M::Error>>,
{
    fn new(connections: bb8::Pool<M>, size: u32, patience: Duration) -> Self {
        let turns = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            connections,
            turns: Arc::new(Semaphore::new(turns)),
            patience,
        }
    }

    async fn get(&self) -> Result<Pooled<M>, Error> {
        let in_turn = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let turn = turn.map_err(|closed| Error::Unavailable(closed.into()))?;
            Ok(Pooled {
                connection: self.connections.get_owned().await?,
                _turn: turn,
            })
        };
        tokio::time::timeout(self.patience, in_turn)
            .await
            .map_err(|_| Error::Unavailable("no connection was free in time".into()))?
    }
}

impl<M: bb8::ManageConnection + Send> std::ops::Deref for Pooled<M> {
    type Target = M::Connection;
    fn deref(&self) -> &M::Connection {
        &self.connection
    }
}

impl<M: bb8::ManageConnection + Send> std::ops::DerefMut for Pooled<M> {
    fn deref_mut(&mut self) -> &mut M::Connection {
        &mut self.connection
    }
}

/// Repeats a query for each engine: written once, type-checked against both.
macro_rules! on {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $conn.as_conn() {
            $crate::store::pool::Conn::Sqlite(pooled) => {
                let $c = &mut **pooled;
                $body
            }
            $crate::store::pool::Conn::Postgres(pooled) => {
                let $c = &mut **pooled;
                $body
            }
        }
    };
}
pub(crate) use on;

/// Runs a block in a transaction, again from its start when another writer was in the way.
/// The block answers `Result<_, crate::Error>`; on an error nothing is kept.
macro_rules! transact {
    ($store:expr, |$tx:ident| $body:block) => {{
        let mut attempt = 0;
        loop {
            attempt += 1;
            let outcome: Result<_, $crate::Error> = async {
                let mut $tx = $store.begin().await?;
                let value = $crate::store::pool::body(async { $body }).await?;
                $tx.commit().await?;
                Ok(value)
            }
            .await;
            match outcome {
                Err(error)
                    if error.is_busy() && attempt < $crate::store::pool::TRANSACTION_ATTEMPTS =>
                {
                    $crate::store::pool::pause_before_retry(attempt).await;
                }
                other => break other,
            }
        }
    }};
}
pub(crate) use transact;

/// Gives a transaction's block its error type, so that `?` in it needs no annotation.
pub(crate) async fn body<T>(
    block: impl Future<Output = Result<T, crate::Error>>,
) -> Result<T, crate::Error> {
    block.await
}

/// Exponential, with jitter so that those who collided do not meet again.
pub(crate) async fn pause_before_retry(attempt: u32) {
    let most = 5_u64 << attempt.min(7);
    tokio::time::sleep(Duration::from_millis(fastrand::u64(1..=most))).await;
}

impl Conn {
    /// Itself: what `on!` asks of a connection and, by dereferencing, of a transaction.
    pub(crate) fn as_conn(&mut self) -> &mut Self {
        self
    }
}

impl Store {
    /// Opens the pools. SQLite's file is made when missing; a connection is tried at once, so that
    /// a wrong address is an error at the start and not at the first request.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the database can't be opened.
    pub async fn open(
        options: Options,
        pool_size: u32,
        acquire_timeout: Duration,
    ) -> Result<Self, Error> {
        let pools = match &options {
            Options::Sqlite { path, busy_timeout } => {
                prepare_file(path)?;
                Pools::Sqlite {
                    writer: sqlite_pool(path, *busy_timeout, false, 1, acquire_timeout).await?,
                    readers: sqlite_pool(path, *busy_timeout, true, pool_size, acquire_timeout)
                        .await?,
                }
            }
            Options::Postgres(postgres) => {
                // The pool says no more than that it waited; this says why it can't connect.
                tokio::time::timeout(acquire_timeout, postgres::connect(postgres))
                    .await
                    .map_err(|_| {
                        let silence = format!("no answer within {acquire_timeout:?}");
                        Error::Unavailable(silence.into())
                    })?
                    .map_err(|error| Error::Unavailable(error.into()))?;
                let postgres = postgres.clone();
                let mut config = ManagerConfig::<AsyncPgConnection>::default();
                // A question to the server each time would cost as much as the query that follows.
                config.recycling_method = RecyclingMethod::CustomFunction(Box::new(|conn| {
                    let open = if conn.is_broken() {
                        Err(BrokenTransactionManager)
                    } else {
                        Ok(())
                    };
                    std::future::ready(open).boxed()
                }));
                config.custom_setup = Box::new(move |_| {
                    let postgres = postgres.clone();
                    async move { postgres::connect(&postgres).await }.boxed()
                });
                let manager = AsyncDieselConnectionManager::new_with_config("", config);
                let pool = bb8::Pool::builder()
                    .max_size(pool_size)
                    .connection_timeout(acquire_timeout)
                    .build_unchecked(manager);
                Pools::Postgres(Pool::new(pool, pool_size, acquire_timeout))
            }
        };
        Ok(Self {
            pools: Arc::new(pools),
            options: Arc::new(options),
        })
    }

    /// Which engine this is.
    pub fn engine(&self) -> Engine {
        match *self.pools {
            Pools::Sqlite { .. } => Engine::Sqlite,
            Pools::Postgres(_) => Engine::Postgres,
        }
    }

    /// How it was opened.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// A connection to read with; on SQLite it refuses to write.
    pub async fn read(&self) -> Result<Conn, Error> {
        Ok(match &*self.pools {
            Pools::Sqlite { readers, .. } => Conn::Sqlite(readers.get().await?),
            Pools::Postgres(pool) => Conn::Postgres(pool.get().await?),
        })
    }

    /// A connection to write with, statement by statement.
    pub async fn write(&self) -> Result<Conn, Error> {
        Ok(match &*self.pools {
            Pools::Sqlite { writer, .. } => Conn::Sqlite(writer.get().await?),
            Pools::Postgres(pool) => Conn::Postgres(pool.get().await?),
        })
    }

    /// Begins a transaction. Dropped without [`Tx::commit`], it leaves nothing behind: the pool
    /// throws away a connection with an open transaction.
    pub async fn begin(&self) -> Result<Tx, Error> {
        let mut conn = self.write().await?;
        match &mut conn {
            Conn::Sqlite(sqlite) => {
                sqlite
                    .spawn_blocking(|inner| {
                        AnsiTransactionManager::begin_transaction_sql(inner, "BEGIN IMMEDIATE")
                    })
                    .await?;
            }
            Conn::Postgres(postgres) => {
                <AsyncPgConnection as AsyncConnection>::TransactionManager::begin_transaction(
                    &mut **postgres,
                )
                .await?;
            }
        }
        Ok(Tx {
            conn,
            then: Vec::new(),
        })
    }
}

/// An open transaction.
pub struct Tx {
    conn: Conn,
    then: Vec<Box<dyn FnOnce() + Send>>,
}

impl Tx {
    /// Has `then` run once this is committed, and never if it is not.
    pub fn on_commit(&mut self, then: impl FnOnce() + Send + 'static) {
        self.then.push(Box::new(then));
    }

    /// Makes what was written last.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the answer was lost: then nobody knows, and the row must be
    /// read again.
    pub async fn commit(mut self) -> Result<(), Error> {
        on!(&mut self.conn, |c| commit(c).await)?;
        for then in self.then {
            then();
        }
        Ok(())
    }
}

async fn commit<C: AsyncConnection>(conn: &mut C) -> diesel::QueryResult<()> {
    C::TransactionManager::commit_transaction(conn).await
}

impl std::ops::Deref for Tx {
    type Target = Conn;
    fn deref(&self) -> &Conn {
        &self.conn
    }
}

impl std::ops::DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut Conn {
        &mut self.conn
    }
}

/// The file and its folder, readable by their owner only.
fn prepare_file(path: &Path) -> Result<(), Error> {
    let unavailable =
        |error: std::io::Error| Error::Unavailable(format!("{}: {error}", path.display()).into());
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(unavailable)?;
    }
    let mut open = std::fs::OpenOptions::new();
    open.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut open, 0o600);
    open.open(path).map(drop).map_err(unavailable)
}

async fn sqlite_pool(
    path: &Path,
    busy_timeout: Duration,
    query_only: bool,
    size: u32,
    acquire_timeout: Duration,
) -> Result<SqlitePool, Error> {
    let mut config = ManagerConfig::<Sqlite>::default();
    config.recycling_method = RecyclingMethod::Fast;
    config.custom_setup = Box::new(move |path| {
        let path = path.to_owned();
        async move {
            tokio::task::spawn_blocking(move || connect_sqlite(&path, busy_timeout, query_only))
                .await
                .map_err(|error| ConnectionError::BadConnection(error.to_string()))?
        }
        .boxed()
    });
    let manager = AsyncDieselConnectionManager::new_with_config(path.to_string_lossy(), config);
    let pool = bb8::Pool::builder()
        .max_size(size)
        .connection_timeout(acquire_timeout)
        // Nothing is gained by opening a local file anew.
        .max_lifetime(None)
        .idle_timeout(None)
        .build_unchecked(manager);
    pool.get().await.map(drop)?;
    Ok(Pool::new(pool, size, acquire_timeout))
}

fn connect_sqlite(
    path: &str,
    busy_timeout: Duration,
    query_only: bool,
) -> diesel::ConnectionResult<Sqlite> {
    let mut conn = SqliteConnection::establish(path)?;
    // FULL: what was acknowledged survives a power cut, not only a crash of the process.
    conn.batch_execute(&format!(
        "PRAGMA busy_timeout = {};
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA query_only = {};",
        busy_timeout.as_millis(),
        i32::from(query_only),
    ))
    .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(Sqlite::new(conn))
}
