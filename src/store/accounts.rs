//! Accounts at providers, whoever connected them.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::columns::JsonValue;
use super::pool::{Conn, on};
use super::schema::{apps, connections, users};
use crate::model::{ConnectionState, ProvedAccount};

/// Whether any owner but one (empty: any at all) uses this account through this app. Asked before
/// tokens are revoked at the provider: one that ends the whole consent of an account would end theirs.
pub async fn is_connected(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    account_id: &str,
    but: &str,
) -> Result<bool, Error> {
    let query = connections::table
        .filter(connections::tenant.eq(tenant))
        .filter(connections::app_id.eq(app_id))
        .filter(connections::account_id.eq(account_id))
        .filter(connections::owner.ne(but))
        .filter(connections::state.eq(ConnectionState::Active.as_str()))
        .select(connections::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// The users, by id, whose active connections hold this account: of the same installation of the
/// provider, as the variables of their apps have it.
pub async fn users_of(
    conn: &mut Conn,
    tenant: &str,
    proved: &ProvedAccount,
) -> Result<Vec<String>, Error> {
    let rows: Vec<(String, JsonValue)> = on!(conn, |c| {
        let theirs = users::tenant
            .eq(connections::tenant)
            .and(users::owner.eq(connections::owner));
        let query = connections::table
            .inner_join(apps::table)
            .inner_join(users::table.on(theirs))
            .filter(connections::tenant.eq(tenant))
            .filter(connections::provider.eq(&proved.provider))
            .filter(connections::account_id.eq(&proved.account_id))
            .filter(connections::state.eq(ConnectionState::Active.as_str()))
            .filter(users::deleted_at.is_null())
            .order(users::id)
            .select((users::id, apps::variables));
        query.load(c).await
    })?;
    let mut ids: Vec<String> = rows
        .into_iter()
        .filter(|(_, variables)| *variables == JsonValue::of(&proved.variables))
        .map(|(id, _)| id)
        .collect();
    ids.dedup();
    Ok(ids)
}
