//! Batches: many jobs asked for at once. How they stand is counted when asked, never kept.

use std::collections::BTreeMap;

use diesel::dsl::count_star;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{FAILED, Literal};
use crate::model::{Batch, JobCounts, JobState, Timestamp};
use crate::store::locks::{lock, lock_unlocked};
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::{automation_batches as batches, automation_jobs as jobs};
use crate::store::statement::{one_of, unindexed};
use crate::store::{Error, unreadable_if_none};

/// All its jobs are finished.
const IS_THROUGH: Literal = Literal(
    "NOT EXISTS (SELECT 1 FROM automation_jobs WHERE automation_jobs.tenant = automation_batches.tenant \
     AND automation_jobs.batch_id = automation_batches.id AND automation_jobs.finished_at IS NULL)",
);

/// One of its jobs is a dead letter.
const HAS_FAILED: Literal = Literal(
    "EXISTS (SELECT 1 FROM automation_jobs WHERE automation_jobs.tenant = automation_batches.tenant \
     AND automation_jobs.batch_id = automation_batches.id AND automation_jobs.state = 'failed')",
);

/// None of them is.
const HAS_NOT_FAILED: Literal = Literal(
    "NOT EXISTS (SELECT 1 FROM automation_jobs WHERE automation_jobs.tenant = automation_batches.tenant \
     AND automation_jobs.batch_id = automation_batches.id AND automation_jobs.state = 'failed')",
);

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = batches)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct BatchRow {
    tenant: String,
    id: String,
    display_name: String,
    created_by: String,
    fingerprint: Vec<u8>,
    skipped: i64,
    created_at: Timestamp,
    cancelled_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl From<&Batch> for BatchRow {
    fn from(batch: &Batch) -> Self {
        let batch = batch.clone();
        Self {
            tenant: batch.tenant,
            id: batch.id,
            display_name: batch.display_name,
            created_by: batch.created_by,
            fingerprint: batch.fingerprint,
            skipped: batch.skipped,
            created_at: batch.created_at,
            cancelled_at: batch.cancelled_at,
            finished_at: batch.finished_at,
        }
    }
}

impl From<BatchRow> for Batch {
    fn from(row: BatchRow) -> Self {
        Self {
            tenant: row.tenant,
            id: row.id,
            display_name: row.display_name,
            created_by: row.created_by,
            fingerprint: row.fingerprint,
            skipped: row.skipped,
            created_at: row.created_at,
            cancelled_at: row.cancelled_at,
            finished_at: row.finished_at,
        }
    }
}

/// Inserts; `false` when the tenant has a batch of this id.
pub async fn insert(tx: &mut Tx, batch: &Batch) -> Result<bool, Error> {
    let row = BatchRow::from(batch);
    let inserted = on!(tx, |c| diesel::insert_into(batches::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// The batch.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<Batch>, Error> {
    let row = on!(conn, |c| {
        let query = batches::table
            .find((tenant, id))
            .select(BatchRow::as_select());
        query.first(c).await.optional()
    })?;
    Ok(row.map(Batch::from))
}

/// The same, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<Batch>, Error> {
    let rows: Vec<BatchRow> = lock!(
        tx,
        batches::table
            .find((tenant, id))
            .select(BatchRow::as_select())
    )?;
    Ok(rows.into_iter().next().map(Batch::from))
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<Batch>, Error> {
    let rows: Vec<BatchRow> = on!(conn, |c| {
        let query = batches::table
            .filter(batches::tenant.eq(tenant))
            .filter(batches::id.gt(after))
            .order(batches::id)
            .limit(limit)
            .select(BatchRow::as_select());
        query.load(c).await
    })?;
    Ok(rows.into_iter().map(Batch::from).collect())
}

/// How the jobs of batches stand. One that has none is not among the answers.
pub async fn counts(
    conn: &mut Conn,
    tenant: &str,
    ids: &[String],
) -> Result<BTreeMap<String, JobCounts>, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(one_of(jobs::batch_id, ids))
        .group_by((jobs::batch_id, jobs::state))
        .select((jobs::batch_id, jobs::state, count_star()));
    let rows: Vec<(Option<String>, String, i64)> = on!(conn, |c| query.load(c).await)?;
    let mut counts: BTreeMap<String, JobCounts> = BTreeMap::new();
    for (batch_id, state, count) in rows {
        let state = unreadable_if_none(JobState::parse(&state), "automation_jobs.state")?;
        let of_batch = counts.entry(batch_id.unwrap_or_default()).or_default();
        of_batch.insert(state, count);
    }
    Ok(counts)
}

/// Records that a batch was called off; the first time stays.
pub async fn cancel(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<(), Error> {
    let target = batches::table
        .find((tenant, id))
        .filter(batches::cancelled_at.is_null());
    let cancelled = batches::cancelled_at.eq(Some(now));
    on!(tx, |c| diesel::update(target)
        .set(cancelled)
        .execute(c)
        .await)?;
    Ok(())
}

/// Records that one of its jobs is begun again. The transaction has locked it, before that job.
pub async fn reopen(tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
    let target = batches::table.find((tenant, id));
    let reopened = batches::finished_at.eq(None::<Timestamp>);
    on!(tx, |c| diesel::update(target)
        .set(reopened)
        .execute(c)
        .await)?;
    Ok(())
}

/// Records how many jobs were left out.
pub async fn set_skipped(tx: &mut Tx, tenant: &str, id: &str, skipped: i64) -> Result<(), Error> {
    let target = batches::table.find((tenant, id));
    let counted = batches::skipped.eq(skipped);
    on!(tx, |c| diesel::update(target).set(counted).execute(c).await)?;
    Ok(())
}

/// Batches, by tenant and id, whose jobs all are finished, and of which that is not yet recorded.
pub async fn any_tenant_finishable(
    conn: &mut Conn,
    limit: i64,
) -> Result<Vec<(String, String)>, Error> {
    let query = batches::table
        .filter(batches::finished_at.is_null())
        .filter(IS_THROUGH)
        .order(batches::created_at)
        .limit(limit)
        .select((batches::tenant, batches::id));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Records that all jobs of a batch are finished; `false` when they are not, or when that is recorded.
pub async fn finish(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<bool, Error> {
    // First, by a statement of its own: the next sees the job that somebody who held the lock has begun
    // again.
    if lock(tx, tenant, id).await?.is_none() {
        return Ok(false);
    }
    let target = batches::table
        .find((tenant, id))
        .filter(batches::finished_at.is_null())
        .filter(IS_THROUGH);
    let finished = batches::finished_at.eq(Some(now));
    Ok(on!(tx, |c| diesel::update(target)
        .set(finished)
        .execute(c)
        .await)?
        == 1)
}

/// Deletes batches that were finished before a time, or, with dead letters, before `dead_before`, and
/// their jobs; up to `limit` rows, which it counts. A large batch takes several calls: dead letters go
/// last, since by them the time is told.
pub async fn any_tenant_delete_old(
    tx: &mut Tx,
    before: Timestamp,
    dead_before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    // With a failed job in it, for the longer of the two times.
    let dead_before = dead_before.min(before);
    let clean = batches::finished_at.lt(before).and(HAS_NOT_FAILED);
    let dead = batches::finished_at.lt(dead_before).and(HAS_FAILED);
    let query = batches::table
        .filter(batches::finished_at.lt(before))
        .filter(clean.or(dead))
        .order(batches::finished_at)
        .limit(limit)
        .select((batches::tenant, batches::id));
    let old: Vec<(String, String)> = lock_unlocked!(tx, query)?;
    let most = usize::try_from(limit).unwrap_or(0);
    let mut deleted = 0;
    for (tenant, id) in &old {
        let left = most.saturating_sub(deleted);
        let gone = delete_jobs(tx, tenant, id, left).await?;
        deleted += gone;
        if gone == left {
            break;
        }
        let target = batches::table.find((tenant, id));
        deleted += on!(tx, |c| diesel::delete(target).execute(c).await)?;
    }
    Ok(deleted)
}

/// Deletes jobs of a batch, dead letters last.
async fn delete_jobs(
    tx: &mut Tx,
    tenant: &str,
    batch_id: &str,
    limit: usize,
) -> Result<usize, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(jobs::batch_id.eq(batch_id))
        .order((FAILED, jobs::id))
        .limit(i64::try_from(limit).unwrap_or(i64::MAX))
        .select(jobs::id);
    let ids: Vec<String> = on!(tx, |c| query.load(c).await)?;
    let target = jobs::table
        .filter(unindexed(jobs::tenant).eq(tenant))
        .filter(one_of(jobs::id, &ids));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)?)
}
