//! Who works on what: claims, leases, and what becomes of jobs as time goes by. Leases are set and judged
//! by the database's clock, all else by the one that is given.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use diesel::backend::Backend;
use diesel::dsl::{case_when, count_star};
use diesel::expression::{ValidGrouping, is_aggregate};
use diesel::prelude::*;
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::serialize::ToSql;
use diesel::sql_types::{BigInt, Bool, Text};
use diesel_async::RunQueryDsl;

use super::job_row::{JobRow, jobs_of};
use super::{Literal, PENDING, RUNNING, WAITING, busy_if_taken};
use crate::model::{ExecutionMode, Job, JobState, Timestamp};
use crate::store::Error;
use crate::store::columns::DbNow;
use crate::store::locks::lock_unlocked;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::{automation_jobs as jobs, automation_profiles as profiles};
use crate::store::statement::{Prepare as _, none_of, one_of, under, unindexed};

/// Nobody works on it, whether its time has come or not.
const NOT_RUNNING: Literal = Literal("state <> 'running'");

const SCHEDULED: Literal = Literal("state = 'scheduled'");

/// Its browser profile is there, and no job of it is running. A job whose profile went is passed over, or
/// a few of them would hold up all others. Not by EXISTS, of which PostgreSQL may make a look through all
/// profiles and all running jobs; of each there is one at most.
const PROFILE_IS_IDLE: Literal = Literal(
    "(profile_id IS NULL OR ((SELECT automation_profiles.id FROM automation_profiles \
     WHERE automation_profiles.id = automation_jobs.profile_id) IS NOT NULL \
     AND (SELECT others.id FROM automation_jobs AS others \
     WHERE others.profile_id = automation_jobs.profile_id AND others.state = 'running') IS NULL))",
);

/// Of one of these kinds, or of any where none is named. As literal SQL of each of these: whatever may be
/// one or the other is of no use to find jobs of a kind by their index, in their order.
#[derive(Clone, Copy, Debug)]
struct OfKinds<'a>(&'a [String]);

impl Expression for OfKinds<'_> {
    type SqlType = Bool;
}
impl<GB> ValidGrouping<GB> for OfKinds<'_> {
    type IsAggregate = is_aggregate::Never;
}
impl<QS> SelectableExpression<QS> for OfKinds<'_> {}
impl<QS> AppearsOnTable<QS> for OfKinds<'_> {}

impl QueryId for OfKinds<'_> {
    type QueryId = ();
    // Its text is not in its type.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend> QueryFragment<DB> for OfKinds<'_>
where
    String: ToSql<Text, DB>,
{
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        match self.0 {
            [] => out.push_sql("TRUE"),
            [kind] => {
                out.push_sql("kind = ");
                out.push_bind_param::<Text, _>(kind)?;
            }
            kinds => {
                for (index, kind) in kinds.iter().enumerate() {
                    out.push_sql(if index == 0 { "kind IN (" } else { ", " });
                    out.push_bind_param::<Text, _>(kind)?;
                }
                out.push_sql(")");
            }
        }
        Ok(())
    }
}

/// How many of a tenant's jobs are running, by provider; those without one are under the empty text.
pub async fn running_by_provider(
    conn: &mut Conn,
    tenant: &str,
) -> Result<Vec<(String, i64)>, Error> {
    let query = jobs::table
        .filter(jobs::tenant.eq(tenant))
        .filter(RUNNING)
        .group_by(jobs::provider)
        .select((jobs::provider, count_star()));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// One claim at a time for a tenant and provider, until the transaction ends: whoever counts what is
/// running is not overtaken. Take several in the order of their names.
pub async fn lock_provider(tx: &mut Tx, tenant: &str, provider: &str) -> Result<(), Error> {
    if let Conn::Postgres(pooled) = tx.as_conn() {
        diesel::sql_query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind::<Text, _>(format!("automation/{tenant}/{provider}"))
            .execute(&mut **pooled)
            .await?;
    }
    Ok(())
}

/// Which jobs a worker asks for.
#[derive(Clone, Copy, Debug)]
pub struct ClaimQuery<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// Only these kinds; any when empty.
    pub kinds: &'a [String],
    /// Only those of this mode or of any; all for [`ExecutionMode::Any`].
    pub mode: ExecutionMode,
    /// Providers that run as many jobs as they may.
    pub full: &'a [String],
    /// Browser profiles that somebody is about to use.
    pub busy: &'a BTreeSet<String>,
    /// Only those whose deadline is later.
    pub now: Timestamp,
}

/// A job that may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The job.
    pub id: String,
    /// Its browser profile.
    pub profile_id: Option<String>,
    /// Its provider.
    pub provider: String,
}

/// The jobs that wait for such a worker, in their order.
macro_rules! waiting_for {
    ($asked:expr) => {{
        let any_mode = ($asked.mode == ExecutionMode::Any).into_sql::<Bool>();
        let anywhere = jobs::execution_mode.eq(ExecutionMode::Any.as_str());
        let there = jobs::execution_mode.eq($asked.mode.as_str());
        let no_profile = jobs::profile_id.is_null();
        let no_deadline = jobs::deadline_at.is_null();
        jobs::table
            .filter(jobs::tenant.eq($asked.tenant))
            .filter(PENDING)
            .filter(OfKinds($asked.kinds))
            .filter(any_mode.or(anywhere).or(there))
            .filter(none_of(jobs::provider, $asked.full))
            .filter(no_profile.or(none_of(jobs::profile_id, $asked.busy)))
            .filter(PROFILE_IS_IDLE)
            .filter(no_deadline.or(jobs::deadline_at.gt($asked.now)))
            .order((jobs::priority.desc(), jobs::turn, jobs::id))
    }};
}

/// Whether a job waits for such a worker. It may be another's by now.
pub async fn is_any(conn: &mut Conn, asked: &ClaimQuery<'_>) -> Result<bool, Error> {
    let query = waiting_for!(asked).select(jobs::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// Jobs that wait for such a worker, in their order, up to `limit`, locked until the transaction ends. Of
/// one profile there may be several; whether it is still free, [`free_profiles`] tells.
pub async fn candidates(
    tx: &mut Tx,
    asked: &ClaimQuery<'_>,
    limit: i64,
) -> Result<Vec<Candidate>, Error> {
    let columns = (jobs::id, jobs::profile_id, jobs::provider);
    let query = waiting_for!(asked).limit(limit).select(columns);
    let rows: Vec<(String, Option<String>, String)> = lock_unlocked!(tx, query)?;
    Ok(rows
        .into_iter()
        .map(|(id, profile_id, provider)| Candidate {
            id,
            profile_id,
            provider,
        })
        .collect())
}

/// Those of these browser profiles that nobody else is about to use and that have no running job, locked
/// until the transaction ends.
pub async fn free_profiles(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
) -> Result<HashSet<String>, Error> {
    let query = profiles::table
        .filter(unindexed(profiles::tenant).eq(tenant))
        .filter(one_of(profiles::id, ids))
        .select(profiles::id);
    let locked: Vec<String> = lock_unlocked!(tx, query)?;
    // A statement of its own: it sees what whoever held the lock before has committed. By the profile
    // alone: given the tenant, SQLite would rather go through all of its running jobs.
    let busy = jobs::table
        .filter(one_of(jobs::profile_id, &locked))
        .filter(RUNNING)
        .select(jobs::profile_id);
    let busy: Vec<Option<String>> = on!(tx, |c| busy.load(c).await)?;
    let busy: HashSet<String> = busy.into_iter().flatten().collect();
    Ok(locked.into_iter().filter(|id| !busy.contains(id)).collect())
}

/// Gives waiting jobs to workers, given by the jobs' ids: answers them as they are then, by their ids.
pub async fn take(
    tx: &mut Tx,
    tenant: &str,
    workers: &BTreeMap<String, String>,
    lease: Duration,
) -> Result<HashMap<String, Job>, Error> {
    let rows: Vec<JobRow> = on!(tx, |c| {
        let target = jobs::table
            .filter(unindexed(jobs::tenant).eq(tenant))
            .filter(one_of(jobs::id, workers.keys()))
            .filter(unindexed(jobs::state).eq(JobState::Pending.as_str()));
        let taken = (
            jobs::state.eq(JobState::Running.as_str()),
            jobs::attempt.eq(jobs::attempt + 1),
            jobs::lease_token.eq(jobs::lease_token + 1),
            jobs::lease_until.eq(DbNow::plus(lease).nullable()),
            jobs::worker.eq(under(workers, jobs::id)),
        );
        diesel::update(target)
            .set(taken)
            .returning(JobRow::as_returning())
            .prepared()
            .get_results(c)
            .await
    })
    .map_err(busy_if_taken)?;
    let taken = jobs_of(rows)?;
    Ok(taken.into_iter().map(|job| (job.id.clone(), job)).collect())
}

/// Takes back what [`take`] gave in the same transaction, so that nobody was told of it.
pub async fn put_back(tx: &mut Tx, tenant: &str, ids: &[String]) -> Result<(), Error> {
    let target = jobs::table
        .filter(unindexed(jobs::tenant).eq(tenant))
        .filter(one_of(jobs::id, ids))
        .filter(unindexed(jobs::state).eq(JobState::Running.as_str()));
    let waiting = (
        jobs::state.eq(JobState::Pending.as_str()),
        jobs::attempt.eq(jobs::attempt - 1),
        jobs::lease_until.eq(None::<Timestamp>),
        jobs::worker.eq(""),
    );
    on!(tx, |c| diesel::update(target)
        .set(waiting)
        .prepared()
        .execute(c)
        .await)?;
    Ok(())
}

/// Renews a worker's lease; until when it has the job now, and what time that is by the same clock.
/// `None` when it has lost it, or is to stop: the job was called off, or its deadline is over.
pub async fn renew(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    token: i64,
    lease: Duration,
    now: Timestamp,
) -> Result<Option<(Timestamp, Timestamp)>, Error> {
    let target = jobs::table
        .find(id)
        .filter(jobs::tenant.eq(tenant))
        .filter(unindexed(jobs::state).eq(JobState::Running.as_str()))
        .filter(jobs::lease_token.eq(token))
        .filter(jobs::cancel_requested_at.is_null())
        .filter(jobs::deadline_at.is_null().or(jobs::deadline_at.gt(now)));
    // A worker that asked for a longer one keeps it.
    let least = DbNow::plus(lease).nullable();
    let longer = jobs::lease_until.gt(DbNow::plus(lease).nullable());
    let until_then = case_when(longer, jobs::lease_until).otherwise(least);
    let renewed = jobs::lease_until.eq(until_then);
    let found: Option<(Option<Timestamp>, Timestamp)> = on!(tx, |c| diesel::update(target)
        .set(renewed)
        .returning((jobs::lease_until, DbNow::now()))
        .prepared()
        .get_result(c)
        .await
        .optional())?;
    Ok(found.and_then(|(until, now)| Some((until?, now))))
}

/// Whether the lease with this token lasts.
pub async fn holds(conn: &mut Conn, tenant: &str, id: &str, token: i64) -> Result<bool, Error> {
    let query = jobs::table
        .find(id)
        .filter(jobs::tenant.eq(tenant))
        .filter(unindexed(jobs::state).eq(JobState::Running.as_str()))
        .filter(jobs::lease_token.eq(token))
        .filter(jobs::lease_until.gt(DbNow::now().nullable()))
        .select(jobs::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// A job whose time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The job.
    pub id: String,
    /// Its tenant.
    pub tenant: String,
    /// Its priority.
    pub priority: i32,
}

/// Jobs whose time has come, locked until the transaction ends.
pub async fn any_tenant_due(tx: &mut Tx, now: Timestamp, limit: i64) -> Result<Vec<Due>, Error> {
    let query = jobs::table
        .filter(WAITING)
        .filter(jobs::run_at.le(now))
        .order((jobs::run_at, jobs::id))
        .limit(limit)
        .select((jobs::id, jobs::tenant, jobs::priority));
    let rows: Vec<(String, String, i32)> = lock_unlocked!(tx, query)?;
    Ok(rows
        .into_iter()
        .map(|(id, tenant, priority)| Due {
            id,
            tenant,
            priority,
        })
        .collect())
}

/// Has jobs of one priority wait for a worker. Those that were scheduled go as far behind `head` as they
/// stand in their batch, the others keep their place, or go to the head.
pub async fn promote(
    tx: &mut Tx,
    tenant: &str,
    priority: i32,
    ids: &[String],
    head: i64,
) -> Result<(), Error> {
    let waiting = [JobState::Scheduled, JobState::Retryable, JobState::Snoozed];
    let target = jobs::table
        .filter(unindexed(jobs::tenant).eq(tenant))
        .filter(jobs::priority.eq(priority))
        .filter(one_of(jobs::id, ids))
        .filter(unindexed(jobs::state).eq_any(waiting.map(JobState::as_str)));
    let turn = case_when(SCHEDULED, jobs::turn + head)
        .when(jobs::turn.lt(head), head.into_sql::<BigInt>())
        .otherwise(jobs::turn);
    let promoted = (
        jobs::state.eq(JobState::Pending.as_str()),
        jobs::turn.eq(turn),
    );
    on!(tx, |c| diesel::update(target)
        .set(promoted)
        .prepared()
        .execute(c)
        .await)?;
    Ok(())
}

/// Running jobs whose lease has lapsed, locked until the transaction ends.
pub async fn any_tenant_lapsed(tx: &mut Tx, limit: i64) -> Result<Vec<Job>, Error> {
    // In a query of its own, which is run once: a clock that may tell another time for each row is no
    // bound for a look into the index.
    let now = diesel::select(DbNow::now()).single_value();
    let rows: Vec<JobRow> = lock_unlocked!(
        tx,
        jobs::table
            .filter(RUNNING)
            .filter(jobs::lease_until.lt(now))
            .order(jobs::lease_until)
            .limit(limit)
            .select(JobRow::as_select())
    )?;
    jobs_of(rows)
}

/// Jobs that nobody works on and whose deadline is over, locked until the transaction ends.
pub async fn any_tenant_overdue(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Job>, Error> {
    let rows: Vec<JobRow> = lock_unlocked!(
        tx,
        jobs::table
            .filter(jobs::deadline_at.le(now))
            .filter(jobs::finished_at.is_null())
            .filter(NOT_RUNNING)
            .order(jobs::deadline_at)
            .limit(limit)
            .select(JobRow::as_select())
    )?;
    jobs_of(rows)
}
