//! Retention of the trail.

use std::ops::RangeInclusive;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::Error;
use super::super::pool::{Conn, Tx, on};
use super::super::schema::{audit_checkpoints, audit_events, audit_head};
use crate::model::Timestamp;

/// Says that places up to this one have left. The head is locked.
pub async fn set_trimmed(tx: &mut Tx, position: i64) -> Result<(), Error> {
    on!(tx, |c| diesel::update(audit_head::table)
        .set(audit_head::trimmed.eq(position))
        .execute(c)
        .await)?;
    Ok(())
}

/// The first place behind one, of every tenant, whose entry is of these times; none where all are older
/// or from a clock that was ahead.
pub async fn any_tenant_first_within(
    conn: &mut Conn,
    after: i64,
    times: RangeInclusive<Timestamp>,
) -> Result<Option<i64>, Error> {
    let found: Option<Option<i64>> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::position.gt(after))
            .filter(audit_events::occurred_at.ge(*times.start()))
            .filter(audit_events::occurred_at.le(*times.end()))
            .order(audit_events::position)
            .select(audit_events::position)
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
