//! Logs that grow and are pruned: attempts to refresh, synchronisations.

use std::time::Duration;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::pool::{Conn, Tx, on};
use super::schema::{refresh_attempts, sync_records};
use super::{Error, unreadable_if_none};
use crate::model::{
    RefreshAttempt, RefreshOutcome, RefreshTrigger, SyncRecord, SyncStatus, Timestamp,
};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = refresh_attempts)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct AttemptRow {
    id: String,
    tenant: String,
    grant_id: String,
    started_at: Timestamp,
    duration_micros: i64,
    trigger: String,
    outcome: String,
    error_code: String,
    error_message: String,
    fingerprint: String,
    new_fingerprint: String,
    generation: i64,
}

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = sync_records)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct SyncRow {
    id: String,
    tenant: String,
    connection_id: String,
    action: String,
    status: String,
    data_size: i64,
    duration_micros: i64,
    error: String,
    created_at: Timestamp,
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

impl TryFrom<AttemptRow> for RefreshAttempt {
    type Error = Error;
    fn try_from(row: AttemptRow) -> Result<Self, Error> {
        Ok(Self {
            trigger: unreadable_if_none(
                RefreshTrigger::parse(&row.trigger),
                "refresh_attempts.trigger",
            )?,
            outcome: unreadable_if_none(
                RefreshOutcome::parse(&row.outcome),
                "refresh_attempts.outcome",
            )?,
            id: row.id,
            tenant: row.tenant,
            grant_id: row.grant_id,
            started_at: row.started_at,
            duration: duration(row.duration_micros),
            error_code: row.error_code,
            error_message: row.error_message,
            fingerprint: row.fingerprint,
            new_fingerprint: row.new_fingerprint,
            generation: row.generation,
        })
    }
}

impl TryFrom<SyncRow> for SyncRecord {
    type Error = Error;
    fn try_from(row: SyncRow) -> Result<Self, Error> {
        Ok(Self {
            status: unreadable_if_none(SyncStatus::parse(&row.status), "sync_records.status")?,
            id: row.id,
            tenant: row.tenant,
            connection_id: row.connection_id,
            action: row.action,
            data_size: row.data_size,
            duration: duration(row.duration_micros),
            error: row.error,
            created_at: row.created_at,
        })
    }
}

/// Records an attempt to refresh.
pub async fn insert_attempt(tx: &mut Tx, attempt: &RefreshAttempt) -> Result<(), Error> {
    let row = AttemptRow {
        id: attempt.id.clone(),
        tenant: attempt.tenant.clone(),
        grant_id: attempt.grant_id.clone(),
        started_at: attempt.started_at,
        duration_micros: micros(attempt.duration),
        trigger: attempt.trigger.as_str().to_owned(),
        outcome: attempt.outcome.as_str().to_owned(),
        error_code: attempt.error_code.clone(),
        error_message: attempt.error_message.clone(),
        fingerprint: attempt.fingerprint.clone(),
        new_fingerprint: attempt.new_fingerprint.clone(),
        generation: attempt.generation,
    };
    on!(tx, |c| diesel::insert_into(refresh_attempts::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// One page of a grant's attempts, newest first, before an id (all when it is empty).
pub async fn list_attempts(
    conn: &mut Conn,
    tenant: &str,
    grant_id: &str,
    before: &str,
    limit: i64,
) -> Result<Vec<RefreshAttempt>, Error> {
    let rows: Vec<AttemptRow> = on!(conn, |c| {
        let mut query = refresh_attempts::table
            .filter(refresh_attempts::tenant.eq(tenant))
            .filter(refresh_attempts::grant_id.eq(grant_id))
            .order(refresh_attempts::id.desc())
            .limit(limit)
            .select(AttemptRow::as_select())
            .into_boxed();
        if !before.is_empty() {
            query = query.filter(refresh_attempts::id.lt(before));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(RefreshAttempt::try_from).collect()
}

/// Records a synchronisation.
pub async fn insert_sync(tx: &mut Tx, record: &SyncRecord) -> Result<(), Error> {
    let row = SyncRow {
        id: record.id.clone(),
        tenant: record.tenant.clone(),
        connection_id: record.connection_id.clone(),
        action: record.action.clone(),
        status: record.status.as_str().to_owned(),
        data_size: record.data_size,
        duration_micros: micros(record.duration),
        error: record.error.clone(),
        created_at: record.created_at,
    };
    on!(tx, |c| diesel::insert_into(sync_records::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The synchronisation.
pub async fn find_sync(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
) -> Result<Option<SyncRecord>, Error> {
    let row = on!(conn, |c| {
        let query = sync_records::table
            .find(id)
            .filter(sync_records::tenant.eq(tenant))
            .select(SyncRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(SyncRecord::try_from).transpose()
}

/// One page of a connection's synchronisations, newest first, before an id (all when it is empty).
pub async fn list_syncs(
    conn: &mut Conn,
    tenant: &str,
    connection_id: &str,
    before: &str,
    limit: i64,
) -> Result<Vec<SyncRecord>, Error> {
    let rows: Vec<SyncRow> = on!(conn, |c| {
        let mut query = sync_records::table
            .filter(sync_records::tenant.eq(tenant))
            .filter(sync_records::connection_id.eq(connection_id))
            .order(sync_records::id.desc())
            .limit(limit)
            .select(SyncRow::as_select())
            .into_boxed();
        if !before.is_empty() {
            query = query.filter(sync_records::id.lt(before));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(SyncRecord::try_from).collect()
}

/// Deletes up to `limit` attempts that began before a time.
pub async fn any_tenant_prune_attempts(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let query = refresh_attempts::table
        .filter(refresh_attempts::started_at.lt(before))
        .order(refresh_attempts::started_at)
        .limit(limit)
        .select(refresh_attempts::id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    let target = refresh_attempts::table.filter(refresh_attempts::id.eq_any(ids));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}

/// Deletes up to `limit` synchronisations recorded before a time.
pub async fn any_tenant_prune_syncs(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let query = sync_records::table
        .filter(sync_records::created_at.lt(before))
        .order(sync_records::created_at)
        .limit(limit)
        .select(sync_records::id);
    let ids: Vec<String> = on!(conn, |c| query.load(c).await)?;
    let target = sync_records::table.filter(sync_records::id.eq_any(ids));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}
