//! `tokenbroker migrate`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Missing, open, print, table, without_statement_timeout};
use crate::config::Config;
use crate::store::migrate::{self, State, Status};
use crate::store::{Engine, Store};

/// Bring the database's schema to this version, back, or say how it stands
///
/// `serve` migrates SQLite by itself and PostgreSQL never: there, run `migrate up` before the new
/// version starts. Only one process migrates at a time; others wait for it.
#[derive(Args, Debug)]
pub(super) struct Migrate {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Up(Up),
    Down(Down),
    Status(Report),
}

/// Apply what is pending
///
/// Prints the name of each migration applied. On SQLite it makes the database, and its key file,
/// where there is none. database.statement_timeout does not bind it.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker migrate up
  TOKENBROKER__DATABASE__URL=postgres://owner@db/broker tokenbroker migrate up")]
struct Up {}

/// Roll back the newest migrations; what only their tables held is lost
///
/// For going back to an older version, with every `serve` stopped and a backup at hand.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker migrate down --yes
  tokenbroker migrate down --steps 2 --yes")]
struct Down {
    /// How many to roll back
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    steps: u16,
    /// That it is meant: data can be lost
    #[arg(long)]
    yes: bool,
}

/// Say how each migration stands
///
/// Exit code 0 when this version can run on the schema, 1 when something is pending, was changed
/// after it was applied, or is of a newer version that does not admit this one.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker migrate status
  tokenbroker migrate status --json | jq -r '.migrations[] | select(.state == \"pending\").name'")]
struct Report {
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Migrate {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let config = without_statement_timeout(config);
        match self.step {
            Step::Up(_) => up(&open(&config, Missing::Make).await?.store).await,
            Step::Down(Down { yes: false, .. }) => Err(Failure::Usage(
                "rolling back can lose data; add --yes when it is meant".to_owned(),
            )),
            Step::Down(down) => {
                let store = open(&config, Missing::Refuse).await?.store;
                let names = migrate::down(&store, down.steps.into()).await?;
                told(&names, "rolled back", "there is nothing to roll back")
            }
            Step::Status(report) => {
                let store = open(&config, Missing::Refuse).await?.store;
                status(&store, report.json).await
            }
        }
    }
}

async fn up(store: &Store) -> Result<(), Failure> {
    let names = migrate::up(store).await?;
    told(&names, "applied", "there is nothing to apply")?;
    // What can't be applied away: a newer schema that does not admit this version.
    Ok(migrate::check(store).await?)
}

fn told(names: &[String], done: &str, nothing: &str) -> Result<(), Failure> {
    if names.is_empty() {
        return print(&format!("{nothing}\n"));
    }
    let mut text = String::new();
    for name in names {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{done} {name}");
    }
    print(&text)
}

async fn status(store: &Store, as_json: bool) -> Result<(), Failure> {
    let all = migrate::status(store).await?;
    let sound = all.iter().all(|status| is_sound(status.state));
    if as_json {
        let engine = match store.engine() {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        };
        let migrations: Vec<_> = all.iter().map(as_object).collect();
        let report = json!({ "engine": engine, "sound": sound, "migrations": migrations });
        print(&format!("{report:#}\n"))?;
    } else {
        let rows: Vec<_> = all.iter().map(row).collect();
        print(&table(["MIGRATION", "STATE", "APPLIED AT"], &rows))?;
    }
    if sound { Ok(()) } else { Err(Failure::Told(1)) }
}

fn is_sound(state: State) -> bool {
    matches!(state, State::Applied(_) | State::Newer { compatible: true })
}

/// The state's name in JSON, and in words.
fn names_of(state: State) -> (&'static str, &'static str) {
    match state {
        State::Applied(_) => ("applied", "applied"),
        State::Pending => ("pending", "pending"),
        State::Drifted => ("drifted", "changed after it was applied"),
        State::Newer { compatible: true } => ("newer", "of a newer version, compatible"),
        State::Newer { compatible: false } => ("incompatible", "of a newer version, incompatible"),
    }
}

fn as_object(status: &Status) -> serde_json::Value {
    let applied_at = match status.state {
        State::Applied(at) => Some(at.to_string()),
        _ => None,
    };
    let state = names_of(status.state).0;
    json!({ "name": status.name, "state": state, "applied_at": applied_at })
}

fn row(status: &Status) -> [String; 3] {
    let applied_at = match status.state {
        State::Applied(at) => at.to_string(),
        _ => String::new(),
    };
    let state = names_of(status.state).1;
    [status.name.clone(), state.to_owned(), applied_at]
}
