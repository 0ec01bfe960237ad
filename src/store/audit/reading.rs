//! Reading entries that have their place.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::super::Error;
use super::super::pool::{Conn, on};
use super::super::schema::audit_events;
use super::AuditEventRow;
use crate::model::{Chained, Timestamp};

/// Which entries to list; what is empty or none lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only this action, or with `.*` at the end a group of them.
    pub action: String,
    /// Only by this caller.
    pub actor_id: String,
    /// Only on this.
    pub resource_id: String,
    /// Only of this provider.
    pub provider: String,
    /// Only what failed.
    pub failed_only: bool,
    /// Only at or after this time.
    pub start: Option<Timestamp>,
    /// Only before this time.
    pub end: Option<Timestamp>,
}

impl Filter {
    /// The first and the first-no-more of the actions that are let through, in byte order: a range,
    /// which means the same in both engines, unlike LIKE.
    fn actions(&self) -> Option<(String, String)> {
        let group = self.action.strip_suffix(".*")?;
        // The character after the dot.
        Some((format!("{group}."), format!("{group}/")))
    }
}

/// Places of a tenant to look through: behind the first, up to the second.
#[derive(Clone, Copy, Debug)]
pub struct Stretch {
    /// Behind this place.
    pub after: i64,
    /// Up to this one.
    pub until: i64,
}

/// A tenant's entries in a stretch, in the order of their places.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    filter: &Filter,
    stretch: Stretch,
    limit: i64,
) -> Result<Vec<Chained>, Error> {
    let group = filter.actions();
    let rows: Vec<AuditEventRow> = on!(conn, |c| {
        let mut query = audit_events::table
            .filter(audit_events::tenant.eq(tenant))
            .filter(audit_events::position.gt(stretch.after))
            .filter(audit_events::position.le(stretch.until))
            .order(audit_events::position)
            .limit(limit)
            .select(AuditEventRow::as_select())
            .into_boxed();
        if let Some((first, end)) = &group {
            query = query
                .filter(audit_events::action.ge(first))
                .filter(audit_events::action.lt(end));
        } else if !filter.action.is_empty() {
            query = query.filter(audit_events::action.eq(&filter.action));
        }
        if !filter.actor_id.is_empty() {
            query = query.filter(audit_events::actor_id.eq(&filter.actor_id));
        }
        if !filter.resource_id.is_empty() {
            query = query.filter(audit_events::resource_id.eq(&filter.resource_id));
        }
        if !filter.provider.is_empty() {
            query = query.filter(audit_events::provider.eq(&filter.provider));
        }
        if filter.failed_only {
            query = query.filter(audit_events::success.eq(false));
        }
        if let Some(start) = filter.start {
            query = query.filter(audit_events::occurred_at.ge(start));
        }
        if let Some(end) = filter.end {
            query = query.filter(audit_events::occurred_at.lt(end));
        }
        query.load(c).await
    })?;
    Ok(rows.into_iter().map(Chained::from).collect())
}

/// Where a stretch ends that has `count` of a tenant's entries; none where there are fewer.
pub async fn end_of(
    conn: &mut Conn,
    tenant: &str,
    stretch: Stretch,
    count: i64,
) -> Result<Option<i64>, Error> {
    let found: Option<Option<i64>> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::tenant.eq(tenant))
            .filter(audit_events::position.gt(stretch.after))
            .filter(audit_events::position.le(stretch.until))
            .order(audit_events::position)
            .offset(count - 1)
            .select(audit_events::position)
            .first(c)
            .await
            .optional()
    })?;
    Ok(found.flatten())
}

/// The entries behind a place, of every tenant: for verification and export.
pub async fn any_tenant_after(
    conn: &mut Conn,
    after: i64,
    limit: i64,
) -> Result<Vec<Chained>, Error> {
    let rows: Vec<AuditEventRow> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::position.gt(after))
            .order(audit_events::position)
            .limit(limit)
            .select(AuditEventRow::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Chained::from).collect())
}

/// The entries of these ids, of every tenant, whether or not they have a place.
pub async fn any_tenant_of(conn: &mut Conn, ids: &[String]) -> Result<Vec<Chained>, Error> {
    let rows: Vec<AuditEventRow> = on!(conn, |c| {
        audit_events::table
            .filter(audit_events::id.eq_any(ids))
            .select(AuditEventRow::as_select())
            .load(c)
            .await
    })?;
    Ok(rows.into_iter().map(Chained::from).collect())
}
