//! `tokenbroker audit`.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Failure, Missing, note, open, print, table, without_statement_timeout};
use crate::access::audit::{NOTE_MAX, Trail, Verification, Who};
use crate::bootstrap;
use crate::clock::Clock;
use crate::config::Config;
use crate::model::{Chained, Checkpoint};
use crate::store::migrate;

/// Rows of one query.
const BATCH: i64 = 1_000;

/// Verify, export and show the checkpoints of the audit trail
///
/// These work on the database itself, beside a `serve` that may be running, and go through the trails
/// of all tenants, which are one chain. The keys are needed, since they sign the checkpoints.
#[derive(Args, Debug)]
pub(super) struct Audit {
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    Verify(Verify),
    Export(Export),
    Checkpoints(Checkpoints),
}

/// Go through the chain and its checkpoints, and name what is not as it was
///
/// Exit codes: 0 nothing is wrong; 1 something is, and is named; 2 to 5 it could not be checked, with
/// the meaning that they have for every command.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker audit verify
  tokenbroker audit verify --checkpoint /mnt/elsewhere/checkpoint.txt
  tokenbroker audit verify --json | jq '.findings[]'")]
struct Verify {
    /// A checkpoint that was kept elsewhere: the chain must hold it
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Write the trail to standard output, a JSON object a line
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker audit export > audit.jsonl
  tokenbroker audit export --after 12345 | jq -c 'select(.success == false)'")]
struct Export {
    /// Only what is behind this place
    #[arg(long, value_name = "POSITION", default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..))]
    after: i64,
    /// The form
    #[arg(long, value_enum, default_value_t = Format::Jsonl)]
    format: Format,
}

/// The form of an export.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A JSON object a line.
    Jsonl,
}

/// List the signed checkpoints, oldest first
///
/// Keep a copy of the newest where whoever can write the database can't: `audit verify --checkpoint`
/// then finds whatever was changed, removed or cut off before it.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker audit checkpoints
  tokenbroker audit checkpoints --last 1 --json | jq -j '.checkpoints[].note' > checkpoint.txt")]
struct Checkpoints {
    /// Only the newest so many
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// As JSON, with the notes themselves
    #[arg(long)]
    json: bool,
}

impl Audit {
    pub(super) async fn run(self, config: Config) -> Result<(), Failure> {
        let external = match &self.step {
            Step::Verify(Verify {
                checkpoint: Some(file),
                ..
            }) => Some(read_note(file)?),
            _ => None,
        };
        // A long trail takes its time: the bound on statements is for callers who wait.
        let config = without_statement_timeout(config);
        let store = open(&config, Missing::Refuse).await?.store;
        migrate::check(&store).await?;
        let keyring = bootstrap::keyring(&config)?;
        let never = CancellationToken::new();
        let trail = Trail::new(store, keyring, Clock::system(), &config, never);
        match self.step {
            Step::Verify(verify) => verify.run(&trail, external.as_deref()).await,
            Step::Export(export) => export.run(&trail).await,
            Step::Checkpoints(checkpoints) => checkpoints.run(&trail).await,
        }
    }
}

/// Whoever runs the command; the trail is all tenants'.
fn who() -> Who {
    Who::command_line("")
}

fn read_note(file: &Path) -> Result<String, Failure> {
    let unreadable = |why: String| {
        let place = file.display();
        Failure::Usage(format!("--checkpoint: {place} {why}"))
    };
    let mut text = String::new();
    let limit = u64::try_from(NOTE_MAX).unwrap_or(u64::MAX);
    std::fs::File::open(file)
        .and_then(|file| file.take(limit.saturating_add(1)).read_to_string(&mut text))
        .map_err(|error| unreadable(format!("can't be read: {error}")))?;
    if text.len() > NOTE_MAX {
        return Err(unreadable(format!("is longer than {NOTE_MAX} bytes")));
    }
    Ok(text)
}

impl Verify {
    async fn run(self, trail: &Trail, external: Option<&str>) -> Result<(), Failure> {
        let outcome = match trail.verify(external, &CancellationToken::new()).await {
            Ok(outcome) => outcome,
            // Not 1: that says that something was found.
            Err(error) => {
                return Err(match Failure::from(error) {
                    Failure::Failed(text) => Failure::Usage(text),
                    failure => failure,
                });
            }
        };
        if let Err(error) = trail.verified(who(), &outcome).await {
            note(&format!("that it was verified can't be recorded: {error}"));
        }
        print(&if self.json {
            format!("{:#}\n", as_json(&outcome))
        } else {
            as_text(&outcome)
        })?;
        if outcome.findings.is_empty() {
            return Ok(());
        }
        Err(Failure::Told(1))
    }
}

fn as_json(outcome: &Verification) -> serde_json::Value {
    let findings: Vec<_> = outcome
        .findings
        .iter()
        .map(|finding| {
            json!({
                "fault": finding.fault.as_str(),
                "position": finding.position,
                "event_id": finding.event_id,
                "description": finding.description,
            })
        })
        .collect();
    json!({
        "intact": findings.is_empty(),
        "findings": findings,
        "events_checked": outcome.events_checked,
        "checkpoints_checked": outcome.checkpoints_checked,
        "first_position": outcome.first_position,
        "last_position": outcome.last_position,
        "last_hash": hex(&outcome.last_hash),
    })
}

fn as_text(outcome: &Verification) -> String {
    let checked = format!(
        "{} events at places {} to {}, and {} checkpoints",
        outcome.events_checked,
        outcome.first_position,
        outcome.last_position,
        outcome.checkpoints_checked
    );
    if outcome.findings.is_empty() {
        return format!("intact: {checked}\n");
    }
    let rows: Vec<_> = outcome
        .findings
        .iter()
        .map(|finding| {
            [
                finding.fault.as_str().to_owned(),
                finding.position.to_string(),
                finding.event_id.clone(),
                finding.description.clone(),
            ]
        })
        .collect();
    let found = table(["FAULT", "PLACE", "EVENT", "WHAT"], &rows);
    format!("{found}NOT intact: {} found in {checked}\n", rows.len())
}

impl Export {
    async fn run(self, trail: &Trail) -> Result<(), Failure> {
        trail.chain().await?;
        // Before anything is shown: no reading goes unrecorded.
        trail.read_by(&who(), "export").await?;
        let mut after = self.after;
        loop {
            let batch = trail.any_tenant_after(after, BATCH).await?;
            let Some(last) = batch.last().and_then(|last| last.position) else {
                return Ok(());
            };
            let lines: String = match self.format {
                Format::Jsonl => batch.iter().map(line).collect(),
            };
            print(&lines)?;
            after = last;
        }
    }
}

fn line(entry: &Chained) -> String {
    let event = &entry.event;
    let object = json!({
        "position": entry.position,
        "id": event.id,
        "time": event.occurred_at.to_string(),
        "tenant": event.tenant,
        "action": event.action,
        "success": event.success,
        "reason": event.reason,
        "actor_kind": event.actor_kind,
        "actor_id": event.actor_id,
        "resource_kind": event.resource_kind,
        "resource_id": event.resource_id,
        "provider": event.provider,
        "trace_id": event.trace_id,
        "details": event.details,
        "client_ip": event.ip,
        "client_user_agent": event.user_agent,
        "erased": event.salt.is_none(),
        "personal_hash": hex(&event.personal_hash),
        "hash": hex(entry.hash.as_deref().unwrap_or_default()),
    });
    format!("{object}\n")
}

impl Checkpoints {
    async fn run(self, trail: &Trail) -> Result<(), Failure> {
        trail.read_by(&who(), "checkpoints").await?;
        let mut all: Vec<(Checkpoint, String)> = Vec::new();
        let mut after = 0;
        loop {
            let batch = trail.checkpoints(after, BATCH).await?;
            let Some((last, _)) = batch.last() else {
                break;
            };
            after = last.position;
            all.extend(batch);
            if let Some(last) = self.last {
                all.drain(..all.len().saturating_sub(last));
            }
        }
        if self.json {
            let objects: Vec<_> = all.iter().map(as_object).collect();
            return print(&format!("{:#}\n", json!({ "checkpoints": objects })));
        }
        let rows: Vec<_> = all
            .into_iter()
            .map(|(checkpoint, key)| {
                [
                    checkpoint.position.to_string(),
                    checkpoint.created_at.to_string(),
                    hex(&checkpoint.hash),
                    key,
                ]
            })
            .collect();
        print(&table(["PLACE", "SIGNED", "HASH", "VERIFIER KEY"], &rows))
    }
}

fn as_object((checkpoint, key): &(Checkpoint, String)) -> serde_json::Value {
    json!({
        "position": checkpoint.position,
        "created_at": checkpoint.created_at.to_string(),
        "hash": hex(&checkpoint.hash),
        "note": checkpoint.note,
        "verifier_key": key,
    })
}

/// Lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
