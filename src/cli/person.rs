//! `tokenbroker person`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::{Failure, Missing, Opened, note, open, print};
use crate::access::Caller;
use crate::app;
use crate::bootstrap::DEFAULT_TENANT;
use crate::broker::Persons;
use crate::broker::persons::{Erased, Subject};
use crate::clock::Clock;
use crate::config::Config;
use crate::store::migrate;

/// Export or erase what is held about one person
///
/// These work on the database itself. A `serve` that runs hears of it within cache.max_staleness.
#[derive(Args, Debug)]
pub(super) struct Person {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Export(Export),
    Erase(Erase),
}

/// Print everything that is held about a person, but secrets, as one JSON document
///
/// docs/personal-data.md says what is in it.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker person export --user user_01h455vb4pex5vsknk084sn02q > person.json
  tokenbroker person export --owner customer-4711 --tenant acme")]
struct Export {
    #[command(flatten)]
    whose: Whose,
}

/// Erase a person: connections are revoked at their providers and deleted, the user with sessions and
/// preferences is removed, and logs keep ids only
///
/// Can't be undone. Without --yes it only counts. After a failure, run it again: it goes on where it
/// ended. Backups keep what they hold.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker person erase --user user_01h455vb4pex5vsknk084sn02q        counts only
  tokenbroker person erase --user user_01h455vb4pex5vsknk084sn02q --yes
  tokenbroker person erase --owner customer-4711 --yes --json")]
struct Erase {
    #[command(flatten)]
    whose: Whose,
    /// Do it
    #[arg(long)]
    yes: bool,
    /// Say what was erased as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct Whose {
    /// A user's, by id
    #[arg(
        long,
        value_name = "ID",
        required_unless_present = "owner",
        conflicts_with = "owner"
    )]
    user: Option<String>,
    /// An owner's of connections
    #[arg(long)]
    owner: Option<String>,
    /// The tenant
    #[arg(long, default_value = DEFAULT_TENANT)]
    tenant: String,
}

impl Whose {
    fn subject(self) -> (Caller, Subject) {
        let subject = match (self.user, self.owner) {
            (Some(user), _) => Subject::User(user),
            (None, owner) => Subject::Owner(owner.unwrap_or_default()),
        };
        (Caller::command_line(&self.tenant), subject)
    }
}

impl Person {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let Opened { store, .. } = open(&config, Missing::Refuse).await?;
        migrate::check(&store).await?;
        let persons = app::persons(&config, &store, &Clock::system())?;
        match self.step {
            Step::Export(export) => export.run(&persons).await,
            Step::Erase(erase) => erase.run(&persons).await,
        }
    }
}

impl Export {
    async fn run(self, persons: &Persons) -> Result<(), Failure> {
        let (caller, subject) = self.whose.subject();
        let document = persons.export(&caller, &subject).await?;
        let text = serde_json::to_string_pretty(&document);
        print(&format!("{}\n", text.unwrap_or_default()))
    }
}

impl Erase {
    async fn run(self, persons: &Persons) -> Result<(), Failure> {
        let (caller, subject) = self.whose.subject();
        let erased = persons.erase(&caller, &subject, !self.yes).await?;
        if self.json {
            print(&format!("{}\n", as_json(&erased, self.yes)))?;
        } else {
            let word = if self.yes { "Erased" } else { "Would erase" };
            print(&format!("{word} {}\n", described(&erased)))?;
        }
        if !self.yes {
            note("Nothing was changed; --yes does it.");
        }
        if erased.unrevoked > 0 {
            note("Revoke by hand at the provider what it could not be told to revoke.");
        }
        Ok(())
    }
}

fn described(erased: &Erased) -> String {
    let user = if erased.user { "the user, " } else { "" };
    format!(
        "{user}{} connections ({} not revoked at the provider) and {} sessions; {} log rows keep ids only.",
        erased.connections, erased.unrevoked, erased.sessions, erased.log_rows
    )
}

fn as_json(erased: &Erased, done: bool) -> serde_json::Value {
    json!({
        "erased": done,
        "user": erased.user,
        "connections": erased.connections,
        "unrevoked_at_provider": erased.unrevoked,
        "sessions": erased.sessions,
        "log_rows": erased.log_rows,
    })
}
