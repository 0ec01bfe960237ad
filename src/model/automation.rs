//! Browser automation of authorisations: accounts, browser profiles, jobs, batches.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ConnectionKind, Sealed, Timestamp};

/// An account at a provider, with what a worker needs to sign in there.
#[derive(Clone, Debug)]
pub struct Account {
    /// `acct_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The provider's id.
    pub provider: String,
    /// Who it is there; unique for its tenant and provider.
    pub username: String,
    /// For people.
    pub display_name: String,
    /// What sort of credential it is to give.
    pub kind: ConnectionKind,
    /// Whose its connection will be.
    pub owner: String,
    /// The app that it is connected through.
    pub app_id: Option<String>,
    /// The account's own OAuth client; empty for none.
    pub client_id: String,
    /// That client's secret.
    pub client_secret: Option<Sealed>,
    /// The password.
    pub password: Option<Sealed>,
    /// What its one-time codes are made of (RFC 6238): the bare bytes.
    pub totp_secret: Option<Sealed>,
    /// When the credentials were last set.
    pub credentials_at: Option<Timestamp>,
    /// Its connection; none while it is not connected.
    pub connection_id: Option<String>,
    /// When it was connected.
    pub connected_at: Option<Timestamp>,
    /// The caller's own, by name.
    pub labels: BTreeMap<String, String>,
    /// Grows with every change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where a profile's browser runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecutionMode {
    /// Wherever a worker is.
    #[default]
    Any,
    /// At the vendor of the profiles.
    Cloud,
    /// On the worker's own machine.
    Local,
}

/// What is known of captchas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Captcha {
    /// None was met.
    #[default]
    None,
    /// One is in the way.
    Detected,
    /// One was met, and solved.
    Resolved,
}

/// A browser profile, kept elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// `prof_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// Its id where it is kept; unique for its tenant.
    pub external_id: String,
    /// For people.
    pub display_name: String,
    /// Where its browser runs: never [`ExecutionMode::Any`].
    pub execution_mode: ExecutionMode,
    /// The country of its proxy (ISO 3166-1 alpha-2); empty for none.
    pub proxy_country: String,
    /// What sort of proxy that is, in the vendor's words; empty for none.
    pub proxy_type: String,
    /// The one account that it is for.
    pub account_id: Option<String>,
    /// What its jobs met.
    pub captcha: Captcha,
    /// When.
    pub captcha_at: Option<Timestamp>,
    /// The caller's own, by name.
    pub labels: BTreeMap<String, String>,
    /// Grows with every change.
    pub version: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobState {
    /// Its time has not come.
    Scheduled,
    /// It waits for a worker.
    Pending,
    /// A worker has it, under a lease.
    Running,
    /// An attempt failed; it waits for the next.
    Retryable,
    /// A worker handed it back for later, without spending an attempt.
    Snoozed,
    /// Done.
    Completed,
    /// Given up: a dead letter.
    Failed,
    /// Called off.
    Cancelled,
}

impl JobState {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Scheduled,
        Self::Pending,
        Self::Running,
        Self::Retryable,
        Self::Snoozed,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether nothing more will happen to it by itself.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// How far a job has come, as its worker told, and what came of it. Survives attempts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// The worker's name for where it is, such as `login_form`.
    pub step: String,
    /// How far, 0 to 100.
    pub percent: u32,
    /// For people.
    pub message: String,
    /// Where the next attempt may go on: the worker's own.
    pub checkpoint: Option<serde_json::Value>,
    /// What it met.
    pub captcha: Captcha,
    /// What came of it: the worker's own.
    pub result: Option<serde_json::Value>,
}

/// A piece of work.
#[derive(Clone, Debug)]
pub struct Job {
    /// `job_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The batch it is of.
    pub batch_id: Option<String>,
    /// What sort of work: the caller's word, which workers ask for.
    pub kind: String,
    /// Where it may run.
    pub execution_mode: ExecutionMode,
    /// The browser profile, which has one running job at most.
    pub profile_id: Option<String>,
    /// The account.
    pub account_id: Option<String>,
    /// The app of its authorisation.
    pub app_id: Option<String>,
    /// The provider, whose running jobs may be limited; empty for none.
    pub provider: String,
    /// Where it stands.
    pub state: JobState,
    /// Higher goes first: -1,000 to 1,000.
    pub priority: i32,
    /// The place among jobs of its priority. Of a scheduled one: how far behind its batch's first.
    pub turn: i64,
    /// Not before.
    pub run_at: Timestamp,
    /// Given up after.
    pub deadline_at: Option<Timestamp>,
    /// How many attempts it has: 1 to 100.
    pub max_attempts: i32,
    /// How many were begun, less those that were handed back.
    pub attempt: i32,
    /// The fencing token: grows with every claim.
    pub lease_token: i64,
    /// Until when its worker has it, by the database's clock.
    pub lease_until: Option<Timestamp>,
    /// Who has it, or had it last; in the worker's own words.
    pub worker: String,
    /// No two unfinished jobs of a tenant have the same.
    pub unique_key: Option<String>,
    /// Which finished states hold the key as well.
    pub unique_states: UniqueStates,
    /// What to do: the caller's own.
    pub payload: serde_json::Value,
    /// How far it has come.
    pub progress: Progress,
    /// Why the last attempt failed, machine-readable; empty where none did.
    pub failure_reason: String,
    /// The same for people.
    pub failure_message: String,
    /// When somebody called it off while it was running.
    pub cancel_requested_at: Option<Timestamp>,
    /// The authorisation whose end is its own.
    pub authorization_id: Option<String>,
    /// That authorisation's link.
    pub connect_url: Option<Sealed>,
    /// The connection that came of it.
    pub connection_id: Option<String>,
    /// Who asked for it.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it was finished.
    pub finished_at: Option<Timestamp>,
}

/// Which finished states hold a job's unique key; those that are not finished always do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UniqueStates(pub i32);

impl UniqueStates {
    /// A finished state's bit; 0 for any other.
    pub const fn bit(state: JobState) -> i32 {
        match state {
            JobState::Completed => 1,
            JobState::Failed => 2,
            JobState::Cancelled => 4,
            _ => 0,
        }
    }

    /// These states.
    pub fn of(states: impl IntoIterator<Item = JobState>) -> Self {
        Self(
            states
                .into_iter()
                .map(Self::bit)
                .fold(0, |all, bit| all | bit),
        )
    }

    /// As a list.
    pub fn states(self) -> impl Iterator<Item = JobState> {
        JobState::ALL
            .into_iter()
            .filter(move |state| self.0 & Self::bit(*state) != 0)
    }
}

/// Many jobs asked for at once.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The tenant.
    pub tenant: String,
    /// The caller's own text, or one made.
    pub id: String,
    /// For people.
    pub display_name: String,
    /// Who asked for it.
    pub created_by: String,
    /// SHA-256 of what was asked for.
    pub fingerprint: Vec<u8>,
    /// How many jobs were left out, since another had their unique key.
    pub skipped: i64,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When it was called off.
    pub cancelled_at: Option<Timestamp>,
    /// When the last of its jobs was finished; none while one is not.
    pub finished_at: Option<Timestamp>,
}

/// A batch's jobs by where they stand: exact, counted when asked.
pub type JobCounts = BTreeMap<JobState, i64>;
