//! Grants: tokens, generation, lease and deadlines. Every change of tokens is a compare-and-set on
//! the generation.

use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::{DbNow, JsonValue};
use super::pool::{Conn, Tx, on};
use super::schema::grants;
use super::statement::Prepare as _;
use super::{Error, unreadable_if_none};
use crate::model::{ConnectionKind, Grant, GrantState, RefreshPolicy, Sealed, Timestamp};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = grants, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
pub(super) struct GrantRow {
    id: String,
    tenant: String,
    app_id: String,
    kind: String,
    state: String,
    state_reason: String,
    generation: i64,
    access_token: Option<Sealed>,
    refresh_token: Option<Sealed>,
    token_secret: Option<Sealed>,
    token_type: String,
    scopes: JsonValue,
    metadata: JsonValue,
    refresh_fingerprint: Option<String>,
    issued_at: Timestamp,
    expires_at: Option<Timestamp>,
    refresh_expires_at: Option<Timestamp>,
    absolute_expires_at: Option<Timestamp>,
    refresh_policy: String,
    last_refreshed_at: Option<Timestamp>,
    next_refresh_at: Option<Timestamp>,
    notice_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
    failure_count: i32,
    last_error: String,
    lease_holder: Option<String>,
    lease_until: Option<Timestamp>,
    attempt_generation: Option<i64>,
    attempt_started_at: Option<Timestamp>,
    attempt_retried: bool,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Grant> for GrantRow {
    fn from(grant: &Grant) -> Self {
        Self {
            id: grant.id.clone(),
            tenant: grant.tenant.clone(),
            app_id: grant.app_id.clone(),
            kind: grant.kind.as_str().to_owned(),
            state: grant.state.as_str().to_owned(),
            state_reason: grant.state_reason.clone(),
            generation: grant.generation,
            access_token: grant.access_token.clone(),
            refresh_token: grant.refresh_token.clone(),
            token_secret: grant.token_secret.clone(),
            token_type: grant.token_type.clone(),
            scopes: JsonValue::of(&grant.scopes),
            metadata: JsonValue::of(&grant.metadata),
            refresh_fingerprint: grant.refresh_fingerprint.clone(),
            issued_at: grant.issued_at,
            expires_at: grant.expires_at,
            refresh_expires_at: grant.refresh_expires_at,
            absolute_expires_at: grant.absolute_expires_at,
            refresh_policy: grant.refresh_policy.as_str().to_owned(),
            last_refreshed_at: grant.last_refreshed_at,
            next_refresh_at: grant.next_refresh_at,
            notice_at: grant.notice_at,
            not_before: grant.not_before,
            failure_count: grant.failure_count,
            last_error: grant.last_error.clone(),
            lease_holder: grant.lease_holder.clone(),
            lease_until: grant.lease_until,
            attempt_generation: grant.attempt_generation,
            attempt_started_at: grant.attempt_started_at,
            attempt_retried: grant.attempt_retried,
            created_at: grant.created_at,
            updated_at: grant.updated_at,
        }
    }
}

impl TryFrom<GrantRow> for Grant {
    type Error = Error;
    fn try_from(row: GrantRow) -> Result<Self, Error> {
        Ok(Self {
            kind: unreadable_if_none(ConnectionKind::parse(&row.kind), "grants.kind")?,
            state: unreadable_if_none(GrantState::parse(&row.state), "grants.state")?,
            refresh_policy: unreadable_if_none(
                RefreshPolicy::parse(&row.refresh_policy),
                "grants.refresh_policy",
            )?,
            id: row.id,
            tenant: row.tenant,
            app_id: row.app_id,
            state_reason: row.state_reason,
            generation: row.generation,
            access_token: row.access_token,
            refresh_token: row.refresh_token,
            token_secret: row.token_secret,
            token_type: row.token_type,
            scopes: row.scopes.read(),
            metadata: row.metadata.read(),
            refresh_fingerprint: row.refresh_fingerprint,
            issued_at: row.issued_at,
            expires_at: row.expires_at,
            refresh_expires_at: row.refresh_expires_at,
            absolute_expires_at: row.absolute_expires_at,
            last_refreshed_at: row.last_refreshed_at,
            next_refresh_at: row.next_refresh_at,
            notice_at: row.notice_at,
            not_before: row.not_before,
            failure_count: row.failure_count,
            last_error: row.last_error,
            lease_holder: row.lease_holder,
            lease_until: row.lease_until,
            attempt_generation: row.attempt_generation,
            attempt_started_at: row.attempt_started_at,
            attempt_retried: row.attempt_retried,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Inserts a new grant.
pub async fn insert(tx: &mut Tx, grant: &Grant) -> Result<(), Error> {
    let row = GrantRow::from(grant);
    on!(tx, |c| diesel::insert_into(grants::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The grant.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<Grant>, Error> {
    let row = on!(conn, |c| {
        let query = grants::table
            .find(id)
            .filter(grants::tenant.eq(tenant))
            .select(GrantRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Grant::try_from).transpose()
}

/// The grant, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<Grant>, Error> {
    let target = grants::table.find(id).filter(grants::tenant.eq(tenant));
    let row = on!(tx, |c| diesel::update(target)
        .set(grants::id.eq(grants::id))
        .returning(GrantRow::as_returning())
        .prepared()
        .get_result(c)
        .await
        .optional())?;
    row.map(Grant::try_from).transpose()
}

/// Another good grant of this app with the same refresh token.
pub async fn find_by_fingerprint(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    fingerprint: &str,
) -> Result<Option<Grant>, Error> {
    let row = on!(conn, |c| {
        let query = grants::table
            .filter(grants::tenant.eq(tenant))
            .filter(grants::app_id.eq(app_id))
            .filter(grants::refresh_fingerprint.eq(fingerprint))
            .filter(grants::state.eq(GrantState::Active.as_str()))
            .order(grants::id)
            .select(GrantRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Grant::try_from).transpose()
}

/// Writes the whole grant if its stored generation is `spent`; `false` when another set of tokens
/// came first, or the grant is gone.
pub async fn replace(tx: &mut Tx, grant: &Grant, spent: i64) -> Result<bool, Error> {
    let row = GrantRow::from(grant);
    let target = grants::table
        .find(&grant.id)
        .filter(grants::tenant.eq(&grant.tenant))
        .filter(grants::generation.eq(spent));
    Ok(on!(tx, |c| diesel::update(target)
        .set(&row)
        .prepared()
        .execute(c)
        .await)?
        == 1)
}

/// Deletes a grant that no connection refers to.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
    let target = grants::table.find(id).filter(grants::tenant.eq(tenant));
    on!(tx, |c| diesel::delete(target).execute(c).await)?;
    Ok(())
}

/// What a lease is asked for.
#[derive(Clone, Debug)]
pub struct LeaseRequest<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The grant.
    pub grant_id: &'a str,
    /// The generation to be spent.
    pub generation: i64,
    /// Who asks: unique to this process and attempt.
    pub holder: &'a str,
    /// How long.
    pub duration: Duration,
    /// Take it although the outcome of an earlier attempt is unknown: the provider does not
    /// rotate, or its grace still runs, or the held token has died and this is the one last try.
    pub despite_ambiguity: bool,
    /// This is that last try.
    pub last_try: bool,
}

/// Takes the lease on a grant and records the generation about to be spent, in one statement.
/// `None` when somebody else holds it, the generation has moved on, the grant is not good, or an
/// earlier attempt's outcome is unknown.
pub async fn take_lease(
    conn: &mut Conn,
    wanted: &LeaseRequest<'_>,
) -> Result<Option<Grant>, Error> {
    let row = on!(conn, |c| {
        let free = grants::lease_holder
            .is_null()
            .or(grants::lease_until.lt(DbNow::now().nullable()));
        let unspent = grants::attempt_generation
            .is_null()
            .or(grants::attempt_generation.ne(grants::generation.nullable()));
        let target = grants::table
            .find(wanted.grant_id)
            .filter(grants::tenant.eq(wanted.tenant))
            .filter(grants::generation.eq(wanted.generation))
            .filter(grants::state.eq(GrantState::Active.as_str()))
            .filter(free.assume_not_null())
            .filter(
                unspent
                    .assume_not_null()
                    .or(diesel::dsl::sql::<diesel::sql_types::Bool>(
                        if wanted.despite_ambiguity {
                            "1 = 1"
                        } else {
                            "1 = 0"
                        },
                    )),
            );
        diesel::update(target)
            .set((
                grants::lease_holder.eq(wanted.holder),
                grants::lease_until.eq(DbNow::plus(wanted.duration).nullable()),
                grants::attempt_generation.eq(grants::generation.nullable()),
                // A provider's grace counts from the first time the token was sent.
                (!wanted.despite_ambiguity)
                    .then(|| grants::attempt_started_at.eq(DbNow::now().nullable())),
                grants::attempt_retried.eq(wanted.last_try),
            ))
            .returning(GrantRow::as_returning())
            .prepared()
            .get_result(c)
            .await
            .optional()
    })?;
    row.map(Grant::try_from).transpose()
}

/// Renews a lease; `false` when it is no longer this holder's.
pub async fn renew_lease(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
    holder: &str,
    duration: Duration,
) -> Result<bool, Error> {
    let target = grants::table
        .find(id)
        .filter(grants::tenant.eq(tenant))
        .filter(grants::lease_holder.eq(holder));
    let until = grants::lease_until.eq(DbNow::plus(duration).nullable());
    Ok(on!(conn, |c| diesel::update(target)
        .set(until)
        .prepared()
        .execute(c)
        .await)?
        == 1)
}

/// How an attempt that brought no tokens leaves the grant.
#[derive(Clone, Debug)]
pub struct Setback {
    /// Whether it is known that the refresh token was not spent.
    pub unspent: bool,
    /// The state from now on.
    pub state: GrantState,
    /// Why, where it is no longer good.
    pub state_reason: String,
    /// No trigger before this.
    pub not_before: Option<Timestamp>,
    /// When the worker is to look again.
    pub next_refresh_at: Option<Timestamp>,
    /// What went wrong, without secrets.
    pub last_error: String,
    /// Now.
    pub at: Timestamp,
}

/// Gives the lease back after an attempt without new tokens; `false` when the lease or the
/// generation is no longer the attempt's, and nothing was written.
pub async fn set_back(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    holder: &str,
    generation: i64,
    setback: &Setback,
) -> Result<bool, Error> {
    let target = grants::table
        .find(id)
        .filter(grants::tenant.eq(tenant))
        .filter(grants::lease_holder.eq(holder))
        .filter(grants::generation.eq(generation));
    let changed = (
        grants::state.eq(setback.state.as_str()),
        grants::state_reason.eq(&setback.state_reason),
        grants::not_before.eq(setback.not_before),
        grants::next_refresh_at.eq(setback.next_refresh_at),
        grants::failure_count.eq(grants::failure_count + 1),
        grants::last_error.eq(&setback.last_error),
        grants::lease_holder.eq(None::<String>),
        grants::lease_until.eq(None::<Timestamp>),
        grants::attempt_generation.eq((!setback.unspent).then_some(generation)),
        grants::updated_at.eq(setback.at),
    );
    Ok(on!(tx, |c| diesel::update(target).set(changed).execute(c).await)? == 1)
}

/// Whether a grant is under lease, and how old its unfinished attempt is, by the database's clock.
#[derive(Clone, Copy, Debug)]
pub struct LeaseStanding {
    /// Somebody holds a lease that runs.
    pub leased: bool,
    /// Since when an attempt has been unfinished.
    pub attempt_age: Option<Duration>,
    /// How long ago the lapsed lease ended; zero without one.
    pub lapsed_for: Duration,
}

/// Judges the lease of a grant by the database's clock.
pub async fn lease_standing(conn: &mut Conn, grant: &Grant) -> Result<LeaseStanding, Error> {
    let now: Timestamp = on!(conn, |c| diesel::select(DbNow::now()).get_result(c).await)?;
    Ok(LeaseStanding {
        leased: grant.lease_holder.is_some() && grant.lease_until.is_some_and(|until| until >= now),
        attempt_age: grant.attempt_started_at.map(|started| now.since(started)),
        lapsed_for: grant
            .lease_until
            .map_or(Duration::ZERO, |until| now.since(until)),
    })
}

/// The grants that the worker is to look at, the longest due first, whatever their tenant, but for
/// those of some apps.
pub async fn any_tenant_due(
    conn: &mut Conn,
    now: Timestamp,
    but_of: &[String],
    limit: i64,
) -> Result<Vec<Grant>, Error> {
    let rows: Vec<GrantRow> = on!(conn, |c| {
        let query = grants::table
            .filter(grants::next_refresh_at.is_not_null())
            .filter(grants::next_refresh_at.le(now))
            .filter(grants::app_id.ne_all(but_of))
            .order(grants::next_refresh_at)
            .limit(limit)
            .select(GrantRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Grant::try_from).collect()
}

/// Moves a grant in the due index, unless its tokens changed meanwhile.
pub async fn reschedule(
    conn: &mut Conn,
    grant: &Grant,
    next_refresh_at: Option<Timestamp>,
) -> Result<(), Error> {
    let target = grants::table
        .find(&grant.id)
        .filter(grants::tenant.eq(&grant.tenant))
        .filter(grants::generation.eq(grant.generation));
    let next = grants::next_refresh_at.eq(next_refresh_at);
    on!(conn, |c| diesel::update(target).set(next).execute(c).await)?;
    Ok(())
}

/// Moves a grant that was found due, unless its tokens or its place in the due index changed since:
/// whoever came in between knew more.
pub async fn move_due(
    conn: &mut Conn,
    grant: &Grant,
    next_refresh_at: Option<Timestamp>,
) -> Result<(), Error> {
    let target = grants::table
        .find(&grant.id)
        .filter(grants::tenant.eq(&grant.tenant))
        .filter(grants::generation.eq(grant.generation))
        .filter(grants::next_refresh_at.eq(grant.next_refresh_at));
    let next = grants::next_refresh_at.eq(next_refresh_at);
    on!(conn, |c| diesel::update(target).set(next).execute(c).await)?;
    Ok(())
}

/// Brings the parked grants of an app back into the due index, after its registration was mended.
/// Those that are due move as well, or a worker that has just read the app as it was would still
/// park them.
pub async fn unpark(
    tx: &mut Tx,
    tenant: &str,
    app_id: &str,
    next_refresh_at: Timestamp,
) -> Result<usize, Error> {
    let parked = grants::next_refresh_at.is_null();
    let due = grants::next_refresh_at.lt(next_refresh_at);
    let target = grants::table
        .filter(grants::tenant.eq(tenant))
        .filter(grants::app_id.eq(app_id))
        .filter(grants::state.eq(GrantState::Active.as_str()))
        .filter(grants::refresh_token.is_not_null())
        .filter(parked.or(due).assume_not_null());
    let changed = (
        grants::next_refresh_at.eq(next_refresh_at),
        grants::not_before.eq(None::<Timestamp>),
    );
    Ok(on!(tx, |c| diesel::update(target)
        .set(changed)
        .execute(c)
        .await)?)
}

/// The grants whose refresh token is about to lapse and whose owners were not warned yet,
/// whatever their tenant.
pub async fn any_tenant_to_notify(
    conn: &mut Conn,
    now: Timestamp,
    limit: i64,
) -> Result<Vec<Grant>, Error> {
    let rows: Vec<GrantRow> = on!(conn, |c| {
        let query = grants::table
            .filter(grants::notice_at.is_not_null())
            .filter(grants::notice_at.le(now))
            .order(grants::notice_at)
            .limit(limit)
            .select(GrantRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Grant::try_from).collect()
}

/// Takes a grant out of the notice index; `false` when another replica did.
pub async fn mark_notified(tx: &mut Tx, grant: &Grant) -> Result<bool, Error> {
    let target = grants::table
        .find(&grant.id)
        .filter(grants::tenant.eq(&grant.tenant))
        .filter(grants::notice_at.eq(grant.notice_at));
    let none = grants::notice_at.eq(None::<Timestamp>);
    Ok(on!(tx, |c| diesel::update(target).set(none).execute(c).await)? == 1)
}
