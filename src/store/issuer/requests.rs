//! Attempts of clients to have a person's consent.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{delete_before, texts};
use crate::model::{AuthorizationRequest, RequestState, Timestamp};
use crate::store::columns::JsonValue;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::authorization_requests as requests;
use crate::store::{Error, unreadable_if_none};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = requests, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct RequestRow {
    id: String,
    tenant: String,
    client_id: String,
    device_id: Option<String>,
    redirect_uri: String,
    redirect_uri_sent: bool,
    scopes: JsonValue,
    resources: JsonValue,
    client_state: String,
    nonce: String,
    code_challenge: String,
    dpop_jkt: String,
    login_hint: String,
    request_uri_hash: Option<Vec<u8>>,
    cookie_hash: Option<Vec<u8>>,
    state: String,
    user_id: Option<String>,
    auth_time: Option<Timestamp>,
    granted_scopes: JsonValue,
    error: String,
    error_description: String,
    ip: String,
    user_agent: String,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl From<&AuthorizationRequest> for RequestRow {
    fn from(request: &AuthorizationRequest) -> Self {
        let request = request.clone();
        Self {
            scopes: JsonValue::of(&request.scopes),
            resources: JsonValue::of(&request.resources),
            granted_scopes: JsonValue::of(&request.granted_scopes),
            state: request.state.as_str().to_owned(),
            id: request.id,
            tenant: request.tenant,
            client_id: request.client_id,
            device_id: request.device_id,
            redirect_uri: request.redirect_uri,
            redirect_uri_sent: request.redirect_uri_sent,
            client_state: request.client_state,
            nonce: request.nonce,
            code_challenge: request.code_challenge,
            dpop_jkt: request.dpop_jkt,
            login_hint: request.login_hint,
            request_uri_hash: request.request_uri_hash,
            cookie_hash: request.cookie_hash,
            user_id: request.user_id,
            auth_time: request.auth_time,
            error: request.error,
            error_description: request.error_description,
            ip: request.ip,
            user_agent: request.user_agent,
            created_at: request.created_at,
            expires_at: request.expires_at,
        }
    }
}

impl TryFrom<RequestRow> for AuthorizationRequest {
    type Error = Error;
    fn try_from(row: RequestRow) -> Result<Self, Error> {
        let state = RequestState::parse(&row.state);
        Ok(Self {
            state: unreadable_if_none(state, "authorization_requests.state")?,
            scopes: texts(row.scopes, "authorization_requests.scopes")?,
            resources: texts(row.resources, "authorization_requests.resources")?,
            granted_scopes: texts(row.granted_scopes, "authorization_requests.granted_scopes")?,
            id: row.id,
            tenant: row.tenant,
            client_id: row.client_id,
            device_id: row.device_id,
            redirect_uri: row.redirect_uri,
            redirect_uri_sent: row.redirect_uri_sent,
            client_state: row.client_state,
            nonce: row.nonce,
            code_challenge: row.code_challenge,
            dpop_jkt: row.dpop_jkt,
            login_hint: row.login_hint,
            request_uri_hash: row.request_uri_hash,
            cookie_hash: row.cookie_hash,
            user_id: row.user_id,
            auth_time: row.auth_time,
            error: row.error,
            error_description: row.error_description,
            ip: row.ip,
            user_agent: row.user_agent,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

/// Inserts a new request.
pub async fn insert(tx: &mut Tx, request: &AuthorizationRequest) -> Result<(), Error> {
    let row = RequestRow::from(request);
    on!(tx, |c| diesel::insert_into(requests::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The request of this id: a browser knows no tenant.
pub async fn any_tenant_find(
    conn: &mut Conn,
    id: &str,
) -> Result<Option<AuthorizationRequest>, Error> {
    let row = on!(conn, |c| {
        let query = requests::table.find(id).select(RequestRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(AuthorizationRequest::try_from).transpose()
}

/// The same, locked until the transaction ends.
pub async fn any_tenant_lock(tx: &mut Tx, id: &str) -> Result<Option<AuthorizationRequest>, Error> {
    // An update without effect: the lock of both engines, where FOR UPDATE is PostgreSQL's alone.
    let row = on!(tx, |c| diesel::update(requests::table.find(id))
        .set(requests::id.eq(requests::id))
        .returning(RequestRow::as_returning())
        .get_result(c)
        .await
        .optional())?;
    row.map(AuthorizationRequest::try_from).transpose()
}

/// Writes a request if its stored state is the one given; `false` when that is not so.
pub async fn update(
    tx: &mut Tx,
    request: &AuthorizationRequest,
    was: RequestState,
) -> Result<bool, Error> {
    let row = RequestRow::from(request);
    let target = requests::table
        .find(&request.id)
        .filter(requests::tenant.eq(&request.tenant))
        .filter(requests::state.eq(was.as_str()));
    let updated = on!(tx, |c| diesel::update(target).set(&row).execute(c).await)?;
    Ok(updated == 1)
}

/// Takes the request that was pushed under a `request_uri`, which is good once: the one step that
/// only one browser takes. Whether its time is over, the caller judges.
pub async fn any_tenant_take_pushed(
    tx: &mut Tx,
    hash: &[u8],
) -> Result<Option<AuthorizationRequest>, Error> {
    let target = requests::table.filter(requests::request_uri_hash.eq(hash));
    let row = on!(tx, |c| diesel::update(target)
        .set(requests::request_uri_hash.eq(None::<Vec<u8>>))
        .returning(RequestRow::as_returning())
        .get_result(c)
        .await
        .optional())?;
    row.map(AuthorizationRequest::try_from).transpose()
}

/// Deletes requests whose time is over, up to `limit`.
pub async fn any_tenant_delete_expired(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    delete_before!(tx, requests, id as String, expires_at, now, limit)
}
