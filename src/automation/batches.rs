//! Batches: many jobs, asked for and called off at once.

use super::jobs::{NewJob, is_not_made, judge_times};
use super::kept::keep;
use super::named::Named;
use super::retry::Turns;
use super::steps::overtaken;
use super::{Authorized, Automation, DeadFilter, moves, permit};
use crate::access::audit::{self, Action, Entry};
use crate::access::{Caller, Permission};
use crate::error::{Error, Resource};
use crate::model::{Batch, IdKind, Job, JobCounts, JobState, Timestamp};
use crate::store::automation::{batches, jobs};
use crate::store::{self, Conn, Tx, transact};

/// Jobs taken in one transaction where all of a batch are moved.
const CHUNK: i64 = 500;

/// A batch to ask for.
#[derive(Clone, Debug)]
pub struct NewBatch {
    /// The caller's own text; made when not said.
    pub id: Option<String>,
    /// For people.
    pub display_name: String,
    /// SHA-256 of what is asked for: the same again is a retry.
    pub fingerprint: [u8; 32],
}

impl Automation {
    /// The batch of this id, where it was asked for before.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] where it was another; [`Error::PermissionDenied`];
    /// [`Error::Constrained`]; or the store's.
    pub async fn replayed_batch(
        &self,
        caller: &Caller,
        new: &NewBatch,
    ) -> Result<Option<(Batch, JobCounts)>, Error> {
        permit(caller, Permission::WriteJobs)?;
        let Some(id) = &new.id else { return Ok(None) };
        let mut conn = self.parts.store.read().await?;
        let Some(batch) = batches::find(&mut conn, &caller.tenant, id).await? else {
            return Ok(None);
        };
        if batch.fingerprint != new.fingerprint {
            return Err(Error::AlreadyExists {
                resource: Resource::Batch,
                name: id.clone(),
                detail: "it was asked for with other jobs; take a new id for each".to_owned(),
            });
        }
        counted(&mut conn, batch).await.map(Some)
    }

    /// Makes all of these jobs, each with the authorisation that was started for it, or none. Those whose
    /// unique key another job has are left out, their authorisations called off. The same batch again is
    /// answered as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an account or profile; [`Error::InvalidArgument`]; those of
    /// [`Self::replayed_batch`]; or the store's.
    pub async fn create_batch(
        &self,
        caller: &Caller,
        new: NewBatch,
        asked: Vec<(NewJob, Option<Authorized>)>,
    ) -> Result<(Batch, JobCounts), Error> {
        let started = asked
            .iter()
            .filter_map(|(_, authorized)| authorized.as_ref());
        let started: Vec<String> = started.map(|it| it.authorization_id.clone()).collect();
        let made = match self.replayed_batch(caller, &new).await {
            Ok(None) => self.make_batch(caller, &new, asked).await,
            Ok(Some(_)) => Ok(None),
            Err(error) => Err(error),
        };
        if is_not_made(&made) {
            self.call_off_all(caller, &started).await?;
        }
        if let Some(made) = made? {
            self.poke();
            return Ok(made);
        }
        let before = self.replayed_batch(caller, &new).await?;
        before.ok_or_else(|| Error::internal("a batch was not made and was not there"))
    }

    /// `None`: there is one of this id.
    async fn make_batch(
        &self,
        caller: &Caller,
        new: &NewBatch,
        asked: Vec<(NewJob, Option<Authorized>)>,
    ) -> Result<Option<(Batch, JobCounts)>, Error> {
        let now = self.parts.clock.now();
        let mut batch = Batch {
            tenant: caller.tenant.clone(),
            id: new.id.clone().unwrap_or_else(|| IdKind::Batch.new_id()),
            display_name: new.display_name.clone(),
            created_by: caller.id.clone(),
            fingerprint: new.fingerprint.to_vec(),
            skipped: 0,
            created_at: now,
            cancelled_at: None,
            finished_at: None,
        };
        let total = asked.len();
        let mut rows = self.rows(caller, &batch.id, asked, now).await?;
        let made = transact!(self.parts.store, |tx| {
            if !batches::insert(&mut tx, &batch).await? {
                return Ok(None);
            }
            let mut turns = Turns::default();
            for job in &mut rows {
                job.turn = match job.state {
                    JobState::Pending => turns.next(&mut tx, &batch.tenant, job.priority).await?,
                    _ => turns.ordinal(job.priority),
                };
            }
            let inserted = jobs::insert_many(&mut tx, &rows).await?;
            keep(&mut tx, &batch.tenant, &Vec::from_iter(&rows)).await?;
            let whole = usize::try_from(inserted).is_ok_and(|inserted| inserted == rows.len());
            if !whole {
                call_off_left_out(&mut tx, &rows, now).await?;
            }
            batch.skipped = count(total).saturating_sub(inserted);
            if batch.skipped > 0 {
                batches::set_skipped(&mut tx, &batch.tenant, &batch.id, batch.skipped).await?;
            }
            jobs::append_events_of_batch(&mut tx, &batch.tenant, &batch.id, now).await?;
            let entry = batch_entry(Action::BatchCreated, caller, &batch.id)
                .detail("jobs", inserted)
                .detail("skipped", batch.skipped);
            audit::record(&mut tx, &entry, now).await?;
            let (_, counts) = counted(&mut tx, batch.clone()).await?;
            for (state, jobs) in &counts {
                let jobs = usize::try_from(*jobs).unwrap_or(usize::MAX);
                self.count(&mut tx, *state, jobs);
            }
            Ok(Some(counts))
        })?;
        Ok(made.map(|counts| (batch, counts)))
    }

    /// The rows of a batch's jobs, but for their turns. One whose authorisation was not started, since
    /// another has its unique key, is left out.
    async fn rows(
        &self,
        caller: &Caller,
        batch_id: &str,
        asked: Vec<(NewJob, Option<Authorized>)>,
        now: Timestamp,
    ) -> Result<Vec<Job>, Error> {
        let named = {
            let mut conn = self.parts.store.read().await?;
            let jobs = asked.iter().map(|(job, _)| job);
            Named::load(&mut conn, &caller.tenant, jobs).await?
        };
        let mut rows = Vec::with_capacity(asked.len());
        for (at, (new, authorized)) in asked.into_iter().enumerate() {
            let path = format!("jobs[{at}].");
            judge_times(&new, &path, now)?;
            let place = named.place(&new, &path)?;
            if new.authorization && authorized.is_none() {
                continue;
            }
            let mut job = self.new_job(caller, new, place, authorized.as_ref(), now)?;
            job.batch_id = Some(batch_id.to_owned());
            rows.push(job);
        }
        Ok(rows)
    }

    /// One batch, with its jobs counted now.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn get_batch(&self, caller: &Caller, id: &str) -> Result<(Batch, JobCounts), Error> {
        permit(caller, Permission::ReadJobs)?;
        self.batch(caller, id).await
    }

    /// One page of batches behind the id `after`, each with its jobs counted now.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn list_batches(
        &self,
        caller: &Caller,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(Batch, JobCounts)>, Error> {
        permit(caller, Permission::ReadJobs)?;
        let mut conn = self.parts.store.read().await?;
        let found = batches::list(&mut conn, &caller.tenant, after, limit).await?;
        let ids: Vec<String> = found.iter().map(|batch| batch.id.clone()).collect();
        let mut counts = batches::counts(&mut conn, &caller.tenant, &ids).await?;
        let with_counts = found.into_iter().map(|batch| {
            let counts = counts.remove(&batch.id).unwrap_or_default();
            (batch, counts)
        });
        Ok(with_counts.collect())
    }

    /// Calls off all jobs of a batch that are not finished, in steps: what one that broke off has left,
    /// the same call again finishes.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn cancel_batch(
        &self,
        caller: &Caller,
        id: &str,
    ) -> Result<(Batch, JobCounts), Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        transact!(self.parts.store, |tx| {
            let batch = lock(&mut tx, tenant, id).await?;
            if batch.cancelled_at.is_none() {
                batches::cancel(&mut tx, tenant, id, now).await?;
                let entry = batch_entry(Action::BatchCancelled, caller, id);
                audit::record(&mut tx, &entry, now).await?;
            }
            Ok(())
        })?;
        let mut after = String::new();
        // Until there are none: a page may be short where jobs ended while it waited for their locks.
        loop {
            let last = transact!(self.parts.store, |tx| {
                let open = jobs::open_of_batch(&mut tx, tenant, id, &after, CHUNK).await?;
                self.call_off_chunk(&mut tx, &open, now).await?;
                Ok(open.last().map(|job| job.id.clone()))
            })?;
            self.poke();
            match last {
                Some(last) => after = last,
                None => return self.batch(caller, id).await,
            }
        }
    }

    /// Calls off these locked jobs: those that only wait at once, told of by one statement.
    async fn call_off_chunk(&self, tx: &mut Tx, open: &[Job], now: Timestamp) -> Result<(), Error> {
        let mut waiting = Vec::new();
        for job in open {
            if job.state == JobState::Running || job.authorization_id.is_some() {
                let job = self.settled(tx, job.clone(), now).await?;
                self.call_off(tx, &job, now).await?;
                continue;
            }
            let next = moves::cancelled(job, now);
            if !jobs::update(tx, &next, (job.state, job.lease_token)).await? {
                return Err(overtaken());
            }
            waiting.push(job.id.clone());
        }
        if let Some(job) = open.first()
            && !waiting.is_empty()
        {
            jobs::append_events(tx, &job.tenant, &waiting, now).await?;
            self.count(tx, JobState::Cancelled, waiting.len());
        }
        Ok(())
    }

    /// Begins the failed jobs of a batch again, as [`Self::redrive`] does, behind the `begun` that were
    /// already; how many that were, with those.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn retry_batch(
        &self,
        caller: &Caller,
        id: &str,
        begun: i64,
    ) -> Result<(Batch, JobCounts, i64), Error> {
        let failed = DeadFilter::of_batch(id);
        let retried = self.redrive(caller, &failed, begun).await?;
        let (batch, counts) = self.batch(caller, id).await?;
        Ok((batch, counts, retried))
    }

    async fn batch(&self, caller: &Caller, id: &str) -> Result<(Batch, JobCounts), Error> {
        let mut conn = self.parts.store.read().await?;
        let found = batches::find(&mut conn, &caller.tenant, id).await?;
        counted(&mut conn, found.ok_or_else(|| missing(id))?).await
    }
}

/// Jobs that were not inserted have nobody who would bring their authorisations to an end.
async fn call_off_left_out(tx: &mut Tx, rows: &[Job], now: Timestamp) -> Result<(), Error> {
    for job in rows {
        if let Some(id) = &job.authorization_id
            && jobs::find(tx, &job.tenant, &job.id).await?.is_none()
        {
            store::authorizations::call_off(tx, &job.tenant, id, now).await?;
        }
    }
    Ok(())
}

async fn counted(conn: &mut Conn, batch: Batch) -> Result<(Batch, JobCounts), Error> {
    let ids = std::slice::from_ref(&batch.id);
    let mut counts = batches::counts(conn, &batch.tenant, ids).await?;
    let counts = counts.remove(&batch.id).unwrap_or_default();
    Ok((batch, counts))
}

async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Batch, Error> {
    let locked = batches::lock(tx, tenant, id).await?;
    locked.ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Error {
    Error::NotFound(Resource::Batch, id.to_owned())
}

fn count(jobs: usize) -> i64 {
    i64::try_from(jobs).unwrap_or(i64::MAX)
}

fn batch_entry(action: Action, caller: &Caller, id: &str) -> Entry {
    Entry::new(action, caller).on("batch", id)
}
