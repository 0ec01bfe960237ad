//! Every change tells the audit trail of itself, in the transaction that makes it; tokens that are
//! handed out and callers who are turned away are counted.

mod counted;

use std::collections::HashMap;

use prost::Message;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use crate::fixture::browser::Browser;
use crate::fixture::provider::Account;
use crate::fixture::rpcs::{Descriptors, call, channel};
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
             || '|' || resource_kind || '|' || resource_id || '|' || ip || '|' || user_agent
             || '|' || {details} AS line
         FROM audit_events ORDER BY id"
    );
    let lines = ground.lines(&sql).await;
    lines.iter().map(|line| Told::read(line)).collect()
}

impl Told {
    fn read(line: &str) -> Self {
        let mut parts = line.splitn(10, '|').map(str::to_owned);
        let mut next = || parts.next().unwrap();
        Self {
            action: next(),
            success: next() == "1",
            reason: next(),
            actor: (next(), next()),
            resource: (next(), next()),
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
    let before = ids(b).await;
    let key = b.key(role, Constraints::default()).await;
    let mut after = ids(b).await;
    after.retain(|id| !before.contains(id));
    (key, after.remove(0))
}

async fn ids(b: &Broker) -> Vec<String> {
    b.ground
        .lines("SELECT id AS line FROM api_keys ORDER BY id")
        .await
}

/// One RPC with what it is to tell: action, kind of the resource, and how its id begins.
type Step = (
    &'static str,
    Vec<u8>,
    Vec<(&'static str, &'static str, String)>,
);

fn step(
    rpc: &'static str,
    request: &impl Message,
    tells: &[(&'static str, &'static str, &str)],
) -> Step {
    let tells = tells.iter().map(|(a, k, id)| (*a, *k, (*id).to_owned()));
    (rpc, request.encode_to_vec(), tells.collect())
}

/// Runs the steps by one caller; each is to tell that, and nothing else.
async fn run(b: &Broker, steps: Vec<Step>) {
    let (key, id) = known(b, Role::Admin).await;
    let rpcs = Descriptors::own().rpcs();
    let channel = channel(b.grpc_address());
    for (name, request, tells) in steps {
        let before = told_by(&b.ground, &id).await.len();
        let path = &rpcs.iter().find(|rpc| rpc.name == name).unwrap().path;
        let bearer = format!("Bearer {key}");
        let answer = call(&channel, Some(&bearer), path, request).await;
        answer.unwrap_or_else(|status| panic!("{name}: {status:?}"));
        let after = told_by(&b.ground, &id).await.split_off(before);
        assert_eq!(after.len(), tells.len(), "{name} told {after:#?}");
        for (it, (action, kind, id)) in after.iter().zip(&tells) {
            assert_eq!((&*it.action, &*it.resource.0), (*action, *kind), "{name}");
            assert!(it.resource.1.starts_with(id), "{name}: {it:?}");
            assert!(it.success && it.actor.0 == "api_key", "{name}: {it:?}");
            assert_eq!(it.ip, "127.0.0.1", "{name}");
            assert!(it.user_agent.starts_with("tonic/"), "{name}: {it:?}");
        }
    }
}

fn import(app: &pb::App) -> pb::ImportConnectionRequest {
    pb::ImportConnectionRequest {
        app: app.id.clone(),
        owner: OWNER.to_owned(),
        account_id: "imported".to_owned(),
        credentials: Some(pb::import_connection_request::Credentials::Oauth2(
            pb::ImportedOAuth2 {
                access_token: "imported-access-token".to_owned(),
                ..Default::default()
            },
        )),
        ..Default::default()
    }
}

fn of_connections(connection: &pb::Connection, token_id: &str, app: &pb::App) -> Vec<Step> {
    let id = connection.id.clone();
    vec![
        step(
            "StartAuthorization",
            &pb::StartAuthorizationRequest {
                app: app.id.clone(),
                owner: OWNER.to_owned(),
                return_url: RETURN_URL.to_owned(),
                ..Default::default()
            },
            &[("authorization.started", "authorization", "auth_")],
        ),
        step(
            "UpdateConnection",
            &pb::UpdateConnectionRequest {
                connection: Some(pb::Connection {
                    id: id.clone(),
                    display_name: "Changed".to_owned(),
                    ..Default::default()
                }),
                update_mask: None,
            },
            &[("connection.updated", "connection", &id)],
        ),
        step(
            "RecordSync",
            &pb::RecordSyncRequest {
                record: Some(pb::SyncRecord {
                    connection_id: id.clone(),
                    action: "calendar.pull".to_owned(),
                    status: pb::SyncStatus::Succeeded.into(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            &[("connection.synced", "connection", &id)],
        ),
        step(
            "ReportAccessTokenRejected",
            &pb::ReportAccessTokenRejectedRequest {
                connection_id: id.clone(),
                token_id: token_id.to_owned(),
                http_status: 401,
            },
            &[
                ("token.rejected", "connection", &id),
                ("token.refreshed", "connection", &id),
            ],
        ),
        step(
            "RefreshAccessToken",
            &pb::RefreshAccessTokenRequest {
                connection_id: id.clone(),
                ..Default::default()
            },
            &[("token.refreshed", "connection", &id)],
        ),
        step(
            "RevokeConnection",
            &pb::RevokeConnectionRequest {
                connection_id: id.clone(),
                reason: "left".to_owned(),
            },
            &[("connection.revoked", "connection", &id)],
        ),
        step(
            "DeleteConnection",
            &pb::DeleteConnectionRequest {
                connection_id: id.clone(),
                ..Default::default()
            },
            &[("connection.deleted", "connection", &id)],
        ),
        step(
            "ImportConnection",
            &import(app),
            &[("connection.imported", "connection", "conn_")],
        ),
        step(
            "RevokeAppConnections",
            &pb::RevokeAppConnectionsRequest {
                app: app.id.clone(),
                ..Default::default()
            },
            &[("connection.revoked", "connection", "conn_")],
        ),
    ]
}

fn of_the_registry(app: &pb::App) -> Vec<Step> {
    let changed = pb::App {
        id: app.id.clone(),
        display_name: "Changed".to_owned(),
        ..Default::default()
    };
    let acme = "acme".to_owned();
    vec![
        step(
            "UpdateApp",
            &pb::UpdateAppRequest {
                app: Some(changed),
                update_mask: None,
            },
            &[("app.updated", "app", &app.id)],
        ),
        step(
            "RotateAppSecret",
            &pb::RotateAppSecretRequest {
                app: app.id.clone(),
                client_secret: "another-secret".to_owned(),
                ..Default::default()
            },
            &[("app.secret_rotated", "app", &app.id)],
        ),
        step(
            "DeleteApp",
            &pb::DeleteAppRequest {
                app: app.id.clone(),
                ..Default::default()
            },
            &[("app.deleted", "app", &app.id)],
        ),
        step(
            "CreateProvider",
            &pb::CreateProviderRequest {
                provider_id: acme.clone(),
                definition: Some(definition("Acme")),
                ..Default::default()
            },
            &[("provider.created", "provider", &acme)],
        ),
        step(
            "CreateApp",
            &pb::CreateAppRequest {
                app: Some(pb::App {
                    provider: acme.clone(),
                    client_id: "another-client".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            },
            &[("app.created", "app", "app_")],
        ),
        step(
            "DeleteApp",
            &pb::DeleteAppRequest {
                app: "another-client".to_owned(),
                ..Default::default()
            },
            &[("app.deleted", "app", "app_")],
        ),
        step(
            "UpdateProvider",
            &pb::UpdateProviderRequest {
                provider_id: acme.clone(),
                definition: Some(definition("Changed")),
                ..Default::default()
            },
            &[("provider.updated", "provider", &acme)],
        ),
        step(
            "DeleteProvider",
            &pb::DeleteProviderRequest {
                provider_id: acme.clone(),
                ..Default::default()
            },
            &[("provider.deleted", "provider", &acme)],
        ),
    ]
}

on_both_engines! {
    async fn every_change_of_a_connection_is_told(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("ada"));
        let connection = b.connect(&app, OWNER).await;
        let token = b.token(&connection.id).await.unwrap();
        run(&b, of_connections(&connection, &token.token_id, &app)).await;
        b.finish().await;
    }

    async fn every_change_of_the_registry_is_told(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        run(&b, of_the_registry(&app)).await;
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
