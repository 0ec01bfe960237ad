//! What workers do: claim jobs, tell how they go, and end them.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response};

use super::convert::{from_captcha, from_json, from_mode};
use super::profiles;
use super::wire::{self, KIND_MAX, MESSAGE_MAX, NAME_MAX, REASON_MAX, given, prose};
use super::{Answer, Context, unconstrained};
use crate::access::Permission;
use crate::automation::{Beat, Claim, Claimed, Failure, ProgressReport};
use crate::error::Error;
use crate::grpc::convert::{duration, shown, timestamp};
use crate::grpc::events::names;
use crate::grpc::fields::Fields;
use crate::grpc::gate::{WAIT_MAX, patience};
use crate::grpc::page::ROOM;
use crate::model::{Captcha, IdKind};
use crate::pb;

/// Most jobs of a claim.
const CLAIM_MAX: i32 = 100;
const KINDS_MAX: usize = 100;
const LEASE_MIN: Duration = Duration::from_secs(3);
const LEASE_MAX: Duration = Duration::from_secs(60 * 60);
const STEP_MAX: usize = 100;
/// Largest checkpoint as JSON, in bytes.
const CHECKPOINT_MAX: usize = 16 << 10;
/// Largest result as JSON, in bytes.
const RESULT_MAX: usize = 64 << 10;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) async fn claim_jobs(
    context: &Context,
    request: Request<pb::ClaimJobsRequest>,
) -> Answer<pb::ClaimJobsResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let patience = patience(request.metadata().as_ref());
    let claim = claim(request.into_inner(), patience)?;
    // Dropped with this future when the caller hangs up, while the task goes on.
    let _here = claim.gone.clone().drop_guard();
    let automation = Arc::clone(&context.automation);
    let claimed = context
        .tasks
        .run(async move { automation.claim(&caller, claim).await })
        .await?;
    Ok(Response::new(pb::ClaimJobsResponse {
        jobs: claimed.iter().map(claimed_job).collect(),
    }))
}

fn claim(request: pb::ClaimJobsRequest, patience: Option<Duration>) -> Result<Claim, Error> {
    let mut fields = Fields::new();
    fields.required("worker", &request.worker, NAME_MAX);
    let fine = (0..=CLAIM_MAX).contains(&request.max_jobs);
    let fault = format!("must be from 1 to {CLAIM_MAX}, or not set");
    fields.check(fine, "max_jobs", fault);
    names(&mut fields, "kinds", &request.kinds, KINDS_MAX, KIND_MAX);
    let mode = from_mode(&mut fields, "execution_mode", request.execution_mode);
    let wait = fields.duration("wait", request.wait, WAIT_MAX);
    let lease = fields.duration("lease", request.lease, LEASE_MAX);
    let fine = lease.is_none_or(|lease| lease >= LEASE_MIN);
    let fault = format!("at least {} s are needed", LEASE_MIN.as_secs());
    fields.check(fine, "lease", fault);
    fields.finish()?;
    Ok(Claim {
        worker: request.worker,
        max: usize::try_from(request.max_jobs.max(1)).unwrap_or(1),
        kinds: request.kinds,
        mode,
        wait: within(wait.unwrap_or_default(), patience),
        lease,
        gone: CancellationToken::new(),
        room: ROOM,
        weigh: |claimed| claimed_job(claimed).encoded_len(),
    })
}

/// The wait, ended early enough for its answer to come before the caller's own deadline: what is handed
/// to a caller who has gone waits for its lease to lapse.
fn within(wait: Duration, patience: Option<Duration>) -> Duration {
    const SOONEST: Duration = Duration::from_millis(50);
    const LATEST: Duration = Duration::from_secs(1);
    let left = patience.map(|left| left.saturating_sub((left / 10).clamp(SOONEST, LATEST)));
    left.map_or(wait, |left| wait.min(left))
}

fn claimed_job(claimed: &Claimed) -> pb::ClaimedJob {
    pb::ClaimedJob {
        job: Some(wire::job(&claimed.job)),
        lease_token: claimed.job.lease_token,
        lease_expire_time: claimed.job.lease_until.map(timestamp),
        lease_duration: Some(duration(claimed.lease)),
        connect_url: shown(claimed.connect_url.as_ref()),
        profile: claimed.profile.as_ref().map(profiles::wire),
    }
}

/// What every call about a claimed job names.
fn held(fields: &mut Fields, job_id: &str, lease_token: i64) {
    fields.id("job_id", job_id, IdKind::Job);
    fields.check(lease_token > 0, "lease_token", "is required");
}

/// Until when the worker has the job, and for how long that is.
fn lasting(
    beat: &Beat,
) -> (
    Option<prost_types::Timestamp>,
    Option<prost_types::Duration>,
) {
    let until = beat.lease_until;
    (until.map(timestamp), until.map(|_| duration(beat.lease)))
}

pub(super) async fn heartbeat(
    context: &Context,
    request: Request<pb::HeartbeatRequest>,
) -> Answer<pb::HeartbeatResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let pb::HeartbeatRequest {
        job_id: id,
        lease_token: token,
    } = request.into_inner();
    let mut fields = Fields::new();
    held(&mut fields, &id, token);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    let beat = context
        .tasks
        .run(async move { automation.heartbeat(&caller, &id, token).await })
        .await?;
    let (lease_expire_time, lease_duration) = lasting(&beat);
    Ok(Response::new(pb::HeartbeatResponse {
        lease_expire_time,
        lease_duration,
        cancel: beat.cancel,
    }))
}

pub(super) async fn report_progress(
    context: &Context,
    request: Request<pb::ReportProgressRequest>,
) -> Answer<pb::ReportProgressResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let request = request.into_inner();
    let (id, token) = (request.job_id, request.lease_token);
    let mut fields = Fields::new();
    held(&mut fields, &id, token);
    if let Some(step) = &request.step {
        fields.text("step", step, STEP_MAX);
    }
    let percent = request.percent.map(u32::try_from);
    let fine = percent.is_none_or(|percent| percent.is_ok_and(|percent| percent <= 100));
    fields.check(fine, "percent", "must be from 0 to 100");
    if let Some(message) = &request.message {
        prose(&mut fields, "message", message, MESSAGE_MAX);
    }
    let checkpoint = request.checkpoint;
    let checkpoint = from_json(&mut fields, "checkpoint", checkpoint, CHECKPOINT_MAX);
    let captcha = from_captcha(&mut fields, "captcha", request.captcha);
    fields.finish()?;
    let report = ProgressReport {
        step: request.step,
        percent: percent.and_then(Result::ok),
        message: request.message,
        checkpoint,
        captcha: Some(captcha).filter(|captcha| *captcha != Captcha::None),
    };
    let automation = Arc::clone(&context.automation);
    let beat = context
        .tasks
        .run(async move {
            automation
                .report_progress(&caller, &id, token, report)
                .await
        })
        .await?;
    let (lease_expire_time, lease_duration) = lasting(&beat);
    Ok(Response::new(pb::ReportProgressResponse {
        lease_expire_time,
        lease_duration,
        cancel: beat.cancel,
    }))
}

pub(super) async fn complete_job(
    context: &Context,
    request: Request<pb::CompleteJobRequest>,
) -> Answer<pb::CompleteJobResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let pb::CompleteJobRequest {
        job_id: id,
        lease_token: token,
        result,
        connection_id,
    } = request.into_inner();
    let mut fields = Fields::new();
    held(&mut fields, &id, token);
    let result = from_json(&mut fields, "result", result, RESULT_MAX);
    if !connection_id.is_empty() {
        fields.id("connection_id", &connection_id, IdKind::Connection);
    }
    fields.finish()?;
    let connection_id = given(connection_id);
    let automation = Arc::clone(&context.automation);
    let job = context
        .job(async move {
            automation
                .complete_job(&caller, &id, token, result, connection_id)
                .await
        })
        .await?;
    Ok(Response::new(pb::CompleteJobResponse { job }))
}

pub(super) async fn fail_job(
    context: &Context,
    request: Request<pb::FailJobRequest>,
) -> Answer<pb::FailJobResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let request = request.into_inner();
    let (id, token) = (request.job_id, request.lease_token);
    let mut fields = Fields::new();
    held(&mut fields, &id, token);
    fields.required("reason", &request.reason, REASON_MAX);
    let fine = request.reason.is_empty() || is_reason(&request.reason);
    fields.check(
        fine,
        "reason",
        "UPPER_SNAKE_CASE is needed, such as PAGE_CHANGED",
    );
    prose(&mut fields, "message", &request.message, MESSAGE_MAX);
    let retry_delay = fields.duration("retry_delay", request.retry_delay, 7 * DAY);
    fields.finish()?;
    let failure = Failure {
        reason: request.reason,
        message: request.message,
        permanent: request.permanent,
        retry_delay,
    };
    let automation = Arc::clone(&context.automation);
    let job = context
        .job(async move { automation.fail_job(&caller, &id, token, failure).await })
        .await?;
    Ok(Response::new(pb::FailJobResponse { job }))
}

fn is_reason(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_');
    text.bytes().all(allowed) && text.starts_with(|c: char| c.is_ascii_uppercase())
}

pub(super) async fn snooze_job(
    context: &Context,
    request: Request<pb::SnoozeJobRequest>,
) -> Answer<pb::SnoozeJobResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let pb::SnoozeJobRequest {
        job_id: id,
        lease_token: token,
        delay,
    } = request.into_inner();
    let mut fields = Fields::new();
    held(&mut fields, &id, token);
    let delay = fields.duration("delay", delay, 30 * DAY);
    fields.finish()?;
    let delay = delay.unwrap_or_default();
    let automation = Arc::clone(&context.automation);
    let job = context
        .job(async move { automation.snooze_job(&caller, &id, token, delay).await })
        .await?;
    Ok(Response::new(pb::SnoozeJobResponse { job }))
}

pub(super) async fn get_job_credentials(
    context: &Context,
    request: Request<pb::GetJobCredentialsRequest>,
) -> Answer<pb::GetJobCredentialsResponse> {
    let caller = unconstrained(&request, Permission::WorkJobs)?;
    let pb::GetJobCredentialsRequest {
        job_id: id,
        lease_token: token,
    } = request.into_inner();
    let mut fields = Fields::new();
    held(&mut fields, &id, token);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    let found = context
        .tasks
        .run(async move { automation.job_credentials(&caller, &id, token).await })
        .await?;
    let (totp_code, totp_end) = found.totp.unzip();
    Ok(Response::new(pb::GetJobCredentialsResponse {
        username: found.username,
        password: shown(found.password.as_ref()),
        totp_code: shown(totp_code.as_ref()),
        totp_expire_time: totp_end.map(timestamp),
        client_id: found.client_id,
        client_secret: shown(found.client_secret.as_ref()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_before_its_caller_does() {
        let [short, second, minute] = [100, 1_000, 60_000].map(Duration::from_millis);
        assert_eq!(within(minute, None), minute);
        assert_eq!(within(minute, Some(minute)), minute - second);
        assert_eq!(within(second, Some(minute)), second);
        assert_eq!(within(minute, Some(second)), second - short);
        assert_eq!(within(minute, Some(short)), short / 2);
        assert_eq!(within(minute, Some(Duration::ZERO)), Duration::ZERO);
    }

    #[test]
    fn reasons_are_upper_snake_case() {
        for good in ["PAGE_CHANGED", "A2", "X_1"] {
            assert!(is_reason(good), "{good}");
        }
        for bad in ["page", "_A", "2FA", "A-B", "Ä"] {
            assert!(!is_reason(bad), "{bad}");
        }
    }
}
