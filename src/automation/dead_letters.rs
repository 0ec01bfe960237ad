//! Dead letters: jobs that failed for good.

use std::collections::BTreeSet;

use super::retry::Turns;
use super::{Automation, permit};
use crate::access::audit::{self, Action, Entry};
use crate::access::{Caller, Permission};
use crate::error::Error;
use crate::store::automation::jobs::DeadQuery;
use crate::store::automation::{batches, jobs};
use crate::store::transact;

/// Jobs taken in one transaction.
const CHUNK: i64 = 500;

/// Which dead letters; what is empty matches all.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// Only these.
    pub ids: Vec<String>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that failed for this reason.
    pub reason: Option<String>,
}

impl DeadFilter {
    fn query<'a>(&'a self, after: &'a str) -> DeadQuery<'a> {
        DeadQuery {
            ids: &self.ids,
            kind: self.kind.as_deref(),
            reason: self.reason.as_deref(),
            after,
            limit: CHUNK,
        }
    }

    /// What is recorded of an action on `count` of them.
    fn entry(&self, action: Action, caller: &Caller, count: i64) -> Entry {
        let entry = Entry::new(action, caller).detail("jobs", count);
        let entry = match &self.kind {
            Some(kind) => entry.detail("kind", kind),
            None => entry,
        };
        match &self.reason {
            Some(reason) => entry.detail("failure_reason", reason),
            None => entry,
        }
    }
}

impl Automation {
    /// Begins dead letters again, in steps; how many that were. Those whose unique key another job has by
    /// now, and those whose authorisation has ended, stay as they are.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn redrive(&self, caller: &Caller, filter: &DeadFilter) -> Result<i64, Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        let mut after = String::new();
        let mut redriven = 0;
        loop {
            // Which they are first: a batch is locked before its jobs, as everybody does.
            let page = transact!(self.parts.store, |tx| {
                Ok(jobs::dead(&mut tx, tenant, &filter.query(&after)).await?)
            })?;
            let Some(last) = page.last() else {
                return Ok(redriven);
            };
            after.clone_from(&last.id);
            let ids: Vec<String> = page.iter().map(|job| job.id.clone()).collect();
            let of = BTreeSet::from_iter(page.into_iter().filter_map(|job| job.batch_id));
            redriven += transact!(self.parts.store, |tx| {
                let mut turns = Turns::behind(redriven);
                for batch_id in &of {
                    batches::lock(&mut tx, tenant, batch_id).await?;
                }
                let these = DeadQuery {
                    ids: &ids,
                    ..filter.query("")
                };
                let dead = jobs::dead(&mut tx, tenant, &these).await?;
                let begun = self.begin_again(&mut tx, &dead, &mut turns, now).await?;
                if begun > 0 {
                    let entry = filter.entry(Action::DeadLettersRedriven, caller, begun);
                    audit::record(&mut tx, &entry, now).await?;
                }
                Ok(begun)
            })?;
            self.poke();
        }
    }

    /// Deletes dead letters that are of no batch, in steps; how many that were.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn purge(&self, caller: &Caller, filter: &DeadFilter) -> Result<i64, Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        let mut after = String::new();
        let mut purged = 0;
        loop {
            let (last, deleted) = transact!(self.parts.store, |tx| {
                let dead = jobs::dead(&mut tx, tenant, &filter.query(&after)).await?;
                let single = dead.iter().filter(|job| job.batch_id.is_none());
                let ids: Vec<String> = single.map(|job| job.id.clone()).collect();
                let deleted = if ids.is_empty() {
                    0
                } else {
                    jobs::purge(&mut tx, tenant, &ids).await?
                };
                if deleted > 0 {
                    let entry = filter.entry(Action::DeadLettersPurged, caller, deleted);
                    audit::record(&mut tx, &entry, now).await?;
                }
                Ok((dead.last().map(|job| job.id.clone()), deleted))
            })?;
            purged += deleted;
            match last {
                Some(last) => after = last,
                None => return Ok(purged),
            }
        }
    }
}
