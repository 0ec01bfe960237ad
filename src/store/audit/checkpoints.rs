//! Signed checkpoints. They are of the whole chain, and so of no tenant.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::Error;
use super::super::pool::{Conn, Tx, on};
use super::super::schema::audit_checkpoints;
use crate::model::{Checkpoint, Timestamp};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = audit_checkpoints)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct CheckpointRow {
    position: i64,
    hash: Vec<u8>,
    created_at: Timestamp,
    note: String,
}

impl From<CheckpointRow> for Checkpoint {
    fn from(row: CheckpointRow) -> Self {
        Self {
            position: row.position,
            hash: row.hash,
            created_at: row.created_at,
            note: row.note,
        }
    }
}

/// Keeps a checkpoint.
pub async fn insert(tx: &mut Tx, checkpoint: &Checkpoint) -> Result<(), Error> {
    let row = CheckpointRow {
        position: checkpoint.position,
        hash: checkpoint.hash.clone(),
        created_at: checkpoint.created_at,
        note: checkpoint.note.clone(),
    };
    on!(tx, |c| diesel::insert_into(audit_checkpoints::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The newest that is of no place behind `through`. When it was signed is not asked: nothing covers that
/// column, so whoever can write the table could choose.
pub async fn newest(conn: &mut Conn, through: i64) -> Result<Option<Checkpoint>, Error> {
    let row: Option<CheckpointRow> = on!(conn, |c| {
        audit_checkpoints::table
            .filter(audit_checkpoints::position.le(through))
            .order(audit_checkpoints::position.desc())
            .select(CheckpointRow::as_select())
            .first(c)
            .await
            .optional()
    })?;
    Ok(row.map(Checkpoint::from))
}

/// The one of a place.
pub async fn find(conn: &mut Conn, position: i64) -> Result<Option<Checkpoint>, Error> {
    let row: Option<CheckpointRow> = on!(conn, |c| {
        audit_checkpoints::table
            .find(position)
            .select(CheckpointRow::as_select())
            .first(c)
            .await
            .optional()
    })?;
    Ok(row.map(Checkpoint::from))
}

/// Those behind a place, oldest first.
pub async fn list(conn: &mut Conn, after: i64, limit: i64) -> Result<Vec<Checkpoint>, Error> {
    let rows: Vec<CheckpointRow> = on!(conn, |c| {
        audit_checkpoints::table
            .filter(audit_checkpoints::position.gt(after))
            .order(audit_checkpoints::position)
            .limit(limit)
            .select(CheckpointRow::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Checkpoint::from).collect())
}
