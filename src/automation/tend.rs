//! What nobody asks for: jobs whose time has come, whose worker was lost, whose deadline is over, whose
//! authorisation has ended; batches that are finished. Replicas may tend at the same time: each takes
//! what the others have not locked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Automation, Failure, moves};
use crate::error::Error;
use crate::model::{EventKind, JobState, NewEvent, Timestamp};
use crate::store::automation::{batches, claims, jobs};
use crate::store::{self, transact};

/// The most steps of one kind in a turn: none holds up the others for long.
const STEPS: usize = 4;

/// The most turns of a round. What is left after them is the next round's.
const TURNS: usize = 50;

/// The most that is remembered of what was heard. What is forgotten is found by a scan.
const HEARD_MAX: usize = 10_000;

/// How long what is heard may gather: the last jobs of a batch often end together.
const GATHER: Duration = Duration::from_millis(20);

/// What a round does in steps, each of which takes a bounded number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Lapsed,
    Overdue,
    /// Jobs whose authorisation has ended.
    Settled,
    Due,
    /// Batches whose jobs are finished.
    Through,
}

impl Step {
    /// First what a lost worker holds up: it and the next see to the authorisations of their jobs.
    const ALL: [Self; 5] = [
        Self::Lapsed,
        Self::Overdue,
        Self::Settled,
        Self::Due,
        Self::Through,
    ];
}

/// What is known of a round as it goes on.
#[derive(Default)]
struct Round {
    /// The last authorisation that was looked after: one that can't be is passed over.
    after: String,
    /// The first error; further ones are logged.
    error: Option<Error>,
}

impl Round {
    /// What was done; `None` where it could not be.
    fn note<T>(&mut self, done: Result<T, Error>) -> Option<T> {
        match done {
            Ok(done) => return Some(done),
            Err(error) if self.error.is_none() => self.error = Some(error),
            Err(error) => crate::error::log(&error),
        }
        None
    }

    fn end(self) -> Result<(), Error> {
        self.error.map_or(Ok(()), Err)
    }
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

    /// Looks after everything, until the server stops. All kinds of steps have another turn while one was
    /// full to the last; one that failed has none until the next round.
    ///
    /// # Errors
    /// The store's first; all else was looked after all the same.
    pub async fn tend(&self) -> Result<(), Error> {
        let mut round = Round::default();
        let mut failed = Vec::new();
        for _ in 0..TURNS {
            let mut again = false;
            for step in Step::ALL {
                if failed.contains(&step) {
                    continue;
                }
                let done = self.repeat(step, &mut round).await;
                match round.note(done) {
                    Some(full) => again |= full,
                    None => failed.push(step),
                }
            }
            if !again {
                break;
            }
        }
        round.end()
    }

    /// Looks after what was heard of since the last time.
    ///
    /// # Errors
    /// The store's first; the next [`Self::tend`] finds what was left.
    pub async fn tend_heard(&self) -> Result<(), Error> {
        let seen = self.heard.take();
        let mut round = Round::default();
        for id in &seen.authorizations {
            round.note(self.settle(id).await);
        }
        for (tenant, id) in &seen.batches {
            round.note(self.finish(tenant, id).await);
        }
        round.end()
    }

    /// Repeats a step while it takes all it may; whether it did so to the last.
    async fn repeat(&self, step: Step, round: &mut Round) -> Result<bool, Error> {
        for _ in 0..STEPS {
            if self.stops() {
                return Ok(false);
            }
            let now = self.parts.clock.now();
            let taken = match step {
                Step::Lapsed => self.rescue(now).await?,
                Step::Overdue => self.end_overdue(now).await?,
                Step::Settled => self.settle_some(round).await?,
                Step::Due => self.promote(now).await?,
                Step::Through => self.finish_some(round).await?,
            };
            if taken > 0 {
                self.poke();
            }
            if !self.is_full(taken) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the server stops: what is left is another's, or is found at the next start.
    fn stops(&self) -> bool {
        self.parts.stopping.is_cancelled()
    }

    /// Ends jobs whose authorisations have ended; how many there were.
    async fn settle_some(&self, round: &mut Round) -> Result<usize, Error> {
        let page = {
            let mut conn = self.parts.store.read().await?;
            jobs::any_tenant_settled(&mut conn, &round.after, self.batch_size()).await?
        };
        for authorization_id in &page {
            if self.stops() {
                break;
            }
            round.note(self.settle(authorization_id).await);
        }
        if let Some(last) = page.last() {
            round.after.clone_from(last);
        }
        Ok(page.len())
    }

    /// Ends the job of this authorisation as that ended, if there is one to end.
    async fn settle(&self, authorization_id: &str) -> Result<(), Error> {
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
        Ok(())
    }

    async fn end_overdue(&self, now: Timestamp) -> Result<usize, Error> {
        transact!(self.parts.store, |tx| {
            let late = claims::any_tenant_overdue(&mut tx, now, self.batch_size()).await?;
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
        transact!(self.parts.store, |tx| {
            let lapsed = claims::any_tenant_lapsed(&mut tx, self.batch_size()).await?;
            let count = lapsed.len();
            let mut rescued = 0;
            for job in lapsed {
                let job = self.settled(&mut tx, job, now).await?;
                if !job.state.is_final() {
                    let next = moves::failed(&job, &failure, self.pause(&job), now);
                    self.moved(&mut tx, &job, &next, now).await?;
                    rescued += 1;
                }
            }
            if rescued > 0 {
                let metrics = Arc::clone(&self.parts.metrics);
                tx.on_commit(move || {
                    metrics.jobs_rescued(rescued);
                    tracing::warn!(jobs = rescued, "took jobs from workers that were lost");
                });
            }
            Ok(count)
        })
    }

    /// Has jobs wait for a worker whose time has come.
    async fn promote(&self, now: Timestamp) -> Result<usize, Error> {
        transact!(self.parts.store, |tx| {
            let due = claims::any_tenant_due(&mut tx, now, self.batch_size()).await?;
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
            self.count(&mut tx, JobState::Pending, count);
            Ok(count)
        })
    }

    /// Records that batches are finished; how many there were, and none where none of them could be: the
    /// same would come again.
    async fn finish_some(&self, round: &mut Round) -> Result<usize, Error> {
        let page = {
            let mut conn = self.parts.store.read().await?;
            batches::any_tenant_finishable(&mut conn, self.batch_size()).await?
        };
        let mut any = false;
        for (tenant, id) in &page {
            if self.stops() {
                break;
            }
            any |= round.note(self.finish(tenant, id).await).is_some();
        }
        Ok(if any { page.len() } else { 0 })
    }

    /// Records that all jobs of a batch are finished, and tells of it, unless one is not.
    async fn finish(&self, tenant: &str, id: &str) -> Result<(), Error> {
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
        Ok(())
    }

    fn batch_size(&self) -> i64 {
        i64::from(self.parts.config.batch)
    }

    fn is_full(&self, taken: usize) -> bool {
        i64::try_from(taken).is_ok_and(|taken| taken >= self.batch_size())
    }
}
