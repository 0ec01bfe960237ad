//! The audit trail: entries, their chain and its checkpoints.

use std::collections::BTreeMap;

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::columns::JsonValue;
use super::pool::{Tx, on};
use super::schema::audit_events;
use crate::model::{AuditEvent, Timestamp};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = audit_events)]
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
}

/// Writes an entry; it has no place yet.
pub async fn insert(tx: &mut Tx, event: &AuditEvent) -> Result<(), Error> {
    let details: &BTreeMap<String, String> = &event.details;
    let row = AuditEventRow {
        id: event.id.clone(),
        tenant: event.tenant.clone(),
        occurred_at: event.occurred_at,
        action: event.action.clone(),
        success: event.success,
        reason: event.reason.clone(),
        actor_kind: event.actor_kind.as_str().to_owned(),
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
    };
    on!(tx, |c| diesel::insert_into(audit_events::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}
