//! Jobs. Every move of one is a conditional update of a row that its transaction has locked.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::job_row::{JobChange, JobRow, jobs_of};
use super::{FAILED, Literal, PENDING, busy_if_taken};
use crate::model::{Job, JobState, Timestamp};
use crate::store::Error;
use crate::store::authorizations::FINISHED;
use crate::store::columns::{Json, UtcTimestamp};
use crate::store::events::{count as count_events, end as events_end};
use crate::store::locks::{delete_before, lock};
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::{authorizations, automation_jobs as jobs, events};
use crate::store::statement::{Prepare as _, one_of, unindexed};

/// Jobs inserted by one statement: PostgreSQL binds at most 65,535 values.
const CHUNK: usize = 1_000;

/// Holds its unique key, as the index on it has it.
const HOLDS_KEY: Literal = Literal(
    "(finished_at IS NULL OR (unique_states & CASE state \
     WHEN 'completed' THEN 1 WHEN 'failed' THEN 2 ELSE 4 END) <> 0)",
);

/// Finished, and not a dead letter.
const NOT_FAILED: Literal = Literal("state <> 'failed'");

/// Inserts; `false` when its unique key is taken.
pub async fn insert(tx: &mut Tx, job: &Job) -> Result<bool, Error> {
    let row = JobRow::from(job);
    let inserted = on!(tx, |c| diesel::insert_into(jobs::table)
        .values(&row)
        .on_conflict_do_nothing()
        .prepared()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// Inserts those whose unique key is free; how many that were.
pub async fn insert_many(tx: &mut Tx, all: &[Job]) -> Result<i64, Error> {
    let mut inserted = 0;
    for chunk in all.chunks(CHUNK) {
        let rows: Vec<JobRow> = chunk.iter().map(JobRow::from).collect();
        inserted += match tx.as_conn() {
            // One by one, which is what the engine is good at; but in one go, since each way to its
            // thread and back takes longer than the insert.
            Conn::Sqlite(pooled) => {
                pooled
                    .spawn_blocking(move |inner| {
                        let mut inserted = 0;
                        for row in &rows {
                            let one = diesel::insert_into(jobs::table)
                                .values(row)
                                .on_conflict_do_nothing()
                                .prepared();
                            inserted += diesel::RunQueryDsl::execute(one, &mut *inner)?;
                        }
                        Ok(inserted)
                    })
                    .await?
            }
            Conn::Postgres(pooled) => {
                diesel::insert_into(jobs::table)
                    .values(&rows)
                    .on_conflict_do_nothing()
                    .execute(&mut **pooled)
                    .await?
            }
        };
    }
    i64::try_from(inserted).map_err(Error::unreadable)
}

/// The job.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<Job>, Error> {
    let row = on!(conn, |c| {
        let query = jobs::table
            .find(id)
            .filter(jobs::tenant.eq(tenant))
            .select(JobRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Job::try_from).transpose()
}

/// The same, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<Job>, Error> {
    let rows: Vec<JobRow> = lock!(
        tx,
        jobs::table
            .find(id)
            .filter(jobs::tenant.eq(tenant))
            .select(JobRow::as_select())
    )?;
    rows.into_iter().next().map(Job::try_from).transpose()
}

/// Writes what changes of a job if its stored state and lease token are those given; `false` when that
/// is not so. One that comes to life again while another takes its unique key is busy.
pub async fn update(tx: &mut Tx, job: &Job, was: (JobState, i64)) -> Result<bool, Error> {
    let (state, lease_token) = was;
    let change = JobChange::from(job);
    let target = jobs::table
        .find(&job.id)
        .filter(jobs::tenant.eq(&job.tenant))
        .filter(unindexed(jobs::state).eq(state.as_str()))
        .filter(jobs::lease_token.eq(lease_token));
    let updated = on!(tx, |c| diesel::update(target)
        .set(&change)
        .prepared()
        .execute(c)
        .await)
    .map_err(busy_if_taken)?;
    Ok(updated == 1)
}

/// Which jobs to list.
#[derive(Clone, Copy, Debug)]
pub struct JobQuery<'a> {
    /// Only this batch's.
    pub batch_id: Option<&'a str>,
    /// Only those in these states; all when empty.
    pub states: &'a [JobState],
    /// Only those of this kind.
    pub kind: Option<&'a str>,
    /// Only those whose last attempt failed for this reason.
    pub reason: Option<&'a str>,
    /// Only the one of this authorisation.
    pub authorization_id: Option<&'a str>,
    /// Behind this id; empty for the first page.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

/// One page by id.
pub async fn list(conn: &mut Conn, tenant: &str, asked: &JobQuery<'_>) -> Result<Vec<Job>, Error> {
    let states: Vec<&str> = asked.states.iter().map(|state| state.as_str()).collect();
    let rows: Vec<JobRow> = on!(conn, |c| {
        let mut query = jobs::table
            .filter(jobs::tenant.eq(tenant))
            .filter(jobs::id.gt(asked.after))
            .order(jobs::id)
            .limit(asked.limit)
            .select(JobRow::as_select())
            .into_boxed();
        if let Some(batch_id) = asked.batch_id {
            query = query.filter(jobs::batch_id.eq(batch_id));
        }
        match asked.states {
            [] => {}
            [JobState::Failed] => query = query.filter(FAILED),
            _ => query = query.filter(jobs::state.eq_any(&states)),
        }
        // Or all that ever finished would be walked.
        if !states.is_empty() && !asked.states.iter().any(|state| state.is_final()) {
            query = query.filter(jobs::finished_at.is_null());
        }
        if let Some(kind) = asked.kind {
            query = query.filter(jobs::kind.eq(kind));
        }
        if let Some(reason) = asked.reason {
            query = query.filter(jobs::failure_reason.eq(reason));
        }
        if let Some(id) = asked.authorization_id {
            query = query.filter(jobs::authorization_id.eq(id));
        }
        query.load(c).await
    })?;
    jobs_of(rows)
}

/// The job that holds a unique key.
pub async fn holder(conn: &mut Conn, tenant: &str, key: &str) -> Result<Option<String>, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(jobs::unique_key.eq(key))
        .filter(HOLDS_KEY)
        .select(jobs::id);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}

/// The turn of the first job of a priority that waits for a worker; 0 where none does.
pub async fn head_turn(conn: &mut Conn, tenant: &str, priority: i32) -> Result<i64, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(jobs::priority.eq(priority))
        .filter(PENDING)
        .order(jobs::turn)
        .select(jobs::turn);
    let first: Option<i64> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(first.unwrap_or(0))
}

/// Whether an account has a job that is not finished.
pub async fn has_open_of_account(
    conn: &mut Conn,
    tenant: &str,
    account_id: &str,
) -> Result<bool, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(jobs::account_id.eq(account_id))
        .filter(jobs::finished_at.is_null())
        .select(jobs::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// Whether a browser profile has a job that is not finished.
pub async fn has_open_of_profile(
    conn: &mut Conn,
    tenant: &str,
    profile_id: &str,
) -> Result<bool, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(jobs::profile_id.eq(profile_id))
        .filter(jobs::finished_at.is_null())
        .select(jobs::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// A [`crate::model::JobDetail`], for either engine's function that makes an object.
macro_rules! detail_fields {
    () => {
        "'worker', worker, 'step', progress->>'step', 'percent', progress->'percent', \
         'message', progress->>'message', 'captcha', progress->>'captcha'"
    };
}

/// Appends the events of jobs that a condition finds, as they now stand, by one statement.
macro_rules! append_events {
    ($tx:expr, $now:expr, $of:expr) => {{
        let detail = match $tx.as_conn() {
            Conn::Sqlite(_) => concat!("json_object(", detail_fields!(), ")"),
            Conn::Postgres(_) => concat!("jsonb_build_object(", detail_fields!(), ")"),
        };
        let end = events_end($tx).await?;
        let position = sql::<Nullable<BigInt>>("")
            .bind::<Nullable<BigInt>, _>(end)
            .sql(" + row_number() OVER (ORDER BY automation_jobs.id)");
        let told = jobs::table.filter($of).order(jobs::id).select((
            position,
            jobs::tenant,
            sql::<Text>("'job_' || state"),
            jobs::id,
            jobs::app_id,
            sql::<Text>("''"),
            jobs::provider,
            sql::<BigInt>("attempt"),
            sql::<Text>("''"),
            jobs::id.nullable(),
            jobs::batch_id,
            sql::<Nullable<Json>>(detail),
            $now.into_sql::<UtcTimestamp>(),
        ));
        let columns = (
            events::position,
            events::tenant,
            events::kind,
            events::subject,
            events::app_id,
            events::owner,
            events::provider,
            events::generation,
            events::reason,
            events::job_id,
            events::batch_id,
            events::detail,
            events::created_at,
        );
        let written = on!($tx, |c| diesel::insert_into(events::table)
            .values(told)
            .into_columns(columns)
            .prepared()
            .execute(c)
            .await)?;
        count_events($tx, end, written).await
    }};
}

/// Appends an event for each of these jobs as they now stand. The transaction has locked or made them.
pub async fn append_events(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
    now: Timestamp,
) -> Result<(), Error> {
    let these = unindexed(jobs::tenant)
        .eq(tenant)
        .and(one_of(jobs::id, ids));
    append_events!(tx, now, these)
}

/// The same for all jobs of a batch.
pub async fn append_events_of_batch(
    tx: &mut Tx,
    tenant: &str,
    batch_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let of_batch = jobs::tenant.eq(tenant).and(jobs::batch_id.eq(batch_id));
    append_events!(tx, now, of_batch)
}

/// Jobs of a batch that are not finished, behind the id `after`, in the order of their ids, locked until
/// the transaction ends.
pub async fn open_of_batch(
    tx: &mut Tx,
    tenant: &str,
    batch_id: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let rows: Vec<JobRow> = lock!(
        tx,
        jobs::table
            .filter(jobs::tenant.eq(tenant))
            .filter(jobs::batch_id.eq(batch_id))
            .filter(jobs::finished_at.is_null())
            .filter(jobs::id.gt(after))
            .order(jobs::id)
            .limit(limit)
            .select(JobRow::as_select())
    )?;
    jobs_of(rows)
}

/// Which dead letters are meant.
#[derive(Clone, Copy, Debug)]
pub struct DeadQuery<'a> {
    /// Only this batch's.
    pub batch_id: Option<&'a str>,
    /// Only these; all when empty.
    pub ids: &'a [String],
    /// Only those of this kind.
    pub kind: Option<&'a str>,
    /// Only those that failed for this reason.
    pub reason: Option<&'a str>,
    /// Only those that had an authorisation.
    pub authorized: bool,
    /// Behind this id; empty for the first page.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

/// One page of dead letters by id, each with its batch.
pub async fn dead(
    conn: &mut Conn,
    tenant: &str,
    asked: &DeadQuery<'_>,
) -> Result<Vec<(String, Option<String>)>, Error> {
    let page: Vec<(String, Option<String>)> = on!(conn, |c| {
        let mut query = jobs::table
            .filter(jobs::tenant.eq(tenant))
            .filter(FAILED)
            .filter(jobs::id.gt(asked.after))
            .order(jobs::id)
            .limit(asked.limit)
            .select((jobs::id, jobs::batch_id))
            .into_boxed();
        if let Some(batch_id) = asked.batch_id {
            query = query.filter(jobs::batch_id.eq(batch_id));
        }
        if !asked.ids.is_empty() {
            query = query.filter(one_of(jobs::id, asked.ids));
        }
        if let Some(kind) = asked.kind {
            query = query.filter(jobs::kind.eq(kind));
        }
        if let Some(reason) = asked.reason {
            query = query.filter(jobs::failure_reason.eq(reason));
        }
        if asked.authorized {
            query = query.filter(jobs::authorization_id.is_not_null());
        }
        query.load(c).await
    })?;
    Ok(page)
}

/// Those of these jobs that are dead letters still, for this reason where one is given, in the order of
/// their ids, locked until the transaction ends.
pub async fn lock_dead(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
    reason: Option<&str>,
) -> Result<Vec<Job>, Error> {
    // Not built up in a box: what is in one can't be locked.
    let any_reason = reason.is_none().into_sql::<Bool>();
    let reason = reason.unwrap_or_default();
    let rows: Vec<JobRow> = lock!(
        tx,
        jobs::table
            .filter(unindexed(jobs::tenant).eq(tenant))
            .filter(unindexed(jobs::state).eq(JobState::Failed.as_str()))
            .filter(one_of(jobs::id, ids))
            .filter(any_reason.or(jobs::failure_reason.eq(reason)))
            .order(jobs::id)
            .select(JobRow::as_select())
    )?;
    jobs_of(rows)
}

/// Deletes those of these jobs that are dead letters still, for this reason where one is given; how many.
/// One of a batch stays: the batch counts it.
pub async fn purge(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
    reason: Option<&str>,
) -> Result<i64, Error> {
    let any_reason = reason.is_none().into_sql::<Bool>();
    let reason = reason.unwrap_or_default();
    let target = jobs::table
        .filter(unindexed(jobs::tenant).eq(tenant))
        .filter(one_of(jobs::id, ids))
        .filter(jobs::batch_id.is_null())
        .filter(unindexed(jobs::state).eq(JobState::Failed.as_str()))
        .filter(any_reason.or(jobs::failure_reason.eq(reason)));
    let deleted = on!(tx, |c| diesel::delete(target).execute(c).await)?;
    i64::try_from(deleted).map_err(Error::unreadable)
}

/// The job that is not finished and whose end is this authorisation's, locked until the transaction ends.
pub async fn any_tenant_of_authorization(
    tx: &mut Tx,
    authorization_id: &str,
) -> Result<Option<Job>, Error> {
    let rows: Vec<JobRow> = lock!(
        tx,
        jobs::table
            .filter(jobs::authorization_id.eq(authorization_id))
            .filter(jobs::finished_at.is_null())
            .limit(1)
            .select(JobRow::as_select())
    )?;
    rows.into_iter().next().map(Job::try_from).transpose()
}

/// Authorisations that have ended, or are gone (the app was deleted, the owner erased), and whose jobs are
/// not finished: their ids behind `after`, in order.
pub async fn any_tenant_settled(
    conn: &mut Conn,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, Error> {
    let its_own = jobs::authorization_id.eq(authorizations::id.nullable());
    let ended = authorizations::id
        .is_null()
        .or(authorizations::state.eq_any(FINISHED));
    let query = jobs::table
        .left_join(authorizations::table.on(its_own))
        .filter(jobs::authorization_id.is_not_null())
        .filter(jobs::finished_at.is_null())
        .filter(ended)
        .filter(jobs::authorization_id.gt(after))
        .order(jobs::authorization_id)
        .limit(limit)
        .select(jobs::authorization_id.assume_not_null());
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Deletes jobs without a batch that were completed or cancelled before a time, up to `limit`.
pub async fn any_tenant_delete_finished(
    tx: &mut Tx,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let gone = jobs::batch_id.is_null().and(NOT_FAILED);
    delete_before!(tx, jobs, id as String, finished_at, before, limit, and gone)
}

/// Deletes jobs without a batch that failed before a time, up to `limit`.
pub async fn any_tenant_delete_dead(
    tx: &mut Tx,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let gone = jobs::batch_id.is_null().and(FAILED);
    delete_before!(tx, jobs, id as String, finished_at, before, limit, and gone)
}
