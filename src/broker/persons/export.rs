//! One document of what is held about a person: everything but secrets.

use serde_json::{Map, Value, json};

use super::{CHUNK, Persons, Subject, entry};
use crate::access::Caller;
use crate::access::audit::{self, Action};
use crate::error::Error;
use crate::model::{
    Authorization, Chained, ConnectionDetails, IssuedGrant, Preferences, RefreshAttempt, Session,
    SyncRecord, Timestamp, User,
};
use crate::store::audit::reading::{self, Stretch};
use crate::store::{self, Conn, transact};

/// The most rows of one kind in a document.
const ROWS_MAX: i64 = 5_000;

impl Persons {
    /// Everything held about a person but secrets, as one JSON object (docs/personal-data.md). Of a kind
    /// of which there are more than 5,000 rows the document says `truncated`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the user, [`Error::PermissionDenied`], or the store's.
    pub async fn export(
        &self,
        caller: &Caller,
        subject: &Subject,
    ) -> Result<Map<String, Value>, Error> {
        let (person, owns) = self.person(caller, subject).await?;
        let now = self.clock.now();
        // First, so that no export goes unnoticed.
        transact!(self.store, |tx| {
            let entry = entry(Action::PersonExported, caller, &person);
            audit::record(&mut tx, &entry, now).await?;
            Ok(())
        })?;
        let mut document = Document::new(now, &person.owner);
        if let Some(found) = &person.user {
            // Also has what was done a moment ago listed.
            let sign_ins = self.sign_ins(&caller.tenant, &found.id).await?;
            let ids = Vec::from_iter(sign_ins.all.authorizations);
            let mut conn = self.store.read().await?;
            document.user(&mut conn, found).await?;
            document.sign_ins(&mut conn, &caller.tenant, &ids).await?;
            let tenant = &caller.tenant;
            let grants = self.grants(&mut conn, tenant, &found.id, ROWS_MAX + 1);
            document.list("grants", grants.await?, grant);
        }
        let mut conn = self.store.read().await?;
        if owns {
            document
                .connections(&mut conn, &caller.tenant, &person.owner)
                .await?;
        }
        Ok(document.0)
    }
}

struct Document(Map<String, Value>);

impl Document {
    fn new(now: Timestamp, owner: &str) -> Self {
        let mut map = Map::new();
        map.insert("export_time".to_owned(), time(now));
        map.insert("owner".to_owned(), owner.into());
        map.insert("truncated".to_owned(), Value::Array(Vec::new()));
        Self(map)
    }

    fn list<T>(&mut self, name: &str, mut rows: Vec<T>, wire: impl Fn(&T) -> Value) {
        let most = usize::try_from(ROWS_MAX).unwrap_or(usize::MAX);
        if rows.len() > most {
            rows.truncate(most);
            if let Some(Value::Array(truncated)) = self.0.get_mut("truncated") {
                truncated.push(name.into());
            }
        }
        let list = rows.iter().map(wire).collect();
        self.0.insert(name.to_owned(), Value::Array(list));
    }

    async fn user(&mut self, conn: &mut Conn, found: &User) -> Result<(), Error> {
        let User { tenant, id, .. } = found;
        self.0.insert("user".to_owned(), user(found));
        let found = store::preferences::find(conn, tenant, id).await?;
        self.0.insert("preferences".to_owned(), preferences(found));
        let sessions = store::sessions::list(conn, tenant, id, None, "", ROWS_MAX + 1).await?;
        self.list("sessions", sessions, session);
        let all = Stretch {
            after: 0,
            until: i64::MAX,
        };
        let by = reading::Filter {
            actor_id: id.clone(),
            ..reading::Filter::default()
        };
        let on = reading::Filter {
            resource_id: id.clone(),
            ..reading::Filter::default()
        };
        let mut events = reading::list(conn, tenant, &by, all, ROWS_MAX + 1).await?;
        events.extend(reading::list(conn, tenant, &on, all, ROWS_MAX + 1).await?);
        events.sort_by_key(|event| event.position);
        events.dedup_by_key(|event| event.position);
        self.list("audit_events", events, audit_event);
        Ok(())
    }

    /// The authorisations that a user signed in with, as far as they are kept.
    async fn sign_ins(
        &mut self,
        conn: &mut Conn,
        tenant: &str,
        ids: &[String],
    ) -> Result<(), Error> {
        let mut found = Vec::new();
        for ids in ids.chunks(CHUNK) {
            found.extend(store::authorizations::of_ids(conn, tenant, ids).await?);
        }
        self.list("sign_ins", found, authorization);
        Ok(())
    }

    async fn connections(
        &mut self,
        conn: &mut Conn,
        tenant: &str,
        owner: &str,
    ) -> Result<(), Error> {
        let filter = store::connections::Filter {
            owner: owner.to_owned(),
            ..store::connections::Filter::default()
        };
        let found = store::connections::list(conn, tenant, &filter, "", ROWS_MAX + 1).await?;
        let (mut attempts, mut syncs) = (Vec::new(), Vec::new());
        for details in found
            .iter()
            .take(usize::try_from(ROWS_MAX).unwrap_or(usize::MAX))
        {
            let room = |rows: usize| {
                let rows = i64::try_from(rows).unwrap_or(i64::MAX);
                (ROWS_MAX + 1).saturating_sub(rows)
            };
            let left = room(attempts.len());
            if left > 0 {
                let grant = &details.grant.id;
                attempts
                    .extend(store::records::list_attempts(conn, tenant, grant, "", left).await?);
            }
            let left = room(syncs.len());
            if left > 0 {
                let id = &details.connection.id;
                syncs.extend(store::records::list_syncs(conn, tenant, id, "", left).await?);
            }
        }
        let begun = store::authorizations::of_owner(conn, tenant, owner, ROWS_MAX + 1).await?;
        self.list("connections", found, connection);
        self.list("refresh_attempts", attempts, attempt);
        self.list("synchronizations", syncs, sync);
        self.list("authorizations", begun, authorization);
        Ok(())
    }
}

fn time(time: Timestamp) -> Value {
    Value::String(time.to_string())
}

fn maybe(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, time)
}

fn user(user: &User) -> Value {
    json!({
        "id": user.id,
        "email": user.email,
        "email_verified": user.email_verified,
        "display_name": user.display_name,
        "role": user.role.as_str(),
        "owner": user.owner,
        "state": user.state.as_str(),
        "has_password": user.password_hash.is_some(),
        "create_time": time(user.created_at),
        "update_time": time(user.updated_at),
        "last_sign_in_time": maybe(user.last_sign_in_at),
        "password_change_time": maybe(user.password_changed_at),
        "delete_time": maybe(user.deleted_at),
    })
}

fn preferences(preferences: Preferences) -> Value {
    Value::Object(preferences.values)
}

fn session(session: &Session) -> Value {
    json!({
        "id": session.id,
        "method": session.method.as_str(),
        "create_time": time(session.created_at),
        "last_use_time": time(session.last_used_at),
        "expire_time": time(session.expires_at),
        "refresh_expire_time": time(session.refresh_expires_at),
        "client_ip": session.ip,
        "client_user_agent": session.user_agent,
        "revoke_time": maybe(session.revoked_at),
        "revoke_reason": session.revoke_reason,
    })
}

fn grant((grant, client_name): &(IssuedGrant, String)) -> Value {
    json!({
        "id": grant.id,
        "client_id": grant.client_id,
        "client_name": client_name,
        "scopes": grant.scopes,
        "resources": grant.resources,
        "auth_time": time(grant.auth_time),
        "ip": grant.ip,
        "user_agent": grant.user_agent,
        "create_time": time(grant.created_at),
        "last_issue_time": time(grant.last_issued_at),
        "expire_time": time(grant.expires_at),
        "revoke_time": maybe(grant.revoked_at),
        "revoke_reason": grant.revoke_reason,
    })
}

fn connection(details: &ConnectionDetails) -> Value {
    let ConnectionDetails {
        connection,
        grant,
        usage,
        ..
    } = details;
    json!({
        "id": connection.id,
        "provider": connection.provider,
        "app_id": connection.app_id,
        "kind": connection.kind.as_str(),
        "state": connection.state.as_str(),
        "account_id": connection.account_id,
        "display_name": connection.display_name,
        "email": connection.email,
        "avatar_url": connection.avatar_url,
        "team_id": connection.team_id,
        "provider_tenant_id": connection.provider_tenant_id,
        "labels": connection.labels,
        "metadata": connection.metadata,
        "requested_scopes": connection.requested_scopes,
        "granted_scopes": grant.scopes,
        "create_time": time(connection.created_at),
        "update_time": time(connection.updated_at),
        "access_token_expire_time": maybe(grant.expires_at),
        "last_refresh_time": maybe(grant.last_refreshed_at),
        "last_use_time": maybe(usage.as_ref().map(|usage| usage.last_used_at)),
        "use_count": usage.as_ref().map_or(0, |usage| usage.use_count),
    })
}

fn attempt(attempt: &RefreshAttempt) -> Value {
    json!({
        "id": attempt.id,
        "start_time": time(attempt.started_at),
        "outcome": attempt.outcome.as_str(),
        "error_code": attempt.error_code,
        "error_message": attempt.error_message,
    })
}

fn sync(record: &SyncRecord) -> Value {
    json!({
        "id": record.id,
        "connection_id": record.connection_id,
        "action": record.action,
        "status": record.status.as_str(),
        "data_size": record.data_size,
        "error": record.error,
        "create_time": time(record.created_at),
    })
}

fn authorization(authorization: &Authorization) -> Value {
    json!({
        "id": authorization.id,
        "app_id": authorization.app_id,
        "state": authorization.state.as_str(),
        "scopes": authorization.scopes,
        "return_url": authorization.return_url,
        "login_hint": authorization.login_hint,
        "account_id": authorization.account_id,
        "connection_id": authorization.connection_id,
        "failure_reason": authorization.failure.reason,
        "create_time": time(authorization.created_at),
        "update_time": time(authorization.updated_at),
    })
}

fn audit_event(chained: &Chained) -> Value {
    let event = &chained.event;
    json!({
        "id": event.id,
        "event_time": time(event.occurred_at),
        "action": event.action,
        "success": event.success,
        "reason": event.reason,
        "resource_kind": event.resource_kind,
        "resource_id": event.resource_id,
        "provider": event.provider,
        "client_ip": event.ip,
        "client_user_agent": event.user_agent,
        "details": event.details,
    })
}
