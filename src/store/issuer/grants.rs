//! What people gave to clients. A grant's row is the lock of its whole family: whoever exchanges,
//! rotates or revokes takes it first, and the rows of codes and tokens after it.

use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{announce, delete_before, texts};
use crate::model::{IssuedGrant, Timestamp};
use crate::store::Error;
use crate::store::columns::{JsonValue, UtcTimestamp};
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::{issued_grants as grants, oauth_clients};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = grants)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
pub(super) struct GrantRow {
    id: String,
    tenant: String,
    client_id: String,
    user_id: String,
    scopes: JsonValue,
    resources: JsonValue,
    dpop_jkt: String,
    generation: i64,
    auth_time: Timestamp,
    ip: String,
    user_agent: String,
    created_at: Timestamp,
    last_issued_at: Timestamp,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    revoke_reason: String,
}

impl From<&IssuedGrant> for GrantRow {
    fn from(grant: &IssuedGrant) -> Self {
        let grant = grant.clone();
        Self {
            scopes: JsonValue::of(&grant.scopes),
            resources: JsonValue::of(&grant.resources),
            id: grant.id,
            tenant: grant.tenant,
            client_id: grant.client_id,
            user_id: grant.user_id,
            dpop_jkt: grant.dpop_jkt,
            generation: grant.generation,
            auth_time: grant.auth_time,
            ip: grant.ip,
            user_agent: grant.user_agent,
            created_at: grant.created_at,
            last_issued_at: grant.last_issued_at,
            expires_at: grant.expires_at,
            revoked_at: grant.revoked_at,
            revoke_reason: grant.revoke_reason,
        }
    }
}

impl TryFrom<GrantRow> for IssuedGrant {
    type Error = Error;
    fn try_from(row: GrantRow) -> Result<Self, Error> {
        Ok(Self {
            scopes: texts(row.scopes, "issued_grants.scopes")?,
            resources: texts(row.resources, "issued_grants.resources")?,
            id: row.id,
            tenant: row.tenant,
            client_id: row.client_id,
            user_id: row.user_id,
            dpop_jkt: row.dpop_jkt,
            generation: row.generation,
            auth_time: row.auth_time,
            ip: row.ip,
            user_agent: row.user_agent,
            created_at: row.created_at,
            last_issued_at: row.last_issued_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            revoke_reason: row.revoke_reason,
        })
    }
}

/// Inserts a new grant.
pub async fn insert(tx: &mut Tx, grant: &IssuedGrant) -> Result<(), Error> {
    let row = GrantRow::from(grant);
    on!(tx, |c| diesel::insert_into(grants::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The grant of this id.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<IssuedGrant>, Error> {
    let row = on!(conn, |c| {
        let query = grants::table
            .find(id)
            .filter(grants::tenant.eq(tenant))
            .select(GrantRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(IssuedGrant::try_from).transpose()
}

/// The same, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<IssuedGrant>, Error> {
    let target = grants::table.find(id).filter(grants::tenant.eq(tenant));
    // An update without effect: the lock of both engines, where FOR UPDATE is PostgreSQL's alone.
    let row = on!(tx, |c| diesel::update(target)
        .set(grants::id.eq(grants::id))
        .returning(GrantRow::as_returning())
        .get_result(c)
        .await
        .optional())?;
    row.map(IssuedGrant::try_from).transpose()
}

/// Begins a grant's next generation, if the one given is its current and it was not revoked: the one
/// step that only one exchange takes. The grant ends at `expires_at`, or later if it was to.
pub async fn advance(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    generation: i64,
    expires_at: Timestamp,
    dpop_jkt: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let target = grants::table
        .find(id)
        .filter(grants::tenant.eq(tenant))
        .filter(grants::generation.eq(generation))
        .filter(grants::revoked_at.is_null());
    let ends = case_when(
        grants::expires_at.lt(expires_at),
        expires_at.into_sql::<UtcTimestamp>(),
    )
    .otherwise(grants::expires_at);
    let advanced = (
        grants::generation.eq(generation + 1),
        grants::expires_at.eq(ends),
        grants::dpop_jkt.eq(dpop_jkt),
        grants::last_issued_at.eq(now),
    );
    let changed = on!(tx, |c| diesel::update(target)
        .set(advanced)
        .execute(c)
        .await)?;
    Ok(changed == 1)
}

/// Revokes a grant, and tells every replica; `false` when it was revoked before. Its tokens end with
/// it: whoever judges one looks at its grant.
pub async fn revoke(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let target = grants::table
        .find(id)
        .filter(grants::tenant.eq(tenant))
        .filter(grants::revoked_at.is_null());
    let revoked = (
        grants::revoked_at.eq(Some(now)),
        grants::revoke_reason.eq(reason),
    );
    let changed = on!(tx, |c| diesel::update(target).set(revoked).execute(c).await)?;
    if changed == 1 {
        announce(tx, tenant, id, now).await?;
    }
    Ok(changed == 1)
}

/// Revokes all that people gave to a client, and tells every replica; how many grants that were. One
/// whose time was over is not counted.
///
/// A grant that a consent under way is about to make is not seen here, and outlives this: whoever judges
/// a token looks at its client as well.
pub async fn revoke_of_client(
    tx: &mut Tx,
    tenant: &str,
    client_id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<usize, Error> {
    let target = grants::table
        .filter(grants::tenant.eq(tenant))
        .filter(grants::client_id.eq(client_id))
        .filter(grants::expires_at.gt(now))
        .filter(grants::revoked_at.is_null());
    let revoked = (
        grants::revoked_at.eq(Some(now)),
        grants::revoke_reason.eq(reason),
    );
    let changed = on!(tx, |c| diesel::update(target).set(revoked).execute(c).await)?;
    if changed > 0 {
        announce(tx, tenant, client_id, now).await?;
    }
    Ok(changed)
}

/// Revokes all that a user gave, and tells every replica; the grants' ids. One whose time was over is
/// not among them.
pub async fn revoke_of_user(
    tx: &mut Tx,
    tenant: &str,
    user_id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Vec<String>, Error> {
    let target = grants::table
        .filter(grants::tenant.eq(tenant))
        .filter(grants::user_id.eq(user_id))
        .filter(grants::expires_at.gt(now))
        .filter(grants::revoked_at.is_null());
    let revoked = (
        grants::revoked_at.eq(Some(now)),
        grants::revoke_reason.eq(reason),
    );
    let ids: Vec<String> = on!(tx, |c| diesel::update(target)
        .set(revoked)
        .returning(grants::id)
        .get_results(c)
        .await)?;
    for id in &ids {
        announce(tx, tenant, id, now).await?;
    }
    Ok(ids)
}

/// Which grants to list.
#[derive(Clone, Copy, Debug)]
pub struct GrantQuery<'a> {
    /// Only this user's.
    pub user_id: Option<&'a str>,
    /// Only this client's.
    pub client_id: Option<&'a str>,
    /// Also those that were revoked, or whose time is over.
    pub ended: bool,
    /// Now.
    pub now: Timestamp,
    /// Behind this id; empty for the first page.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

/// One page by id, each with the client's name.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    asked: &GrantQuery<'_>,
) -> Result<Vec<(IssuedGrant, String)>, Error> {
    let rows: Vec<(GrantRow, String)> = on!(conn, |c| {
        let mut query = grants::table
            .inner_join(oauth_clients::table)
            .filter(grants::tenant.eq(tenant))
            .filter(grants::id.gt(asked.after))
            .order(grants::id)
            .limit(asked.limit)
            .select((GrantRow::as_select(), oauth_clients::name))
            .into_boxed();
        if let Some(user_id) = asked.user_id {
            query = query.filter(grants::user_id.eq(user_id));
        }
        if let Some(client_id) = asked.client_id {
            query = query.filter(grants::client_id.eq(client_id));
        }
        if !asked.ended {
            query = query
                .filter(grants::revoked_at.is_null())
                .filter(grants::expires_at.gt(asked.now));
        }
        query.load(c).await
    })?;
    rows.into_iter()
        .map(|(row, name)| Ok((row.try_into()?, name)))
        .collect()
}

/// Deletes grants that ended or were revoked before a time, up to `limit`, with all that is left of
/// their codes and tokens.
pub async fn any_tenant_delete_old(
    tx: &mut Tx,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let ended = delete_before!(tx, grants, id as String, expires_at, before, limit)?;
    let left = limit.saturating_sub(i64::try_from(ended).unwrap_or(i64::MAX));
    if left <= 0 {
        return Ok(ended);
    }
    let revoked = delete_before!(tx, grants, id as String, revoked_at, before, left)?;
    Ok(ended + revoked)
}
