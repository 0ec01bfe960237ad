//! API keys: hashes, never the keys.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::api_keys;
use super::{Error, unreadable_if_none};
use crate::model::{ApiKey, RateLimit, Role, Timestamp};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = api_keys)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct ApiKeyRow {
    id: String,
    tenant: String,
    name: String,
    hash: Vec<u8>,
    prefix: String,
    role: String,
    grants: JsonValue,
    rate_limit: Option<i32>,
    rate_burst: Option<i32>,
    replaced_by: Option<String>,
    created_by: String,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used_at: Option<Timestamp>,
}

impl TryFrom<ApiKeyRow> for ApiKey {
    type Error = Error;
    fn try_from(row: ApiKeyRow) -> Result<Self, Error> {
        Ok(Self {
            role: unreadable_if_none(Role::parse(&row.role), "api_keys.role")?,
            // Never read as a default: constraints that are lost would be rights that are gained.
            constraints: serde_json::from_value(row.grants.0)
                .map_err(|error| Error::unreadable(format!("api_keys.grants: {error}")))?,
            id: row.id,
            tenant: row.tenant,
            name: row.name,
            hash: row.hash,
            prefix: row.prefix,
            rate_limit: rate_limit(row.rate_limit, row.rate_burst),
            replaced_by: row.replaced_by,
            created_by: row.created_by,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            last_used_at: row.last_used_at,
        })
    }
}

fn rate_limit(requests_per_second: Option<i32>, burst: Option<i32>) -> Option<RateLimit> {
    Some(RateLimit {
        requests_per_second: u32::try_from(requests_per_second?).ok()?,
        burst: u32::try_from(burst?).ok()?,
    })
}

fn column(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Inserts a new key.
pub async fn insert(tx: &mut Tx, key: &ApiKey) -> Result<(), Error> {
    let row = ApiKeyRow {
        id: key.id.clone(),
        tenant: key.tenant.clone(),
        name: key.name.clone(),
        hash: key.hash.clone(),
        prefix: key.prefix.clone(),
        role: key.role.as_str().to_owned(),
        grants: JsonValue::of(&key.constraints),
        rate_limit: key
            .rate_limit
            .map(|limit| column(limit.requests_per_second)),
        rate_burst: key.rate_limit.map(|limit| column(limit.burst)),
        replaced_by: key.replaced_by.clone(),
        created_by: key.created_by.clone(),
        created_at: key.created_at,
        expires_at: key.expires_at,
        revoked_at: key.revoked_at,
        last_used_at: key.last_used_at,
    };
    on!(tx, |c| diesel::insert_into(api_keys::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The key with this hash: a caller is known by its key alone.
pub async fn any_tenant_find_hash(conn: &mut Conn, hash: &[u8]) -> Result<Option<ApiKey>, Error> {
    let row = on!(conn, |c| {
        let query = api_keys::table
            .filter(api_keys::hash.eq(hash))
            .select(ApiKeyRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(ApiKey::try_from).transpose()
}

/// The key of this id.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<ApiKey>, Error> {
    let found = any_tenant_find(conn, id).await?;
    Ok(found.filter(|key| key.tenant == tenant))
}

/// The key of this id, whatever its tenant: for the command line.
pub async fn any_tenant_find(conn: &mut Conn, id: &str) -> Result<Option<ApiKey>, Error> {
    let row = on!(conn, |c| {
        let query = api_keys::table.find(id).select(ApiKeyRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(ApiKey::try_from).transpose()
}

/// One page by id; without those that had ended by `active_at`, where that is given.
pub async fn page(
    conn: &mut Conn,
    tenant: &str,
    active_at: Option<Timestamp>,
    after: &str,
    limit: i64,
) -> Result<Vec<ApiKey>, Error> {
    let rows: Vec<ApiKeyRow> = on!(conn, |c| {
        let mut query = api_keys::table
            .filter(api_keys::tenant.eq(tenant))
            .filter(api_keys::id.gt(after))
            .order(api_keys::id)
            .limit(limit)
            .select(ApiKeyRow::as_select())
            .into_boxed();
        if let Some(now) = active_at {
            let lives = api_keys::expires_at
                .is_null()
                .or(api_keys::expires_at.gt(now));
            query = query.filter(api_keys::revoked_at.is_null()).filter(lives);
        }
        query.load(c).await
    })?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// Every key, of one tenant or of all, by id.
pub async fn list(conn: &mut Conn, tenant: Option<&str>) -> Result<Vec<ApiKey>, Error> {
    let rows: Vec<ApiKeyRow> = on!(conn, |c| {
        let mut query = api_keys::table
            .order(api_keys::id)
            .select(ApiKeyRow::as_select())
            .into_boxed();
        if let Some(tenant) = tenant {
            query = query.filter(api_keys::tenant.eq(tenant));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(ApiKey::try_from).collect()
}

/// How many keys there are in all: none means that nobody can call yet.
pub async fn any_tenant_count(conn: &mut Conn) -> Result<i64, Error> {
    let query = api_keys::table.count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}

/// Revokes; the tenant of the key, or `None` when there is none such or it was revoked before.
pub async fn any_tenant_revoke(
    tx: &mut Tx,
    id: &str,
    now: Timestamp,
) -> Result<Option<String>, Error> {
    let target = api_keys::table
        .find(id)
        .filter(api_keys::revoked_at.is_null());
    Ok(on!(tx, |c| diesel::update(target)
        .set(api_keys::revoked_at.eq(Some(now)))
        .returning(api_keys::tenant)
        .get_result(c)
        .await
        .optional())?)
}

/// Gives a key a successor and its end; `false` when it has one or was revoked.
pub async fn supersede(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    successor: &str,
    ends_at: Timestamp,
) -> Result<bool, Error> {
    let target = api_keys::table
        .find(id)
        .filter(api_keys::tenant.eq(tenant))
        .filter(api_keys::revoked_at.is_null())
        .filter(api_keys::replaced_by.is_null());
    let changed = on!(tx, |c| diesel::update(target)
        .set((
            api_keys::replaced_by.eq(Some(successor)),
            api_keys::expires_at.eq(Some(ends_at)),
        ))
        .execute(c)
        .await)?;
    Ok(changed == 1)
}

/// Records when a key was last used, unless another replica knows of a later use.
pub async fn touch(tx: &mut Tx, id: &str, at: Timestamp) -> Result<(), Error> {
    let earlier = api_keys::last_used_at
        .is_null()
        .or(api_keys::last_used_at.lt(at));
    let target = api_keys::table.find(id).filter(earlier);
    let used = api_keys::last_used_at.eq(Some(at));
    on!(tx, |c| diesel::update(target).set(used).execute(c).await)?;
    Ok(())
}
