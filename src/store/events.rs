//! Events: appended in the transaction that causes them, read by position.
//!
//! In PostgreSQL transactions commit in another order than they write, so the relay numbers what is
//! committed. SQLite has one writer at a time: an event gets its position as it is written.

use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::columns::JsonValue;
use super::locks::lock;
use super::pool::{Conn, Engine, Options, Store, Tx, on};
use super::postgres;
use super::schema::{event_counter, events};
use super::statement::Prepare as _;
use super::{Error, unreadable_if_none};
use crate::model::{Event, EventKind, Horizon, NewEvent, Timestamp};

/// Appends an event. The row it is about is locked by this transaction already, so that the
/// events of one connection get their numbers in the order in which they happened.
pub async fn append(tx: &mut Tx, event: &NewEvent) -> Result<(), Error> {
    let end = end(tx).await?;
    on!(tx, |c| diesel::insert_into(events::table)
        .values((
            events::position.eq(end.map(|end| end + 1)),
            events::tenant.eq(&event.tenant),
            events::kind.eq(event.kind.as_str()),
            events::subject.eq(&event.subject),
            events::connection_id.eq(&event.connection_id),
            events::app_id.eq(&event.app_id),
            events::grant_id.eq(&event.grant_id),
            events::owner.eq(&event.owner),
            events::provider.eq(&event.provider),
            events::generation.eq(event.generation),
            events::expires_at.eq(event.expires_at),
            events::reason.eq(&event.reason),
            events::job_id.eq(&event.job_id),
            events::batch_id.eq(&event.batch_id),
            events::detail.eq(event.detail.as_ref().map(JsonValue::of)),
            events::created_at.eq(event.created_at),
        ))
        .prepared()
        .execute(c)
        .await)?;
    count(tx, end, 1).await
}

/// The last position given, where events get theirs as they are written; `None` where the relay gives
/// them.
pub(super) async fn end(tx: &mut Tx) -> Result<Option<i64>, Error> {
    match tx.as_conn() {
        Conn::Sqlite(pooled) => {
            let query = event_counter::table.find(1).select(event_counter::position);
            Ok(Some(query.first(&mut **pooled).await?))
        }
        Conn::Postgres(_) => Ok(None),
    }
}

/// Records that so many were written behind `end`.
pub(super) async fn count(tx: &mut Tx, end: Option<i64>, written: usize) -> Result<(), Error> {
    let Some(end) = end else { return Ok(()) };
    let written = i64::try_from(written).map_err(Error::unreadable)?;
    let counter = event_counter::table.find(1);
    on!(tx, |c| diesel::update(counter)
        .set(event_counter::position.eq(end + written))
        .prepared()
        .execute(c)
        .await)?;
    Ok(())
}

/// Whether a committed event waits for its position.
#[diesel::dsl::auto_type]
fn is_any_unnumbered() -> _ {
    diesel::dsl::exists(events::table.filter(events::position.is_null()))
}

/// Numbers up to `limit` committed events and wakes the other replicas, in the name of this one; answers how
/// many: fewer than `limit` were all.
///
/// The counter's row serialises relays: positions become visible in their own order, so a reader
/// that has seen one has seen all before it. In PostgreSQL the second statement takes its snapshot
/// after the lock, so it sees whatever was committed by then. Where there is nothing to number the row is
/// not locked, which would take a commit to disk.
pub async fn number(store: &Store, limit: i64, replica: &str) -> Result<usize, Error> {
    if store.engine() == Engine::Sqlite {
        // Nothing but what an older version left, and to begin would be to write.
        let mut conn = store.read().await?;
        let found: bool = on!(&mut conn, |c| diesel::select(is_any_unnumbered())
            .get_result(c)
            .await)?;
        if !found {
            return Ok(0);
        }
    }
    let mut tx = store.begin().await?;
    let counter = event_counter::table.find(1);
    let look = counter
        .filter(is_any_unnumbered())
        .select(event_counter::position);
    let base: Vec<i64> = lock!(&mut tx, look)?;
    let Some(base) = base.into_iter().next() else {
        // Ended, or the pool would throw the connection away.
        tx.commit().await?;
        return Ok(0);
    };
    let numbered = on!(&mut tx, |c| diesel::sql_query(
        "UPDATE events SET position = numbered.place FROM (
             SELECT id, $1 + row_number() OVER (ORDER BY id) AS place FROM (
                 SELECT id FROM events WHERE position IS NULL ORDER BY id LIMIT $2
             ) AS waiting
         ) AS numbered
         WHERE events.id = numbered.id",
    )
    .bind::<BigInt, _>(base)
    .bind::<BigInt, _>(limit)
    .prepared()
    .execute(c)
    .await)?;
    if numbered == 0 {
        // Another relay was first.
        tx.commit().await?;
        return Ok(0);
    }
    let count = i64::try_from(numbered).map_err(Error::unreadable)?;
    on!(&mut tx, |c| diesel::update(counter)
        .set(event_counter::position.eq(base + count))
        .prepared()
        .execute(c)
        .await)?;
    if let (Conn::Postgres(conn), Options::Postgres(options)) = (&mut *tx, store.options()) {
        conn.batch_execute(&postgres::notify_statement(options, replica))
            .await?;
    }
    tx.commit().await?;
    Ok(numbered)
}

/// How far history reaches.
pub async fn horizon(conn: &mut Conn) -> Result<Horizon, Error> {
    let query = event_counter::table.find(1).select((
        event_counter::epoch,
        event_counter::position,
        event_counter::trimmed,
    ));
    let (epoch, position, trimmed) = on!(conn, |c| query.first(c).await)?;
    Ok(Horizon {
        epoch,
        position,
        trimmed,
    })
}

#[derive(Queryable, Selectable)]
#[diesel(table_name = events)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct EventRow {
    id: i64,
    tenant: String,
    position: Option<i64>,
    kind: String,
    subject: String,
    connection_id: Option<String>,
    app_id: Option<String>,
    grant_id: Option<String>,
    owner: String,
    provider: String,
    generation: i64,
    expires_at: Option<Timestamp>,
    reason: String,
    job_id: Option<String>,
    batch_id: Option<String>,
    detail: Option<JsonValue>,
    created_at: Timestamp,
}

impl TryFrom<EventRow> for Event {
    type Error = Error;
    fn try_from(row: EventRow) -> Result<Self, Error> {
        Ok(Self {
            id: row.id,
            position: unreadable_if_none(row.position, "events.position")?,
            event: NewEvent {
                kind: unreadable_if_none(EventKind::parse(&row.kind), "events.type")?,
                tenant: row.tenant,
                subject: row.subject,
                connection_id: row.connection_id,
                app_id: row.app_id,
                grant_id: row.grant_id,
                owner: row.owner,
                provider: row.provider,
                generation: row.generation,
                expires_at: row.expires_at,
                reason: row.reason,
                job_id: row.job_id,
                batch_id: row.batch_id,
                detail: row.detail.map(|detail| detail.0),
                created_at: row.created_at,
            },
        })
    }
}

/// The events after a position, of every tenant: for the hub, which filters for each watcher.
pub async fn any_tenant_after(
    conn: &mut Conn,
    position: i64,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let rows: Vec<EventRow> = on!(conn, |c| {
        let query = events::table
            .filter(events::position.gt(position))
            .order(events::position)
            .limit(limit)
            .select(EventRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(Event::try_from).collect()
}

/// Which past events to list; empty strings match all.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only this connection's.
    pub connection_id: String,
    /// Only this app's.
    pub app_id: String,
    /// Only this owner's.
    pub owner: String,
    /// Only those of these apps; what the caller is allowed.
    pub apps: Vec<String>,
    /// Only those of these providers; what the caller is allowed.
    pub providers: Vec<String>,
    /// What happened to jobs, rather than to connections.
    pub jobs: bool,
}

/// One page of a tenant's events after a position.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    filter: &Filter,
    after: i64,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let rows: Vec<EventRow> = on!(conn, |c| {
        let mut query = events::table
            .filter(events::tenant.eq(tenant))
            .filter(events::position.gt(after))
            .order(events::position)
            .limit(limit)
            .select(EventRow::as_select())
            .into_boxed();
        let of_job = events::job_id.is_not_null();
        query = match filter.jobs {
            true => query.filter(of_job.or(events::batch_id.is_not_null())),
            false => query.filter(events::connection_id.is_not_null()),
        };
        if !filter.connection_id.is_empty() {
            query = query.filter(events::connection_id.eq(&filter.connection_id));
        }
        if !filter.app_id.is_empty() {
            query = query.filter(events::app_id.eq(&filter.app_id));
        }
        if !filter.owner.is_empty() {
            query = query.filter(events::owner.eq(&filter.owner));
        }
        if !filter.apps.is_empty() {
            query = query.filter(events::app_id.eq_any(&filter.apps));
        }
        if !filter.providers.is_empty() {
            query = query.filter(events::provider.eq_any(&filter.providers));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(Event::try_from).collect()
}

/// Deletes up to `limit` of the oldest events made before a time, and records how far history
/// now reaches; answers how many.
pub async fn trim(store: &Store, before: Timestamp, limit: i64) -> Result<usize, Error> {
    let mut tx = store.begin().await?;
    let counter = event_counter::table.find(1);
    let trimmed: i64 = on!(&mut tx, |c| diesel::update(counter)
        .set(event_counter::trimmed.eq(event_counter::trimmed))
        .returning(event_counter::trimmed)
        .get_result(c)
        .await)?;
    // A prefix of history, not whatever is old: a clock that jumped must not leave a hole.
    let oldest = events::table
        .filter(events::position.gt(trimmed))
        .order(events::position)
        .limit(limit)
        .select((events::position, events::created_at));
    let oldest: Vec<(Option<i64>, Timestamp)> = on!(&mut tx, |c| oldest.load(c).await)?;
    let last = oldest
        .into_iter()
        .take_while(|(_, created_at)| *created_at < before)
        .filter_map(|(position, _)| position)
        .last();
    let Some(last) = last else { return Ok(0) };
    let target = events::table.filter(events::position.le(last));
    let deleted = on!(&mut tx, |c| diesel::delete(target).execute(c).await)?;
    on!(&mut tx, |c| diesel::update(counter)
        .set(event_counter::trimmed.eq(last))
        .execute(c)
        .await)?;
    tx.commit().await?;
    Ok(deleted)
}

/// Wakes `heard` whenever another replica than this one numbered events; returns at once on SQLite, where
/// there is no other replica.
pub async fn listen(store: &Store, replica: &str, heard: std::sync::Arc<tokio::sync::Notify>) {
    if let Options::Postgres(options) = store.options() {
        postgres::listen(options, replica, heard).await;
    }
}
