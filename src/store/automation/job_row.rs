//! A job as a row.

use diesel::prelude::*;

use crate::model::{ExecutionMode, Job, JobState, Sealed, Timestamp, UniqueStates};
use crate::store::columns::JsonValue;
use crate::store::schema::automation_jobs as jobs;
use crate::store::{Error, unreadable_if_none};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = jobs, treat_none_as_default_value = false)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
pub(super) struct JobRow {
    id: String,
    tenant: String,
    batch_id: Option<String>,
    kind: String,
    execution_mode: String,
    profile_id: Option<String>,
    account_id: Option<String>,
    app_id: Option<String>,
    provider: String,
    state: String,
    priority: i32,
    turn: i64,
    run_at: Timestamp,
    deadline_at: Option<Timestamp>,
    max_attempts: i32,
    attempt: i32,
    lease_token: i64,
    lease_until: Option<Timestamp>,
    worker: String,
    unique_key: Option<String>,
    unique_states: i32,
    payload: JsonValue,
    progress: JsonValue,
    failure_reason: String,
    failure_message: String,
    cancel_requested_at: Option<Timestamp>,
    authorization_id: Option<String>,
    connect_url: Option<Sealed>,
    connection_id: Option<String>,
    created_by: String,
    created_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<&Job> for JobRow {
    fn from(job: &Job) -> Self {
        let job = job.clone();
        Self {
            execution_mode: job.execution_mode.as_str().to_owned(),
            state: job.state.as_str().to_owned(),
            unique_states: job.unique_states.0,
            payload: JsonValue(job.payload),
            progress: JsonValue::of(&job.progress),
            id: job.id,
            tenant: job.tenant,
            batch_id: job.batch_id,
            kind: job.kind,
            profile_id: job.profile_id,
            account_id: job.account_id,
            app_id: job.app_id,
            provider: job.provider,
            priority: job.priority,
            turn: job.turn,
            run_at: job.run_at,
            deadline_at: job.deadline_at,
            max_attempts: job.max_attempts,
            attempt: job.attempt,
            lease_token: job.lease_token,
            lease_until: job.lease_until,
            worker: job.worker,
            unique_key: job.unique_key,
            failure_reason: job.failure_reason,
            failure_message: job.failure_message,
            cancel_requested_at: job.cancel_requested_at,
            authorization_id: job.authorization_id,
            connect_url: job.connect_url,
            connection_id: job.connection_id,
            created_by: job.created_by,
            created_at: job.created_at,
            finished_at: job.finished_at,
        }
    }
}

impl TryFrom<JobRow> for Job {
    type Error = Error;
    fn try_from(row: JobRow) -> Result<Self, Error> {
        let mode = ExecutionMode::parse(&row.execution_mode);
        Ok(Self {
            execution_mode: unreadable_if_none(mode, "automation_jobs.execution_mode")?,
            state: unreadable_if_none(JobState::parse(&row.state), "automation_jobs.state")?,
            unique_states: UniqueStates(row.unique_states),
            payload: row.payload.0,
            progress: row.progress.read(),
            id: row.id,
            tenant: row.tenant,
            batch_id: row.batch_id,
            kind: row.kind,
            profile_id: row.profile_id,
            account_id: row.account_id,
            app_id: row.app_id,
            provider: row.provider,
            priority: row.priority,
            turn: row.turn,
            run_at: row.run_at,
            deadline_at: row.deadline_at,
            max_attempts: row.max_attempts,
            attempt: row.attempt,
            lease_token: row.lease_token,
            lease_until: row.lease_until,
            worker: row.worker,
            unique_key: row.unique_key,
            failure_reason: row.failure_reason,
            failure_message: row.failure_message,
            cancel_requested_at: row.cancel_requested_at,
            authorization_id: row.authorization_id,
            connect_url: row.connect_url,
            connection_id: row.connection_id,
            created_by: row.created_by,
            created_at: row.created_at,
            finished_at: row.finished_at,
        })
    }
}

/// What a move changes of a job: its fencing token and worker are the claim's alone.
#[derive(AsChangeset)]
#[diesel(table_name = jobs, treat_none_as_null = true)]
pub(super) struct JobChange {
    app_id: Option<String>,
    provider: String,
    state: String,
    turn: i64,
    run_at: Timestamp,
    deadline_at: Option<Timestamp>,
    attempt: i32,
    lease_until: Option<Timestamp>,
    progress: JsonValue,
    failure_reason: String,
    failure_message: String,
    cancel_requested_at: Option<Timestamp>,
    authorization_id: Option<String>,
    connect_url: Option<Sealed>,
    connection_id: Option<String>,
    finished_at: Option<Timestamp>,
}

impl From<&Job> for JobChange {
    fn from(job: &Job) -> Self {
        Self {
            app_id: job.app_id.clone(),
            provider: job.provider.clone(),
            state: job.state.as_str().to_owned(),
            turn: job.turn,
            run_at: job.run_at,
            deadline_at: job.deadline_at,
            attempt: job.attempt,
            lease_until: job.lease_until,
            progress: JsonValue::of(&job.progress),
            failure_reason: job.failure_reason.clone(),
            failure_message: job.failure_message.clone(),
            cancel_requested_at: job.cancel_requested_at,
            authorization_id: job.authorization_id.clone(),
            connect_url: job.connect_url.clone(),
            connection_id: job.connection_id.clone(),
            finished_at: job.finished_at,
        }
    }
}

/// The jobs of rows.
pub(super) fn jobs_of(rows: Vec<JobRow>) -> Result<Vec<Job>, Error> {
    rows.into_iter().map(Job::try_from).collect()
}
