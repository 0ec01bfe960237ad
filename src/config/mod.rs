//! Configuration: raw values from the sources, checked once at start into plain structs.
//!
//! The sources, later ones winning key by key: the embedded `config.default.toml`, a file
//! (`--config` or `TOKENBROKER_CONFIG`), and environment variables (`TOKENBROKER__SECTION__KEY`).
//! Every fault is found in one run and reported with its full key. What a key does, and what too
//! high or too low a value costs, is said in `config.default.toml`.

mod access;
mod apps;
mod audit;
mod authorizations;
mod automation;
mod backup;
mod cache;
mod database;
mod events;
mod fault;
mod grpc;
mod issuer;
mod journal;
mod keys;
mod limits;
mod passwords;
mod postgres_url;
mod providers;
mod reader;
pub mod refresh;
mod retention;
mod sessions;
mod sources;
mod telemetry;
mod tls;
mod values;
mod web;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use access::{
    Access, CertificateName, CertificateRule, Granted, JwtIssuer, JwtKeySource, JwtRule, spiffe,
};
pub use apps::DeclaredApp;
pub use audit::{Audit, TokenReads};
pub use authorizations::Authorizations;
pub use automation::Automation;
pub use backup::Backup;
pub use cache::Cache;
pub use database::{Database, Engine, TlsMode};
pub use events::Events;
pub use fault::{Fault, Faults};
pub use grpc::{Grpc, Reflection};
pub use issuer::Issuer;
pub use journal::Journal;
pub use keys::Keys;
pub use limits::{Limits, RoleLimit};
pub use passwords::Passwords;
pub use providers::Providers;
pub use refresh::{LEASE_SPARE, Refresh};
pub use retention::Retention;
pub use sessions::Sessions;
pub use sources::Sources;
pub use telemetry::{LogFormat, Telemetry};
pub use tls::Tls;
pub use web::{Web, is_loopback};

use reader::Reader;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// What kind of installation this is; `seed` runs in development only.
    pub environment: Environment,
    /// The folder for what this replica keeps on disk where no other place is named.
    pub data_dir: PathBuf,
    /// The gRPC listener.
    pub grpc: Grpc,
    /// Callers known by something else than an API key or a session.
    pub access: Access,
    /// The browser listener.
    pub web: Web,
    /// Our own authorisation server.
    pub issuer: Issuer,
    /// The database and its pool.
    pub database: Database,
    /// The keys that seal secrets.
    pub keys: Keys,
    /// The journal of answers from rotating providers.
    pub journal: Journal,
    /// The memory cache of opened access tokens.
    pub cache: Cache,
    /// Refreshing access tokens.
    pub refresh: Refresh,
    /// Events and those who watch them.
    pub events: Events,
    /// Authorisations in progress.
    pub authorizations: Authorizations,
    /// Jobs of browser automation.
    pub automation: Automation,
    /// What hashing a password costs, and the brake on failed sign-ins.
    pub passwords: Passwords,
    /// Sessions of users.
    pub sessions: Sessions,
    /// Which addresses providers may have, and how they are connected to.
    pub providers: Providers,
    /// How often callers may call.
    pub limits: Limits,
    /// The audit trail.
    pub audit: Audit,
    /// How long history is kept.
    pub retention: Retention,
    /// Where backups go.
    pub backup: Backup,
    /// Logs, traces and metrics.
    pub telemetry: Telemetry,
    /// Apps declared in the configuration (`[[apps]]`).
    pub apps: Vec<DeclaredApp>,
}

/// What kind of installation this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Environment {
    /// A developer's machine, or a test.
    Development,
    /// Real users' tokens.
    Production,
}

impl Config {
    /// Reads all sources and checks them.
    ///
    /// # Errors
    /// Every fault of every source, each with its key.
    pub fn load(sources: Sources) -> Result<Self, Faults> {
        let mut reader = Reader::new(sources);
        let config = Self::read(&mut reader);
        reader.finish()?;
        config.ok_or_else(|| {
            // Only a key without a default can be missing without a fault of its own.
            Faults::new(vec![Fault {
                key: "config.default.toml".to_owned(),
                problem: "a key has no default".to_owned(),
            }])
        })
    }

    /// The embedded defaults, with everything on disk under `data_dir`: for tests and the demo.
    ///
    /// # Errors
    /// None in a build whose tests pass; `data_dir` that is empty or not UTF-8.
    pub fn defaults(data_dir: &Path) -> Result<Self, Faults> {
        let Some(data_dir) = data_dir.to_str() else {
            return Err(Faults::new(vec![Fault {
                key: "data_dir".to_owned(),
                problem: "the path is not UTF-8".to_owned(),
            }]));
        };
        // Spelt as TOML, so that a folder whose name looks like a quoted string stays itself.
        let value = toml::Value::String(data_dir.to_owned()).to_string();
        let name = sources::variable_of_key("data_dir");
        Self::load(Sources::new(None, [(name, value)]))
    }

    fn read(reader: &mut Reader) -> Option<Self> {
        const ENVIRONMENTS: [(&str, Environment); 2] = [
            ("development", Environment::Development),
            ("production", Environment::Production),
        ];
        let environment = reader
            .choice("environment", &ENVIRONMENTS)
            .unwrap_or(Environment::Production);
        let data_dir = reader.path("data_dir");
        let grpc = Grpc::read(reader);
        let asks = reader.is_set("grpc.tls.client_ca_file");
        let access = Access::read(reader, asks);
        let web = Web::read(reader);
        let issuer = Issuer::read(reader);
        let database = Database::read(reader, &data_dir);
        let keys = Keys::read(reader, &database.engine, &data_dir);
        let journal = Journal::read(reader, &data_dir);
        let cache = Cache::read(reader);
        let refresh = Refresh::read(reader);
        let events = Events::read(reader);
        let authorizations = Authorizations::read(reader);
        let automation = Automation::read(reader);
        let passwords = Passwords::read(reader);
        let sessions = Sessions::read(reader);
        let providers = Providers::read(reader);
        let limits = Limits::read(reader);
        let audit = Audit::read(reader);
        let retention = Retention::read(reader);
        let backup = Backup::read(reader);
        let telemetry = Telemetry::read(reader);
        let apps = DeclaredApp::read_all(reader);

        if reader.sound(&["grpc.listen", "web.listen"])
            && let Some(web) = &web
            && grpc.listen.port() != 0
            && grpc.listen == web.listen
        {
            reader.fault("web.listen", "grpc.listen has this address already");
        }
        if reader.sound(&["grpc.listen", "web.listen", "issuer.listen"])
            && let (Some(web), Some(issuer)) = (&web, &issuer)
            && let Some(listen) = issuer.listen
            && listen.port() != 0
            && (listen == grpc.listen || listen == web.listen)
        {
            reader.fault("issuer.listen", "another listener has this address already");
        }
        if reader.sound(&["web.public_url", "issuer.url"])
            && let (Some(web), Some(issuer)) = (&web, &issuer)
            && issuer.listen.is_some()
            && issuer.is_out_of_reach(web)
        {
            reader.fault(
                "issuer.url",
                "this is a loopback address, while web.public_url is not: clients can't reach it",
            );
        }
        if reader.sound(&["events.poll_interval", "cache.max_staleness"])
            && events.poll_interval.saturating_mul(2) > cache.max_staleness
        {
            reader.fault(
                "events.poll_interval",
                "twice this must fit into cache.max_staleness, or the cache goes stale between polls",
            );
        }

        Some(Self {
            environment,
            data_dir,
            grpc,
            access,
            web: web?,
            issuer: issuer?,
            database,
            keys,
            journal,
            cache,
            refresh,
            events,
            authorizations,
            automation,
            sessions,
            passwords,
            providers,
            limits,
            audit,
            retention,
            backup,
            telemetry,
            apps,
        })
    }
}
