//! Connections, their use, and the page that shows them.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::automation::accounts;
use super::columns::JsonValue;
use super::grants::GrantRow;
use super::pool::{Conn, Tx, on};
use super::schema::{connection_usage, connections, grants, sync_records};
use super::statement::Prepare as _;
use super::{Error, unreadable_if_none};
use crate::model::{
    Connection, ConnectionDetails, ConnectionKind, ConnectionState, Grant, GrantState,
    RefreshPolicy, SyncStatus, Timestamp, Usage,
};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = connections)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct ConnectionRow {
    id: String,
    tenant: String,
    app_id: String,
    grant_id: String,
    provider: String,
    owner: String,
    account_key: String,
    account_id: String,
    kind: String,
    state: String,
    state_reason: String,
    display_name: String,
    avatar_url: String,
    email: String,
    team_id: String,
    provider_tenant_id: String,
    requested_scopes: JsonValue,
    labels: JsonValue,
    metadata: JsonValue,
    refresh_policy: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Connection> for ConnectionRow {
    fn from(connection: &Connection) -> Self {
        Self {
            id: connection.id.clone(),
            tenant: connection.tenant.clone(),
            app_id: connection.app_id.clone(),
            grant_id: connection.grant_id.clone(),
            provider: connection.provider.clone(),
            owner: connection.owner.clone(),
            account_key: connection.account_key.clone(),
            account_id: connection.account_id.clone(),
            kind: connection.kind.as_str().to_owned(),
            state: connection.state.as_str().to_owned(),
            state_reason: connection.state_reason.clone(),
            display_name: connection.display_name.clone(),
            avatar_url: connection.avatar_url.clone(),
            email: connection.email.clone(),
            team_id: connection.team_id.clone(),
            provider_tenant_id: connection.provider_tenant_id.clone(),
            requested_scopes: JsonValue::of(&connection.requested_scopes),
            labels: JsonValue::of(&connection.labels),
            metadata: JsonValue::of(&connection.metadata),
            refresh_policy: connection.refresh_policy.as_str().to_owned(),
            version: connection.version,
            created_at: connection.created_at,
            updated_at: connection.updated_at,
        }
    }
}

impl TryFrom<ConnectionRow> for Connection {
    type Error = Error;
    fn try_from(row: ConnectionRow) -> Result<Self, Error> {
        Ok(Self {
            kind: unreadable_if_none(ConnectionKind::parse(&row.kind), "connections.kind")?,
            state: unreadable_if_none(ConnectionState::parse(&row.state), "connections.state")?,
            refresh_policy: unreadable_if_none(
                RefreshPolicy::parse(&row.refresh_policy),
                "connections.refresh_policy",
            )?,
            id: row.id,
            tenant: row.tenant,
            app_id: row.app_id,
            grant_id: row.grant_id,
            provider: row.provider,
            owner: row.owner,
            account_key: row.account_key,
            account_id: row.account_id,
            state_reason: row.state_reason,
            display_name: row.display_name,
            avatar_url: row.avatar_url,
            email: row.email,
            team_id: row.team_id,
            provider_tenant_id: row.provider_tenant_id,
            requested_scopes: row.requested_scopes.read(),
            labels: row.labels.read(),
            metadata: row.metadata.read(),
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = connection_usage)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct UsageRow {
    last_used_at: Timestamp,
    use_count: i64,
    last_caller: String,
}

impl From<UsageRow> for Usage {
    fn from(row: UsageRow) -> Self {
        Self {
            last_used_at: row.last_used_at,
            use_count: row.use_count,
            last_caller: row.last_caller,
        }
    }
}

type DetailsRow = (ConnectionRow, GrantRow, Option<UsageRow>);

fn details((connection, grant, usage): DetailsRow) -> Result<ConnectionDetails, Error> {
    Ok(ConnectionDetails {
        connection: connection.try_into()?,
        grant: grant.try_into()?,
        usage: usage.map(Usage::from),
        sync_status: None,
    })
}

/// Inserts; `false` when this account of this owner is connected already.
pub async fn insert(tx: &mut Tx, connection: &Connection) -> Result<bool, Error> {
    let row = ConnectionRow::from(connection);
    let inserted = on!(tx, |c| diesel::insert_into(connections::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// Writes the connection if its stored version is the one before.
pub async fn update(tx: &mut Tx, connection: &Connection) -> Result<bool, Error> {
    let row = ConnectionRow::from(connection);
    let target = connections::table
        .find(&connection.id)
        .filter(connections::tenant.eq(&connection.tenant))
        .filter(connections::version.eq(connection.version - 1));
    Ok(on!(tx, |c| diesel::update(target)
        .set(&row)
        .prepared()
        .execute(c)
        .await)?
        == 1)
}

/// Locks the connection's row until the transaction ends: whatever is appended to the events
/// afterwards comes after what earlier holders of the lock appended.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<Connection>, Error> {
    let target = connections::table
        .find(id)
        .filter(connections::tenant.eq(tenant));
    // An update without effect: the lock of both engines, where FOR UPDATE is PostgreSQL's alone.
    let row = on!(tx, |c| diesel::update(target)
        .set(connections::id.eq(connections::id))
        .returning(ConnectionRow::as_returning())
        .prepared()
        .get_result(c)
        .await
        .optional())?;
    row.map(Connection::try_from).transpose()
}

/// Deletes; its use and synchronisations go with it, and accounts are not connected by it any more.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<bool, Error> {
    accounts::touch_connected(tx, tenant, id, now).await?;
    let target = connections::table
        .find(id)
        .filter(connections::tenant.eq(tenant));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)? == 1)
}

/// The connection and its grant.
pub async fn find(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
) -> Result<Option<(Connection, Grant)>, Error> {
    let row: Option<(ConnectionRow, GrantRow)> = on!(conn, |c| {
        let query = connections::table
            .inner_join(grants::table)
            .filter(connections::tenant.eq(tenant))
            .filter(connections::id.eq(id))
            .select((ConnectionRow::as_select(), GrantRow::as_select()));
        query.first(c).await.optional()
    })?;
    row.map(|(connection, grant)| Ok((connection.try_into()?, grant.try_into()?)))
        .transpose()
}

/// The connection with all that is shown of it.
pub async fn find_details(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
) -> Result<Option<ConnectionDetails>, Error> {
    let row: Option<DetailsRow> = on!(conn, |c| {
        let query = connections::table
            .inner_join(grants::table)
            .left_join(connection_usage::table)
            .filter(connections::tenant.eq(tenant))
            .filter(connections::id.eq(id))
            .select((
                ConnectionRow::as_select(),
                GrantRow::as_select(),
                Option::<UsageRow>::as_select(),
            ));
        query.first(c).await.optional()
    })?;
    let Some(row) = row else { return Ok(None) };
    let mut found = details(row)?;
    found.sync_status = last_syncs(conn, &[id]).await?.remove(id);
    Ok(Some(found))
}

/// How the last synchronisation of each of these connections ended, where there was one.
async fn last_syncs(conn: &mut Conn, ids: &[&str]) -> Result<HashMap<String, SyncStatus>, Error> {
    let others = diesel::alias!(sync_records as others);
    let last = others
        .filter(others.field(sync_records::connection_id).eq_any(ids))
        .group_by(others.field(sync_records::connection_id))
        .select(diesel::dsl::max(others.field(sync_records::id)).assume_not_null());
    let query = sync_records::table
        .filter(sync_records::id.eq_any(last))
        .select((sync_records::connection_id, sync_records::status));
    let rows: Vec<(String, String)> = on!(conn, |c| query.load(c).await)?;
    Ok(rows
        .into_iter()
        .filter_map(|(id, status)| Some((id, SyncStatus::parse(&status)?)))
        .collect())
}

/// This account of this owner.
pub async fn find_account(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    owner: &str,
    account_key: &str,
) -> Result<Option<Connection>, Error> {
    let row = on!(conn, |c| {
        let query = connections::table
            .filter(connections::tenant.eq(tenant))
            .filter(connections::app_id.eq(app_id))
            .filter(connections::owner.eq(owner))
            .filter(connections::account_key.eq(account_key))
            .select(ConnectionRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Connection::try_from).transpose()
}

/// Which connections to list; empty strings match all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this app's.
    pub app_id: String,
    /// Only this owner's.
    pub owner: String,
    /// Only this provider's.
    pub provider: String,
    /// Only those in this state; with whether reauthorisation is required.
    pub state: Option<(ConnectionState, Option<bool>)>,
    /// Only those whose app is one of these; what the caller is allowed.
    pub apps: Vec<String>,
    /// Only those of these providers; what the caller is allowed.
    pub providers: Vec<String>,
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    filter: &Filter,
    after: &str,
    limit: i64,
) -> Result<Vec<ConnectionDetails>, Error> {
    let rows: Vec<DetailsRow> = on!(conn, |c| {
        let mut query = connections::table
            .inner_join(grants::table)
            .left_join(connection_usage::table)
            .filter(connections::tenant.eq(tenant))
            .filter(connections::id.gt(after))
            .order(connections::id)
            .limit(limit)
            .select((
                ConnectionRow::as_select(),
                GrantRow::as_select(),
                Option::<UsageRow>::as_select(),
            ))
            .into_boxed();
        if !filter.app_id.is_empty() {
            query = query.filter(connections::app_id.eq(&filter.app_id));
        }
        if !filter.owner.is_empty() {
            query = query.filter(connections::owner.eq(&filter.owner));
        }
        if !filter.provider.is_empty() {
            query = query.filter(connections::provider.eq(&filter.provider));
        }
        if let Some((state, reauthorization)) = filter.state {
            query = query.filter(connections::state.eq(state.as_str()));
            if let Some(required) = reauthorization {
                let dead = GrantState::ReauthorizationRequired.as_str();
                query = if required {
                    query.filter(grants::state.eq(dead))
                } else {
                    query.filter(grants::state.ne(dead))
                };
            }
        }
        if !filter.apps.is_empty() {
            query = query.filter(connections::app_id.eq_any(&filter.apps));
        }
        if !filter.providers.is_empty() {
            query = query.filter(connections::provider.eq_any(&filter.providers));
        }
        query.load(c).await
    })?;
    let mut found = rows
        .into_iter()
        .map(details)
        .collect::<Result<Vec<_>, _>>()?;
    let ids: Vec<&str> = found.iter().map(|row| row.connection.id.as_str()).collect();
    let mut syncs = last_syncs(conn, &ids).await?;
    for row in &mut found {
        row.sync_status = syncs.remove(&row.connection.id);
    }
    Ok(found)
}

/// The ids of an app's connections, of one owner or of all, up to `limit`: to tell one from
/// several.
pub async fn ids_of_owner(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    owner: Option<&str>,
    limit: i64,
) -> Result<Vec<(String, ConnectionState)>, Error> {
    let rows: Vec<(String, String)> = on!(conn, |c| {
        let mut query = connections::table
            .filter(connections::tenant.eq(tenant))
            .filter(connections::app_id.eq(app_id))
            .order(connections::id)
            .limit(limit)
            .select((connections::id, connections::state))
            .into_boxed();
        if let Some(owner) = owner {
            query = query.filter(connections::owner.eq(owner));
        }
        query.load(c).await
    })?;
    rows.into_iter()
        .map(|(id, state)| {
            let state = unreadable_if_none(ConnectionState::parse(&state), "connections.state")?;
            Ok((id, state))
        })
        .collect()
}

/// The ids of an app's connections after one, of one owner or of all: to go through them.
pub async fn ids_of_app(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    owner: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, Error> {
    Ok(on!(conn, |c| {
        let mut query = connections::table
            .filter(connections::tenant.eq(tenant))
            .filter(connections::app_id.eq(app_id))
            .filter(connections::id.gt(after))
            .order(connections::id)
            .limit(limit)
            .select(connections::id)
            .into_boxed();
        if let Some(owner) = owner {
            query = query.filter(connections::owner.eq(owner));
        }
        query.load(c).await
    })?)
}

/// Locks the connections that share a grant, in the order of their ids and before the grant, as
/// everybody does: so no two transactions wait for each other. One that leaves the grant meanwhile
/// is missing, one that comes is not seen; whoever has to know asks [`of_grant`] once more when the
/// grant is locked, too.
pub async fn lock_of_grant(
    tx: &mut Tx,
    tenant: &str,
    grant_id: &str,
) -> Result<Vec<Connection>, Error> {
    let mut locked = Vec::new();
    for connection in of_grant(tx, tenant, grant_id).await? {
        let found = lock(tx, tenant, &connection.id).await?;
        locked.extend(found.filter(|found| found.grant_id == grant_id));
    }
    Ok(locked)
}

/// The connections that share a grant, in the order of their ids.
pub async fn of_grant(
    conn: &mut Conn,
    tenant: &str,
    grant_id: &str,
) -> Result<Vec<Connection>, Error> {
    let rows: Vec<ConnectionRow> = on!(conn, |c| {
        let query = connections::table
            .filter(connections::tenant.eq(tenant))
            .filter(connections::grant_id.eq(grant_id))
            .order(connections::id)
            .select(ConnectionRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Connection::try_from).collect()
}

/// Adds uses that were counted in memory; those of connections deleted meanwhile are dropped.
pub async fn add_usage(
    tx: &mut Tx,
    tenant: &str,
    connection_id: &str,
    usage: &Usage,
) -> Result<(), Error> {
    let exists = connections::table
        .find(connection_id)
        .filter(connections::tenant.eq(tenant))
        .count();
    let exists: i64 = on!(tx, |c| exists.get_result(c).await)?;
    if exists == 0 {
        return Ok(());
    }
    on!(tx, |c| diesel::insert_into(connection_usage::table)
        .values((
            connection_usage::connection_id.eq(connection_id),
            connection_usage::tenant.eq(tenant),
            connection_usage::last_used_at.eq(usage.last_used_at),
            connection_usage::use_count.eq(usage.use_count),
            connection_usage::last_caller.eq(&usage.last_caller),
        ))
        .on_conflict(connection_usage::connection_id)
        .do_update()
        .set((
            connection_usage::last_used_at.eq(usage.last_used_at),
            connection_usage::use_count.eq(connection_usage::use_count + usage.use_count),
            connection_usage::last_caller.eq(&usage.last_caller),
        ))
        .execute(c)
        .await)?;
    Ok(())
}

/// When any connection of a grant last handed out a token.
pub async fn grant_last_used(
    conn: &mut Conn,
    tenant: &str,
    grant_id: &str,
) -> Result<Option<Timestamp>, Error> {
    let query = connection_usage::table
        .inner_join(connections::table)
        .filter(connections::tenant.eq(tenant))
        .filter(connections::grant_id.eq(grant_id))
        .order(connection_usage::last_used_at.desc())
        .select(connection_usage::last_used_at);
    Ok(on!(conn, |c| query.first(c).await.optional())?)
}
