//! Retention of the trail.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::Error;
use super::super::pool::{Conn, Tx, on};
use super::super::schema::{audit_checkpoints, audit_events, audit_head};

/// Says that places up to this one have left. The head is locked.
pub async fn set_trimmed(tx: &mut Tx, position: i64) -> Result<(), Error> {
    on!(tx, |c| diesel::update(audit_head::table)
        .set(audit_head::trimmed.eq(position))
        .execute(c)
        .await)?;
    Ok(())
}

/// The hash at a place; none where there is no such place.
pub async fn any_tenant_hash_at(conn: &mut Conn, position: i64) -> Result<Option<Vec<u8>>, Error> {
    let found: Option<Option<Vec<u8>>> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::position.eq(position))
            .select(audit_events::hash)
            .first(c)
            .await
            .optional()
    })?;
    Ok(found.flatten())
}

/// Deletes up to `limit` of the entries that have left, of every tenant; answers how many.
pub async fn any_tenant_delete(conn: &mut Conn, trimmed: i64, limit: i64) -> Result<usize, Error> {
    let oldest: Option<Option<i64>> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::position.le(trimmed))
            .order(audit_events::position)
            .select(audit_events::position)
            .first(c)
            .await
            .optional()
    })?;
    let Some(oldest) = oldest.flatten() else {
        return Ok(0);
    };
    let last = trimmed.min(oldest.saturating_add(limit - 1));
    let target = audit_events::table.filter(audit_events::position.le(last));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}

/// Deletes the checkpoints before the one that verification begins with.
pub async fn delete_checkpoints(conn: &mut Conn, trimmed: i64) -> Result<usize, Error> {
    let target = audit_checkpoints::table.filter(audit_checkpoints::position.lt(trimmed));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}
