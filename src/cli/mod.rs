//! The command line. Each command is a file: its arguments, its help, what it does.
//!
//! Results go to standard output, all else to standard error. The exit codes below are promises
//! to scripts.

mod api_key;
mod audit;
mod check_config;
mod demo;
mod migrate;
mod person;
mod serve;
mod user;
mod version;
mod work;

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::bootstrap::{self, StartError};
use crate::config::{Config, Engine, Sources};
use crate::model::IdKind;
use crate::store::{Store, migrate as schema};

const EXAMPLES: &str = "\
Examples:
  tokenbroker demo                                     all of it in one terminal, nothing needed
  tokenbroker serve                                    on SQLite, without any set-up
  tokenbroker --config /etc/tokenbroker.toml serve
  tokenbroker check-config                             every fault of the configuration at once
  tokenbroker migrate up                               PostgreSQL: before the new version starts
  tokenbroker api-key create --name billing --role consumer
  tokenbroker work --exec ./sign-in.py                 a command for each automation job

Configuration, later ones winning key by key: the built-in defaults, the file named by --config or
else by TOKENBROKER_CONFIG, and variables such as TOKENBROKER__GRPC__LISTEN=127.0.0.1:7480.

Exit codes:
  0  success
  1  failure; for `migrate status`: something is pending or not as it must be; for `audit verify`:
     something was found
  2  the command line is not as it must be
  3  the configuration has faults
  4  the database can't be reached, or its schema is not the one needed
  5  the keys are missing or can't be read";

/// Keeps users' OAuth connections sealed and their access tokens fresh, over gRPC.
#[derive(Debug, Parser)]
#[command(name = "tokenbroker", version, after_long_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    /// The configuration file; TOKENBROKER_CONFIG names it otherwise
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGTERM or SIGINT
    Serve(serve::Serve),
    /// Show what the service does: start it, take a made-up person through, and say what happens
    Demo(demo::Demo),
    /// Check the configuration and report every fault, each with its key
    CheckConfig(check_config::CheckConfig),
    /// Bring the database's schema to this version, back, or say how it stands
    Migrate(migrate::Migrate),
    /// Make, list, rotate and revoke the keys that callers authenticate with
    ApiKey(api_key::ApiKey),
    /// Verify, export and show the checkpoints of the audit trail
    Audit(audit::Audit),
    /// Export or erase what is held about one person
    Person(person::Person),
    /// Make, list and change users, who sign in with a password or through a provider
    User(user::User),
    /// Claim automation jobs and run a command for each
    Work(work::Work),
    /// Print the version
    Version(version::Version),
}

/// Why a command did not succeed.
#[derive(Debug)]
enum Failure {
    /// What `serve` could meet as well.
    Start(StartError),
    /// The arguments don't make sense in themselves.
    Usage(String),
    /// Anything else.
    Failed(String),
    /// All is said; only the exit code is left.
    Told(u8),
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<schema::Error> for Failure {
    fn from(error: schema::Error) -> Self {
        Self::Start(error.into())
    }
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        match error {
            crate::Error::Store(source) => Self::Start(StartError::Database {
                place: "the database".to_owned(),
                source,
            }),
            error @ crate::Error::InvalidArgument(_) => Self::Usage(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl Cli {
    /// Reads the arguments of this process. Help and usage errors are printed here.
    ///
    /// # Errors
    /// The exit code when there is nothing to run.
    pub fn read() -> Result<Self, ExitCode> {
        Self::try_parse().map_err(|error| {
            // Nobody is left to tell when the terminal is gone.
            let _ = error.print();
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })
    }

    /// Runs the command. Needs a tokio runtime of several threads.
    pub async fn run(self) -> ExitCode {
        let sources = Sources::of_process(self.config);
        let outcome = match self.command {
            Command::Version(command) => command.run(),
            Command::Demo(command) => Box::pin(command.run()).await,
            Command::Work(command) => Box::pin(command.run()).await,
            command => match Config::load(sources) {
                Err(faults) => Err(StartError::Config(faults).into()),
                Ok(config) => match command {
                    Command::Serve(command) => command.run(config).await,
                    Command::CheckConfig(command) => command.run(&config),
                    Command::Migrate(command) => command.run(config).await,
                    Command::ApiKey(command) => command.run(config).await,
                    Command::Audit(command) => command.run(config).await,
                    Command::Person(command) => command.run(config).await,
                    Command::User(command) => command.run(config).await,
                    Command::Version(command) => command.run(),
                    Command::Demo(command) => Box::pin(command.run()).await,
                    Command::Work(command) => Box::pin(command.run()).await,
                },
            },
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure::Start(error)) => refuse(&error.with_causes(), error.exit_code()),
            Err(Failure::Usage(text)) => refuse(&text, 2),
            Err(Failure::Failed(text)) => refuse(&text, 1),
            Err(Failure::Told(code)) => ExitCode::from(code),
        }
    }
}

/// Says on standard error why nothing was done.
pub fn refuse(text: &str, code: u8) -> ExitCode {
    note(&format!("tokenbroker: {text}"));
    ExitCode::from(code)
}

/// A line on standard error.
fn note(line: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Results on standard output, flushed, so that a full disk or a closed pipe is noticed.
fn print(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::Failed(format!("standard output can't be written: {error}")))
}

/// What to do where there is no SQLite database yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Missing {
    /// Make it, and its key file before it.
    Make,
    /// Refuse.
    Refuse,
}

/// A database, and whether it was made by this command.
struct Opened {
    store: Store,
    made: bool,
}

/// Opens the database for a command, beside a `serve` that may be running on it.
async fn open(config: &Config, missing: Missing) -> Result<Opened, Failure> {
    let made = match &config.database.engine {
        Engine::Postgres { .. } => false,
        Engine::Sqlite { path } => bootstrap::is_new(path)?,
    };
    match missing {
        Missing::Refuse if made => {
            note(&format!(
                "tokenbroker: there is no database yet ({}); `tokenbroker serve` makes it, or `tokenbroker migrate up`",
                bootstrap::place(&config.database)
            ));
            return Err(Failure::Told(4));
        }
        Missing::Make if made => make_keys(config)?,
        Missing::Make | Missing::Refuse => {}
    }
    let mut database = config.database.clone();
    // One to work on, one to look beside it.
    database.pool_size = database.pool_size.min(2);
    let store = bootstrap::open(&database).await?;
    Ok(Opened { store, made })
}

/// The key file comes before its database: `serve` takes a database without one for one that lost
/// its keys.
fn make_keys(config: &Config) -> Result<(), Failure> {
    let file = config.keys.file.as_ref();
    let existed = file.is_none_or(|file| file.exists());
    bootstrap::keyring(config)?;
    if let Some(file) = file.filter(|_| !existed) {
        note(&format!(
            "made the key file {}; keep a copy of it, apart from the database's backups",
            file.display()
        ));
    }
    Ok(())
}

/// Refuses constraints that would allow nothing, or not what was meant. The options begin with `prefix`.
fn check_constraints(
    prefix: &str,
    apps: &[String],
    owners: &[String],
    providers: &[String],
) -> Result<(), Failure> {
    let fault = |text: String| Err(Failure::Usage(text));
    if let Some(app) = apps.iter().find(|app| !IdKind::App.matches(app)) {
        return fault(format!("{prefix}app: {app:?} is not an app's id (app_…)"));
    }
    let star_within = |owner: &&String| {
        let plain = owner.strip_suffix('*').unwrap_or(owner);
        owner.is_empty() || plain.contains('*')
    };
    if let Some(owner) = owners.iter().find(star_within) {
        return fault(format!(
            "{prefix}owner: {owner:?} is not an owner, nor one with a single * at its end"
        ));
    }
    if providers.iter().any(String::is_empty) {
        return fault(format!("{prefix}provider: an id such as github is needed"));
    }
    Ok(())
}

/// For a long migration: the bound on statements is for callers who wait.
fn without_statement_timeout(mut config: Config) -> Config {
    config.database.statement_timeout = Duration::ZERO;
    config
}

/// Rows under their headings, in columns. Control characters, which could be anybody's, are
/// replaced.
fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let clean = |cell: &str| cell.replace(char::is_control, "\u{fffd}");
    let rows: Vec<[String; N]> = std::iter::once(headings.map(str::to_owned))
        .chain(rows.iter().cloned())
        .map(|row| row.map(|cell| clean(&cell)))
        .collect();
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            // Writing to a string can't fail.
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn walk(command: &clap::Command) {
            assert!(
                command.has_subcommands() || command.get_after_long_help().is_some(),
                "{} has no examples",
                command.get_name()
            );
            command.get_subcommands().for_each(walk);
        }
        walk(&Cli::command());
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "b\n".to_owned()]];
        assert_eq!(table(["ID", "NAME"], &rows), "ID  NAME\na   b\u{fffd}\n");
    }
}
