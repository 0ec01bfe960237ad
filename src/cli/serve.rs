//! `tokenbroker serve`.

use std::io;
use std::time::Duration;

use clap::Args;
use tokio::sync::oneshot;

use super::version::VERSION;
use super::{Failure, refuse};
use crate::bootstrap::{self, StartError};
use crate::clock::Clock;
use crate::config::Config;
use crate::{app, telemetry};

/// How long traces and metrics may be sent after the drain.
const TELEMETRY_END: Duration = Duration::from_secs(5);

/// The same when somebody is in a hurry.
const TELEMETRY_END_AT_ONCE: Duration = Duration::from_millis(200);

/// Run the service until SIGTERM or SIGINT
///
/// On SQLite, the default, everything needed is made at the first start: the database, its key file
/// and an admin's API key, which a terminal shows once and which else goes to first-api-key in the
/// data folder. On PostgreSQL the schema (`tokenbroker migrate up`) and the keys are to be there
/// before.
///
/// A first SIGTERM or SIGINT drains: new calls are refused, those that run may finish within
/// grpc.drain_timeout. A second one ends the process at once. Logs go to standard error.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker serve
  TOKENBROKER__DATA_DIR=/var/lib/tokenbroker tokenbroker serve
  TOKENBROKER__DATABASE__URL=postgres://broker@db/broker TOKENBROKER__KEYS__ENTRIES='[\"k1:…\"]' tokenbroker serve")]
pub(super) struct Serve {}

impl Serve {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let guard = telemetry::init(&config.telemetry)
            .map_err(|error| Failure::Failed(format!("telemetry can't be started: {error}")))?;
        tracing::info!(
            version = VERSION,
            database = bootstrap::place(&config.database),
            grpc = %config.grpc.listen,
            web = %config.web.listen,
            public_url = %config.web.public_url,
            "tokenbroker is starting"
        );
        let outcome = until_stopped(config).await;
        let patience = match &outcome {
            Some(_) => TELEMETRY_END,
            None => TELEMETRY_END_AT_ONCE,
        };
        let failed = match outcome {
            Some(Ok(())) => {
                tracing::info!("tokenbroker has stopped");
                None
            }
            Some(Err(error)) => Some((error.with_causes(), error.exit_code())),
            None => Some(("ended by a second signal".to_owned(), 1)),
        };
        // Where logs are kept, the reason belongs among them.
        if let Some((reason, code)) = &failed {
            if tracing::enabled!(tracing::Level::ERROR) {
                tracing::error!(code, "{reason}");
            } else {
                refuse(reason, *code);
            }
        }
        guard.shutdown(patience).await;
        failed.map_or(Ok(()), |(_, code)| Err(Failure::Told(code)))
    }
}

/// Serves until the first signal and drains; `None` when a second one came before that was done.
async fn until_stopped(config: Config) -> Option<Result<(), StartError>> {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return Some(Err(StartError::Other(error.into()))),
    };
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        // The sender lives until a signal came, or the outcome no longer matters.
        let _ = stopped.await;
    };
    let twice = async move {
        let signal = signals.next().await;
        tracing::info!(signal, "stopping; a second signal ends it at once");
        // Nobody waits for it when the service has ended by itself.
        let _ = stop.send(());
        signals.next().await;
    };
    let served = Box::pin(app::serve(config, Clock::system(), shutdown));
    tokio::select! {
        outcome = served => Some(outcome),
        () = twice => None,
    }
}

/// The signals that ask for an end.
#[cfg(unix)]
pub(super) struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// The signals that ask for an end.
#[cfg(not(unix))]
pub(super) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self)
    }

    pub(super) async fn next(&mut self) -> &'static str {
        if let Err(error) = tokio::signal::ctrl_c().await {
            tracing::error!(%error, "no signal can be heard; stop the process from outside");
            std::future::pending::<()>().await;
        }
        "Ctrl-C"
    }
}
