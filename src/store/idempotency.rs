//! What creates with a request id answered, so that a retry gets the same.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::pool::{Conn, Tx, on};
use super::schema::idempotent_requests as requests;
use crate::model::{Sealed, Timestamp};

/// A create that was answered.
#[derive(Clone, Debug, Insertable, Queryable, Selectable)]
#[diesel(table_name = requests)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
pub struct Answered {
    /// The tenant.
    pub tenant: String,
    /// The RPC's name.
    pub rpc: String,
    /// The caller's id for it.
    pub request_id: String,
    /// SHA-256 of the request: the same id with another request is a mistake of the caller's.
    pub fingerprint: Vec<u8>,
    /// What was made.
    pub resource_id: String,
    /// The sealed answer, where it can't be made again.
    pub response: Option<Sealed>,
    /// When.
    pub created_at: Timestamp,
    /// Until when it is remembered.
    pub expires_at: Timestamp,
}

/// The answer given before.
pub async fn find(
    conn: &mut Conn,
    tenant: &str,
    rpc: &str,
    request_id: &str,
) -> Result<Option<Answered>, Error> {
    Ok(on!(conn, |c| {
        let query = requests::table
            .find((tenant, rpc, request_id))
            .select(Answered::as_select());
        query.first(c).await.optional()
    })?)
}

/// Remembers an answer, in the transaction that makes the resource; `false` when a concurrent
/// retry was first.
pub async fn insert(tx: &mut Tx, answered: &Answered) -> Result<bool, Error> {
    let inserted = on!(tx, |c| diesel::insert_into(requests::table)
        .values(answered)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// Forgets the sealed answers made before a time, and the requests that expired, up to `limit` of
/// each.
pub async fn any_tenant_prune(
    conn: &mut Conn,
    now: Timestamp,
    answers_before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let stale = requests::table
        .filter(requests::response.is_not_null())
        .filter(requests::created_at.lt(answers_before));
    on!(conn, |c| diesel::update(stale)
        .set(requests::response.eq(None::<Sealed>))
        .execute(c)
        .await)?;
    let query = requests::table
        .filter(requests::expires_at.lt(now))
        .order(requests::expires_at)
        .limit(limit)
        .select(requests::request_id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    let target = requests::table
        .filter(requests::request_id.eq_any(ids))
        .filter(requests::expires_at.lt(now));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}
