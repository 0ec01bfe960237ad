//! What only PostgreSQL has: TLS to the server, and notifications.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use diesel::{ConnectionError, ConnectionResult};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use futures_util::StreamExt;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Notify;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long connecting may take in all. The driver bounds only TCP's part of it, so a server that
/// accepts and then says nothing would hold a place in the pool for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the server's end of a connection may leave what is sent unacknowledged.
const SILENCE: Duration = Duration::from_secs(30);

/// Whether the connection to the server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Never: for a Unix socket or a private network.
    Disable,
    /// When the server offers it; its certificate is checked then too.
    Prefer,
    /// Always.
    Require,
}

/// Where and how to connect to PostgreSQL.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// `postgres://…` or key-value form, as libpq has them.
    pub url: SecretString,
    /// The schema to live in; the server's default when not set.
    pub schema: Option<String>,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// Whether to encrypt.
    pub tls: Tls,
    /// Certificates to trust, PEM; the system's when not set.
    pub ca_file: Option<PathBuf>,
}

impl PostgresOptions {
    /// The channel that replicas on this schema hear each other on.
    fn channel(&self) -> String {
        format!("tokenbroker_{}", self.schema.as_deref().unwrap_or("public"))
    }
}

fn bad(error: impl std::fmt::Display) -> ConnectionError {
    ConnectionError::BadConnection(error.to_string())
}

/// Connects within [`PATIENCE`], over TLS as asked, and sets what every connection needs.
pub(super) async fn connect(options: &PostgresOptions) -> ConnectionResult<AsyncPgConnection> {
    tokio::time::timeout(PATIENCE, establish(options))
        .await
        .map_err(|_| bad(format!("no answer within {PATIENCE:?}")))?
}

async fn establish(options: &PostgresOptions) -> ConnectionResult<AsyncPgConnection> {
    let mut config: tokio_postgres::Config = options
        .url
        .expose_secret()
        .parse()
        // The parser's error could repeat part of the URL, which holds the password.
        .map_err(|_| bad("database.url is not a PostgreSQL URL"))?;
    config.application_name("tokenbroker");
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    // What the URL says goes, but for what is the driver's own default. A peer that has gone without a word
    // is found in half a minute, in use or not. Otherwise a query to it would last until the system gives
    // up, after a quarter of an hour.
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENCE);
    }
    if config.get_keepalives_idle() == tokio_postgres::Config::new().get_keepalives_idle() {
        config.keepalives_idle(SILENCE / 2);
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(SILENCE / 6);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(3);
    }
    config.ssl_mode(match options.tls {
        Tls::Disable => tokio_postgres::config::SslMode::Disable,
        Tls::Prefer => tokio_postgres::config::SslMode::Prefer,
        Tls::Require => tokio_postgres::config::SslMode::Require,
    });
    // `AsyncPgConnection::try_from` would leave LISTEN silently pending; this constructor drives
    // the connection and forwards its notifications.
    let mut conn = if options.tls == Tls::Disable {
        let (client, connection) = config.connect(tokio_postgres::NoTls).await.map_err(bad)?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await?
    } else {
        let tls = MakeRustlsConnect::new(tls_config(options)?);
        let (client, connection) = config.connect(tls).await.map_err(bad)?;
        AsyncPgConnection::try_from_client_and_connection(client, connection).await?
    };
    // A plan that is kept was made for the tables as they were. Of one that was empty it would be to go through
    // all of it, and stay so until the server analyses the table, some minute after it was filled: every
    // statement that matters has its index. What finds none costs so much then that it would be compiled.
    let mut setup = format!(
        "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = 60000; SET TIME ZONE 'UTC';
         SET enable_seqscan = off; SET jit = off;",
        options.statement_timeout.as_millis()
    );
    if let Some(schema) = &options.schema {
        setup.push_str(&format!("SET search_path = {};", quote_identifier(schema)));
    }
    conn.batch_execute(&setup)
        .await
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// An identifier as SQL has it.
pub(crate) fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn tls_config(options: &PostgresOptions) -> ConnectionResult<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    match &options.ca_file {
        Some(file) => {
            let fault = |error: &dyn std::fmt::Display| bad(format!("{}: {error}", file.display()));
            for certificate in rustls::pki_types::CertificateDer::pem_file_iter(file)
                .map_err(|error| fault(&error))?
            {
                let certificate = certificate.map_err(|error| fault(&error))?;
                roots.add(certificate).map_err(|error| fault(&error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(bad)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Wakes `heard` at each notification of another replica than this one, until dropped. Reconnects for ever:
/// notifications only shorten the wait, polling finds what was missed meanwhile.
pub(super) async fn listen(options: &PostgresOptions, replica: &str, heard: Arc<Notify>) {
    let mut pause = Duration::from_millis(100);
    loop {
        match listen_once(options, replica, &heard).await {
            Ok(()) => pause = Duration::from_millis(100),
            Err(error) => {
                tracing::warn!(%error, "not listening for notifications; polling meanwhile");
                pause = (pause * 2).min(Duration::from_secs(10));
            }
        }
        tokio::time::sleep(pause).await;
    }
}

async fn listen_once(
    options: &PostgresOptions,
    replica: &str,
    heard: &Notify,
) -> ConnectionResult<()> {
    let mut conn = connect(options).await?;
    conn.batch_execute(&format!("LISTEN {}", quote_identifier(&options.channel())))
        .await
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    let mut notifications = pin!(conn.notifications_stream());
    while let Some(notification) = notifications.next().await {
        // Its own say nothing new, and would have it look again after each.
        if notification.map_err(bad)?.payload != replica {
            heard.notify_one();
        }
    }
    Ok(())
}

/// The statement that wakes other replicas than this one, for the relay's transaction.
pub(super) fn notify_statement(options: &PostgresOptions, replica: &str) -> String {
    let replica = replica.replace('\'', "''");
    format!(
        "NOTIFY {}, '{replica}'",
        quote_identifier(&options.channel())
    )
}
