//! TLS on the gRPC listener: made from files, and made anew when their contents change.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::time_provider::TimeProvider;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::peer;
use crate::clock::Clock;
use crate::config::{self, Fault, Faults};
use crate::model::Timestamp;

/// What one of the files may hold at most, in bytes: ten times the bundle of a whole system.
const FILE_LIMIT: u64 = 2 << 20;

/// A certificate that ends sooner than this is warned of.
const ENDS_SOON: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How often it is warned of.
const WARN_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

const CERT: &str = "grpc.tls.cert_file";
const KEY: &str = "grpc.tls.key_file";
const CLIENT_CA: &str = "grpc.tls.client_ca_file";

/// What connections are encrypted with.
pub struct Tls {
    files: config::Tls,
    clock: Clock,
    current: RwLock<Arc<ServerConfig>>,
    seen: Mutex<Seen>,
}

/// What was met the last time.
struct Seen {
    contents: Contents,
    /// When the certificate that is served ends.
    end: Option<Timestamp>,
    /// When that was last warned of.
    warned: Option<Timestamp>,
    /// Why the files could not be read.
    unreadable: Option<Fault>,
}

/// What the files hold.
#[derive(PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with one of them, by its key in the configuration.
    pub fn load(files: &config::Tls, clock: Clock) -> Result<Self, Faults> {
        let one = |fault| Faults::new(vec![fault]);
        let contents = Contents::read(files).map_err(one)?;
        let made = make(files, &contents, &clock).map_err(one)?;
        let tls = Self {
            files: files.clone(),
            current: RwLock::new(Arc::new(made.config)),
            seen: Mutex::new(Seen {
                contents,
                end: made.end,
                warned: None,
                unreadable: None,
            }),
            clock,
        };
        Ok(tls)
    }

    /// For the next connection.
    pub(super) fn current(&self) -> Arc<ServerConfig> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files now and then, and at SIGHUP, until `stop`. SIGHUP is heard from this call
    /// on, not from the first poll.
    pub(super) fn watch(
        self: Arc<Self>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + 'static {
        let hangups = Hangups::new();
        self.warn_of_readers();
        self.remind();
        async move {
            stop.run_until_cancelled(self.look_again(hangups)).await;
        }
    }

    async fn look_again(self: Arc<Self>, mut hangups: Hangups) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.files.reload_interval) => {}
                () = hangups.next() => tracing::info!("SIGHUP: the files of grpc.tls are read again"),
            }
            let tls = Arc::clone(&self);
            // The files may lie on a slow network.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.reload()).await {
                tracing::error!(%error, "the files of grpc.tls were not read again");
            }
        }
    }

    /// Serves what the files hold now, if that is good; else what was served goes on.
    fn reload(&self) {
        let read = Contents::read(&self.files);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let contents = match read {
            Ok(contents) => contents,
            Err(fault) => {
                if seen.unreadable.as_ref() != Some(&fault) {
                    tracing::error!("{fault}; the certificate read before is served on");
                    seen.unreadable = Some(fault);
                }
                drop(seen);
                self.remind();
                return;
            }
        };
        seen.unreadable = None;
        let changed = contents != seen.contents;
        if changed {
            match make(&self.files, &contents, &self.clock) {
                Ok(made) => {
                    let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                    *current = Arc::new(made.config);
                    seen.end = made.end;
                    seen.warned = None;
                    tracing::info!(
                        end = made.end.map(tracing::field::display),
                        "new connections get the new certificate"
                    );
                }
                Err(fault) => {
                    tracing::error!("{fault}; the certificate read before is served on");
                }
            }
            // Also what is broken: it is told of once.
            seen.contents = contents;
        }
        drop(seen);
        if changed {
            self.warn_of_readers();
        }
        self.remind();
    }

    /// Warns of an end that is near, once a day.
    fn remind(&self) {
        let now = self.clock.now();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = seen.end else { return };
        let told = seen
            .warned
            .is_some_and(|last| now < last.plus(WARN_INTERVAL));
        if told || end > now.plus(ENDS_SOON) {
            return;
        }
        seen.warned = Some(now);
        if end <= now {
            tracing::error!(%end, "the certificate in {CERT} has ended: clients will refuse it");
        } else {
            tracing::warn!(%end, "the certificate in {CERT} ends soon");
        }
    }

    #[cfg(unix)]
    fn warn_of_readers(&self) {
        use std::os::unix::fs::PermissionsExt as _;
        let file = &self.files.key_file;
        let mode = std::fs::metadata(file).map(|data| data.permissions().mode());
        if mode.is_ok_and(|mode| mode & 0o007 != 0) {
            tracing::warn!(
                file = %file.display(),
                "every user of this machine may use the private key in {KEY}; `chmod o=` it"
            );
        }
    }

    #[cfg(not(unix))]
    fn warn_of_readers(&self) {}
}

impl Contents {
    fn read(files: &config::Tls) -> Result<Self, Fault> {
        let client_ca = files.client_ca_file.as_deref();
        Ok(Self {
            cert: read(CERT, &files.cert_file)?.to_vec(),
            key: read(KEY, &files.key_file)?,
            client_ca: client_ca
                .map(|path| read(CLIENT_CA, path))
                .transpose()?
                .map(|bytes| bytes.to_vec()),
        })
    }
}

fn read(key: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let unreadable = |error: io::Error| fault(key, path, format!("can't be read: {error}"));
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_LIMIT {
        return Err(fault(
            key,
            path,
            format!("is longer than {FILE_LIMIT} bytes"),
        ));
    }
    Ok(bytes)
}

fn fault(key: &str, path: &Path, problem: impl std::fmt::Display) -> Fault {
    Fault {
        key: key.to_owned(),
        problem: format!("{} {problem}", path.display()),
    }
}

/// What is served, and when its certificate ends.
struct Made {
    config: ServerConfig,
    end: Option<Timestamp>,
}

fn make(files: &config::Tls, contents: &Contents, clock: &Clock) -> Result<Made, Fault> {
    let unusable =
        |error: rustls::Error| fault(CERT, &files.cert_file, format!("can't be used: {error}"));
    let chain = certificates(CERT, &files.cert_file, &contents.cert)?;
    let end = chain.first().and_then(|leaf| peer::end(leaf));
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|error| fault(KEY, &files.key_file, no_key(&error)))?;
    let provider = Arc::new(default_provider());
    let time = Arc::new(Time(clock.clone()));
    let builder = ServerConfig::builder_with_details(Arc::clone(&provider), time)
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(unusable)?;
    let builder = match (&files.client_ca_file, &contents.client_ca) {
        (Some(path), Some(pem)) => {
            let broken = |error: &dyn std::fmt::Display| {
                fault(CLIENT_CA, path, format!("can't be used: {error}"))
            };
            let mut roots = RootCertStore::empty();
            for authority in certificates(CLIENT_CA, path, pem)? {
                roots.add(authority).map_err(|error| broken(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if files.require_client_certificate {
                verifier
            } else {
                verifier.allow_unauthenticated()
            };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| broken(&error))?)
        }
        _ => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        use rustls::Error::{General, InconsistentKeys};
        match error {
            InconsistentKeys(_) => {
                let problem = format!("is not the key of {}", files.cert_file.display());
                fault(KEY, &files.key_file, problem)
            }
            General(problem) => fault(KEY, &files.key_file, format!("can't be used: {problem}")),
            error => unusable(error),
        }
    })?;
    // gRPC is HTTP/2 and nothing else (RFC 9113 section 3.2).
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session is not verified again: it would outlive its certificate and its authority.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Made { config, end })
}

/// All certificates of a PEM file, at least one.
fn certificates(key: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let parsed: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
    match parsed {
        Ok(certificates) if certificates.is_empty() => {
            Err(fault(key, path, "holds no certificate in PEM"))
        }
        Ok(certificates) => Ok(certificates),
        Err(_) => Err(fault(key, path, "is not PEM")),
    }
}

/// The parser's own text may quote the file.
fn no_key(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::NoItemsFound => {
            "holds no private key in PEM that is not encrypted (PKCS #8, PKCS #1 or SEC 1)"
        }
        _ => "is not PEM",
    }
}

/// Certificates are judged by the clock that everything is judged by.
#[derive(Debug)]
struct Time(Clock);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let now = u64::try_from(self.0.now().micros()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_micros(now)))
    }
}

/// SIGHUP, where there is one.
#[cfg(unix)]
struct Hangups(Option<tokio::signal::unix::Signal>);

#[cfg(unix)]
impl Hangups {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let hangups = signal(SignalKind::hangup());
        if let Err(error) = &hangups {
            tracing::warn!(%error, "SIGHUP can't be heard; grpc.tls.reload_interval still counts");
        }
        Self(hangups.ok())
    }

    async fn next(&mut self) {
        let heard = match &mut self.0 {
            Some(hangups) => hangups.recv().await,
            None => None,
        };
        if heard.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// SIGHUP, where there is one.
#[cfg(not(unix))]
struct Hangups;

#[cfg(not(unix))]
impl Hangups {
    fn new() -> Self {
        Self
    }

    async fn next(&mut self) {
        std::future::pending::<()>().await;
    }
}
