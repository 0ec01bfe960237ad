//! Beginning jobs again that failed or were called off.

use std::collections::{BTreeSet, HashMap};

use super::jobs::{finished, found, job_entry, missing, require_free};
use super::kept::{Kept, keep};
use super::steps::overtaken;
use super::{Authorized, Automation, moves, permit};
use crate::access::audit::{self, Action};
use crate::access::{Caller, Permission};
use crate::error::{Error, Precondition};
use crate::model::{Authorization, AuthorizationState, Job, JobState, Timestamp};
use crate::store::automation::{batches, jobs};
use crate::store::{self, Conn, Tx, transact};

/// A job that needs a new authorisation to be begun again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// The job.
    pub job: Job,
    /// Its authorisation that has ended.
    pub authorization: Authorization,
}

/// Gives jobs that begin together their places in the queue, so that they take turns with what waits
/// already.
#[derive(Default)]
pub(super) struct Turns {
    behind: i64,
    heads: HashMap<i32, i64>,
    given: HashMap<i32, i64>,
}

impl Turns {
    /// Behind so many that began in an earlier step.
    pub(super) fn behind(behind: i64) -> Self {
        Self {
            behind,
            ..Self::default()
        }
    }

    /// How far the next job of a priority is behind the first.
    pub(super) fn ordinal(&mut self, priority: i32) -> i64 {
        let given = self.given.entry(priority).or_insert(self.behind);
        let ordinal = *given;
        *given += 1;
        ordinal
    }

    /// The place of the next job of a priority.
    pub(super) async fn next(
        &mut self,
        tx: &mut Tx,
        tenant: &str,
        priority: i32,
    ) -> Result<i64, Error> {
        let head = match self.heads.get(&priority) {
            Some(head) => *head,
            None => jobs::head_turn(tx, tenant, priority).await?,
        };
        self.heads.insert(priority, head);
        Ok(head.saturating_add(self.ordinal(priority)))
    }
}

impl Automation {
    /// Whether a job needs a new authorisation to be begun again: none where it can be as it is.
    ///
    /// # Errors
    /// Those of [`Self::retry_job`].
    pub async fn wants_authorization(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<Option<Retry>, Error> {
        permit(caller, Permission::WriteJobs)?;
        let mut conn = self.parts.store.read().await?;
        let job = found(&mut conn, &caller.tenant, id).await?;
        require_ended(&mut conn, &job).await?;
        let kept = Kept::load(&mut conn, &caller.tenant, &[&job]).await?;
        kept.judge(&job)?;
        Ok(match authorization_of(&mut conn, &job).await? {
            Some(authorization) if has_ended(&authorization) => Some(Retry { job, authorization }),
            _ => None,
        })
    }

    /// Begins a failed or cancelled job again with all its attempts, under a new authorisation where one
    /// was started, `behind` so many that begin with it. An authorisation that was started for nothing is
    /// called off.
    ///
    /// # Errors
    /// `JOB_STATE` where it is neither, needs another authorisation than it has, or its profile is another
    /// account's by now;
    /// [`Error::AlreadyExists`] where another job has its unique key by now; [`Error::NotFound`] for the
    /// job, its account or its profile; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn retry_job(
        &self,
        caller: &Caller,
        id: &str,
        authorized: Option<Authorized>,
        behind: i64,
    ) -> Result<Job, Error> {
        let retried = self.retry_one(caller, id, authorized.as_ref(), behind);
        let retried = retried.await;
        if let (Err(error), Some(authorized)) = (&retried, &authorized)
            && error.is_refusal()
        {
            let ids = std::slice::from_ref(&authorized.authorization_id);
            self.call_off_all(caller, ids).await?;
        }
        self.poke();
        retried
    }

    async fn retry_one(
        &self,
        caller: &Caller,
        id: &str,
        authorized: Option<&Authorized>,
        behind: i64,
    ) -> Result<Job, Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        let batch_id = {
            let mut conn = self.parts.store.read().await?;
            found(&mut conn, tenant, id).await?.batch_id
        };
        transact!(self.parts.store, |tx| {
            if let Some(batch_id) = &batch_id {
                batches::lock(&mut tx, tenant, batch_id).await?;
            }
            let locked = jobs::lock(&mut tx, tenant, id).await?;
            let mut job = locked.ok_or_else(|| missing(id))?;
            require_ended(&mut tx, &job).await?;
            if let Some(it) = authorized {
                job.connect_url = Some(self.seal_link(tenant, id, &it.connect_url)?);
                job.authorization_id = Some(it.authorization_id.clone());
                job.app_id = Some(it.app_id.clone());
                job.provider.clone_from(&it.provider);
            }
            require_authorized(&mut tx, &job).await?;
            let mut turns = Turns::behind(behind);
            let turn = turns.next(&mut tx, tenant, job.priority).await?;
            let next = moves::begun_again(&job, turn, now);
            self.moved(&mut tx, &job, &next, now).await?;
            keep(&mut tx, tenant, &[&next]).await?;
            if let Some(batch_id) = &batch_id {
                batches::reopen(&mut tx, tenant, batch_id).await?;
            }
            audit::record(&mut tx, &job_entry(Action::JobRetried, caller, &job), now).await?;
            Ok(next)
        })
    }

    /// Begins those of these locked jobs again that can be, and opens their batches, which are locked
    /// already, too. How many that were.
    pub(super) async fn begin_again(
        &self,
        tx: &mut Tx,
        locked: &[Job],
        turns: &mut Turns,
        now: Timestamp,
    ) -> Result<i64, Error> {
        let Some(Job { tenant, .. }) = locked.first() else {
            return Ok(0);
        };
        let kept = Kept::load(tx, tenant, &Vec::from_iter(locked)).await?;
        let mut begun = Vec::new();
        for job in locked {
            let fit = async {
                kept.judge(job)?;
                require_ended(tx, job).await?;
                require_authorized(tx, job).await
            };
            match fit.await {
                Err(error) if error.is_refusal() => continue,
                fit => fit?,
            }
            let turn = turns.next(tx, tenant, job.priority).await?;
            let next = moves::begun_again(job, turn, now);
            if jobs::update(tx, &next, (job.state, job.lease_token)).await? {
                begun.push(job);
            }
        }
        match keep(tx, tenant, &begun).await {
            Err(error) if error.is_refusal() => return Err(overtaken()),
            kept => kept?,
        }
        for batch_id in BTreeSet::from_iter(begun.iter().filter_map(|job| job.batch_id.as_ref())) {
            batches::reopen(tx, tenant, batch_id).await?;
        }
        if !begun.is_empty() {
            let ids: Vec<String> = begun.iter().map(|job| job.id.clone()).collect();
            jobs::append_events(tx, tenant, &ids, now).await?;
            self.count(tx, JobState::Pending, ids.len());
        }
        Ok(i64::try_from(begun.len()).unwrap_or(i64::MAX))
    }
}

/// That a job failed or was called off, and that nobody has its unique key.
async fn require_ended(conn: &mut Conn, job: &Job) -> Result<(), Error> {
    if !matches!(job.state, JobState::Failed | JobState::Cancelled) {
        return Err(finished(job));
    }
    require_free(conn, &job.tenant, job.unique_key.as_deref(), &job.id).await
}

/// That the authorisation of a job, if it has one, can still bring it to its end.
async fn require_authorized(conn: &mut Conn, job: &Job) -> Result<(), Error> {
    match authorization_of(conn, job).await? {
        Some(authorization) if has_ended(&authorization) => Err(Error::precondition(
            Precondition::JobState,
            "the job's authorization has ended meanwhile: call RetryJob again",
        )),
        _ => Ok(()),
    }
}

/// The authorisation of a job; none where it never had one.
async fn authorization_of(conn: &mut Conn, job: &Job) -> Result<Option<Authorization>, Error> {
    let Some(id) = &job.authorization_id else {
        return Ok(None);
    };
    let found = store::authorizations::find(conn, &job.tenant, id).await?;
    let gone = || {
        Error::precondition(
            Precondition::JobState,
            "the job's authorization is not kept any more: ask for a new job",
        )
    };
    found.map(Some).ok_or_else(gone)
}

/// Whether it ended without a connection. One that succeeded after its job had ended completes it.
fn has_ended(authorization: &Authorization) -> bool {
    matches!(
        authorization.state,
        AuthorizationState::Failed | AuthorizationState::Expired
    )
}
