//! The audit trail: entries, their chain and its checkpoints.

pub mod chain;
pub mod checkpoints;
pub mod reading;
pub mod trimming;

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::columns::JsonValue;
use super::pool::{Tx, on};
use super::schema::audit_events;
use super::statement::Prepare as _;
use crate::model::{ActorKind, AuditEvent, Chained, Timestamp};

pub use reading::Filter;

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = audit_events, treat_none_as_default_value = false)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct AuditEventRow {
    id: String,
    tenant: String,
    occurred_at: Timestamp,
    action: String,
    success: bool,
    reason: String,
    actor_kind: String,
    actor_id: String,
    resource_kind: String,
    resource_id: String,
    provider: String,
    trace_id: String,
    details: JsonValue,
    ip: String,
    user_agent: String,
    salt: Option<Vec<u8>>,
    personal_hash: Vec<u8>,
    erased_by: Option<String>,
    /// Given when it is chained, with the hash.
    position: Option<i64>,
    hash: Option<Vec<u8>>,
}

impl From<AuditEventRow> for Chained {
    fn from(event: AuditEventRow) -> Self {
        Self {
            position: event.position,
            hash: event.hash,
            event: AuditEvent {
                id: event.id,
                tenant: event.tenant,
                occurred_at: event.occurred_at,
                action: event.action,
                success: event.success,
                reason: event.reason,
                actor_kind: event.actor_kind,
                actor_id: event.actor_id,
                resource_kind: event.resource_kind,
                resource_id: event.resource_id,
                provider: event.provider,
                trace_id: event.trace_id,
                details: details(event.details),
                ip: event.ip,
                user_agent: event.user_agent,
                salt: event.salt,
                personal_hash: event.personal_hash,
                erased_by: event.erased_by,
            },
        }
    }
}

/// The details. What is no object of strings was never written by us: it is kept whole, under a name
/// that no detail has, so that it can't pass as what was there before.
fn details(stored: JsonValue) -> BTreeMap<String, String> {
    let text = stored.0.to_string();
    serde_json::from_value(stored.0).unwrap_or_else(|_| BTreeMap::from([(String::new(), text)]))
}

/// Writes an entry; it has no place yet. One whose id is there already is left as it is: it is being
/// written again, since nobody heard whether it was.
pub async fn insert(tx: &mut Tx, event: &AuditEvent) -> Result<(), Error> {
    let details: &BTreeMap<String, String> = &event.details;
    let row = AuditEventRow {
        id: event.id.clone(),
        tenant: event.tenant.clone(),
        occurred_at: event.occurred_at,
        action: event.action.clone(),
        success: event.success,
        reason: event.reason.clone(),
        actor_kind: event.actor_kind.clone(),
        actor_id: event.actor_id.clone(),
        resource_kind: event.resource_kind.clone(),
        resource_id: event.resource_id.clone(),
        provider: event.provider.clone(),
        trace_id: event.trace_id.clone(),
        details: JsonValue::of(details),
        ip: event.ip.clone(),
        user_agent: event.user_agent.clone(),
        salt: event.salt.clone(),
        personal_hash: event.personal_hash.clone(),
        erased_by: event.erased_by.clone(),
        position: None,
        hash: None,
    };
    on!(tx, |c| diesel::insert_into(audit_events::table)
        .values(&row)
        .on_conflict(audit_events::id)
        .do_nothing()
        .prepared()
        .execute(c)
        .await)?;
    Ok(())
}

/// Clears address and program of up to `limit` of a tenant's entries that one of these did, or that
/// nobody known (a failed sign-in) or a client of ours did to one of them, and says which entry tells of
/// it; answers how many. What somebody else did to them, an operator or another user, keeps that one's address.
pub async fn erase_personal(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
    erased_by: &str,
    limit: i64,
) -> Result<usize, Error> {
    let unknown = [
        ActorKind::Anonymous.as_str(),
        ActorKind::Browser.as_str(),
        ActorKind::Client.as_str(),
    ];
    let found: Vec<String> = on!(tx, |c| {
        audit_events::table
            .filter(audit_events::tenant.eq(tenant))
            .filter(audit_events::salt.is_not_null())
            .filter(
                audit_events::actor_id
                    .eq_any(ids)
                    .or(audit_events::resource_id
                        .eq_any(ids)
                        .and(audit_events::actor_kind.eq_any(&unknown))),
            )
            .select(audit_events::id)
            .limit(limit)
            .load(c)
            .await
    })?;
    if found.is_empty() {
        return Ok(0);
    }
    let target = audit_events::table.filter(audit_events::id.eq_any(&found));
    Ok(on!(tx, |c| diesel::update(target)
        .set((
            audit_events::ip.eq(""),
            audit_events::user_agent.eq(""),
            audit_events::salt.eq(None::<Vec<u8>>),
            audit_events::erased_by.eq(erased_by),
        ))
        .execute(c)
        .await)?)
}
