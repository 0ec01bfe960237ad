//! `tokenbroker demo`: the whole service in one process, and a made-up person who uses it.

mod calls;
mod events;
mod ground;
mod person;
mod stage;
mod story;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use self::calls::Calls;
use self::ground::Ground;
use self::stage::Stage;
use self::story::Story;
use super::Failure;
use super::serve::Signals;
use crate::app::{self, Running};
use crate::bootstrap::StartError;
use crate::clock::Clock;
use crate::config::{Config, LogFormat};
use crate::telemetry;

/// How often a start is tried where somebody takes a port between its choice and its use.
const STARTS: u32 = 3;

/// Show what the service does, with nothing to set up
///
/// Starts the whole service on SQLite in a temporary folder, registers its own authorisation server as
/// a provider, and takes a made-up person through connecting an account: sign-in, consent and callback
/// over HTTP, then tokens over gRPC. The token ends, and 100 callers at once cause one refresh. Each
/// call is followed by the grpcurl line that repeats it. Then it serves until Ctrl-C.
///
/// No configuration is read, neither a file nor variables. The ports are 7480, 7481 and 7482 of
/// 127.0.0.1, or others where one of them is in use.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker demo
  tokenbroker demo --once
  tokenbroker demo --data-dir /tmp/broker-demo")]
pub(super) struct Demo {
    /// Keep everything in this folder: empty, missing, or of a demo before
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// End after the story instead of serving on
    #[arg(long)]
    once: bool,
}

/// What went wrong within a step, for people.
#[derive(Debug)]
struct Trouble(String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl Demo {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let signals = Signals::new().map_err(|error| Failure::Failed(error.to_string()))?;
        let ground = Ground::lay(self.data_dir)?;
        let outcome = play(&ground, self.once, signals).await;
        ground.clear().await;
        outcome
    }
}

async fn play(ground: &Ground, once: bool, mut signals: Signals) -> Result<(), Failure> {
    let prepared = ground.prepare().await?;
    // Only now: that a key file was made is no news here.
    let guard = telemetry::init(&quiet(&prepared.config).telemetry)
        .map_err(|error| Failure::Failed(format!("telemetry can't be started: {error}")))?;
    let clock = Clock::shifted();
    let running = Box::pin(start(&prepared.config, &clock)).await?;
    let story = async {
        let (calls, stage) = introduce(ground, &prepared, &running).await?;
        let story = Story {
            ground,
            calls,
            stage: &stage,
            clock: &clock,
            web: running.web_address(),
            issuer: issuer_address(&running)?,
            mark: &prepared.mark,
        };
        // Held while it serves: events go on being shown.
        let _watching = story.tell().await?;
        if !once {
            stage.serving(ground.is_temporary()).map_err(unwritten)?;
            std::future::pending::<()>().await;
        }
        Ok(())
    };
    let outcome = tokio::select! {
        outcome = story => outcome,
        _ = signals.next() => Ok(()),
    };
    let stopped = tokio::select! {
        () = Box::pin(running.stop()) => Ok(()),
        _ = signals.next() => Err(Failure::Failed("ended by a second signal".to_owned())),
    };
    drop(guard);
    outcome.and(stopped)
}

async fn introduce(
    ground: &Ground,
    prepared: &ground::Prepared,
    running: &Running,
) -> Result<(Calls, Stage), Failure> {
    let stage = Stage::new(running.grpc_address());
    let issuer = issuer_address(running)?;
    stage
        .opening(
            running.web_address(),
            issuer,
            ground.folder(),
            &ground.key_file(),
        )
        .map_err(unwritten)?;
    let calls = Calls::connect(running.grpc_address(), &prepared.key).await;
    let calls = calls.map_err(|trouble| Failure::Failed(trouble.0))?;
    Ok((calls, stage))
}

fn issuer_address(running: &Running) -> Result<SocketAddr, Failure> {
    running
        .issuer_address()
        .ok_or_else(|| Failure::Failed("the issuer's endpoints are off".to_owned()))
}

/// Starts the service on ports that are free.
async fn start(config: &Config, clock: &Clock) -> Result<Running, StartError> {
    let mut tried = 0;
    loop {
        let config = ground::with_ports(config.clone())?;
        tried += 1;
        match app::start(config, clock.clone()).await {
            Err(StartError::Listen { .. }) if tried < STARTS => {}
            outcome => return outcome,
        }
    }
}

/// What the service says would stand in the middle of the story; warnings do, on standard error.
fn quiet(config: &Config) -> Config {
    let mut config = config.clone();
    config.telemetry.log_filter = "warn".to_owned();
    config.telemetry.log_format = LogFormat::Text;
    config
}

fn unwritten(error: std::io::Error) -> Failure {
    Failure::Failed(format!("standard output can't be written: {error}"))
}
