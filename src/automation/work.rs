//! What workers say of the jobs that they have. Each call must present the token of its claim: whoever
//! presents another one has lost the job.

use std::time::Duration;

use serde_json::Value;

use super::accounts::{account_entry, connectable};
use super::jobs::missing;
use super::{Automation, Failure, ProgressReport, moves, permit};
use crate::access::audit::{self, Action};
use crate::access::{Caller, Permission};
use crate::error::{Error, Precondition, Resource};
use crate::model::{EventKind, Job, JobState, Timestamp};
use crate::store::automation::{claims, jobs, profiles};
use crate::store::{self, Tx, transact};

/// What a worker is answered that is still at a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beat {
    /// Until when it has the job, by the database's clock.
    pub lease_until: Option<Timestamp>,
    /// How long that is from now, by the same clock; zero where the lease was not renewed.
    pub lease: Duration,
    /// It is to stop: the job was called off, or its deadline is over.
    pub cancel: bool,
}

impl Automation {
    /// Renews a lease, unless the job is to stop.
    ///
    /// # Errors
    /// `LEASE_LOST`; [`Error::NotFound`]; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the
    /// store's.
    pub async fn heartbeat(&self, caller: &Caller, id: &str, token: i64) -> Result<Beat, Error> {
        permit(caller, Permission::WorkJobs)?;
        transact!(self.parts.store, |tx| {
            if let Some(beat) = self.renew(&mut tx, caller, id, token).await? {
                return Ok(beat);
            }
            let found = jobs::find(&mut tx, &caller.tenant, id).await?;
            let job = held(found, id, token)?;
            Ok(stop(&job))
        })
    }

    /// Tells how far a job has come, and renews its lease as [`Self::heartbeat`] does.
    ///
    /// # Errors
    /// Those of [`Self::heartbeat`].
    pub async fn report_progress(
        &self,
        caller: &Caller,
        id: &str,
        token: i64,
        report: ProgressReport,
    ) -> Result<Beat, Error> {
        permit(caller, Permission::WorkJobs)?;
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        let beat = transact!(self.parts.store, |tx| {
            let job = self.lock_held(&mut tx, caller, id, token).await?;
            let next = moves::progressed(&job, report.clone());
            if next.progress != job.progress {
                let kind = EventKind::JobProgressed;
                self.put(&mut tx, &job, &next, kind, now).await?;
            }
            if let (Some(captcha), Some(profile_id)) = (report.captcha, &job.profile_id) {
                profiles::set_captcha(&mut tx, tenant, profile_id, captcha, now).await?;
            }
            let beat = self.renew(&mut tx, caller, id, token).await?;
            Ok(beat.unwrap_or_else(|| stop(&next)))
        })?;
        self.poke();
        Ok(beat)
    }

    /// Finishes a job well: one with an authorisation ends as that did. Completing again with the same
    /// token answers the job as it is, with the result where there was none yet: its callback may have
    /// completed it before its worker did.
    ///
    /// # Errors
    /// `LEASE_LOST`; `JOB_STATE` while its authorisation has not ended; [`Error::NotFound`] for the job
    /// or the connection; [`Error::InvalidArgument`] for a connection at another provider than the job's
    /// account; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn complete_job(
        &self,
        caller: &Caller,
        id: &str,
        token: i64,
        result: Option<Value>,
        connection_id: Option<String>,
    ) -> Result<Job, Error> {
        permit(caller, Permission::WorkJobs)?;
        let now = self.parts.clock.now();
        let completed = transact!(self.parts.store, |tx| {
            let found = jobs::lock(&mut tx, &caller.tenant, id).await?;
            let job = found.ok_or_else(|| missing(id))?;
            if job.state == JobState::Completed && job.lease_token == token {
                return with_result(&mut tx, job, result.clone()).await;
            }
            let job = held(Some(job), id, token)?;
            if job.authorization_id.is_some() {
                let job = self.settled(&mut tx, job, now).await?;
                return match job.state {
                    JobState::Running => Err(not_authorized()),
                    JobState::Completed => with_result(&mut tx, job, result.clone()).await,
                    _ => Ok(job),
                };
            }
            if let Some(connection_id) = &connection_id {
                judge_connection(&mut tx, caller, &job, connection_id, now).await?;
            }
            let next = moves::completed(&job, result.clone(), connection_id.clone(), now);
            self.moved(&mut tx, &job, &next, now).await?;
            Ok(next)
        })?;
        self.poke();
        Ok(completed)
    }

    /// Ends an attempt that failed.
    ///
    /// # Errors
    /// Those of [`Self::heartbeat`].
    pub async fn fail_job(
        &self,
        caller: &Caller,
        id: &str,
        token: i64,
        failure: Failure,
    ) -> Result<Job, Error> {
        self.end_attempt(caller, id, token, |job, now| {
            let pause = failure.retry_delay.unwrap_or_else(|| self.pause(job));
            moves::failed(job, &failure, pause, now)
        })
        .await
    }

    /// Hands a job back for later without spending an attempt.
    ///
    /// # Errors
    /// Those of [`Self::heartbeat`].
    pub async fn snooze_job(
        &self,
        caller: &Caller,
        id: &str,
        token: i64,
        delay: Duration,
    ) -> Result<Job, Error> {
        self.end_attempt(caller, id, token, |job, now| {
            moves::snoozed(job, delay, now)
        })
        .await
    }

    /// Ends an attempt by this move, unless the job's authorisation has ended it.
    async fn end_attempt(
        &self,
        caller: &Caller,
        id: &str,
        token: i64,
        ended: impl Fn(&Job, Timestamp) -> Job + Sync,
    ) -> Result<Job, Error> {
        permit(caller, Permission::WorkJobs)?;
        let now = self.parts.clock.now();
        let job = transact!(self.parts.store, |tx| {
            let job = self.lock_held(&mut tx, caller, id, token).await?;
            let job = self.settled(&mut tx, job, now).await?;
            if job.state.is_final() {
                return Ok(job);
            }
            let next = ended(&job, now);
            self.moved(&mut tx, &job, &next, now).await?;
            Ok(next)
        })?;
        self.poke();
        Ok(job)
    }

    /// How long to wait after an attempt that failed.
    pub(super) fn pause(&self, job: &Job) -> Duration {
        let jitter = 0.9 + 0.2 * fastrand::f64();
        moves::backoff(&self.parts.config, job.attempt, jitter)
    }

    /// The job, locked, if this token has it.
    async fn lock_held(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        id: &str,
        token: i64,
    ) -> Result<Job, Error> {
        held(jobs::lock(tx, &caller.tenant, id).await?, id, token)
    }

    /// `None` where nothing was renewed.
    async fn renew(
        &self,
        tx: &mut Tx,
        caller: &Caller,
        id: &str,
        token: i64,
    ) -> Result<Option<Beat>, Error> {
        let lease = self.parts.config.lease;
        let now = self.parts.clock.now();
        let renewed = claims::renew(tx, &caller.tenant, id, token, lease, now).await?;
        Ok(renewed.map(|(lease_until, now)| Beat {
            lease_until: Some(lease_until),
            // What is left, which is more where a longer lease was asked for.
            lease: lease_until.since(now),
            cancel: false,
        }))
    }
}

/// The job if this token has it, whether or not the lease has lapsed, as long as nobody else came.
fn held(job: Option<Job>, id: &str, token: i64) -> Result<Job, Error> {
    let job = job.ok_or_else(|| missing(id))?;
    if job.state == JobState::Running && job.lease_token == token {
        return Ok(job);
    }
    Err(Error::precondition(
        Precondition::LeaseLost,
        "the job is finished, or somebody else has it: stop at once",
    ))
}

/// What a worker is answered whose job is to stop.
fn stop(job: &Job) -> Beat {
    Beat {
        lease_until: job.lease_until,
        lease: Duration::ZERO,
        cancel: true,
    }
}

/// Judges the connection that a worker says came of its job, and records that it connects the job's
/// account, as completing the job does.
async fn judge_connection(
    tx: &mut Tx,
    caller: &Caller,
    job: &Job,
    connection_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let tenant = &caller.tenant;
    let account = match &job.account_id {
        Some(id) => store::automation::accounts::lock(tx, tenant, id).await?,
        None => None,
    };
    let Some(account) = account else {
        let found = store::connections::find(tx, tenant, connection_id).await?;
        let missing = || Error::NotFound(Resource::Connection, connection_id.to_owned());
        return found.map(drop).ok_or_else(missing);
    };
    connectable(tx, tenant, &account.provider, connection_id).await?;
    if account.connection_id.as_deref() != Some(connection_id) {
        let entry = account_entry(Action::AccountConnected, caller, &account)
            .detail("connection_id", connection_id)
            .detail("job_id", &job.id);
        audit::record(tx, &entry, now).await?;
    }
    Ok(())
}

/// A completed job with its worker's result, where none was kept yet.
async fn with_result(tx: &mut Tx, mut job: Job, result: Option<Value>) -> Result<Job, Error> {
    if result.is_some() && job.progress.result.is_none() {
        job.progress.result = result;
        jobs::update(tx, &job, (job.state, job.lease_token)).await?;
    }
    Ok(job)
}

fn not_authorized() -> Error {
    Error::precondition(
        Precondition::JobState,
        "the callback of the job's authorization has not come: go on, or call FailJob",
    )
}
