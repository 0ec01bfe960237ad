//! Every change tells the audit trail of itself, in the transaction that makes it; tokens that are
//! handed out and callers who are turned away are counted.

mod clients;
mod counted;
mod every_rpc;
mod table;

use std::collections::HashMap;

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use crate::fixture::browser::Browser;
use crate::fixture::scene::{OWNER, definition};
use crate::fixture::*;
use crate::on_both_engines;

/// An entry, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    action: String,
    success: bool,
    reason: String,
    actor: (String, String),
    resource: (String, String),
    tenant: String,
    provider: String,
    trace_id: String,
    ip: String,
    user_agent: String,
    details: serde_json::Value,
}

/// Every entry, in the order in which they were made.
async fn told(ground: &Ground) -> Vec<Told> {
    let success = ground.word("success", "success::int");
    let details = ground.word("details", "details::text");
    let sql = format!(
        "SELECT action || '|' || {success} || '|' || reason || '|' || actor_kind || '|' || actor_id
             || '|' || resource_kind || '|' || resource_id || '|' || tenant || '|' || provider
             || '|' || trace_id || '|' || ip || '|' || user_agent || '|' || {details} AS line
         FROM audit_events ORDER BY id"
    );
    let lines = ground.lines(&sql).await;
    lines.iter().map(|line| Told::read(line)).collect()
}

impl Told {
    fn read(line: &str) -> Self {
        let mut parts = line.splitn(13, '|').map(str::to_owned);
        let mut next = || parts.next().unwrap();
        Self {
            action: next(),
            success: next() == "1",
            reason: next(),
            actor: (next(), next()),
            resource: (next(), next()),
            tenant: next(),
            provider: next(),
            trace_id: next(),
            ip: next(),
            user_agent: next(),
            details: serde_json::from_str(&next()).unwrap(),
        }
    }

    fn detail(&self, name: &str) -> &str {
        self.details[name].as_str().unwrap_or_default()
    }
}

/// Those of one actor.
async fn told_by(ground: &Ground, actor: &str) -> Vec<Told> {
    let mut all = told(ground).await;
    all.retain(|it| it.actor.1 == actor);
    all
}

/// A key, and its id.
async fn known(b: &Broker, role: Role) -> (String, String) {
    let (id, key) = b.key_id(role, Constraints::default()).await;
    (key, id)
}

on_both_engines! {
    async fn a_change_of_the_registry_tells_what_changed(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let mut registry = b.admin.registry.clone();
        let changed = pb::UpdateAppRequest {
            app: Some(pb::App {
                id: app.id.clone(),
                display_name: "Changed".to_owned(),
                ..Default::default()
            }),
            update_mask: None,
        };
        registry.update_app(changed).await.unwrap();
        let rotated = pb::RotateAppSecretRequest {
            app: app.id.clone(),
            client_secret: "another-secret".to_owned(),
            ..Default::default()
        };
        registry.rotate_app_secret(rotated).await.unwrap();
        let changed = pb::UpdateProviderRequest {
            provider_id: app.provider.clone(),
            definition: Some(definition("Changed")),
            ..Default::default()
        };
        registry.update_provider(changed).await.unwrap();
        let all = told(&b.ground).await;
        let of = |action: &str| all.iter().find(|it| it.action == action).unwrap();
        assert_eq!(of("app.updated").detail("fields"), "display_name");
        assert_eq!(of("app.secret_rotated").detail("client_secret").len(), 32);
        assert!(of("provider.updated").detail("fields").contains("display_name"));
        b.finish().await;
    }

    async fn a_consent_is_told_with_its_browser(engine: Engine) {
        let b = Broker::start(engine).await;
        let connection = b.connected().await;
        let all = told(&b.ground).await;
        let of = |action: &str| all.iter().find(|it| it.action == action).unwrap();
        let completed = of("authorization.completed");
        assert_eq!(completed.actor.0, "browser");
        assert_eq!((&*completed.ip, completed.success), ("127.0.0.1", true));
        assert_eq!(completed.detail("connection_id"), connection.id);
        assert_eq!(of("connection.created").actor, completed.actor);
        assert_eq!(of("authorization.started").actor, of("authorization.confirmed").actor);
        assert_eq!(of("authorization.confirmed").actor.0, "api_key");
        b.finish().await;
    }

    async fn a_wrong_code_and_another_owner_are_told(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let started = b.authorize(&app, OWNER).await;
        let mut returned = b.consent(&started.connect_url).await;
        let right = b.confirm(&returned, "somebody-else").await;
        assert_refused(right, Code::FailedPrecondition, "OWNER_MISMATCH");
        returned.insert("confirmation_code".to_owned(), "w".repeat(43));
        let wrong = b.confirm(&returned, OWNER).await;
        assert_refused(wrong, Code::FailedPrecondition, "CONFIRMATION_CODE_INVALID");
        let mut all = told(&b.ground).await;
        all.retain(|it| it.action == "authorization.confirmed");
        let reasons: Vec<_> = all.iter().map(|it| (it.success, &*it.reason)).collect();
        assert_eq!(reasons, [(false, "OWNER_MISMATCH"), (false, "CONFIRMATION_CODE_INVALID")]);
        b.finish().await;
    }

    async fn what_fails_is_not_told_as_done(engine: Engine) {
        let b = Broker::start(engine).await;
        let connection = b.connected().await;
        let (key, id) = known(&b, Role::Admin).await;
        let caller = b.caller_with(&key);
        let stale = pb::UpdateConnectionRequest {
            connection: Some(pb::Connection {
                id: connection.id.clone(),
                display_name: "Changed".to_owned(),
                etag: "W/\"99\"".to_owned(),
                ..Default::default()
            }),
            update_mask: None,
        };
        caller.broker.clone().update_connection(stale).await.unwrap_err();
        let app = pb::DeleteAppRequest { app: connection.app_id.clone(), ..Default::default() };
        let in_use = caller.registry.clone().delete_app(app).await;
        assert_refused(in_use, Code::FailedPrecondition, "APP_IN_USE");
        assert_eq!(told_by(&b.ground, &id).await, []);
        b.finish().await;
    }

    async fn what_can_not_be_told_does_not_come_about(engine: Engine) {
        let b = Broker::start(engine).await;
        let connection = b.connected().await;
        let revoke = pb::RevokeConnectionRequest {
            connection_id: connection.id.clone(),
            ..Default::default()
        };
        b.ground.execute("ALTER TABLE audit_events RENAME TO away").await;
        let refused = b.admin.broker.clone().revoke_connection(revoke.clone()).await;
        b.ground.execute("ALTER TABLE away RENAME TO audit_events").await;
        assert_eq!(refused.unwrap_err().code(), Code::Internal);
        assert_eq!(b.connection(&connection.id).await.etag, connection.etag);
        b.admin.broker.clone().revoke_connection(revoke).await.unwrap();
        b.finish().await;
    }

    async fn a_failed_refresh_is_told(engine: Engine) {
        let b = Broker::start(engine).await;
        let connection = b.connected().await;
        b.provider.revoke_account(&connection.account_id);
        let refresh = pb::RefreshAccessTokenRequest {
            connection_id: connection.id.clone(),
            ..Default::default()
        };
        b.admin.broker.clone().refresh_access_token(refresh).await.unwrap_err();
        let all = told(&b.ground).await;
        let it = all.iter().find(|it| it.action == "token.refreshed").unwrap();
        assert_eq!((it.success, &*it.reason), (false, "invalid_grant"));
        assert_eq!(it.detail("trigger"), "forced");
        assert_eq!(it.resource, ("connection".to_owned(), connection.id));
        b.finish().await;
    }

    async fn a_forged_callback_is_counted(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let app = b.app().await;
        for _ in 0..3 {
            let forged = format!("{}?state={}&code=x", app.callback_url, "s".repeat(43));
            Browser::new().get(forged).await;
        }
        b.stop().await;
        let mut all = told(&b.ground).await;
        all.retain(|it| it.action == "authorization.completed");
        let counts: HashMap<_, _> = all.iter().map(|it| (&*it.reason, it.detail("count"))).collect();
        assert_eq!(counts, HashMap::from([("STATE_INVALID", "3")]));
        b.finish().await;
    }
}
