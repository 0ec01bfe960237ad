//! `[database]`: the engine, by URL or by parts, and its pool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::postgres_url::{self, Parts};
use super::reader::Reader;
use super::sources::Layer;
use super::{HOUR, MINUTE};

/// The database and its pool.
#[derive(Clone, Debug)]
pub struct Database {
    /// Which database.
    pub engine: Engine,
    /// The most connections (SQLite: readers; there is one writer beside them), 1 to 100.
    pub pool_size: u32,
    /// How long a caller waits for a connection.
    pub acquire_timeout: Duration,
    /// How long PostgreSQL may work on one statement.
    pub statement_timeout: Duration,
    /// How long SQLite waits for another process's lock.
    pub busy_timeout: Duration,
    /// Whether connections to PostgreSQL are encrypted.
    pub tls: TlsMode,
    /// The certificate authorities that PostgreSQL's certificate is checked against, PEM; `None`
    /// takes the system's.
    pub ca_file: Option<PathBuf>,
}

/// Which database.
#[derive(Clone, Debug)]
pub enum Engine {
    /// One file, for one process at a time.
    Sqlite {
        /// The file; a relative path is under the working directory.
        path: PathBuf,
    },
    /// A PostgreSQL server.
    Postgres {
        /// A `postgres://` URL without `sslmode`: [`Database::tls`] says that.
        url: SecretString,
        /// The schema to work in; `None` takes the server's `search_path`.
        schema: Option<String>,
    },
}

/// Whether connections to PostgreSQL are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// Encrypted where the server offers it; somebody on the path can prevent that.
    Prefer,
    /// Encrypted, the certificate checked, or not at all.
    Require,
    /// Never encrypted.
    Disable,
}

/// What the keys of the parts hold.
struct Given {
    url: Option<SecretString>,
    host: Option<String>,
    port: u16,
    name: String,
    user: String,
    password: Option<SecretString>,
    schema: Option<String>,
}

const PARTS: [&str; 4] = [
    "database.host",
    "database.port",
    "database.name",
    "database.user",
];

impl Database {
    pub(super) fn read(reader: &mut Reader, data_dir: &Path) -> Self {
        const MODES: [(&str, TlsMode); 3] = [
            ("prefer", TlsMode::Prefer),
            ("require", TlsMode::Require),
            ("disable", TlsMode::Disable),
        ];
        let given = Given {
            url: reader.secret("database.url"),
            host: reader.optional_text("database.host"),
            port: reader.integer("database.port", 1..=65_535),
            name: reader.text("database.name"),
            user: reader.text("database.user"),
            password: reader.secret("database.password"),
            schema: schema(reader),
        };
        let mut tls = reader
            .choice("database.tls", &MODES)
            .unwrap_or(TlsMode::Prefer);
        let engine = engine(reader, given, data_dir, &mut tls);
        Self {
            engine,
            pool_size: reader.integer("database.pool_size", 1..=100),
            acquire_timeout: reader.duration(
                "database.acquire_timeout",
                Duration::from_millis(100)..=MINUTE,
            ),
            statement_timeout: reader.duration(
                "database.statement_timeout",
                Duration::from_millis(100)..=HOUR,
            ),
            busy_timeout: reader
                .duration("database.busy_timeout", Duration::from_millis(10)..=MINUTE),
            tls,
            ca_file: reader.optional_path("database.ca_file"),
        }
    }
}

/// The source that named the database by URL, its own or a file's.
fn url_layer(reader: &Reader) -> Layer {
    let layers = ["database.url", "database.url_file"]
        .into_iter()
        .filter(|key| reader.is_set(key))
        .map(|key| reader.layer(key));
    layers.max().unwrap_or(Layer::Default)
}

fn engine(reader: &mut Reader, given: Given, data_dir: &Path, tls: &mut TlsMode) -> Engine {
    let by_url = url_layer(reader);
    if given.host.is_some() && reader.layer("database.host") > by_url {
        return from_parts(&given);
    }
    for key in PARTS {
        if reader.is_set(key) && given.url.is_some() && reader.layer(key) >= by_url {
            reader.fault(key, "set either database.url or the parts, not both");
        } else if reader.is_set(key) && given.url.is_none() && key != "database.host" {
            reader.fault(key, "this needs database.host beside it");
        }
    }
    let default_path = data_dir.join("tokenbroker.db");
    let Some(url) = given.url else {
        if given.password.is_some() {
            reader.fault("database.password", "this needs database.host beside it");
        }
        return Engine::Sqlite { path: default_path };
    };
    let text = url.expose_secret();
    if let Some(path) = text.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if let Some(problem) = sqlite_problem(path) {
            reader.fault("database.url", problem);
        }
        return Engine::Sqlite { path: path.into() };
    }
    if postgres_url::is_postgres(text) {
        return from_url(reader, text, &given.password, given.schema, tls);
    }
    reader.fault(
        "database.url",
        "this must begin with \"sqlite:\" or \"postgres://\"",
    );
    Engine::Sqlite { path: default_path }
}

fn sqlite_problem(path: &str) -> Option<&'static str> {
    if path.is_empty() {
        return Some("this names no file");
    }
    if path.contains(":memory:") {
        return Some("a database in memory can't be shared by several connections; name a file");
    }
    path.contains(['?', '\0'])
        .then_some("this takes a plain path, without parameters")
}

fn from_parts(given: &Given) -> Engine {
    let url = postgres_url::from_parts(&Parts {
        host: given.host.as_deref().unwrap_or_default(),
        port: given.port,
        name: &given.name,
        user: &given.user,
        password: given.password.as_ref().map(ExposeSecret::expose_secret),
    });
    Engine::Postgres {
        url: SecretString::from(url.as_str()),
        schema: given.schema.clone(),
    }
}

fn from_url(
    reader: &mut Reader,
    text: &str,
    password: &Option<SecretString>,
    schema: Option<String>,
    tls: &mut TlsMode,
) -> Engine {
    if let Some(problem) = postgres_url::problem(text) {
        reader.fault("database.url", problem);
    }
    let (mut url, mode) = postgres_url::without_sslmode(text);
    match mode.as_deref() {
        None => {}
        Some(mode) => match tls_of_sslmode(mode) {
            Some(wanted) if reader.is_set("database.tls") && wanted != *tls => {
                reader.fault("database.tls", "sslmode in database.url says otherwise");
            }
            Some(wanted) => *tls = wanted,
            None => reader.fault("database.url", "this sslmode is unknown; use database.tls"),
        },
    }
    if let Some(password) = password {
        match postgres_url::with_password(&url, password.expose_secret()) {
            Ok(with_password) => url = with_password,
            Err(problem) => reader.fault("database.password", problem),
        }
    }
    Engine::Postgres {
        url: SecretString::from(url.as_str()),
        schema,
    }
}

/// libpq's modes. Ours checks the certificate wherever it insists on one.
fn tls_of_sslmode(mode: &str) -> Option<TlsMode> {
    match mode {
        "disable" => Some(TlsMode::Disable),
        "allow" | "prefer" => Some(TlsMode::Prefer),
        "require" | "verify-ca" | "verify-full" => Some(TlsMode::Require),
        _ => None,
    }
}

/// A schema's name is written into `search_path`, so it must need no quoting there.
fn schema(reader: &mut Reader) -> Option<String> {
    let name = reader.optional_text("database.schema")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let begins = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    if !begins || name.len() > 63 || !name.chars().all(plain) {
        reader.fault(
            "database.schema",
            format!("{name:?} is not a lower-case name of at most 63 letters, digits and _"),
        );
    }
    Some(name)
}
