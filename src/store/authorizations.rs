//! Authorisations and the visits of their links. Each step is one conditional update, so that two
//! browsers, or two replicas, can't both take it.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::{authorization_visits, authorizations};
use super::{Error, events, unreadable_if_none};
use crate::model::{
    Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationMode,
    AuthorizationState, EventKind, NewEvent, RefreshPolicy, Sealed, Timestamp, Visit,
};

/// The states that something is still to happen in.
const OPEN: [&str; 3] = [
    AuthorizationState::Pending.as_str(),
    AuthorizationState::Exchanged.as_str(),
    AuthorizationState::AwaitingConfirmation.as_str(),
];

/// The states that nothing leaves.
pub(super) const FINISHED: [&str; 3] = [
    AuthorizationState::Succeeded.as_str(),
    AuthorizationState::Failed.as_str(),
    AuthorizationState::Expired.as_str(),
];

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = authorizations, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct AuthorizationRow {
    id: String,
    tenant: String,
    app_id: String,
    intent: String,
    owner: String,
    mode: String,
    state: String,
    ticket_hash: Option<Vec<u8>>,
    scopes: JsonValue,
    return_url: String,
    redirect_uri: String,
    login_hint: String,
    parameters: JsonValue,
    refresh_policy: String,
    renews: Option<String>,
    connection_id: Option<String>,
    tokens: Option<Sealed>,
    account_id: String,
    confirmation_hash: Option<Vec<u8>>,
    failure_reason: String,
    failure_message: String,
    provider_error: String,
    provider_description: String,
    created_by: String,
    created_at: Timestamp,
    updated_at: Timestamp,
    expires_at: Timestamp,
}

impl From<&Authorization> for AuthorizationRow {
    fn from(authorization: &Authorization) -> Self {
        Self {
            id: authorization.id.clone(),
            tenant: authorization.tenant.clone(),
            app_id: authorization.app_id.clone(),
            intent: authorization.intent.as_str().to_owned(),
            owner: authorization.owner.clone(),
            mode: authorization.mode.as_str().to_owned(),
            state: authorization.state.as_str().to_owned(),
            ticket_hash: authorization.ticket_hash.clone(),
            scopes: JsonValue::of(&authorization.scopes),
            return_url: authorization.return_url.clone(),
            redirect_uri: authorization.redirect_uri.clone(),
            login_hint: authorization.login_hint.clone(),
            parameters: JsonValue::of(&authorization.parameters),
            refresh_policy: authorization.refresh_policy.as_str().to_owned(),
            renews: authorization.renews.clone(),
            connection_id: authorization.connection_id.clone(),
            tokens: authorization.tokens.clone(),
            account_id: authorization.account_id.clone(),
            confirmation_hash: authorization.confirmation_hash.clone(),
            failure_reason: authorization.failure.reason.clone(),
            failure_message: authorization.failure.message.clone(),
            provider_error: authorization.failure.provider_error.clone(),
            provider_description: authorization.failure.provider_description.clone(),
            created_by: authorization.created_by.clone(),
            created_at: authorization.created_at,
            updated_at: authorization.updated_at,
            expires_at: authorization.expires_at,
        }
    }
}

impl TryFrom<AuthorizationRow> for Authorization {
    type Error = Error;
    fn try_from(row: AuthorizationRow) -> Result<Self, Error> {
        Ok(Self {
            intent: unreadable_if_none(
                AuthorizationIntent::parse(&row.intent),
                "authorizations.intent",
            )?,
            mode: unreadable_if_none(AuthorizationMode::parse(&row.mode), "authorizations.mode")?,
            state: unreadable_if_none(
                AuthorizationState::parse(&row.state),
                "authorizations.state",
            )?,
            refresh_policy: unreadable_if_none(
                RefreshPolicy::parse(&row.refresh_policy),
                "authorizations.refresh_policy",
            )?,
            id: row.id,
            tenant: row.tenant,
            app_id: row.app_id,
            owner: row.owner,
            ticket_hash: row.ticket_hash,
            scopes: row.scopes.read(),
            return_url: row.return_url,
            redirect_uri: row.redirect_uri,
            login_hint: row.login_hint,
            parameters: row.parameters.read(),
            renews: row.renews,
            connection_id: row.connection_id,
            tokens: row.tokens,
            account_id: row.account_id,
            confirmation_hash: row.confirmation_hash,
            failure: AuthorizationFailure {
                reason: row.failure_reason,
                message: row.failure_message,
                provider_error: row.provider_error,
                provider_description: row.provider_description,
            },
            created_by: row.created_by,
            created_at: row.created_at,
            updated_at: row.updated_at,
            expires_at: row.expires_at,
        })
    }
}

/// Inserts a new authorisation.
pub async fn insert(tx: &mut Tx, authorization: &Authorization) -> Result<(), Error> {
    let row = AuthorizationRow::from(authorization);
    on!(tx, |c| diesel::insert_into(authorizations::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The authorisation.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<Authorization>, Error> {
    let row = on!(conn, |c| {
        let query = authorizations::table
            .find(id)
            .filter(authorizations::tenant.eq(tenant))
            .select(AuthorizationRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Authorization::try_from).transpose()
}

/// The authorisation with this ticket: the browser knows no tenant.
pub async fn any_tenant_find_ticket(
    conn: &mut Conn,
    ticket_hash: &[u8],
) -> Result<Option<Authorization>, Error> {
    let row = on!(conn, |c| {
        let query = authorizations::table
            .filter(authorizations::ticket_hash.eq(ticket_hash))
            .select(AuthorizationRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Authorization::try_from).transpose()
}

/// Writes the authorisation if it is stored in the state `from`: the one step of its life that
/// only one caller takes. An account that was to be connected may be a job's: its end is told.
pub async fn advance(
    tx: &mut Tx,
    authorization: &Authorization,
    from: AuthorizationState,
) -> Result<bool, Error> {
    let row = AuthorizationRow::from(authorization);
    let target = authorizations::table
        .find(&authorization.id)
        .filter(authorizations::tenant.eq(&authorization.tenant))
        .filter(authorizations::state.eq(from.as_str()));
    let advanced = on!(tx, |c| diesel::update(target).set(&row).execute(c).await)? == 1;
    let ended = authorization.state.is_final();
    if advanced && ended && authorization.intent == AuthorizationIntent::Connect {
        let (tenant, id) = (&authorization.tenant, &authorization.id);
        let at = authorization.updated_at;
        let event = NewEvent::internal(EventKind::AuthorizationEnded, tenant, id, at);
        events::append(tx, &event).await?;
    }
    Ok(advanced)
}

/// Ends an authorisation that still waits for consent, since the job that owns it has ended: its link
/// is good no longer. One that has got further stays as it is.
pub async fn call_off(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<(), Error> {
    let target = authorizations::table
        .find(id)
        .filter(authorizations::tenant.eq(tenant))
        .filter(authorizations::state.eq(AuthorizationState::Pending.as_str()));
    let called_off = (
        authorizations::state.eq(AuthorizationState::Expired.as_str()),
        authorizations::confirmation_hash.eq(None::<Vec<u8>>),
        authorizations::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target)
        .set(called_off)
        .execute(c)
        .await)?;
    Ok(())
}

/// An owner's authorisations, newest first, up to `limit`.
pub async fn of_owner(
    conn: &mut Conn,
    tenant: &str,
    owner: &str,
    limit: i64,
) -> Result<Vec<Authorization>, Error> {
    let rows: Vec<AuthorizationRow> = on!(conn, |c| {
        let query = authorizations::table
            .filter(authorizations::tenant.eq(tenant))
            .filter(authorizations::owner.eq(owner))
            .order(authorizations::id.desc())
            .limit(limit)
            .select(AuthorizationRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Authorization::try_from).collect()
}

/// An owner's authorisations that are not finished, behind the id `after`, in the order of their ids.
pub async fn open_of_owner(
    conn: &mut Conn,
    tenant: &str,
    owner: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<Authorization>, Error> {
    let rows: Vec<AuthorizationRow> = on!(conn, |c| {
        let query = authorizations::table
            .filter(authorizations::tenant.eq(tenant))
            .filter(authorizations::owner.eq(owner))
            .filter(authorizations::state.eq_any(OPEN))
            .filter(authorizations::id.gt(after))
            .order(authorizations::id)
            .limit(limit)
            .select(AuthorizationRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Authorization::try_from).collect()
}

/// The authorisations of these ids, as far as there are any.
pub async fn of_ids(
    conn: &mut Conn,
    tenant: &str,
    ids: &[String],
) -> Result<Vec<Authorization>, Error> {
    let rows: Vec<AuthorizationRow> = on!(conn, |c| {
        let query = authorizations::table
            .filter(authorizations::tenant.eq(tenant))
            .filter(authorizations::id.eq_any(ids))
            .order(authorizations::id)
            .select(AuthorizationRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Authorization::try_from).collect()
}

/// How many of an owner's authorisations wait for consent.
pub async fn pending_count(conn: &mut Conn, tenant: &str, owner: &str) -> Result<i64, Error> {
    let query = authorizations::table
        .filter(authorizations::tenant.eq(tenant))
        .filter(authorizations::owner.eq(owner))
        .filter(authorizations::intent.eq(AuthorizationIntent::Connect.as_str()))
        .filter(authorizations::state.eq(AuthorizationState::Pending.as_str()))
        .count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}

/// How many sign-ins through an app that were begun after a time wait for consent.
pub async fn pending_sign_ins(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    after: Timestamp,
) -> Result<i64, Error> {
    let query = authorizations::table
        .filter(authorizations::tenant.eq(tenant))
        .filter(authorizations::app_id.eq(app_id))
        .filter(authorizations::intent.eq(AuthorizationIntent::SignIn.as_str()))
        .filter(authorizations::state.eq(AuthorizationState::Pending.as_str()))
        .filter(authorizations::created_at.gt(after))
        .count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}

/// Those that lapsed, or that a crash left between the exchange and the connection, whatever
/// their tenant.
pub async fn any_tenant_stray(
    conn: &mut Conn,
    now: Timestamp,
    exchanged_before: Timestamp,
    limit: i64,
) -> Result<Vec<Authorization>, Error> {
    let rows: Vec<AuthorizationRow> = on!(conn, |c| {
        let query = authorizations::table
            .filter(authorizations::state.eq_any(OPEN))
            .filter(
                authorizations::expires_at.le(now).or(authorizations::state
                    .eq(AuthorizationState::Exchanged.as_str())
                    .and(authorizations::updated_at.le(exchanged_before))),
            )
            .order(authorizations::expires_at)
            .limit(limit)
            .select(AuthorizationRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Authorization::try_from).collect()
}

/// Deletes finished ones last changed before a time, up to `limit`.
pub async fn any_tenant_prune(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let query = authorizations::table
        .filter(authorizations::state.eq_any(FINISHED))
        .filter(authorizations::updated_at.lt(before))
        .limit(limit)
        .select(authorizations::id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    let target = authorizations::table.filter(authorizations::id.eq_any(ids));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}

/// Records a visit.
pub async fn insert_visit(tx: &mut Tx, visit: &Visit) -> Result<(), Error> {
    use authorization_visits as v;
    on!(tx, |c| diesel::insert_into(v::table)
        .values((
            v::state_hash.eq(&visit.state_hash),
            v::tenant.eq(&visit.tenant),
            v::authorization_id.eq(&visit.authorization_id),
            v::verifier.eq(&visit.verifier),
            v::nonce.eq(&visit.nonce),
            v::cookie_hash.eq(&visit.cookie_hash),
            v::created_at.eq(visit.created_at),
            v::expires_at.eq(visit.expires_at),
        ))
        .execute(c)
        .await)?;
    Ok(())
}

type VisitRow = (
    Vec<u8>,
    String,
    String,
    Option<Sealed>,
    Option<Sealed>,
    Option<Vec<u8>>,
    Timestamp,
    Timestamp,
);

fn visit(row: VisitRow) -> Visit {
    let (
        state_hash,
        tenant,
        authorization_id,
        verifier,
        nonce,
        cookie_hash,
        created_at,
        expires_at,
    ) = row;
    Visit {
        state_hash,
        tenant,
        authorization_id,
        verifier,
        nonce,
        cookie_hash,
        created_at,
        expires_at,
    }
}

/// The visit with this state, if it was not used: to judge the cookie before anything is spent.
pub async fn any_tenant_find_visit(
    conn: &mut Conn,
    state_hash: &[u8],
) -> Result<Option<Visit>, Error> {
    use authorization_visits as v;
    let query = v::table
        .find(state_hash)
        .filter(v::used_at.is_null())
        .select((
            v::state_hash,
            v::tenant,
            v::authorization_id,
            v::verifier,
            v::nonce,
            v::cookie_hash,
            v::created_at,
            v::expires_at,
        ));
    let row: Option<VisitRow> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(row.map(visit))
}

/// Spends the visit's state; `false` when it was spent already or has lapsed.
pub async fn use_visit(tx: &mut Tx, state_hash: &[u8], now: Timestamp) -> Result<bool, Error> {
    use authorization_visits as v;
    let target = v::table
        .find(state_hash)
        .filter(v::used_at.is_null())
        .filter(v::expires_at.gt(now));
    let used = v::used_at.eq(Some(now));
    Ok(on!(tx, |c| diesel::update(target).set(used).execute(c).await)? == 1)
}

/// How often a link was visited.
pub async fn visit_count(conn: &mut Conn, authorization_id: &str) -> Result<i64, Error> {
    let query = authorization_visits::table
        .filter(authorization_visits::authorization_id.eq(authorization_id))
        .count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}

/// Deletes visits that lapsed before a time, up to `limit`.
pub async fn any_tenant_prune_visits(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    use authorization_visits as v;
    let query = v::table
        .filter(v::expires_at.lt(before))
        .order(v::expires_at)
        .limit(limit)
        .select(v::state_hash);
    let hashes: Vec<Vec<u8>> = on!(conn, |c| query.load(c).await)?;
    let target = v::table.filter(v::state_hash.eq_any(hashes));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}
