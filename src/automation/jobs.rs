//! Jobs as callers ask for them, see them and call them off.

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use super::kept::keep;
use super::named::{Named, Place};
use super::steps::overtaken;
use super::{Automation, permit};
use crate::access::audit::{self, Action, Entry};
use crate::access::requests::{self, Once};
use crate::access::{Caller, Permission};
use crate::crypto::random;
use crate::error::{Error, Precondition, Resource};
use crate::model::{
    Account, EventKind, ExecutionMode, IdKind, Job, JobState, NewEvent, Profile, Progress,
    Timestamp, UniqueStates,
};
use crate::store::automation::jobs;
use crate::store::automation::jobs::JobQuery;
use crate::store::{self, Conn, transact};

/// A job to ask for.
#[derive(Clone, Debug)]
pub struct NewJob {
    /// What sort of work: 1 to 63 characters.
    pub kind: String,
    /// What to do: at most 64 KiB as JSON.
    pub payload: Value,
    /// The account; the profile's when not said.
    pub account_id: Option<String>,
    /// The profile's id or external id; the account's when not said.
    pub profile: Option<String>,
    /// Where it may run; where the profile's browser does when it is any.
    pub execution_mode: ExecutionMode,
    /// Higher goes first: -1,000 to 1,000.
    pub priority: i32,
    /// Not before; at once when not said.
    pub run_at: Option<Timestamp>,
    /// Given up after.
    pub deadline_at: Option<Timestamp>,
    /// How many attempts, 1 to 100; the configured number when not said.
    pub max_attempts: Option<u32>,
    /// No two unfinished jobs have the same: at most 200 characters.
    pub unique_key: Option<String>,
    /// Which finished states hold the key as well.
    pub unique_states: UniqueStates,
    /// Whether an authorisation is to be started for it.
    pub authorization: bool,
}

/// What a job that may be made belongs to.
#[derive(Clone, Debug)]
pub struct Checked {
    /// Its account.
    pub account: Option<Account>,
    /// Its profile.
    pub profile: Option<Profile>,
}

/// The authorisation that was started for a job.
#[derive(Clone, Debug)]
pub struct Authorized {
    /// The authorisation.
    pub authorization_id: String,
    /// Its app.
    pub app_id: String,
    /// Its provider.
    pub provider: String,
    /// Its link. Secret.
    pub connect_url: SecretString,
}

/// Which jobs to list; what is not set matches all.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Only this batch's.
    pub batch_id: Option<String>,
    /// Only those in these states.
    pub states: Vec<JobState>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that failed for this reason.
    pub reason: Option<String>,
    /// Only the one of this authorisation.
    pub authorization_id: Option<String>,
}

impl Automation {
    /// Judges a job before anything is started for it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for its account or profile; [`Error::InvalidArgument`];
    /// [`Error::AlreadyExists`] where another job has its unique key; [`Error::PermissionDenied`];
    /// [`Error::Constrained`]; or the store's.
    pub async fn check_job(&self, caller: &Caller, new: &NewJob) -> Result<Checked, Error> {
        permit(caller, Permission::WriteJobs)?;
        judge_times(new, "job.", self.parts.clock.now())?;
        let mut conn = self.parts.store.read().await?;
        let named = Named::load(&mut conn, &caller.tenant, std::iter::once(new)).await?;
        let place = named.place(new, "job.")?;
        require_free(&mut conn, &caller.tenant, new.unique_key.as_deref(), "").await?;
        Ok(Checked {
            account: place.account.cloned(),
            profile: place.profile.cloned(),
        })
    }

    /// What a request that asked for a job was answered before: the job, and its link.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the id was used for another request; [`Error::AlreadyExists`]
    /// when the link is not kept any more; [`Error::NotFound`] when the job is not; or the store's.
    pub async fn replayed_job(
        &self,
        caller: &Caller,
        once: &Once<'_>,
    ) -> Result<Option<(Job, Option<SecretString>)>, Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let mut conn = self.parts.store.read().await?;
        let keyring = &self.parts.keyring;
        let Some(replayed) = requests::replayed(&mut conn, keyring, once, now).await? else {
            return Ok(None);
        };
        let job = found(&mut conn, &caller.tenant, &replayed.resource_id).await?;
        let link = match job.authorization_id {
            Some(_) => Some(replayed.into_secret()?),
            None => None,
        };
        Ok(Some((job, link)))
    }

    /// Makes a job, with the authorisation that was started for it; answers it with its link. An
    /// authorisation of a job that can't be made is called off.
    ///
    /// # Errors
    /// Those of [`Self::check_job`] and [`Self::replayed_job`].
    pub async fn create_job(
        &self,
        caller: &Caller,
        new: NewJob,
        authorized: Option<Authorized>,
        once: Option<Once<'_>>,
    ) -> Result<(Job, Option<SecretString>), Error> {
        let made = self.make_job(caller, new, authorized.as_ref(), once.as_ref());
        let made = made.await;
        if let Some(authorized) = authorized.as_ref().filter(|_| is_not_made(&made)) {
            let ids = std::slice::from_ref(&authorized.authorization_id);
            self.call_off_all(caller, ids).await?;
        }
        if let Ok(Some(job)) = made {
            return Ok((job, authorized.map(|it| it.connect_url)));
        }
        // The same request may have been first, and then has the unique key, too.
        if let (Ok(None) | Err(Error::AlreadyExists { .. }), Some(once)) = (&made, &once)
            && let Some(before) = self.replayed_job(caller, once).await?
        {
            return Ok(before);
        }
        Err(made
            .err()
            .unwrap_or_else(|| Error::internal("a create made nothing and was not a retry")))
    }

    /// `None`: the same request was first.
    async fn make_job(
        &self,
        caller: &Caller,
        new: NewJob,
        authorized: Option<&Authorized>,
        once: Option<&Once<'_>>,
    ) -> Result<Option<Job>, Error> {
        let checked = self.check_job(caller, &new).await?;
        let place = Place {
            account: checked.account.as_ref(),
            profile: checked.profile.as_ref(),
        };
        let now = self.parts.clock.now();
        let mut job = self.new_job(caller, new, place, authorized, now)?;
        let link = authorized.map(|it| it.connect_url.expose_secret());
        let keyring = &self.parts.keyring;
        let made = transact!(self.parts.store, |tx| {
            if let Some(once) = once
                && !requests::remember(&mut tx, keyring, once, &job.id, link, now).await?
            {
                return Ok(false);
            }
            if job.state == JobState::Pending {
                job.turn = jobs::head_turn(&mut tx, &job.tenant, job.priority).await?;
            }
            if !jobs::insert(&mut tx, &job).await? {
                require_free(&mut tx, &job.tenant, job.unique_key.as_deref(), "").await?;
                return Err(overtaken());
            }
            keep(&mut tx, &job.tenant, &[&job]).await?;
            let kind = EventKind::of_job(job.state);
            store::events::append(&mut tx, &NewEvent::of_job(kind, &job, "", now)).await?;
            audit::record(&mut tx, &job_entry(Action::JobCreated, caller, &job), now).await?;
            self.count(&mut tx, job.state, 1);
            Ok(true)
        })?;
        if made {
            self.poke();
        }
        Ok(made.then_some(job))
    }

    /// The row of a new job, its place in the queue aside.
    pub(super) fn new_job(
        &self,
        caller: &Caller,
        new: NewJob,
        place: Place<'_>,
        authorized: Option<&Authorized>,
        now: Timestamp,
    ) -> Result<Job, Error> {
        let id = IdKind::Job.new_id();
        let connect_url = match authorized {
            Some(it) => Some(self.seal_link(&caller.tenant, &id, &it.connect_url)?),
            None => None,
        };
        let provider = authorized
            .map(|it| it.provider.as_str())
            .or(place.account.map(|account| account.provider.as_str()));
        let run_at = new.run_at.unwrap_or(now);
        let attempts = new.max_attempts.unwrap_or(self.parts.config.max_attempts);
        Ok(Job {
            id,
            tenant: caller.tenant.clone(),
            batch_id: None,
            execution_mode: place.execution_mode(new.execution_mode),
            profile_id: place.profile.map(|profile| profile.id.clone()),
            account_id: place.account.map(|account| account.id.clone()),
            app_id: authorized.map(|it| it.app_id.clone()),
            provider: provider.unwrap_or_default().to_owned(),
            state: if run_at <= now {
                JobState::Pending
            } else {
                JobState::Scheduled
            },
            kind: new.kind,
            priority: new.priority,
            turn: 0,
            run_at,
            deadline_at: new.deadline_at,
            max_attempts: i32::try_from(attempts).unwrap_or(i32::MAX),
            attempt: 0,
            lease_token: first_token(),
            lease_until: None,
            worker: String::new(),
            unique_key: new.unique_key,
            unique_states: new.unique_states,
            payload: new.payload,
            progress: Progress::default(),
            failure_reason: String::new(),
            failure_message: String::new(),
            cancel_requested_at: None,
            authorization_id: authorized.map(|it| it.authorization_id.clone()),
            connect_url,
            connection_id: None,
            created_by: caller.id.clone(),
            created_at: now,
            finished_at: None,
        })
    }

    /// One job.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn get_job(&self, caller: &Caller, id: &str) -> Result<Job, Error> {
        permit(caller, Permission::ReadJobs)?;
        let mut conn = self.parts.store.read().await?;
        found(&mut conn, &caller.tenant, id).await
    }

    /// One page of jobs behind the id `after`, oldest first.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn list_jobs(
        &self,
        caller: &Caller,
        filter: &JobFilter,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Job>, Error> {
        permit(caller, Permission::ReadJobs)?;
        let query = JobQuery {
            batch_id: filter.batch_id.as_deref(),
            states: &filter.states,
            kind: filter.kind.as_deref(),
            reason: filter.reason.as_deref(),
            authorization_id: filter.authorization_id.as_deref(),
            after,
            limit,
        };
        let mut conn = self.parts.store.read().await?;
        Ok(jobs::list(&mut conn, &caller.tenant, &query).await?)
    }

    /// Calls a job off: at once where nobody works on it. One that was called off stays as it is.
    ///
    /// # Errors
    /// `JOB_STATE` where it is finished otherwise; [`Error::NotFound`]; [`Error::PermissionDenied`];
    /// [`Error::Constrained`]; or the store's.
    pub async fn cancel_job(&self, caller: &Caller, id: &str) -> Result<Job, Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let job = transact!(self.parts.store, |tx| {
            let locked = jobs::lock(&mut tx, &caller.tenant, id).await?;
            let job = locked.ok_or_else(|| missing(id))?;
            // What came of its authorisation before stays, and is kept even though the call fails.
            let job = self.settled(&mut tx, job, now).await?;
            let Some(next) = self.call_off(&mut tx, &job, now).await? else {
                return Ok(job);
            };
            audit::record(&mut tx, &job_entry(Action::JobCancelled, caller, &job), now).await?;
            Ok(next)
        })?;
        self.poke();
        match job.state {
            JobState::Completed | JobState::Failed => Err(finished(&job)),
            _ => Ok(job),
        }
    }
}

/// Whether something surely was not made. After other errors it may be there: its links then lapse by
/// themselves.
pub(super) fn is_not_made<T>(made: &Result<Option<T>, Error>) -> bool {
    matches!(made, Ok(None)) || made.as_ref().is_err_and(Error::is_refusal)
}

/// That no other job than `own` has this unique key.
pub(super) async fn require_free(
    conn: &mut Conn,
    tenant: &str,
    key: Option<&str>,
    own: &str,
) -> Result<(), Error> {
    let Some(key) = key else { return Ok(()) };
    match jobs::holder(conn, tenant, key).await? {
        Some(holder) if holder != own => Err(Error::AlreadyExists {
            resource: Resource::Job,
            name: key.to_owned(),
            detail: format!("{holder} has this unique key"),
        }),
        _ => Ok(()),
    }
}

/// A deadline that can be met. Fields are named behind `path`.
pub(super) fn judge_times(new: &NewJob, path: &str, now: Timestamp) -> Result<(), Error> {
    let Some(deadline) = new.deadline_at else {
        return Ok(());
    };
    let description = if deadline <= now {
        "is over already"
    } else if new.run_at.is_some_and(|run_at| run_at >= deadline) {
        "must be after `run_time`"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("{path}deadline"), description))
}

/// Where the fencing tokens of a new job begin: at 0 to 2^47, so that nobody else who may work guesses
/// the one of a claim. A JSON number has it and all that follow exactly.
fn first_token() -> i64 {
    i64::from_be_bytes(random::random_bytes()) & ((1 << 47) - 1)
}

pub(super) async fn found(conn: &mut Conn, tenant: &str, id: &str) -> Result<Job, Error> {
    let job = jobs::find(conn, tenant, id).await?;
    job.ok_or_else(|| missing(id))
}

pub(super) fn missing(id: &str) -> Error {
    Error::NotFound(Resource::Job, id.to_owned())
}

pub(super) fn finished(job: &Job) -> Error {
    let message = format!("the job is {}", job.state.as_str());
    Error::precondition(Precondition::JobState, message)
}

/// What is recorded of what somebody did to a job.
pub(super) fn job_entry(action: Action, caller: &Caller, job: &Job) -> Entry {
    let entry = Entry::new(action, caller)
        .on("job", &job.id)
        .provider(&job.provider)
        .detail("kind", &job.kind);
    match &job.account_id {
        Some(account_id) => entry.detail("account_id", account_id),
        None => entry,
    }
}
