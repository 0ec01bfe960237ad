//! Jobs, batches and what happens to them, on the wire.

use serde::Deserialize as _;

use super::convert::{captcha, json, mode};
use crate::error::Error;
use crate::grpc::convert::timestamp;
use crate::grpc::fields::Fields;
use crate::model::{
    Batch, Event, EventKind, IdKind, Job, JobCounts, JobDetail, JobState, Progress,
};
use crate::pb;

/// Longest kind of jobs, in characters.
pub(super) const KIND_MAX: usize = 63;
/// Longest reason of a failure, in characters.
pub(super) const REASON_MAX: usize = 63;
/// Longest batch id, unique key, worker's name, external id and display name, in characters.
pub(super) const NAME_MAX: usize = 200;
/// Longest message for people, in characters.
pub(super) const MESSAGE_MAX: usize = 1_000;

/// A job on the wire.
pub(super) fn job(job: &Job) -> pb::Job {
    pb::Job {
        id: job.id.clone(),
        batch_id: job.batch_id.clone().unwrap_or_default(),
        kind: job.kind.clone(),
        payload: json(&job.payload),
        account_id: job.account_id.clone().unwrap_or_default(),
        profile_id: job.profile_id.clone().unwrap_or_default(),
        execution_mode: mode(job.execution_mode).into(),
        provider: job.provider.clone(),
        state: state(job.state).into(),
        priority: job.priority,
        run_time: Some(timestamp(job.run_at)),
        deadline: job.deadline_at.map(timestamp),
        max_attempts: job.max_attempts,
        attempt: job.attempt,
        worker: job.worker.clone(),
        lease_expire_time: job.lease_until.map(timestamp),
        unique_key: job.unique_key.clone().unwrap_or_default(),
        progress: Some(progress(&job.progress)),
        result: job.progress.result.as_ref().and_then(json),
        failure_reason: job.failure_reason.clone(),
        failure_message: job.failure_message.clone(),
        cancel_request_time: job.cancel_requested_at.map(timestamp),
        authorization_id: job.authorization_id.clone().unwrap_or_default(),
        connection_id: job.connection_id.clone().unwrap_or_default(),
        created_by: job.created_by.clone(),
        create_time: Some(timestamp(job.created_at)),
        finish_time: job.finished_at.map(timestamp),
    }
}

fn progress(progress: &Progress) -> pb::JobProgress {
    pb::JobProgress {
        step: progress.step.clone(),
        percent: percent(progress.percent),
        message: progress.message.clone(),
        checkpoint: progress.checkpoint.as_ref().and_then(json),
        captcha: captcha(progress.captcha).into(),
    }
}

fn percent(percent: u32) -> i32 {
    i32::try_from(percent.min(100)).unwrap_or_default()
}

/// A batch on the wire, with its jobs by state.
pub(super) fn batch(batch: &Batch, counts: &JobCounts) -> pb::Batch {
    let of = |state| counts.get(&state).copied().unwrap_or_default();
    let counts = pb::JobCounts {
        total: counts.values().sum(),
        scheduled: of(JobState::Scheduled),
        pending: of(JobState::Pending),
        running: of(JobState::Running),
        retryable: of(JobState::Retryable),
        snoozed: of(JobState::Snoozed),
        completed: of(JobState::Completed),
        failed: of(JobState::Failed),
        cancelled: of(JobState::Cancelled),
    };
    let finished = counts.completed + counts.failed + counts.cancelled;
    // Rounded down, so that 100 says that nothing is left.
    let share = (finished * 100).checked_div(counts.total).unwrap_or(100);
    pb::Batch {
        id: batch.id.clone(),
        display_name: batch.display_name.clone(),
        created_by: batch.created_by.clone(),
        counts: Some(counts),
        percent: i32::try_from(share).unwrap_or_default(),
        skipped_count: batch.skipped,
        create_time: Some(timestamp(batch.created_at)),
        cancel_time: batch.cancelled_at.map(timestamp),
        finish_time: batch.finished_at.map(timestamp),
    }
}

const fn state(state: JobState) -> pb::JobState {
    match state {
        JobState::Scheduled => pb::JobState::Scheduled,
        JobState::Pending => pb::JobState::Pending,
        JobState::Running => pb::JobState::Running,
        JobState::Retryable => pb::JobState::Retryable,
        JobState::Snoozed => pb::JobState::Snoozed,
        JobState::Completed => pb::JobState::Completed,
        JobState::Failed => pb::JobState::Failed,
        JobState::Cancelled => pb::JobState::Cancelled,
    }
}

/// States of the wire; each is to be one.
pub(super) fn from_states(fields: &mut Fields, field: &str, numbers: &[i32]) -> Vec<JobState> {
    let known = |number: &i32| {
        let wanted = pb::JobState::try_from(*number).ok()?;
        JobState::ALL.into_iter().find(|it| state(*it) == wanted)
    };
    let states: Option<Vec<_>> = numbers.iter().map(known).collect();
    let fine = states.is_some() && numbers.len() <= JobState::ALL.len();
    fields.check(fine, field, "must name states of jobs");
    states.unwrap_or_default()
}

/// What happened to a job or a batch, on the wire.
pub(super) fn event(event: &Event) -> pb::JobEvent {
    let happened = &event.event;
    let detail = happened.detail.as_ref();
    let detail = detail.and_then(|detail| JobDetail::deserialize(detail).ok());
    let detail = detail.unwrap_or_default();
    pb::JobEvent {
        id: format!("evt_{}", event.id),
        r#type: wire_kind(happened.kind).into(),
        event_time: Some(timestamp(happened.created_at)),
        job_id: happened.job_id.clone().unwrap_or_default(),
        batch_id: happened.batch_id.clone().unwrap_or_default(),
        attempt: i32::try_from(happened.generation).unwrap_or_default(),
        reason: happened.reason.clone(),
        worker: detail.worker,
        step: detail.step,
        percent: percent(detail.percent),
        message: detail.message,
        captcha: captcha(detail.captcha).into(),
    }
}

const fn wire_kind(kind: EventKind) -> pb::JobEventType {
    match kind {
        EventKind::JobScheduled => pb::JobEventType::Scheduled,
        EventKind::JobPending => pb::JobEventType::Pending,
        EventKind::JobRunning => pb::JobEventType::Running,
        EventKind::JobProgressed => pb::JobEventType::Progressed,
        EventKind::JobRetryable => pb::JobEventType::Retryable,
        EventKind::JobSnoozed => pb::JobEventType::Snoozed,
        EventKind::JobCompleted => pb::JobEventType::Completed,
        EventKind::JobFailed => pb::JobEventType::Failed,
        EventKind::JobCancelled => pb::JobEventType::Cancelled,
        EventKind::JobCancelRequested => pb::JobEventType::CancelRequested,
        EventKind::BatchFinished => pb::JobEventType::BatchFinished,
        // Never delivered: they are of another topic.
        EventKind::Created
        | EventKind::Activated
        | EventKind::Reconnected
        | EventKind::Refreshed
        | EventKind::RefreshFailed
        | EventKind::ReauthorizationRequired
        | EventKind::Revoked
        | EventKind::Deleted
        | EventKind::Expiring
        | EventKind::Updated
        | EventKind::AppChanged
        | EventKind::ProviderChanged
        | EventKind::ApiKeyChanged
        | EventKind::SessionsEnded
        | EventKind::IssuedEnded
        | EventKind::AuthorizationEnded => pb::JobEventType::Unspecified,
    }
}

/// A type of events of the wire; none for what is none.
pub(super) fn from_kind(number: i32) -> Option<EventKind> {
    let wanted = pb::JobEventType::try_from(number).ok()?;
    let others = [
        EventKind::JobProgressed,
        EventKind::JobCancelRequested,
        EventKind::BatchFinished,
    ];
    let of_jobs = JobState::ALL.map(EventKind::of_job);
    let mut kinds = of_jobs.into_iter().chain(others);
    kinds.find(|it| wire_kind(*it) == wanted)
}

/// The id of a request that has nothing else to judge.
pub(super) fn job_id(id: String) -> Result<String, Error> {
    let mut fields = Fields::new();
    fields.id("job_id", &id, IdKind::Job);
    fields.finish()?;
    Ok(id)
}

/// The same of a batch, which may be any text.
pub(super) fn batch_id(id: String) -> Result<String, Error> {
    let mut fields = Fields::new();
    fields.required("batch_id", &id, NAME_MAX);
    fields.finish()?;
    Ok(id)
}

/// What is empty is not given.
pub(super) fn given(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Text for people, in lines.
pub(super) fn prose(fields: &mut Fields, field: &str, value: &str, max: usize) {
    let fine = value.chars().count() <= max;
    fields.check(fine, field, format!("at most {max} characters are allowed"));
    let odd = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t');
    let fine = !value.contains(odd);
    fields.check(fine, field, "control characters are not allowed");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NewEvent, Timestamp};

    #[test]
    fn states_and_kinds_go_there_and_back() {
        let mut fields = Fields::new();
        let numbers: Vec<i32> = JobState::ALL.map(|it| state(it).into()).to_vec();
        assert_eq!(
            from_states(&mut fields, "states", &numbers),
            JobState::ALL.to_vec()
        );
        assert!(fields.finish().is_ok());
        for number in 1..=11 {
            let there = from_kind(number).map(|it| i32::from(wire_kind(it)));
            assert_eq!(there, Some(number));
        }
        assert_eq!((from_kind(0), from_kind(12)), (None, None));
        let mut fields = Fields::new();
        assert!(from_states(&mut fields, "states", &[0, 99]).is_empty());
        assert!(fields.finish().is_err());
    }

    #[test]
    fn a_batch_is_done_only_when_nothing_is_left() {
        let made = Batch {
            tenant: "t".to_owned(),
            id: "b".to_owned(),
            display_name: String::new(),
            created_by: String::new(),
            fingerprint: Vec::new(),
            skipped: 0,
            created_at: Timestamp::default(),
            cancelled_at: None,
            finished_at: None,
        };
        let percent = |pending, completed| {
            let counts = [
                (JobState::Pending, pending),
                (JobState::Completed, completed),
            ];
            batch(&made, &counts.into()).percent
        };
        assert_eq!(percent(1, 999), 99);
        assert_eq!(percent(0, 999), 100);
        assert_eq!(batch(&made, &JobCounts::new()).percent, 100);
    }

    #[test]
    fn an_event_of_a_whole_batch_has_no_detail() {
        let bare = NewEvent::internal(EventKind::JobPending, "t", "job_1", Timestamp::default());
        let shown = event(&Event {
            id: 7,
            position: 3,
            event: bare,
        });
        assert_eq!((shown.id.as_str(), shown.worker.as_str()), ("evt_7", ""));
    }
}
