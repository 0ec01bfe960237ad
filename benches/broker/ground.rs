//! What a server runs on: a folder and a database of its own; and the server, the real binary.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tokenbroker::config::{Config, Sources};

use crate::callers::Caller;
use crate::database::{self, Below};
use crate::issuer::{Settings, Tls};
use crate::process::{Cores, Process};
use crate::{Fault, Outcome};

/// The binary that is measured, built with the same profile as this.
const BINARY: &str = env!("CARGO_BIN_EXE_tokenbroker");

/// The highest rate that can be configured.
const MOST: &str = "1000000";

/// How long a server may take to answer first.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A database and what belongs to it.
pub struct Ground {
    folder: TempDir,
    schema: Option<String>,
    sealing_key: String,
    /// Beside what every server has.
    settings: Settings,
    tls: Option<Tls>,
}

/// A server that runs.
pub struct Server {
    /// Its process.
    pub process: Process,
    /// Where it serves gRPC; with TLS, where a relay does that encrypts.
    pub address: SocketAddr,
    /// Where browsers are.
    pub web: SocketAddr,
    /// From the start of the process to the first successful answer.
    pub started_in: Duration,
}

impl Ground {
    /// An empty one; PostgreSQL's is migrated.
    pub async fn new(engine: Engine) -> Outcome<Self> {
        let schema = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => {
                let name = format!("b{:016x}", fastrand::u64(..));
                Below::create_schema(&name).await?;
                Some(name)
            }
        };
        let mut key = [0; 32];
        tokenbroker::crypto::random::fill(&mut key);
        let ground = Self {
            folder: tempfile::tempdir()?,
            schema,
            sealing_key: STANDARD.encode(key),
            settings: Settings::new(),
            tls: None,
        };
        if engine == Engine::Postgres {
            ground.said(&["migrate", "up"])?;
        }
        Ok(ground)
    }

    /// The engine.
    pub fn engine(&self) -> Engine {
        match self.schema {
            None => Engine::Sqlite,
            Some(_) => Engine::Postgres,
        }
    }

    /// PostgreSQL's schema.
    pub fn schema(&self) -> Option<&str> {
        self.schema.as_deref()
    }

    /// SQLite's file.
    pub fn sqlite_file(&self) -> PathBuf {
        self.folder.path().join("tokenbroker.db")
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Has servers started from now on have these settings, named without the prefix.
    pub fn set(&mut self, settings: Settings) {
        self.settings.extend(settings);
    }

    /// Has servers started from now on speak TLS, and callers have a certificate.
    pub fn encrypt(&mut self) -> Outcome<()> {
        let (tls, settings) = Tls::new(self.folder.path())?;
        self.set(settings);
        self.tls = Some(tls);
        Ok(())
    }

    /// A file for something else.
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Defaults, but for addresses and what the provider on loopback needs.
    fn environment(&self, replica: &str, grpc: u16, web: u16) -> Outcome<Vec<(String, String)>> {
        let folder = self.folder.path();
        let journal = folder.join(format!("journal-{replica}"));
        let mut keys = vec![
            ("DATA_DIR", folder.to_string_lossy().into_owned()),
            ("JOURNAL__DIR", journal.to_string_lossy().into_owned()),
            ("GRPC__LISTEN", format!("127.0.0.1:{grpc}")),
            ("WEB__LISTEN", format!("127.0.0.1:{web}")),
            ("WEB__PUBLIC_URL", format!("http://127.0.0.1:{web}")),
            ("KEYS__ENTRIES", format!("[\"k1:{}\"]", self.sealing_key)),
            ("PROVIDERS__ALLOW_PRIVATE_NETWORKS", "true".to_owned()),
            // One caller measures everything: its bucket is charged, and never empty.
            ("LIMITS__STREAMS_PER_CALLER", "0".to_owned()),
            ("LIMITS__ROLES__ADMIN__REQUESTS_PER_SECOND", MOST.to_owned()),
            ("LIMITS__ROLES__ADMIN__BURST", MOST.to_owned()),
            (
                "LIMITS__ROLES__CONSUMER__REQUESTS_PER_SECOND",
                MOST.to_owned(),
            ),
            ("LIMITS__ROLES__CONSUMER__BURST", MOST.to_owned()),
        ];
        if let Some(schema) = &self.schema {
            keys.push(("DATABASE__URL", database::postgres_url()?));
            keys.push(("DATABASE__SCHEMA", schema.clone()));
            keys.push(("DATABASE__TLS", "disable".to_owned()));
        }
        let keys = keys.into_iter().map(|(key, value)| (key.to_owned(), value));
        let keys = keys.chain(self.settings.iter().cloned());
        let named = |(key, value)| (format!("TOKENBROKER__{key}"), value);
        Ok(keys.map(named).collect())
    }

    /// The configuration that a server here has.
    pub fn config(&self) -> Outcome<Config> {
        let environment = self.environment("a", 0, 0)?;
        let fault = |faults| Fault::from(format!("{faults}"));
        // A public URL with a port is needed, though nothing listens there.
        let environment = environment
            .into_iter()
            .filter(|(name, _)| !name.contains("__WEB__"));
        Config::load(Sources::new(None, environment)).map_err(fault)
    }

    /// What a command of the binary prints.
    fn said(&self, arguments: &[&str]) -> Outcome<String> {
        let output = Command::new(BINARY)
            .args(arguments)
            .env_clear()
            .envs(self.environment("a", 7480, 7481)?)
            .output()?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("tokenbroker {}: {told}", arguments.join(" ")).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// A new API key of this role.
    pub fn key(&self, role: &str) -> Outcome<String> {
        self.said(&["api-key", "create", "--name", "bench", "--role", role])
    }

    /// Starts a server and waits until it answers.
    pub async fn start(&self, replica: &str, cores: Cores) -> Outcome<Server> {
        let began = Instant::now();
        let (mut process, mut address, web) = self.launch(replica, cores)?;
        if let Some(tls) = &self.tls {
            address = tls.relay(address).await?;
        }
        while !Caller::healthy(address).await {
            if !process.runs()? || began.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(self.file(&format!("{replica}.log")))?;
                return Err(format!("the server does not answer: {log}").into());
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Ok(Server {
            process,
            address,
            web,
            started_in: began.elapsed(),
        })
    }

    /// The process, and where it serves gRPC and browsers.
    fn launch(&self, replica: &str, cores: Cores) -> Outcome<(Process, SocketAddr, SocketAddr)> {
        let (grpc, web) = (free_port()?, free_port()?);
        let log = std::fs::File::create(self.file(&format!("{replica}.log")))?;
        let process = Process::start(
            cores
                .command(BINARY)
                .arg("serve")
                .env_clear()
                .envs(std::env::var("PATH").map(|path| ("PATH", path)))
                .envs(self.environment(replica, grpc, web)?)
                .stdout(Stdio::null())
                .stderr(log),
        )?;
        Ok((process, loopback(grpc), loopback(web)))
    }

    /// Removes what PostgreSQL holds of it; the folder goes by itself.
    pub async fn remove(self) -> Outcome<()> {
        if let Some(schema) = &self.schema {
            Below::drop_schema(schema).await?;
        }
        Ok(())
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A port of this machine.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}
