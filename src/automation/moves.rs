//! The moves of a job, as pure functions from the row as it is to the row as it will be. Who may ask for
//! a move, and whether the lease is theirs, is judged before.

use std::time::Duration;

use serde_json::Value;

use crate::config;
use crate::model::{
    Authorization, AuthorizationState, Captcha, Job, JobState, Progress, Timestamp,
};

/// Why a job failed whose worker was lost.
pub(super) const LEASE_LAPSED: &str = "LEASE_LAPSED";
/// Why a job failed whose deadline is over.
const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";
/// Why a job failed whose authorisation nobody finished.
const AUTHORIZATION_EXPIRED: &str = "AUTHORIZATION_EXPIRED";

/// What a worker says of an attempt that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Machine-readable, UPPER_SNAKE_CASE.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Trying again is of no use.
    pub permanent: bool,
    /// How long to wait before the next attempt; by the backoff when not said.
    pub retry_delay: Option<Duration>,
}

/// How far a worker has come: what is not set stays.
#[derive(Clone, Debug, Default)]
pub struct ProgressReport {
    /// The worker's name for where it is.
    pub step: Option<String>,
    /// How far, 0 to 100.
    pub percent: Option<u32>,
    /// For people.
    pub message: Option<String>,
    /// Where the next attempt may go on.
    pub checkpoint: Option<Value>,
    /// What it met.
    pub captcha: Option<Captcha>,
}

/// Whether its worker is to stop: it was called off, or its deadline is over.
pub(super) fn must_stop(job: &Job, now: Timestamp) -> bool {
    job.cancel_requested_at.is_some() || is_late(job, now)
}

fn is_late(job: &Job, now: Timestamp) -> bool {
    job.deadline_at.is_some_and(|deadline| deadline <= now)
}

/// The wait after the attempt that failed: doubles with each, with `jitter` of 0.9 to 1.1.
pub(super) fn backoff(config: &config::Automation, attempt: i32, jitter: f64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0);
    let factor = 2_u32.checked_pow(doublings).unwrap_or(u32::MAX);
    let wait = config.backoff_initial.saturating_mul(factor);
    wait.min(config.backoff_max).mul_f64(jitter.clamp(0.9, 1.1))
}

/// With what a worker told of it.
pub(super) fn progressed(job: &Job, report: ProgressReport) -> Job {
    let before = job.progress.clone();
    let progress = Progress {
        step: report.step.unwrap_or(before.step),
        percent: report.percent.unwrap_or(before.percent),
        message: report.message.unwrap_or(before.message),
        checkpoint: report.checkpoint.or(before.checkpoint),
        captcha: report.captcha.unwrap_or(before.captcha),
        result: before.result,
    };
    Job {
        progress,
        ..job.clone()
    }
}

/// Done, also where it was called off meanwhile: what is done can't be undone.
pub(super) fn completed(
    job: &Job,
    result: Option<Value>,
    connection_id: Option<String>,
    now: Timestamp,
) -> Job {
    let mut next = ended(job, JobState::Completed, now);
    next.failure_reason.clear();
    next.failure_message.clear();
    next.progress.percent = 100;
    next.progress.result = result.or(next.progress.result);
    next.connection_id = connection_id.or(next.connection_id);
    next
}

/// After an attempt that failed, `pause` before the next one.
pub(super) fn failed(job: &Job, failure: &Failure, pause: Duration, now: Timestamp) -> Job {
    if must_stop(job, now) {
        return stopped(job, now);
    }
    if failure.permanent || job.attempt >= job.max_attempts {
        return given_up(job, &failure.reason, &failure.message, now);
    }
    Job {
        state: JobState::Retryable,
        run_at: now.plus(pause),
        lease_until: None,
        failure_reason: failure.reason.clone(),
        failure_message: failure.message.clone(),
        ..job.clone()
    }
}

/// Handed back for later; the attempt does not count.
pub(super) fn snoozed(job: &Job, delay: Duration, now: Timestamp) -> Job {
    if must_stop(job, now) {
        return stopped(job, now);
    }
    let state = if delay.is_zero() {
        JobState::Pending
    } else {
        JobState::Snoozed
    };
    Job {
        state,
        run_at: now.plus(delay),
        lease_until: None,
        attempt: job.attempt.saturating_sub(1).max(0),
        ..job.clone()
    }
}

/// Its deadline is over and nobody works on it.
pub(super) fn overdue(job: &Job, now: Timestamp) -> Job {
    let message = "the deadline was over before the job was done";
    given_up(job, DEADLINE_EXCEEDED, message, now)
}

/// Called off while nobody works on it.
pub(super) fn cancelled(job: &Job, now: Timestamp) -> Job {
    ended(job, JobState::Cancelled, now)
}

/// Called off while somebody works on it, who is told by the next heartbeat.
pub(super) fn cancel_requested(job: &Job, now: Timestamp) -> Job {
    Job {
        cancel_requested_at: job.cancel_requested_at.or(Some(now)),
        ..job.clone()
    }
}

/// As its authorisation ended; none where that has not.
pub(super) fn as_authorized(
    job: &Job,
    authorization: &Authorization,
    now: Timestamp,
) -> Option<Job> {
    match authorization.state {
        AuthorizationState::Succeeded => {
            let connection_id = authorization.connection_id.clone();
            Some(completed(job, None, connection_id, now))
        }
        AuthorizationState::Failed => {
            let failure = &authorization.failure;
            Some(given_up(job, &failure.reason, &failure.message, now))
        }
        AuthorizationState::Expired => Some(unauthorized(job, now)),
        AuthorizationState::Pending
        | AuthorizationState::Exchanged
        | AuthorizationState::AwaitingConfirmation => None,
    }
}

/// Its authorisation lapsed, or is not kept any more. That may be because the job's own time is over.
pub(super) fn unauthorized(job: &Job, now: Timestamp) -> Job {
    if must_stop(job, now) {
        return stopped(job, now);
    }
    let message = "nobody finished the authorization in time";
    given_up(job, AUTHORIZATION_EXPIRED, message, now)
}

/// Begun again with all its attempts, at the place `turn`; what it had reached stays. A deadline that is
/// over is dropped, or it would end at once.
pub(super) fn begun_again(job: &Job, turn: i64, now: Timestamp) -> Job {
    Job {
        state: JobState::Pending,
        turn,
        run_at: now,
        deadline_at: job.deadline_at.filter(|deadline| *deadline > now),
        attempt: 0,
        lease_until: None,
        failure_reason: String::new(),
        failure_message: String::new(),
        cancel_requested_at: None,
        finished_at: None,
        ..job.clone()
    }
}

/// What a job that must stop ends as.
fn stopped(job: &Job, now: Timestamp) -> Job {
    if job.cancel_requested_at.is_some() {
        cancelled(job, now)
    } else {
        overdue(job, now)
    }
}

fn given_up(job: &Job, reason: &str, message: &str, now: Timestamp) -> Job {
    Job {
        failure_reason: reason.to_owned(),
        failure_message: message.to_owned(),
        ..ended(job, JobState::Failed, now)
    }
}

/// Finished. The token stays, so that completing twice is known as such; the link is of no more use.
fn ended(job: &Job, state: JobState, now: Timestamp) -> Job {
    Job {
        state,
        lease_until: None,
        connect_url: None,
        finished_at: Some(now),
        ..job.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::{ExecutionMode, UniqueStates};

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn running() -> Job {
        Job {
            id: "job_1".to_owned(),
            tenant: "t".to_owned(),
            batch_id: None,
            kind: "connect".to_owned(),
            execution_mode: ExecutionMode::Any,
            profile_id: None,
            account_id: None,
            app_id: None,
            provider: String::new(),
            state: JobState::Running,
            priority: 0,
            turn: 3,
            run_at: NOW.minus(MINUTE),
            deadline_at: None,
            max_attempts: 2,
            attempt: 1,
            lease_token: 7,
            lease_until: Some(NOW.plus(MINUTE)),
            worker: "w".to_owned(),
            unique_key: None,
            unique_states: UniqueStates::default(),
            payload: Value::Null,
            progress: Progress::default(),
            failure_reason: String::new(),
            failure_message: String::new(),
            cancel_requested_at: None,
            authorization_id: None,
            connect_url: None,
            connection_id: None,
            created_by: String::new(),
            created_at: NOW.minus(MINUTE),
            finished_at: None,
        }
    }

    fn failure() -> Failure {
        Failure {
            reason: "PAGE_CHANGED".to_owned(),
            message: String::new(),
            permanent: false,
            retry_delay: None,
        }
    }

    fn config() -> config::Automation {
        config::Automation {
            lease: MINUTE,
            scan_interval: MINUTE,
            batch: 1,
            max_attempts: 5,
            backoff_initial: Duration::from_secs(30),
            backoff_max: Duration::from_secs(3_600),
            authorization_ttl: MINUTE,
            max_running_per_provider: 0,
            provider_limits: BTreeMap::new(),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let config = config();
        let waits = [1, 2, 3, 8, 100, i32::MAX, 0, i32::MIN].map(|n| backoff(&config, n, 1.0));
        let secs = waits.map(|wait| wait.as_secs());
        assert_eq!(secs, [30, 60, 120, 3_600, 3_600, 3_600, 30, 30]);
        assert_eq!(backoff(&config, 1, 7.0), Duration::from_secs(33));
    }

    #[test]
    fn an_attempt_that_failed_is_followed_by_another_while_there_are_some() {
        let next = failed(&running(), &failure(), MINUTE, NOW);
        assert_eq!(next.state, JobState::Retryable);
        assert_eq!(next.run_at, NOW.plus(MINUTE));
        assert_eq!((next.lease_until, next.finished_at), (None, None));
        let last = Job {
            attempt: 2,
            ..running()
        };
        let next = failed(&last, &failure(), MINUTE, NOW);
        assert_eq!(next.state, JobState::Failed);
        assert_eq!(next.failure_reason, "PAGE_CHANGED");
        assert_eq!(next.finished_at, Some(NOW));
        let permanent = Failure {
            permanent: true,
            ..failure()
        };
        let next = failed(&running(), &permanent, MINUTE, NOW);
        assert_eq!(next.state, JobState::Failed);
    }

    #[test]
    fn a_job_that_was_called_off_ends_so_unless_it_is_done() {
        let job = cancel_requested(&running(), NOW);
        assert_eq!(job.state, JobState::Running);
        assert!(must_stop(&job, NOW));
        assert_eq!(
            cancel_requested(&job, NOW.plus(MINUTE)).cancel_requested_at,
            Some(NOW)
        );
        let next = failed(&job, &failure(), MINUTE, NOW);
        assert_eq!(next.state, JobState::Cancelled);
        assert_eq!(snoozed(&job, MINUTE, NOW).state, JobState::Cancelled);
        assert_eq!(completed(&job, None, None, NOW).state, JobState::Completed);
    }

    #[test]
    fn a_job_fails_at_its_deadline() {
        let job = Job {
            deadline_at: Some(NOW),
            ..running()
        };
        for next in [
            failed(&job, &failure(), MINUTE, NOW),
            snoozed(&job, MINUTE, NOW),
        ] {
            assert_eq!(next.state, JobState::Failed);
            assert_eq!(next.failure_reason, DEADLINE_EXCEEDED);
        }
    }

    #[test]
    fn handing_back_spends_no_attempt() {
        let next = snoozed(&running(), MINUTE, NOW);
        assert_eq!((next.state, next.attempt), (JobState::Snoozed, 0));
        assert_eq!(next.run_at, NOW.plus(MINUTE));
        assert_eq!(next.lease_token, 7);
        let next = snoozed(&running(), Duration::ZERO, NOW);
        assert_eq!((next.state, next.lease_until), (JobState::Pending, None));
    }

    #[test]
    fn begun_again_it_has_all_its_attempts_and_what_it_had_reached() {
        let mut job = progressed(
            &running(),
            ProgressReport {
                step: Some("consent".to_owned()),
                checkpoint: Some(Value::from(3)),
                ..ProgressReport::default()
            },
        );
        job.deadline_at = Some(NOW);
        let next = begun_again(&overdue(&job, NOW), 9, NOW);
        assert_eq!((next.state, next.attempt), (JobState::Pending, 0));
        assert_eq!((next.deadline_at, next.finished_at), (None, None));
        assert_eq!((next.turn, next.lease_token), (9, 7));
        assert_eq!(next.progress.step, "consent");
        assert_eq!(next.progress.checkpoint, Some(Value::from(3)));
        assert!(next.failure_reason.is_empty());
    }

    #[test]
    fn progress_says_only_what_changed() {
        let first = ProgressReport {
            percent: Some(40),
            message: Some("half".to_owned()),
            ..ProgressReport::default()
        };
        let second = ProgressReport {
            captcha: Some(Captcha::Detected),
            ..ProgressReport::default()
        };
        let job = progressed(&progressed(&running(), first), second);
        assert_eq!(job.progress.percent, 40);
        assert_eq!(job.progress.message, "half");
        assert_eq!(job.progress.captcha, Captcha::Detected);
    }
}
