//! Accounts at providers, whoever connected them.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::pool::{Conn, on};
use super::schema::connections;
use crate::model::ConnectionState;

/// Whether any owner uses this account through this app. Asked before tokens are revoked at the
/// provider: one that ends the whole consent of an account would end theirs.
pub async fn is_connected(
    conn: &mut Conn,
    tenant: &str,
    app_id: &str,
    account_id: &str,
) -> Result<bool, Error> {
    let query = connections::table
        .filter(connections::tenant.eq(tenant))
        .filter(connections::app_id.eq(app_id))
        .filter(connections::account_id.eq(account_id))
        .filter(connections::state.eq(ConnectionState::Active.as_str()))
        .select(connections::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}
