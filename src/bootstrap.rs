//! What must stand before anything is served: the lock on a SQLite database, the keys, a schema
//! that fits, and somebody who may call.
//!
//! `serve` goes through these in the order of this file. The lock comes first, so that two first
//! starts at once can't make two keys for one database.

use std::error::Error as StdError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, IsTerminal as _, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use zeroize::Zeroizing;

use crate::access::ApiKeys;
use crate::access::api_keys::NewApiKey;
use crate::access::audit::Who;
use crate::access::bearer::BearerSecret;
use crate::config::{Config, Database, Engine, Faults, TlsMode};
use crate::crypto::{self, Keyring, keyfile, private_file};
use crate::model::{Constraints, Role};
use crate::store::postgres::{PostgresOptions, Tls};
use crate::store::{self, Store, migrate};

/// The tenant of an installation that has one.
pub const DEFAULT_TENANT: &str = "default";

/// The file, in the data folder, that the first API key is written to where nobody watches.
pub const FIRST_KEY_FILE: &str = "first-api-key";

/// Why the service did not start, or ended. Each text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has faults.
    #[error("the configuration is not as it must be:\n{0}")]
    Config(#[from] Faults),
    /// PostgreSQL, and no keys in the configuration.
    #[error(
        "no keys are given, and nothing can be sealed without. On PostgreSQL they are yours to make: run \
         `openssl rand -base64 32`, set TOKENBROKER__KEYS__ENTRIES='[\"k1:THE_OUTPUT\"]' (keys.entries in a \
         configuration file; or keys.file), the same on every replica, and keep a copy apart from the \
         database's backups"
    )]
    KeysMissing,
    /// SQLite: the database holds something, and the key file is gone.
    #[error(
        "the key file {} is missing, while the database {} holds data: a new key could not open what is sealed \
         in it. Restore the key file from its copy, or point keys.file at it; to begin anew, move the database away",
        file.display(), database.display()
    )]
    KeysLost {
        /// Where the key file should be.
        file: PathBuf,
        /// The database that needs it.
        database: PathBuf,
    },
    /// The configuration and the key file name different active keys.
    #[error(
        "keys.active names {wanted:?}, but the key file {} seals with {chosen:?}: the file decides, so change \
         `active` in it, or leave keys.active empty",
        file.display()
    )]
    ActiveKey {
        /// The key file.
        file: PathBuf,
        /// What the configuration names.
        wanted: String,
        /// What the file names.
        chosen: String,
    },
    /// Keys are given and can't be used.
    #[error(transparent)]
    Keys(#[from] crypto::Error),
    /// The database can't be used.
    #[error("{place}")]
    Database {
        /// Which database.
        place: String,
        /// The cause.
        source: store::Error,
    },
    /// The schema is not as this version needs it.
    #[error(transparent)]
    Schema(#[from] migrate::Error),
    /// Another process serves this SQLite database.
    #[error(
        "another tokenbroker{} serves {} already; a SQLite database is for one `serve`. Stop that one, give this \
         one a data_dir of its own, or use PostgreSQL for several replicas",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), database.display()
    )]
    Locked {
        /// The database.
        database: PathBuf,
        /// The other process, where it could be read.
        pid: Option<u32>,
    },
    /// A listener's address can't be had.
    #[error("can't listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// A file or folder can't be used.
    #[error("{} can't be used", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Anything else.
    #[error(transparent)]
    Other(Box<dyn StdError + Send + Sync>),
}

impl StartError {
    /// The exit code of a command that fails with this; `docs/command-line.md` lists them.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 3,
            Self::Database { .. } | Self::Schema(_) => 4,
            Self::KeysMissing | Self::KeysLost { .. } | Self::ActiveKey { .. } | Self::Keys(_) => 5,
            Self::Locked { .. } | Self::Listen { .. } | Self::File { .. } | Self::Other(_) => 1,
        }
    }

    /// The error and its causes on one line, leaving out what the line says already.
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                text.push_str(": ");
                text.push_str(&words);
            }
            cause = error.source();
        }
        text
    }

    fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, source }
    }
}

/// Holds a SQLite database for this process. The lock is the operating system's, so it ends with
/// the process however that ends; the file stays, since removing it would let two processes lock
/// two files of one name.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock file beside a SQLite database; `None` on PostgreSQL, which serves many.
    ///
    /// # Errors
    /// [`StartError::Locked`] when another process has it, [`StartError::File`] when it can't be
    /// made.
    pub fn acquire(database: &Database) -> Result<Option<Self>, StartError> {
        let Engine::Sqlite { path } = &database.engine else {
            return Ok(None);
        };
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            private_file::create_folder(folder).map_err(StartError::file(folder))?;
        }
        // One lock for one database, by whichever of its names it is opened.
        let mut lock = path
            .canonicalize()
            .unwrap_or_else(|_| path.clone())
            .into_os_string();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&lock).map_err(StartError::file(&lock))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StartError::Locked {
                    database: path.clone(),
                    pid: holder(&mut file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(StartError::file(&lock)(source)),
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(StartError::file(&lock))?;
        Ok(Some(Self { _file: file }))
    }
}

/// The process that a lock file names.
fn holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Which database, for people: never a user or a password.
pub fn place(database: &Database) -> String {
    match &database.engine {
        Engine::Sqlite { path } => format!("SQLite at {}", path.display()),
        Engine::Postgres { url, .. } => {
            let url = Url::parse(url.expose_secret()).ok();
            match url.as_ref().and_then(Url::host_str) {
                Some(host) if !host.is_empty() => format!("PostgreSQL at {host}"),
                _ => "PostgreSQL".to_owned(),
            }
        }
    }
}

/// Whether a SQLite database holds nothing yet, or is missing.
///
/// # Errors
/// [`StartError::File`] when nobody can tell.
pub fn is_new(database: &Path) -> Result<bool, StartError> {
    match std::fs::metadata(database) {
        Ok(metadata) => Ok(metadata.len() == 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(StartError::file(database)(error)),
    }
}

/// The keys that the configuration gives. On SQLite the first start makes a key file; it must
/// come before the database, which without it can't be told from one that lost its keys.
///
/// # Errors
/// [`StartError::KeysMissing`], [`StartError::KeysLost`], [`StartError::ActiveKey`],
/// [`StartError::Keys`] or [`StartError::File`].
pub fn keyring(config: &Config) -> Result<Keyring, StartError> {
    let keys = &config.keys;
    if let Some((first, _)) = keys.inline.first() {
        let active = keys.active.as_deref().unwrap_or(first);
        return Ok(keyfile::from_entries(Some(active), &keys.inline)?);
    }
    let file = keys.file.as_ref().ok_or(StartError::KeysMissing)?;
    let exists = || file.try_exists().map_err(StartError::file(file));
    let ring = match &config.database.engine {
        Engine::Sqlite { path } if !exists()? => {
            if !is_new(path)? {
                return Err(StartError::KeysLost {
                    file: file.clone(),
                    database: path.clone(),
                });
            }
            let ring = keyfile::create(file)?;
            tracing::warn!(
                file = %file.display(),
                "made the key file; without it no stored token can be opened, so keep a copy of it, apart from the database's backups"
            );
            ring
        }
        _ => keyfile::load(file)?,
    };
    match &keys.active {
        Some(wanted) if wanted != ring.active_id() => Err(StartError::ActiveKey {
            file: file.clone(),
            wanted: wanted.clone(),
            chosen: ring.active_id().to_owned(),
        }),
        _ => Ok(ring),
    }
}

/// How the store is to be opened.
pub fn store_options(database: &Database) -> store::Options {
    match &database.engine {
        Engine::Sqlite { path } => store::Options::Sqlite {
            path: path.clone(),
            busy_timeout: database.busy_timeout,
        },
        Engine::Postgres { url, schema } => store::Options::Postgres(PostgresOptions {
            url: url.clone(),
            schema: schema.clone(),
            statement_timeout: database.statement_timeout,
            tls: match database.tls {
                TlsMode::Disable => Tls::Disable,
                TlsMode::Prefer => Tls::Prefer,
                TlsMode::Require => Tls::Require,
            },
            ca_file: database.ca_file.clone(),
        }),
    }
}

/// Opens the database.
///
/// # Errors
/// [`StartError::Database`], which names it.
pub async fn open(database: &Database) -> Result<Store, StartError> {
    Store::open(
        store_options(database),
        database.pool_size,
        database.acquire_timeout,
    )
    .await
    .map_err(|source| StartError::Database {
        place: place(database),
        source,
    })
}

/// Sees to it that the schema is one that this version can run on. SQLite is migrated here;
/// PostgreSQL never, since other replicas of another version may be running on it.
///
/// # Errors
/// [`StartError::Schema`], with what to run.
pub async fn schema(store: &Store) -> Result<(), StartError> {
    match migrate::check(store).await {
        Err(migrate::Error::Pending(..)) if store.engine() == store::Engine::Sqlite => {
            for name in migrate::up(store).await? {
                tracing::info!(migration = name, "applied a migration");
            }
            Ok(migrate::check(store).await?)
        }
        outcome => Ok(outcome?),
    }
}

/// The API key that the first start made. The key itself is where it was put and nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FirstKey {
    /// Its id.
    pub id: String,
    /// The file of mode 0600 that holds it; `None` when a terminal showed it.
    pub file: Option<PathBuf>,
}

/// Makes an admin's key where no key exists, so that a new SQLite installation can be called.
/// A terminal shows it once; elsewhere standard output is often kept as a log, so the key goes to
/// `first-api-key` in the data folder. On PostgreSQL nothing is made: replicas would make one
/// each.
///
/// # Errors
/// [`StartError::Other`] or [`StartError::File`]; a key that could not be handed over is revoked.
pub async fn first_api_key(
    keys: &ApiKeys,
    config: &Config,
) -> Result<Option<FirstKey>, StartError> {
    if !keys.none_exist().await? {
        return Ok(None);
    }
    if matches!(config.database.engine, Engine::Postgres { .. }) {
        tracing::warn!(
            "nobody can call: there is no API key. Make one with `tokenbroker api-key create --name NAME --role admin`"
        );
        return Ok(None);
    }
    let new = NewApiKey {
        tenant: DEFAULT_TENANT.to_owned(),
        name: "first".to_owned(),
        role: Role::Admin,
        constraints: Constraints::default(),
        rate_limit: None,
        created_by: "serve".to_owned(),
        expires_at: None,
    };
    let who = Who::system("serve", DEFAULT_TENANT);
    let (key, secret) = keys.create_as(&who, new).await?;
    let stdout = io::stdout();
    if stdout.is_terminal() && stdout.lock().write_all(framed(&secret).as_bytes()).is_ok() {
        return Ok(Some(FirstKey {
            id: key.id,
            file: None,
        }));
    }
    let path = config.data_dir.join(FIRST_KEY_FILE);
    if let Err(error) = keep_secret(&path, secret.text()) {
        keys.revoke(&key.id).await?;
        tracing::error!(
            "the first API key could not be written and was revoked; make one with `tokenbroker api-key create --name NAME --role admin`"
        );
        return Err(StartError::file(&path)(error));
    }
    tracing::warn!(
        file = %path.display(),
        key = key.id,
        "made the first API key, an admin's; read it from the file, then delete the file"
    );
    Ok(Some(FirstKey {
        id: key.id,
        file: Some(path),
    }))
}

impl From<crate::Error> for StartError {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Store(source) => Self::Database {
                place: "the database".to_owned(),
                source,
            },
            error => Self::Other(error.into()),
        }
    }
}

/// Writes a secret to a new file of mode 0600, a line; one of an earlier installation is replaced as a
/// whole, so that neither its permissions nor what it links to matter.
///
/// # Errors
/// What the file system answers.
pub fn keep_secret(path: &Path, secret: &SecretString) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        private_file::create_folder(folder)?;
    }
    let line = Zeroizing::new(format!("{}\n", secret.expose_secret()));
    match private_file::write_new(path, line.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            private_file::replace(path, line.as_bytes())
        }
        outcome => outcome,
    }
}

fn framed(secret: &BearerSecret) -> Zeroizing<String> {
    let head = "The first API key (admin). It is shown this once:";
    let key = secret.text().expose_secret();
    let width = head.len().max(key.len());
    let rule = "-".repeat(width + 2);
    Zeroizing::new(format!(
        "\n+{rule}+\n| {head:width$} |\n| {key:width$} |\n+{rule}+\n\n"
    ))
}
