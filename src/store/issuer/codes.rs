//! Authorisation codes. They are kept after their use, so that a second use is noticed.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::delete_before;
use crate::model::{AuthorizationCode, Timestamp};
use crate::store::Error;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::authorization_codes as codes;

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = codes)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct CodeRow {
    hash: Vec<u8>,
    tenant: String,
    client_id: String,
    grant_id: String,
    redirect_uri: String,
    redirect_uri_sent: bool,
    client_state: String,
    nonce: String,
    code_challenge: String,
    dpop_jkt: String,
    ip: String,
    user_agent: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    consumed_at: Option<Timestamp>,
    keep_until: Timestamp,
}

impl From<&AuthorizationCode> for CodeRow {
    fn from(code: &AuthorizationCode) -> Self {
        let code = code.clone();
        Self {
            hash: code.hash,
            tenant: code.tenant,
            client_id: code.client_id,
            grant_id: code.grant_id,
            redirect_uri: code.redirect_uri,
            redirect_uri_sent: code.redirect_uri_sent,
            client_state: code.client_state,
            nonce: code.nonce,
            code_challenge: code.code_challenge,
            dpop_jkt: code.dpop_jkt,
            ip: code.ip,
            user_agent: code.user_agent,
            created_at: code.created_at,
            expires_at: code.expires_at,
            consumed_at: code.consumed_at,
            keep_until: code.keep_until,
        }
    }
}

impl From<CodeRow> for AuthorizationCode {
    fn from(row: CodeRow) -> Self {
        Self {
            hash: row.hash,
            tenant: row.tenant,
            client_id: row.client_id,
            grant_id: row.grant_id,
            redirect_uri: row.redirect_uri,
            redirect_uri_sent: row.redirect_uri_sent,
            client_state: row.client_state,
            nonce: row.nonce,
            code_challenge: row.code_challenge,
            dpop_jkt: row.dpop_jkt,
            ip: row.ip,
            user_agent: row.user_agent,
            created_at: row.created_at,
            expires_at: row.expires_at,
            consumed_at: row.consumed_at,
            keep_until: row.keep_until,
        }
    }
}

/// Inserts a new code.
pub async fn insert(tx: &mut Tx, code: &AuthorizationCode) -> Result<(), Error> {
    let row = CodeRow::from(code);
    on!(tx, |c| diesel::insert_into(codes::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The code with this hash, used or not: whose it is, nobody knows before.
pub async fn any_tenant_find(
    conn: &mut Conn,
    hash: &[u8],
) -> Result<Option<AuthorizationCode>, Error> {
    let row: Option<CodeRow> = on!(conn, |c| {
        let query = codes::table.find(hash).select(CodeRow::as_select());
        query.first(c).await.optional()
    })?;
    Ok(row.map(AuthorizationCode::from))
}

/// Uses a code, if it was not used and its time is not over: the one step that only one caller takes.
pub async fn consume(
    tx: &mut Tx,
    tenant: &str,
    hash: &[u8],
    now: Timestamp,
) -> Result<bool, Error> {
    let target = codes::table
        .find(hash)
        .filter(codes::tenant.eq(tenant))
        .filter(codes::consumed_at.is_null())
        .filter(codes::expires_at.gt(now));
    let used = codes::consumed_at.eq(Some(now));
    Ok(on!(tx, |c| diesel::update(target).set(used).execute(c).await)? == 1)
}

/// Deletes codes that need not be kept any longer, up to `limit`.
pub async fn any_tenant_delete_old(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    delete_before!(tx, codes, hash as Vec<u8>, keep_until, now, limit)
}
