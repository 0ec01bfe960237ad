//! Giving entries their places.

use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Binary, Text};
use diesel_async::RunQueryDsl;

use super::super::Error;
use super::super::pool::{Conn, Tx, on};
use super::super::schema::{audit_events, audit_head};
use super::super::statement::Prepare as _;
use super::AuditEventRow;
use crate::model::{ChainHead, Chained, Timestamp};

const HEAD: i32 = 1;

/// A place for an entry.
#[derive(Clone, Debug)]
pub struct Place {
    /// The entry's id.
    pub id: String,
    /// The place.
    pub position: i64,
    /// The hash there.
    pub hash: Vec<u8>,
}

/// How far the chain goes. `None` when somebody removed the row that says so.
pub async fn head(conn: &mut Conn) -> Result<Option<ChainHead>, Error> {
    let query = audit_head::table.find(HEAD).select((
        audit_head::position,
        audit_head::hash,
        audit_head::trimmed,
    ));
    let row: Option<(i64, Vec<u8>, i64)> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(row.map(|(position, hash, trimmed)| ChainHead {
        position,
        hash,
        trimmed,
    }))
}

/// The same, locked until the transaction ends: whoever chains, signs or trims comes after another.
/// In PostgreSQL the statements that follow take their snapshot after the lock, so they see whatever
/// was committed by then.
///
/// # Errors
/// [`Error::Internal`] also when the row is gone.
pub async fn lock_head(tx: &mut Tx) -> Result<ChainHead, Error> {
    let target = audit_head::table.find(HEAD);
    let (position, hash, trimmed) = on!(tx, |c| diesel::update(target)
        .set(audit_head::trimmed.eq(audit_head::trimmed))
        .returning((audit_head::position, audit_head::hash, audit_head::trimmed))
        .prepared()
        .get_result(c)
        .await)?;
    Ok(ChainHead {
        position,
        hash,
        trimmed,
    })
}

/// Whether committed entries wait for their place.
pub async fn any_unchained(conn: &mut Conn) -> Result<bool, Error> {
    let query = audit_events::table
        .filter(audit_events::position.is_null())
        .select(audit_events::id);
    let found: Option<String> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(found.is_some())
}

/// The first of the committed entries that wait for their place, of every tenant: the chain is one.
pub async fn any_tenant_unchained(conn: &mut Conn, limit: i64) -> Result<Vec<Chained>, Error> {
    let rows: Vec<AuditEventRow> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::position.is_null())
            .order(audit_events::id)
            .limit(limit)
            .select(AuditEventRow::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Chained::from).collect())
}

/// The ids of entries without a place that were written before a time.
pub async fn any_tenant_unchained_since(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(String, Timestamp)>, Error> {
    Ok(on!(conn, |c| {
        audit_events::table
            .filter(audit_events::position.is_null())
            .filter(audit_events::occurred_at.lt(before))
            .order(audit_events::id)
            .limit(limit)
            .select((audit_events::id, audit_events::occurred_at))
            .load(c)
            .await
    })?)
}

/// Gives entries their places, and says how far the chain goes then. The head is locked.
pub async fn place(tx: &mut Tx, places: &[Place]) -> Result<(), Error> {
    let Some(last) = places.last() else {
        return Ok(());
    };
    match &mut **tx {
        Conn::Postgres(conn) => {
            let ids: Vec<&str> = places.iter().map(|place| place.id.as_str()).collect();
            let positions: Vec<i64> = places.iter().map(|place| place.position).collect();
            let hashes: Vec<&[u8]> = places.iter().map(|place| place.hash.as_slice()).collect();
            diesel::sql_query(
                "UPDATE audit_events SET position = placed.position, hash = placed.hash
                 FROM unnest($1, $2, $3) AS placed (id, position, hash)
                 WHERE audit_events.id = placed.id",
            )
            .bind::<Array<Text>, _>(ids)
            .bind::<Array<BigInt>, _>(positions)
            .bind::<Array<Binary>, _>(hashes)
            .prepared()
            .execute(&mut **conn)
            .await?;
        }
        Conn::Sqlite(conn) => {
            let places = places.to_vec();
            // In one go: a hop to the blocking threads and back for each would cost more than the
            // statement.
            conn.spawn_blocking(move |conn| {
                for place in &places {
                    let target = audit_events::table.find(&place.id);
                    let set = diesel::update(target).set((
                        audit_events::position.eq(place.position),
                        audit_events::hash.eq(&place.hash),
                    ));
                    diesel::RunQueryDsl::execute(set.prepared(), conn)?;
                }
                Ok(())
            })
            .await?;
        }
    }
    let target = audit_head::table.find(HEAD);
    on!(tx, |c| diesel::update(target)
        .set((
            audit_head::position.eq(last.position),
            audit_head::hash.eq(&last.hash),
        ))
        .prepared()
        .execute(c)
        .await)?;
    Ok(())
}
