//! What nobody asks for: jobs whose time has come, whose worker was lost, whose deadline is over, whose
//! authorisation has ended; batches that are finished. Replicas may tend at the same time: each takes
//! what the others have not locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Automation, Failure, moves};
use crate::error::Error;
use crate::model::{EventKind, JobState, NewEvent, Timestamp};
use crate::store::automation::{batches, claims, jobs};
use crate::store::{self, transact};

/// The most steps of one kind in a round. What is left after them is the next round's.
const STEPS: usize = 200;

/// The most that is remembered of what was heard. What is forgotten is found by a scan.
const HEARD_MAX: usize = 10_000;

/// How long what is heard may gather: the last jobs of a batch often end together.
const GATHER: Duration = Duration::from_millis(20);

/// What a round does in steps, each of which locks what it takes.
#[derive(Clone, Copy)]
enum Step {
    Overdue,
    Lapsed,
    Due,
}

/// What was heard and is to be looked after soon.
#[derive(Default)]
pub(super) struct Heard {
    seen: Mutex<Seen>,
    some: Notify,
}

#[derive(Default)]
struct Seen {
    authorizations: BTreeSet<String>,
    /// By tenant and id.
    batches: BTreeSet<(String, String)>,
}

impl Heard {
    /// An authorisation ended; a job may be its.
    pub(super) fn authorization(&self, id: &str) {
        let mut seen = self.seen();
        if seen.authorizations.len() < HEARD_MAX {
            seen.authorizations.insert(id.to_owned());
        }
        drop(seen);
        self.some.notify_one();
    }

    /// A job of a batch ended; it may be the last.
    pub(super) fn batch(&self, tenant: &str, id: &str) {
        let mut seen = self.seen();
        if seen.batches.len() < HEARD_MAX {
            seen.batches.insert((tenant.to_owned(), id.to_owned()));
        }
        drop(seen);
        self.some.notify_one();
    }

    fn take(&self) -> Seen {
        std::mem::take(&mut *self.seen())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Automation {
    /// Ends when something was heard that [`Self::tend_heard`] is to look after.
    pub async fn tend_soon(&self) {
        self.heard.some.notified().await;
        tokio::time::sleep(GATHER).await;
    }

    /// Looks after everything, and answers how many jobs and batches were moved.
    ///
    /// # Errors
    /// The store's first; all else was looked after all the same.
    pub async fn tend(&self) -> Result<usize, Error> {
        let mut moved = 0;
        let mut outcome = Ok(());
        let mut add = |done: Result<usize, Error>| match done {
            Ok(count) => moved += count,
            Err(error) if outcome.is_ok() => outcome = Err(error),
            Err(error) => crate::error::log(&error),
        };
        add(self.tend_heard().await);
        // First what a lost worker holds up: each of these steps sees to the authorisations of its jobs.
        add(self.repeat(Step::Lapsed).await);
        add(self.repeat(Step::Overdue).await);
        add(self.settle_all().await);
        add(self.repeat(Step::Due).await);
        add(self.finish_all().await);
        outcome.map(|()| moved)
    }

    /// Looks after what was heard of since the last time.
    ///
    /// # Errors
    /// The store's; the next [`Self::tend`] finds what was left.
    pub async fn tend_heard(&self) -> Result<usize, Error> {
        let seen = self.heard.take();
        let mut moved = 0;
        for id in &seen.authorizations {
            moved += usize::from(self.settle(id).await?);
        }
        for (tenant, id) in &seen.batches {
            moved += usize::from(self.finish(tenant, id).await?);
        }
        Ok(moved)
    }

    /// Ends the job of this authorisation as that ended; whether there was one to end.
    async fn settle(&self, authorization_id: &str) -> Result<bool, Error> {
        let now = self.parts.clock.now();
        let ended = transact!(self.parts.store, |tx| {
            let found = jobs::any_tenant_of_authorization(&mut tx, authorization_id).await?;
            let Some(job) = found else { return Ok(false) };
            let job = self.settled(&mut tx, job, now).await?;
            Ok(job.state.is_final())
        })?;
        if ended {
            self.poke();
        }
        Ok(ended)
    }

    async fn settle_all(&self) -> Result<usize, Error> {
        let mut after = String::new();
        let mut settled = 0;
        for _ in 0..STEPS {
            let page = {
                let mut conn = self.parts.store.read().await?;
                jobs::any_tenant_settled(&mut conn, &after, self.limit()).await?
            };
            let Some(last) = page.last() else { break };
            after.clone_from(last);
            for authorization_id in &page {
                settled += usize::from(self.settle(authorization_id).await?);
            }
        }
        Ok(settled)
    }

    /// Repeats a step while it takes all it may.
    async fn repeat(&self, step: Step) -> Result<usize, Error> {
        let mut done = 0;
        for _ in 0..STEPS {
            let now = self.parts.clock.now();
            let taken = match step {
                Step::Overdue => self.end_overdue(now).await?,
                Step::Lapsed => self.rescue(now).await?,
                Step::Due => self.promote(now).await?,
            };
            done += taken;
            if taken > 0 {
                self.poke();
            }
            if !self.is_full(taken) {
                break;
            }
        }
        Ok(done)
    }

    async fn end_overdue(&self, now: Timestamp) -> Result<usize, Error> {
        transact!(self.parts.store, |tx| {
            let late = claims::any_tenant_overdue(&mut tx, now, self.limit()).await?;
            let count = late.len();
            for job in late {
                let job = self.settled(&mut tx, job, now).await?;
                if !job.state.is_final() {
                    let next = moves::overdue(&job, now);
                    self.moved(&mut tx, &job, &next, now).await?;
                }
            }
            Ok(count)
        })
    }

    /// Takes jobs from workers that were lost: each has failed an attempt.
    async fn rescue(&self, now: Timestamp) -> Result<usize, Error> {
        let failure = Failure {
            reason: moves::LEASE_LAPSED.to_owned(),
            message: "the worker was lost: its lease lapsed without a heartbeat".to_owned(),
            permanent: false,
            retry_delay: None,
        };
        let rescued = transact!(self.parts.store, |tx| {
            let lapsed = claims::any_tenant_lapsed(&mut tx, self.limit()).await?;
            let count = lapsed.len();
            for job in lapsed {
                let job = self.settled(&mut tx, job, now).await?;
                if !job.state.is_final() {
                    let next = moves::failed(&job, &failure, self.pause(&job), now);
                    self.moved(&mut tx, &job, &next, now).await?;
                }
            }
            Ok(count)
        })?;
        if rescued > 0 {
            self.parts.metrics.jobs_rescued(many(rescued));
            tracing::warn!(jobs = rescued, "took jobs from workers that were lost");
        }
        Ok(rescued)
    }

    /// Has jobs wait for a worker whose time has come.
    async fn promote(&self, now: Timestamp) -> Result<usize, Error> {
        let promoted = transact!(self.parts.store, |tx| {
            let due = claims::any_tenant_due(&mut tx, now, self.limit()).await?;
            let count = due.len();
            let mut groups: BTreeMap<(String, i32), Vec<String>> = BTreeMap::new();
            for job in due {
                let group = groups.entry((job.tenant, job.priority)).or_default();
                group.push(job.id);
            }
            for ((tenant, priority), ids) in &groups {
                let head = jobs::head_turn(&mut tx, tenant, *priority).await?;
                claims::promote(&mut tx, tenant, *priority, ids, head).await?;
                jobs::append_events(&mut tx, tenant, ids, now).await?;
            }
            Ok(count)
        })?;
        if promoted > 0 {
            let state = JobState::Pending.as_str();
            self.parts.metrics.job_moved(state, many(promoted));
        }
        Ok(promoted)
    }

    async fn finish_all(&self) -> Result<usize, Error> {
        let mut finished = 0;
        for _ in 0..STEPS {
            let page = {
                let mut conn = self.parts.store.read().await?;
                batches::any_tenant_finishable(&mut conn, self.limit()).await?
            };
            for (tenant, id) in &page {
                finished += usize::from(self.finish(tenant, id).await?);
            }
            if !self.is_full(page.len()) {
                break;
            }
        }
        Ok(finished)
    }

    /// Records that all jobs of a batch are finished, and tells of it, unless one is not.
    async fn finish(&self, tenant: &str, id: &str) -> Result<bool, Error> {
        let now = self.parts.clock.now();
        let finished = transact!(self.parts.store, |tx| {
            let finished = batches::finish(&mut tx, tenant, id, now).await?;
            if finished {
                let event = NewEvent {
                    batch_id: Some(id.to_owned()),
                    ..NewEvent::internal(EventKind::BatchFinished, tenant, id, now)
                };
                store::events::append(&mut tx, &event).await?;
            }
            Ok(finished)
        })?;
        if finished {
            self.poke();
        }
        Ok(finished)
    }

    fn limit(&self) -> i64 {
        i64::from(self.parts.config.batch)
    }

    fn is_full(&self, taken: usize) -> bool {
        i64::try_from(taken).is_ok_and(|taken| taken >= self.limit())
    }
}

fn many(jobs: usize) -> u64 {
    u64::try_from(jobs).unwrap_or(u64::MAX)
}
