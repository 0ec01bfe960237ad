//! Sessions of users: hashes of their tokens, never the tokens.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::{sessions, spent_refresh_tokens, users};
use super::{Error, events, unreadable_if_none};
use crate::model::{
    Constraints, EventKind, NewEvent, Role, Session, SignInMethod, Timestamp, User, UserState,
};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = sessions)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct SessionRow {
    id: String,
    tenant: String,
    user_id: String,
    method: String,
    created_at: Timestamp,
    issued_at: Timestamp,
    last_used_at: Timestamp,
    expires_at: Timestamp,
    refresh_expires_at: Timestamp,
    ip: String,
    user_agent: String,
    revoked_at: Option<Timestamp>,
    revoke_reason: String,
}

impl From<&Session> for SessionRow {
    fn from(session: &Session) -> Self {
        Self {
            id: session.id.clone(),
            tenant: session.tenant.clone(),
            user_id: session.user_id.clone(),
            method: session.method.as_str().to_owned(),
            created_at: session.created_at,
            issued_at: session.issued_at,
            last_used_at: session.last_used_at,
            expires_at: session.expires_at,
            refresh_expires_at: session.refresh_expires_at,
            ip: session.ip.clone(),
            user_agent: session.user_agent.clone(),
            revoked_at: session.revoked_at,
            revoke_reason: session.revoke_reason.clone(),
        }
    }
}

impl TryFrom<SessionRow> for Session {
    type Error = Error;
    fn try_from(row: SessionRow) -> Result<Self, Error> {
        Ok(Self {
            method: unreadable_if_none(SignInMethod::parse(&row.method), "sessions.method")?,
            id: row.id,
            tenant: row.tenant,
            user_id: row.user_id,
            created_at: row.created_at,
            issued_at: row.issued_at,
            last_used_at: row.last_used_at,
            expires_at: row.expires_at,
            refresh_expires_at: row.refresh_expires_at,
            ip: row.ip,
            user_agent: row.user_agent,
            revoked_at: row.revoked_at,
            revoke_reason: row.revoke_reason,
        })
    }
}

/// What a session says of its user.
#[derive(Clone, Debug)]
pub struct Holder {
    /// In lower case.
    pub email: String,
    /// What they may do.
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// Whose connections are theirs.
    pub owner: String,
    /// Whether they may sign in: switched on, and not deleted.
    pub active: bool,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct HolderRow {
    email: String,
    role: String,
    grants: JsonValue,
    owner: String,
    state: String,
    deleted_at: Option<Timestamp>,
}

impl TryFrom<HolderRow> for Holder {
    type Error = Error;
    fn try_from(row: HolderRow) -> Result<Self, Error> {
        let state = unreadable_if_none(UserState::parse(&row.state), "users.state")?;
        Ok(Self {
            role: unreadable_if_none(Role::parse(&row.role), "users.role")?,
            // Never read as a default: constraints that are lost would be rights that are gained.
            constraints: serde_json::from_value(row.grants.0)
                .map_err(|error| Error::unreadable(format!("users.grants: {error}")))?,
            email: row.email,
            owner: row.owner,
            active: state == UserState::Active && row.deleted_at.is_none(),
        })
    }
}

/// The hashes of a session's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Hashes {
    /// SHA-256 of the session token.
    pub token: [u8; 32],
    /// SHA-256 of the refresh token.
    pub refresh: [u8; 32],
}

/// Inserts a new session.
pub async fn insert(tx: &mut Tx, session: &Session, hashes: &Hashes) -> Result<(), Error> {
    let row = SessionRow::from(session);
    on!(tx, |c| diesel::insert_into(sessions::table)
        .values((
            &row,
            sessions::token_hash.eq(hashes.token.as_slice()),
            sessions::refresh_hash.eq(hashes.refresh.as_slice()),
        ))
        .execute(c)
        .await)?;
    Ok(())
}

/// The session with this token, and its user: a caller is known by its token alone.
pub async fn any_tenant_find_token(
    conn: &mut Conn,
    hash: &[u8],
) -> Result<Option<(Session, Holder)>, Error> {
    let row: Option<(SessionRow, HolderRow)> = on!(conn, |c| {
        let query = sessions::table
            .inner_join(users::table)
            .filter(sessions::token_hash.eq(hash))
            .select((SessionRow::as_select(), HolderRow::as_select()));
        query.first(c).await.optional()
    })?;
    row.map(|(session, holder)| Ok((session.try_into()?, holder.try_into()?)))
        .transpose()
}

/// The session whose refresh token this is, or was, and its user: who refreshes says no tenant.
pub async fn any_tenant_find_refresh(
    conn: &mut Conn,
    hash: &[u8],
) -> Result<Option<(Session, Holder)>, Error> {
    let mut row: Option<(SessionRow, HolderRow)> = on!(conn, |c| {
        let query = sessions::table
            .inner_join(users::table)
            .filter(sessions::refresh_hash.eq(hash))
            .select((SessionRow::as_select(), HolderRow::as_select()));
        query.first(c).await.optional()
    })?;
    if row.is_none() {
        row = on!(conn, |c| {
            let spent = spent_refresh_tokens::table
                .filter(spent_refresh_tokens::hash.eq(hash))
                .select(spent_refresh_tokens::session_id);
            let query = sessions::table
                .inner_join(users::table)
                .filter(sessions::id.eq_any(spent))
                .select((SessionRow::as_select(), HolderRow::as_select()));
            query.first(c).await.optional()
        })?;
    }
    row.map(|(session, holder)| Ok((session.try_into()?, holder.try_into()?)))
        .transpose()
}

/// The session.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<Session>, Error> {
    let row = on!(conn, |c| {
        let query = sessions::table
            .find(id)
            .filter(sessions::tenant.eq(tenant))
            .select(SessionRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Session::try_from).transpose()
}

/// Whether this is the session's refresh token now.
pub async fn is_current(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
    refresh_hash: &[u8],
) -> Result<bool, Error> {
    let query = sessions::table
        .find(id)
        .filter(sessions::tenant.eq(tenant))
        .filter(sessions::revoked_at.is_null())
        .filter(sessions::refresh_hash.eq(refresh_hash))
        .select(sessions::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// A user's sessions, newest first, behind the id `after` (empty for the first page): those that
/// can still be used or refreshed at `now`, or all.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    user_id: &str,
    live_at: Option<Timestamp>,
    after: &str,
    limit: i64,
) -> Result<Vec<Session>, Error> {
    let rows: Vec<SessionRow> = on!(conn, |c| {
        let mut query = sessions::table
            .filter(sessions::tenant.eq(tenant))
            .filter(sessions::user_id.eq(user_id))
            .order(sessions::id.desc())
            .limit(limit)
            .select(SessionRow::as_select())
            .into_boxed();
        if let Some(now) = live_at {
            query = query
                .filter(sessions::revoked_at.is_null())
                .filter(sessions::refresh_expires_at.gt(now));
        }
        if !after.is_empty() {
            query = query.filter(sessions::id.lt(after));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(Session::try_from).collect()
}

/// The new tokens of a session, and how long they live.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Of the new tokens.
    pub hashes: Hashes,
    /// Now.
    pub now: Timestamp,
    /// How long a session token lives in any case.
    pub lifetime: std::time::Duration,
}

/// Exchanges a session's tokens, if `refresh_hash` is its refresh token, its time is not over, it
/// was not ended, and its user may sign in: the one step that only one caller takes.
pub async fn rotate(
    tx: &mut Tx,
    refresh_hash: &[u8],
    session: &Session,
    rotation: &Rotation,
) -> Result<Option<Session>, Error> {
    let Rotation {
        hashes,
        now,
        lifetime,
    } = *rotation;
    let ends = now.plus(lifetime).min(session.refresh_expires_at);
    let row = on!(tx, |c| {
        let may_sign_in = users::table
            .filter(users::state.eq(UserState::Active.as_str()))
            .filter(users::deleted_at.is_null())
            .select(users::id);
        let target = sessions::table
            .filter(sessions::id.eq(&session.id))
            .filter(sessions::tenant.eq(&session.tenant))
            .filter(sessions::refresh_hash.eq(refresh_hash))
            .filter(sessions::refresh_expires_at.gt(now))
            .filter(sessions::revoked_at.is_null())
            .filter(sessions::user_id.eq_any(may_sign_in));
        diesel::update(target)
            .set((
                sessions::token_hash.eq(hashes.token.as_slice()),
                sessions::refresh_hash.eq(hashes.refresh.as_slice()),
                sessions::issued_at.eq(now),
                sessions::last_used_at.eq(now),
                sessions::expires_at.eq(ends),
            ))
            .returning(SessionRow::as_returning())
            .get_result(c)
            .await
            .optional()
    })?;
    let Some(row) = row else { return Ok(None) };
    let spent = (
        spent_refresh_tokens::hash.eq(refresh_hash),
        spent_refresh_tokens::session_id.eq(&session.id),
        spent_refresh_tokens::spent_at.eq(now),
    );
    on!(tx, |c| diesel::insert_into(spent_refresh_tokens::table)
        .values(spent)
        .execute(c)
        .await)?;
    announce(tx, &session.tenant, &session.id, now).await?;
    Session::try_from(row).map(Some)
}

/// Whether this refresh token was exchanged before.
pub async fn any_tenant_is_spent(conn: &mut Conn, hash: &[u8]) -> Result<bool, Error> {
    let query = spent_refresh_tokens::table
        .find(hash)
        .select(spent_refresh_tokens::session_id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// Ends a session, and tells every replica; `false` when it was ended before.
pub async fn revoke(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let target = sessions::table
        .find(id)
        .filter(sessions::tenant.eq(tenant))
        .filter(sessions::revoked_at.is_null());
    let ended = (
        sessions::revoked_at.eq(Some(now)),
        sessions::revoke_reason.eq(reason),
    );
    let changed = on!(tx, |c| diesel::update(target).set(ended).execute(c).await)?;
    if changed == 1 {
        announce(tx, tenant, id, now).await?;
    }
    Ok(changed == 1)
}

/// Ends all sessions of a user but `except`, and tells every replica; how many. One whose time was
/// over is not counted.
///
/// Whoever makes a user unable to sign in changes the user first: a sign-in that is under way
/// writes to the user, too, so that its session is either seen here or never made.
pub async fn revoke_all_of(
    tx: &mut Tx,
    tenant: &str,
    user_id: &str,
    except: Option<&str>,
    reason: &str,
    now: Timestamp,
) -> Result<i64, Error> {
    let target = sessions::table
        .filter(sessions::tenant.eq(tenant))
        .filter(sessions::user_id.eq(user_id))
        .filter(sessions::id.ne(except.unwrap_or_default()))
        .filter(sessions::refresh_expires_at.gt(now))
        .filter(sessions::revoked_at.is_null());
    let ended = (
        sessions::revoked_at.eq(Some(now)),
        sessions::revoke_reason.eq(reason),
    );
    let changed = on!(tx, |c| diesel::update(target).set(ended).execute(c).await)?;
    if changed > 0 {
        announce(tx, tenant, user_id, now).await?;
    }
    Ok(i64::try_from(changed).unwrap_or(i64::MAX))
}

/// Ends a user's oldest sessions until no more than `keep` are left; their ids.
pub async fn supersede(
    tx: &mut Tx,
    tenant: &str,
    user_id: &str,
    keep: i64,
    now: Timestamp,
) -> Result<Vec<String>, Error> {
    let query = sessions::table
        .filter(sessions::tenant.eq(tenant))
        .filter(sessions::user_id.eq(user_id))
        .filter(sessions::refresh_expires_at.gt(now))
        .filter(sessions::revoked_at.is_null())
        .order(sessions::id.desc())
        .offset(keep)
        .limit(SUPERSEDED_AT_ONCE)
        .select(sessions::id);
    let oldest: Vec<String> = on!(tx, |c| query.load(c).await)?;
    for id in &oldest {
        revoke(tx, tenant, id, "superseded", now).await?;
    }
    Ok(oldest)
}

/// More than one only when the limit was lowered: the rest goes with the next sign-ins.
const SUPERSEDED_AT_ONCE: i64 = 100;

/// Records that a user signed in, if they may: as they were when they were judged, in role and, where
/// that was their proof, in password. The user's row stays locked: whoever switches them off, or sets a
/// password, comes before this or sees the session.
pub async fn sign_in(
    tx: &mut Tx,
    judged: &User,
    method: SignInMethod,
    now: Timestamp,
) -> Result<bool, Error> {
    let target = users::table
        .find(&judged.id)
        .filter(users::tenant.eq(&judged.tenant))
        .filter(users::role.eq(judged.role.as_str()))
        .filter(users::state.eq(UserState::Active.as_str()))
        .filter(users::deleted_at.is_null());
    let signed_in = users::last_sign_in_at.eq(Some(now));
    let changed: Option<Option<Timestamp>> = on!(tx, |c| diesel::update(target)
        .set(signed_in)
        .returning(users::password_changed_at)
        .get_result(c)
        .await
        .optional())?;
    Ok(changed
        .is_some_and(|at| method != SignInMethod::Password || at == judged.password_changed_at))
}

/// Records when a session was last used, unless a later use is known.
pub async fn touch(tx: &mut Tx, id: &str, at: Timestamp) -> Result<(), Error> {
    let target = sessions::table
        .find(id)
        .filter(sessions::last_used_at.lt(at));
    let used = sessions::last_used_at.eq(at);
    on!(tx, |c| diesel::update(target).set(used).execute(c).await)?;
    Ok(())
}

/// Deletes sessions that ended before a time, up to `limit`; their spent refresh tokens go with
/// them.
pub async fn any_tenant_prune(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let query = sessions::table
        .filter(
            sessions::refresh_expires_at
                .lt(before)
                .or(sessions::revoked_at.lt(before)),
        )
        .limit(limit)
        .select(sessions::id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    let target = sessions::table.filter(sessions::id.eq_any(ids));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}

/// Every replica forgets the session, or the user's sessions.
async fn announce(tx: &mut Tx, tenant: &str, subject: &str, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent::internal(EventKind::SessionsEnded, tenant, subject, now);
    events::append(tx, &event).await
}
