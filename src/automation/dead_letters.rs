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
    /// Only this batch's.
    pub batch_id: Option<String>,
    /// Only these.
    pub ids: Vec<String>,
    /// Only those of this kind.
    pub kind: Option<String>,
    /// Only those that failed for this reason.
    pub reason: Option<String>,
}

impl DeadFilter {
    /// The failed jobs of a batch.
    pub fn of_batch(id: &str) -> Self {
        Self {
            batch_id: Some(id.to_owned()),
            ..Self::default()
        }
    }

    fn query<'a>(&'a self, authorized: bool, after: &'a str) -> DeadQuery<'a> {
        DeadQuery {
            batch_id: self.batch_id.as_deref(),
            ids: &self.ids,
            kind: self.kind.as_deref(),
            reason: self.reason.as_deref(),
            authorized,
            after,
            limit: CHUNK,
        }
    }

    /// What is recorded of an action on `count` of them.
    fn entry(&self, action: Action, caller: &Caller, count: i64) -> Entry {
        let mut entry = Entry::new(action, caller).detail("jobs", count);
        if let Some(batch_id) = &self.batch_id {
            entry = entry.on("batch", batch_id);
        }
        if let Some(kind) = &self.kind {
            entry = entry.detail("kind", kind);
        }
        if let Some(reason) = &self.reason {
            entry = entry.detail("failure_reason", reason);
        }
        entry
    }
}

impl Automation {
    /// One page of the dead letters behind the id `after` that had an authorisation: their ids, oldest
    /// first; none behind the last.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn dead_authorized(
        &self,
        caller: &Caller,
        filter: &DeadFilter,
        after: &str,
    ) -> Result<Vec<String>, Error> {
        permit(caller, Permission::WriteJobs)?;
        let query = filter.query(true, after);
        let page = self.dead(&caller.tenant, &query).await?;
        Ok(page.into_iter().map(|(id, _)| id).collect())
    }

    /// Begins dead letters again, in steps, behind the `begun` that were already; how many that were,
    /// with those. Those whose unique key another job has by now, whose profile is gone, or whose
    /// authorisation has ended stay as they are.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn redrive(
        &self,
        caller: &Caller,
        filter: &DeadFilter,
        begun: i64,
    ) -> Result<i64, Error> {
        permit(caller, Permission::WriteJobs)?;
        let now = self.parts.clock.now();
        let tenant = &caller.tenant;
        let reason = filter.reason.as_deref();
        let action = match filter.batch_id {
            Some(_) => Action::BatchRetried,
            None => Action::DeadLettersRedriven,
        };
        let mut after = String::new();
        let mut redriven = begun;
        loop {
            let page = self.dead(tenant, &filter.query(false, &after)).await?;
            let Some((last, _)) = page.last() else {
                return Ok(redriven);
            };
            after.clone_from(last);
            let (ids, of): (Vec<String>, Vec<Option<String>>) = page.into_iter().unzip();
            let of = BTreeSet::from_iter(of.into_iter().flatten());
            redriven += transact!(self.parts.store, |tx| {
                // A batch is locked before its jobs, as everybody does.
                for batch_id in &of {
                    batches::lock(&mut tx, tenant, batch_id).await?;
                }
                let mut turns = Turns::behind(redriven);
                let dead = jobs::lock_dead(&mut tx, tenant, &ids, reason).await?;
                let begun = self.begin_again(&mut tx, &dead, &mut turns, now).await?;
                if begun > 0 {
                    let entry = filter.entry(action, caller, begun);
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
        let reason = filter.reason.as_deref();
        let mut after = String::new();
        let mut purged = 0;
        loop {
            let page = self.dead(tenant, &filter.query(false, &after)).await?;
            let Some((last, _)) = page.last() else {
                return Ok(purged);
            };
            after.clone_from(last);
            let single = page.into_iter().filter(|(_, batch_id)| batch_id.is_none());
            let ids: Vec<String> = single.map(|(id, _)| id).collect();
            if ids.is_empty() {
                continue;
            }
            purged += transact!(self.parts.store, |tx| {
                let deleted = jobs::purge(&mut tx, tenant, &ids, reason).await?;
                if deleted > 0 {
                    let entry = filter.entry(Action::DeadLettersPurged, caller, deleted);
                    audit::record(&mut tx, &entry, now).await?;
                }
                Ok(deleted)
            })?;
        }
    }

    /// One page of dead letters, each with its batch.
    async fn dead(
        &self,
        tenant: &str,
        query: &DeadQuery<'_>,
    ) -> Result<Vec<(String, Option<String>)>, Error> {
        let mut conn = self.parts.store.read().await?;
        Ok(jobs::dead(&mut conn, tenant, query).await?)
    }
}
