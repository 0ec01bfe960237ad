//! Tokens that we issued: hashes, never the tokens. Whether one is good depends on its grant, client
//! and user as well.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::grants::GrantRow;
use super::{announce, delete_before, lock_unlocked, texts};
use crate::model::{
    ClientState, IssuedGrant, IssuedToken, IssuedTokenKind, Sealed, Timestamp, TokenFormat,
    UserState,
};
use crate::store::columns::JsonValue;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::{issued_grants, issued_tokens as tokens, oauth_clients, users};
use crate::store::{Error, unreadable_if_none};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = tokens)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct TokenRow {
    id: String,
    hash: Vec<u8>,
    tenant: String,
    client_id: String,
    grant_id: Option<String>,
    kind: String,
    format: String,
    scopes: JsonValue,
    resources: JsonValue,
    dpop_jkt: String,
    generation: i64,
    created_at: Timestamp,
    expires_at: Timestamp,
    revoked_at: Option<Timestamp>,
    revoke_reason: String,
    consumed_at: Option<Timestamp>,
    reuse_count: i32,
    successor: Option<Sealed>,
    use_count: i64,
    last_used_at: Option<Timestamp>,
    ip: String,
    user_agent: String,
    keep_until: Timestamp,
}

impl From<&IssuedToken> for TokenRow {
    fn from(token: &IssuedToken) -> Self {
        let token = token.clone();
        Self {
            kind: token.kind.as_str().to_owned(),
            format: token.format.as_str().to_owned(),
            scopes: JsonValue::of(&token.scopes),
            resources: JsonValue::of(&token.resources),
            id: token.id,
            hash: token.hash,
            tenant: token.tenant,
            client_id: token.client_id,
            grant_id: token.grant_id,
            dpop_jkt: token.dpop_jkt,
            generation: token.generation,
            created_at: token.created_at,
            expires_at: token.expires_at,
            revoked_at: token.revoked_at,
            revoke_reason: token.revoke_reason,
            consumed_at: token.consumed_at,
            reuse_count: token.reuse_count,
            successor: token.successor,
            use_count: token.use_count,
            last_used_at: token.last_used_at,
            ip: token.ip,
            user_agent: token.user_agent,
            keep_until: token.keep_until,
        }
    }
}

impl TryFrom<TokenRow> for IssuedToken {
    type Error = Error;
    fn try_from(row: TokenRow) -> Result<Self, Error> {
        let format = TokenFormat::parse(&row.format);
        Ok(Self {
            kind: unreadable_if_none(IssuedTokenKind::parse(&row.kind), "issued_tokens.kind")?,
            format: unreadable_if_none(format, "issued_tokens.format")?,
            scopes: texts(row.scopes, "issued_tokens.scopes")?,
            resources: texts(row.resources, "issued_tokens.resources")?,
            id: row.id,
            hash: row.hash,
            tenant: row.tenant,
            client_id: row.client_id,
            grant_id: row.grant_id,
            dpop_jkt: row.dpop_jkt,
            generation: row.generation,
            created_at: row.created_at,
            expires_at: row.expires_at,
            revoked_at: row.revoked_at,
            revoke_reason: row.revoke_reason,
            consumed_at: row.consumed_at,
            reuse_count: row.reuse_count,
            successor: row.successor,
            use_count: row.use_count,
            last_used_at: row.last_used_at,
            ip: row.ip,
            user_agent: row.user_agent,
            keep_until: row.keep_until,
        })
    }
}

/// Inserts a new token.
pub async fn insert(tx: &mut Tx, token: &IssuedToken) -> Result<(), Error> {
    let row = TokenRow::from(token);
    on!(tx, |c| diesel::insert_into(tokens::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The token with this hash, good or not: whose it is, nobody knows before.
pub async fn any_tenant_find(conn: &mut Conn, hash: &[u8]) -> Result<Option<IssuedToken>, Error> {
    let row = on!(conn, |c| {
        let query = tokens::table
            .filter(tokens::hash.eq(hash))
            .select(TokenRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(IssuedToken::try_from).transpose()
}

/// A token with all that it depends on.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The token.
    pub token: IssuedToken,
    /// What it came of; none where the client acts for itself.
    pub grant: Option<IssuedGrant>,
    /// Where its client stands.
    pub client_state: ClientState,
    /// Whether its client was deleted.
    pub client_deleted: bool,
    /// Who gave the grant.
    pub user: Option<StandingUser>,
}

/// What is said of a token's user.
#[derive(Clone, Debug)]
pub struct StandingUser {
    /// `user_…`.
    pub id: String,
    /// In lower case.
    pub email: String,
    /// Whether it is known to be theirs.
    pub email_verified: bool,
    /// Their name for people; may be empty.
    pub name: String,
    /// Whether they may sign in: switched on, and not deleted.
    pub active: bool,
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = users)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct UserRow {
    id: String,
    email: String,
    email_verified: bool,
    display_name: String,
    state: String,
    deleted_at: Option<Timestamp>,
}

impl TryFrom<UserRow> for StandingUser {
    type Error = Error;
    fn try_from(row: UserRow) -> Result<Self, Error> {
        let state = unreadable_if_none(UserState::parse(&row.state), "users.state")?;
        Ok(Self {
            active: state == UserState::Active && row.deleted_at.is_none(),
            id: row.id,
            email: row.email,
            email_verified: row.email_verified,
            name: row.display_name,
        })
    }
}

/// The token with this hash, and how what it depends on stands.
pub async fn any_tenant_standing(conn: &mut Conn, hash: &[u8]) -> Result<Option<Standing>, Error> {
    let row: Option<(TokenRow, String, Option<Timestamp>)> = on!(conn, |c| {
        let query = tokens::table
            .inner_join(oauth_clients::table)
            .filter(tokens::hash.eq(hash))
            .select((
                TokenRow::as_select(),
                oauth_clients::state,
                oauth_clients::deleted_at,
            ));
        query.first(c).await.optional()
    })?;
    let Some((row, state, deleted_at)) = row else {
        return Ok(None);
    };
    let token = IssuedToken::try_from(row)?;
    let mut standing = Standing {
        client_state: unreadable_if_none(ClientState::parse(&state), "oauth_clients.state")?,
        client_deleted: deleted_at.is_some(),
        grant: None,
        user: None,
        token,
    };
    if let Some(grant_id) = &standing.token.grant_id {
        // After the token: a grant that went meanwhile took the token with it.
        let row: Option<(GrantRow, UserRow)> = on!(conn, |c| {
            let query = issued_grants::table
                .inner_join(users::table)
                .filter(issued_grants::id.eq(grant_id))
                .select((GrantRow::as_select(), UserRow::as_select()));
            query.first(c).await.optional()
        })?;
        let Some((grant, user)) = row else {
            return Ok(None);
        };
        standing.grant = Some(grant.try_into()?);
        standing.user = Some(user.try_into()?);
    }
    Ok(Some(standing))
}

/// Exchanges a refresh token for its successor, if it was neither exchanged nor revoked before: the
/// one step that only one caller takes. Its grant is locked by this transaction.
pub async fn consume_refresh(
    tx: &mut Tx,
    tenant: &str,
    hash: &[u8],
    now: Timestamp,
    successor: &Sealed,
) -> Result<bool, Error> {
    let target = tokens::table
        .filter(tokens::hash.eq(hash))
        .filter(tokens::tenant.eq(tenant))
        .filter(tokens::kind.eq(IssuedTokenKind::Refresh.as_str()))
        .filter(tokens::consumed_at.is_null())
        .filter(tokens::revoked_at.is_null());
    let exchanged = (
        tokens::consumed_at.eq(Some(now)),
        tokens::successor.eq(successor),
    );
    let changed = on!(tx, |c| diesel::update(target)
        .set(exchanged)
        .execute(c)
        .await)?;
    Ok(changed == 1)
}

/// Counts that an exchanged refresh token came again; `false` when that happened `most` times before.
pub async fn count_reuse(tx: &mut Tx, tenant: &str, hash: &[u8], most: i32) -> Result<bool, Error> {
    let target = tokens::table
        .filter(tokens::hash.eq(hash))
        .filter(tokens::tenant.eq(tenant))
        .filter(tokens::consumed_at.is_not_null())
        .filter(tokens::reuse_count.lt(most));
    let counted = tokens::reuse_count.eq(tokens::reuse_count + 1);
    Ok(on!(tx, |c| diesel::update(target).set(counted).execute(c).await)? == 1)
}

/// Revokes one token, and tells every replica; `false` when it was revoked before.
pub async fn revoke(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<bool, Error> {
    let target = tokens::table
        .find(id)
        .filter(tokens::tenant.eq(tenant))
        .filter(tokens::revoked_at.is_null());
    let revoked = (
        tokens::revoked_at.eq(Some(now)),
        tokens::revoke_reason.eq(reason),
    );
    let changed = on!(tx, |c| diesel::update(target).set(revoked).execute(c).await)?;
    if changed == 1 {
        announce(tx, tenant, id, now).await?;
    }
    Ok(changed == 1)
}

/// Revokes the tokens that a client has for itself, and tells every replica; how many. Those of grants
/// end with the grants. One whose time was over is not counted.
pub async fn revoke_of_client(
    tx: &mut Tx,
    tenant: &str,
    client_id: &str,
    reason: &str,
    now: Timestamp,
) -> Result<usize, Error> {
    let target = tokens::table
        .filter(tokens::tenant.eq(tenant))
        .filter(tokens::client_id.eq(client_id))
        .filter(tokens::grant_id.is_null())
        .filter(tokens::expires_at.gt(now))
        .filter(tokens::revoked_at.is_null());
    let revoked = (
        tokens::revoked_at.eq(Some(now)),
        tokens::revoke_reason.eq(reason),
    );
    let changed = on!(tx, |c| diesel::update(target).set(revoked).execute(c).await)?;
    if changed > 0 {
        announce(tx, tenant, client_id, now).await?;
    }
    Ok(changed)
}

/// One page by id; of one client or grant where it is given. A token that ended with its grant says
/// when and why that was.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    client_id: Option<&str>,
    grant_id: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<IssuedToken>, Error> {
    let rows: Vec<(TokenRow, Option<Timestamp>, Option<String>)> = on!(conn, |c| {
        let mut query = tokens::table
            .left_join(issued_grants::table)
            .filter(tokens::tenant.eq(tenant))
            .filter(tokens::id.gt(after))
            .order(tokens::id)
            .limit(limit)
            .select((
                TokenRow::as_select(),
                issued_grants::revoked_at.nullable(),
                issued_grants::revoke_reason.nullable(),
            ))
            .into_boxed();
        if let Some(client_id) = client_id {
            query = query.filter(tokens::client_id.eq(client_id));
        }
        if let Some(grant_id) = grant_id {
            query = query.filter(tokens::grant_id.eq(grant_id));
        }
        query.load(c).await
    })?;
    rows.into_iter()
        .map(|(row, revoked_at, reason)| {
            let mut token = IssuedToken::try_from(row)?;
            if token.revoked_at.is_none() && revoked_at.is_some() {
                token.revoked_at = revoked_at;
                token.revoke_reason = reason.unwrap_or_default();
            }
            Ok(token)
        })
        .collect()
}

/// Adds to how often a token was looked at.
pub async fn add_use(tx: &mut Tx, id: &str, count: i64, last: Timestamp) -> Result<(), Error> {
    let used = (
        tokens::use_count.eq(tokens::use_count + count),
        tokens::last_used_at.eq(Some(last)),
    );
    on!(tx, |c| diesel::update(tokens::table.find(id))
        .set(used)
        .execute(c)
        .await)?;
    Ok(())
}

/// Forgets what refresh tokens were exchanged for before a time, of up to `limit` of them.
pub async fn any_tenant_forget_successors(
    tx: &mut Tx,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let query = tokens::table
        .filter(tokens::successor.is_not_null())
        .filter(tokens::consumed_at.lt(before))
        .order(tokens::consumed_at)
        .limit(limit)
        .select(tokens::id);
    let ids: Vec<String> = lock_unlocked!(tx, query)?;
    if ids.is_empty() {
        return Ok(0);
    }
    let target = tokens::table.filter(tokens::id.eq_any(ids));
    let forgotten = tokens::successor.eq(None::<Sealed>);
    Ok(on!(tx, |c| diesel::update(target)
        .set(forgotten)
        .execute(c)
        .await)?)
}

/// Deletes tokens that need not be kept any longer, up to `limit`.
pub async fn any_tenant_delete_old(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    delete_before!(tx, tokens, id as String, keep_until, now, limit)
}
