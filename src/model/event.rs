//! What happened, for those who follow.

use serde::{Deserialize, Serialize};

use super::{Captcha, Connection, Grant, Job, JobState, Timestamp};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A connection was made.
    Created,
    /// Its owner confirmed it.
    Activated,
    /// It was connected again.
    Reconnected,
    /// A new access token is held.
    Refreshed,
    /// A refresh failed and will be tried again.
    RefreshFailed,
    /// The owner must consent again.
    ReauthorizationRequired,
    /// Its tokens were revoked.
    Revoked,
    /// It was deleted.
    Deleted,
    /// Its refresh token is about to lapse.
    Expiring,
    /// Its settings changed.
    Updated,
    /// An app changed. For the caches of other replicas; watchers are not told.
    AppChanged,
    /// A provider of a tenant's own changed. For caches.
    ProviderChanged,
    /// An API key was made or revoked. For caches.
    ApiKeyChanged,
    /// Sessions ended: the one that the subject names, or all of the user that it names. For caches.
    SessionsEnded,
    /// What our authorisation server issued ended: a token, or all of a grant, a client or a user;
    /// `subject` is its id. For caches.
    IssuedEnded,
    /// An authorisation came to its end; `subject` is its id. For the jobs that own one.
    AuthorizationEnded,
    /// A job's time has not come.
    JobScheduled,
    /// A job waits for a worker.
    JobPending,
    /// A worker has a job.
    JobRunning,
    /// A worker told how far a job has come.
    JobProgressed,
    /// An attempt at a job failed; another will follow.
    JobRetryable,
    /// A worker handed a job back for later.
    JobSnoozed,
    /// A job is done.
    JobCompleted,
    /// A job was given up.
    JobFailed,
    /// A job was called off.
    JobCancelled,
    /// Somebody called off a job that is running.
    JobCancelRequested,
    /// All jobs of a batch are finished.
    BatchFinished,
}

/// Who is told of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Who follows tokens.
    Tokens,
    /// Who follows jobs.
    Jobs,
    /// Only other replicas, and those who follow up in this one.
    Internal,
}

impl EventKind {
    /// Who is told.
    pub const fn topic(self) -> Topic {
        match self {
            Self::Created
            | Self::Activated
            | Self::Reconnected
            | Self::Refreshed
            | Self::RefreshFailed
            | Self::ReauthorizationRequired
            | Self::Revoked
            | Self::Deleted
            | Self::Expiring
            | Self::Updated => Topic::Tokens,
            Self::JobScheduled
            | Self::JobPending
            | Self::JobRunning
            | Self::JobProgressed
            | Self::JobRetryable
            | Self::JobSnoozed
            | Self::JobCompleted
            | Self::JobFailed
            | Self::JobCancelled
            | Self::JobCancelRequested
            | Self::BatchFinished => Topic::Jobs,
            Self::AppChanged
            | Self::ProviderChanged
            | Self::ApiKeyChanged
            | Self::SessionsEnded
            | Self::IssuedEnded
            | Self::AuthorizationEnded => Topic::Internal,
        }
    }

    /// What a job's new state is told as.
    pub const fn of_job(state: JobState) -> Self {
        match state {
            JobState::Scheduled => Self::JobScheduled,
            JobState::Pending => Self::JobPending,
            JobState::Running => Self::JobRunning,
            JobState::Retryable => Self::JobRetryable,
            JobState::Snoozed => Self::JobSnoozed,
            JobState::Completed => Self::JobCompleted,
            JobState::Failed => Self::JobFailed,
            JobState::Cancelled => Self::JobCancelled,
        }
    }
}

/// An event to append, in the transaction that caused it.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The tenant.
    pub tenant: String,
    /// What happened.
    pub kind: EventKind,
    /// What it is about where that is no connection: an app's, provider's or key's id.
    pub subject: String,
    /// The connection.
    pub connection_id: Option<String>,
    /// The app.
    pub app_id: Option<String>,
    /// The grant.
    pub grant_id: Option<String>,
    /// The owner.
    pub owner: String,
    /// The provider.
    pub provider: String,
    /// The generation of the tokens afterwards.
    pub generation: i64,
    /// When the access token ends.
    pub expires_at: Option<Timestamp>,
    /// Machine-readable cause.
    pub reason: String,
    /// The job. Then `generation` is its attempt.
    pub job_id: Option<String>,
    /// The batch of the job, or the batch that it is about.
    pub batch_id: Option<String>,
    /// More about a job: [`JobDetail`] as JSON.
    pub detail: Option<serde_json::Value>,
    /// When.
    pub created_at: Timestamp,
}

/// What an event tells of a job besides its state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct JobDetail {
    /// The worker.
    pub worker: String,
    /// The step.
    pub step: String,
    /// How far, 0 to 100.
    pub percent: u32,
    /// For people: the worker's message, or why it failed.
    pub message: String,
    /// What it met.
    pub captcha: Captcha,
}

/// An event that has its place in history.
#[derive(Clone, Debug)]
pub struct Event {
    /// The row's number.
    pub id: i64,
    /// Its place: what cursors are made of.
    pub position: i64,
    /// What happened.
    pub event: NewEvent,
}

/// How far history reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Horizon {
    /// Names this history; a restored database has another.
    pub epoch: String,
    /// The last position given.
    pub position: i64,
    /// Positions up to this one are gone.
    pub trimmed: i64,
}

impl NewEvent {
    /// An event of a connection whose tokens stand as in `grant`.
    pub fn of(
        kind: EventKind,
        connection: &Connection,
        grant: &Grant,
        reason: &str,
        at: Timestamp,
    ) -> Self {
        Self {
            tenant: connection.tenant.clone(),
            kind,
            subject: connection.id.clone(),
            connection_id: Some(connection.id.clone()),
            app_id: Some(connection.app_id.clone()),
            grant_id: Some(grant.id.clone()),
            owner: connection.owner.clone(),
            provider: connection.provider.clone(),
            generation: grant.generation,
            expires_at: grant.expires_at,
            reason: reason.to_owned(),
            job_id: None,
            batch_id: None,
            detail: None,
            created_at: at,
        }
    }

    /// An event of a job as it now stands.
    pub fn of_job(kind: EventKind, job: &Job, reason: &str, at: Timestamp) -> Self {
        let detail = JobDetail {
            worker: job.worker.clone(),
            step: job.progress.step.clone(),
            percent: job.progress.percent,
            message: match kind {
                EventKind::JobFailed | EventKind::JobRetryable => job.failure_message.clone(),
                _ => job.progress.message.clone(),
            },
            captcha: job.progress.captcha,
        };
        Self {
            app_id: job.app_id.clone(),
            provider: job.provider.clone(),
            generation: i64::from(job.attempt),
            reason: reason.to_owned(),
            job_id: Some(job.id.clone()),
            batch_id: job.batch_id.clone(),
            detail: serde_json::to_value(detail).ok(),
            ..Self::internal(kind, &job.tenant, &job.id, at)
        }
    }

    /// An event that only tells other replicas what to forget.
    pub fn internal(kind: EventKind, tenant: &str, subject: &str, at: Timestamp) -> Self {
        Self {
            tenant: tenant.to_owned(),
            kind,
            subject: subject.to_owned(),
            connection_id: None,
            app_id: None,
            grant_id: None,
            owner: String::new(),
            provider: String::new(),
            generation: 0,
            expires_at: None,
            reason: String::new(),
            job_id: None,
            batch_id: None,
            detail: None,
            created_at: at,
        }
    }
}
