//! What the demo stands on: a folder, a configuration, ports, and a key to call with.

use std::fs::{self, DirBuilder};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::access::ApiKeys;
use crate::access::api_keys::NewApiKey;
use crate::bootstrap::{self, DEFAULT_TENANT, StartError};
use crate::cli::{Failure, note};
use crate::clock::Clock;
use crate::config::{Config, Engine, Reflection};
use crate::freshness::Freshness;
use crate::model::{Constraints, Role};

/// gRPC, browsers, OAuth clients: where `serve` has them by default.
const PORTS: [u16; 3] = [7480, 7481, 7482];

/// The file with the demo's API key. It also says that a folder is a demo's.
const KEY_FILE: &str = "demo-api-key";

/// The file with the secret of the OAuth client.
const SECRET_FILE: &str = "demo-client-secret";

/// How often the temporary folder is tried to be removed, and the pause between.
const REMOVALS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(50);

/// The folder.
pub(super) struct Ground {
    folder: PathBuf,
    temporary: bool,
}

/// What is there before the service starts.
pub(super) struct Prepared {
    pub(super) config: Config,
    pub(super) key: SecretString,
    /// Ends names that a demo before has taken; empty in a new folder.
    pub(super) mark: String,
}

impl Ground {
    /// Makes the folder, of nobody else's.
    ///
    /// # Errors
    /// It can't be made, or can't be the demo's.
    pub(super) fn lay(wanted: Option<PathBuf>) -> Result<Self, Failure> {
        let temporary = wanted.is_none();
        let path = wanted.unwrap_or_else(|| {
            let name = format!(
                "tokenbroker-demo-{}-{:08x}",
                std::process::id(),
                fastrand::u32(..)
            );
            std::env::temp_dir().join(name)
        });
        let failed = |source| StartError::File {
            path: path.clone(),
            source,
        };
        let mut builder = DirBuilder::new();
        // A temporary folder that is there already is somebody else's.
        builder.recursive(!temporary);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(failed)?;
        // Lines to paste work from any folder.
        let folder = path.canonicalize().map_err(failed)?;
        Ok(Self { folder, temporary })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn is_temporary(&self) -> bool {
        self.temporary
    }

    pub(super) fn key_file(&self) -> PathBuf {
        self.folder.join(KEY_FILE)
    }

    /// Keeps the client's secret for the lines to paste, and says where.
    ///
    /// # Errors
    /// What the file system answers.
    pub(super) fn keep_client_secret(&self, secret: &SecretString) -> io::Result<PathBuf> {
        let path = self.folder.join(SECRET_FILE);
        bootstrap::keep_secret(&path, secret)?;
        Ok(path)
    }

    /// Makes the key file, the schema and an API key. It does so before the service, which would show
    /// its first key in the middle of the story.
    ///
    /// # Errors
    /// What a start can meet, or a database that is no demo's.
    pub(super) async fn prepare(&self) -> Result<Prepared, Failure> {
        let config = configured(&self.folder)?;
        let _lock = bootstrap::Lock::acquire(&config.database)?;
        let new = match &config.database.engine {
            Engine::Sqlite { path } => bootstrap::is_new(path)?,
            Engine::Postgres { .. } => false,
        };
        let key_file = self.key_file();
        if !new && !key_file.exists() {
            return Err(Failure::Usage(format!(
                "--data-dir: {} holds a database that no demo has made; give an empty folder",
                self.folder.display()
            )));
        }
        bootstrap::keyring(&config)?;
        let mut database = config.database.clone();
        database.pool_size = 2;
        let store = bootstrap::open(&database).await?;
        bootstrap::schema(&store).await?;
        let clock = Clock::system();
        let freshness = Arc::new(Freshness::new(config.cache.max_staleness));
        let keys = ApiKeys::new(store, clock.clone(), freshness);
        let admin = NewApiKey {
            tenant: DEFAULT_TENANT.to_owned(),
            name: "demo".to_owned(),
            role: Role::Admin,
            constraints: Constraints::default(),
            rate_limit: None,
            created_by: "demo".to_owned(),
            expires_at: None,
        };
        let (_, secret) = keys.create(admin).await?;
        let key = secret.text().clone();
        bootstrap::keep_secret(&key_file, &key).map_err(|source| StartError::File {
            path: key_file,
            source,
        })?;
        let mark = if new {
            String::new()
        } else {
            format!("-{:x}", clock.now().micros() / 1_000_000)
        };
        Ok(Prepared { config, key, mark })
    }

    /// Removes the folder if it is a temporary one.
    pub(super) async fn clear(self) {
        if !self.temporary {
            return;
        }
        // A connection to the database that is being closed may still write beside it.
        for _ in 0..REMOVALS {
            match fs::remove_dir_all(&self.folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tokio::time::sleep(PAUSE).await;
                }
                _ => return,
            }
        }
        note(&format!(
            "tokenbroker: {} could not be removed",
            self.folder.display()
        ));
    }
}

/// The defaults, but for what the demo needs: itself as a provider, on loopback.
fn configured(folder: &Path) -> Result<Config, StartError> {
    let mut config = Config::defaults(folder)?;
    config.grpc.reflection = Reflection::On;
    config.providers.allow_private_networks = true;
    Ok(config)
}

/// The configuration with three ports: the usual ones, or any where one of them is in use.
///
/// # Errors
/// There are no free ports.
pub(super) fn with_ports(mut config: Config) -> Result<Config, StartError> {
    let [grpc, web, issuer] = match free(PORTS) {
        Ok(addresses) => addresses,
        Err(_) => free([0, 0, 0])?,
    };
    let url = |address: SocketAddr| {
        let url = Url::parse(&format!("http://{address}/"));
        url.map_err(|error| StartError::Other(error.into()))
    };
    config.grpc.listen = grpc;
    config.web.listen = web;
    config.web.public_url = url(web)?;
    config.issuer.listen = Some(issuer);
    config.issuer.url = url(issuer)?;
    Ok(config)
}

/// The addresses of three ports, all free at the same time; 0 stands for any.
fn free(ports: [u16; 3]) -> Result<[SocketAddr; 3], StartError> {
    let bind = |port| {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| StartError::Listen { addr, source };
        let listener = TcpListener::bind(addr).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok::<_, StartError>((listener, addr))
    };
    let [first, second, third] = ports;
    let (first, second, third) = (bind(first)?, bind(second)?, bind(third)?);
    Ok([first.1, second.1, third.1])
}
