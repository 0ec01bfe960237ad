//! Every RPC by every role: of its own tenant, of another, of nobody's, and of those whose time is
//! over.

use std::time::Duration;

use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::table::{Abroad, May, TABLE, allowed, row};
use super::{bearer, keys, of_nothing, verdict};
use crate::fixture::rpcs::{Descriptors, Rpc, call, channel};
use crate::fixture::scene::administration::{EMAIL, sign_in, sign_in_to, user, user_by};
use crate::fixture::scene::{OWNER, Scene};
use crate::fixture::*;
use crate::on_both_engines;

/// The roles that keys have.
const KEY_ROLES: [Role; 6] = [
    Role::Admin,
    Role::Operator,
    Role::Auditor,
    Role::Consumer,
    Role::Worker,
    Role::IssuerUi,
];

/// Every RPC, in the table's order.
fn rpcs() -> Vec<Rpc> {
    let mut rpcs = Descriptors::own().rpcs();
    rpcs.sort_by_key(|rpc| {
        let name = row(&rpc.name).0;
        TABLE.iter().position(|(named, ..)| *named == name)
    });
    rpcs
}

async fn broker(engine: Engine) -> Broker {
    Broker::start_with(engine, |config| {
        config.events.heartbeat_interval = Duration::from_millis(100);
    })
    .await
}

fn assert_denied(what: &str, answer: &Result<Vec<u8>, Status>) {
    let (code, why) = verdict(answer);
    assert_eq!(
        (code, why.as_str()),
        (Code::PermissionDenied, "PERMISSION_DENIED"),
        "{what}"
    );
    let info = answer.as_ref().unwrap_err().get_details_error_info();
    let info = info.unwrap();
    assert_eq!(info.domain, "tokenbroker");
    assert!(!info.metadata["permission"].is_empty(), "{what}");
}

/// Sends sound requests as this role; what it may comes about, and what it may not is denied.
async fn own_tenant(b: &Broker, scene: &Scene, role: Role, signed_in: bool, key: &str) {
    let channel = channel(b.grpc_address());
    let requests = scene.requests();
    let mut rpcs = rpcs();
    if signed_in {
        // Which ends what the caller calls with.
        rpcs.sort_by_key(|rpc| rpc.name == "RevokeAllSessions");
    }
    for rpc in rpcs {
        let request = requests[rpc.name.as_str()].clone();
        let answer = call(&channel, Some(&bearer(key)), &rpc.path, request).await;
        let what = format!("{role:?} calls {}: {:?}", rpc.name, answer.as_ref().err());
        if allowed(role, signed_in, &rpc.name) {
            assert_eq!(verdict(&answer).0, row(&rpc.name).2, "{what}");
        } else {
            assert_denied(&what, &answer);
        }
    }
}

/// A user of the tenant acme who has the address and the owner of the scene's: a session token.
async fn namesake(b: &Broker) -> String {
    let acme = b
        .caller_in("acme", Role::Admin, Constraints::default())
        .await;
    let password = "an uncommon phrase of words";
    user_by(&acme, EMAIL, OWNER, password).await;
    sign_in_to(b, "acme", EMAIL, password).await.session_token
}

/// Sends the same from another tenant: nothing is there, and nothing comes of it.
async fn another_tenant(b: &Broker, scene: &Scene, role: Role, token: &str) {
    let channel = channel(b.grpc_address());
    let signed_in = role == Role::User;
    let requests = scene.requests();
    let ids = [
        scene.app.id.as_str(),
        &scene.connection.id,
        &scene.authorization_id,
        &scene.token_id,
        &scene.known.user_id,
        &scene.known.session_id,
        &scene.known.api_key_id,
        &scene.client_id,
        &scene.issued.grant_id,
    ];
    let ids: Vec<_> = ids.into_iter().chain(scene.automated.ids()).collect();
    for rpc in rpcs() {
        let (_, may, _, abroad) = row(&rpc.name);
        let allowed = allowed(role, signed_in, &rpc.name);
        if allowed && *abroad == Abroad::Own {
            continue;
        }
        let request = requests[rpc.name.as_str()].clone();
        let answer = call(&channel, Some(&bearer(token)), &rpc.path, request).await;
        let what = format!(
            "{role:?} calls {} ({may:?}): {:?}",
            rpc.name,
            answer.as_ref().err()
        );
        match abroad {
            _ if !allowed => assert_denied(&what, &answer),
            // Who is held to what is their own can't tell what is missing from what is others'.
            Abroad::NotFound if signed_in => assert_denied(&what, &answer),
            Abroad::NotFound => assert_eq!(verdict(&answer).0, Code::NotFound, "{what}"),
            Abroad::Empty => {
                let answer = answer.unwrap_or_else(|_| panic!("{what}"));
                let told = String::from_utf8_lossy(&answer).into_owned();
                let found: Vec<_> = ids.iter().filter(|id| told.contains(**id)).collect();
                // A batch repeats the names that it was asked for.
                assert!(
                    found.is_empty() || rpc.name == "BatchGetAccessTokens",
                    "{what} {found:?}"
                );
            }
            Abroad::Nobody => {
                let nobody = (Code::Unauthenticated, "OAUTH_ERROR".to_owned());
                assert_eq!(verdict(&answer), nobody, "{what}");
            }
            Abroad::Own => {}
        }
    }
}

/// Sends empty requests with credentials that are no longer, or not, any.
async fn refused_everywhere(b: &Broker, who: &str, token: Option<&str>, why: &str) {
    let channel = channel(b.grpc_address());
    let authorization = token.map(bearer);
    for rpc in rpcs() {
        let answer = call(&channel, authorization.as_deref(), &rpc.path, Vec::new()).await;
        let got = verdict(&answer);
        let open = match row(&rpc.name).1 {
            May::Anybody => true,
            May::AnybodyGood => authorization.is_none(),
            May::Roles(_) | May::OwnOr(_) => false,
        };
        let what = format!("{who} calls {}: {got:?}", rpc.name);
        if open {
            assert_eq!(got.0, of_nothing(&rpc.name), "{what}");
        } else {
            assert_eq!(got, (Code::Unauthenticated, why.to_owned()), "{what}");
        }
    }
}

#[test]
fn every_rpc_has_a_row_and_every_row_an_rpc() {
    let served = rpcs();
    assert_eq!(served.len(), TABLE.len());
    let names: std::collections::BTreeSet<_> = TABLE.iter().map(|(name, ..)| *name).collect();
    assert_eq!(names.len(), TABLE.len(), "a name stands twice");
}

macro_rules! of_its_own_tenant {
    ($($name:ident = $role:expr;)+) => {
        on_both_engines! {
            $(async fn $name(engine: Engine) {
                let b = broker(engine).await;
                let scene = Scene::of(&b).await;
                let key = b.key($role, Constraints::default()).await;
                own_tenant(&b, &scene, $role, false, &key).await;
                b.finish().await;
            })+
        }
    };
}

of_its_own_tenant! {
    an_admin_may_everything = Role::Admin;
    an_operator_may_what_is_no_secret_and_gives_no_rights = Role::Operator;
    an_auditor_may_read_the_trail_and_nothing_else = Role::Auditor;
    a_consumer_may_what_tokens_need = Role::Consumer;
    a_worker_may_work_and_nothing_else = Role::Worker;
    an_issuer_may_sign_people_in_and_nothing_else = Role::IssuerUi;
}

on_both_engines! {
    async fn a_user_may_what_is_their_own(engine: Engine) {
        let b = broker(engine).await;
        let scene = Scene::of(&b).await;
        // A second session: the first is one of the things that the requests end.
        let session = sign_in(&b, EMAIL, &scene.known.password).await;
        own_tenant(&b, &scene, Role::User, true, &session.session_token).await;
        b.finish().await;
    }

    async fn a_user_may_nothing_that_is_another_users(engine: Engine) {
        let b = broker(engine).await;
        let scene = Scene::of(&b).await;
        let password = "an uncommon phrase of words";
        user(&b, "other@example.com", "owner-2", password).await;
        let session = sign_in(&b, "other@example.com", password).await;
        let channel = channel(b.grpc_address());
        let requests = scene.requests();
        let before = tables::settled(&b).await;
        for rpc in rpcs() {
            let told_nothing = matches!(rpc.name.as_str(), "GetCaller" | "CreateSession" | "RefreshSession" | "ListConnections" | "ListGrants" | "GetServerMetadata");
            if told_nothing {
                continue;
            }
            let request = requests[rpc.name.as_str()].clone();
            let answer = call(&channel, Some(&bearer(&session.session_token)), &rpc.path, request).await;
            let what = format!("{}: {:?}", rpc.name, answer.as_ref().err());
            assert_denied(&what, &answer);
        }
        assert_eq!(tables::settled(&b).await, before);
        assert_ne!(OWNER, "owner-2");
        b.finish().await;
    }

    async fn another_tenants_things_are_not_there(engine: Engine) {
        let b = broker(engine).await;
        let scene = Scene::of(&b).await;
        let mut callers = vec![(Role::User, namesake(&b).await)];
        for role in KEY_ROLES {
            callers.push((role, b.key_in("acme", role, Constraints::default()).await));
        }
        let before = tables::settled(&b).await;
        for (role, token) in &callers {
            another_tenant(&b, &scene, *role, token).await;
        }
        assert_eq!(tables::settled(&b).await, before);
        b.finish().await;
    }

    async fn whoever_is_nobody_is_refused_everywhere(engine: Engine) {
        let b = broker(engine).await;
        refused_everywhere(&b, "nobody", None, "CREDENTIALS_MISSING").await;
        for prefix in [Prefix::ApiKey, Prefix::Session] {
            let unknown = keys::text(&BearerSecret::generate(prefix));
            refused_everywhere(&b, "a stranger", Some(&unknown), "CREDENTIALS_INVALID").await;
        }
        let (id, revoked) = keys::make(&b, None).await;
        b.running().keys().revoke(&id).await.unwrap();
        refused_everywhere(&b, "a revoked key", Some(&revoked), "CREDENTIALS_REVOKED").await;
        let (_, expired) = keys::make(&b, Some(b.clock.now())).await;
        refused_everywhere(&b, "an expired key", Some(&expired), "CREDENTIALS_EXPIRED").await;

        let password = "an uncommon phrase of words";
        user(&b, EMAIL, "", password).await;
        let left = sign_in(&b, EMAIL, password).await;
        let session_id = left.session.unwrap_or_default().id;
        let revoke = pb::RevokeSessionRequest { session_id };
        b.admin.administration.clone().revoke_session(revoke).await.unwrap();
        let revoked = Some(left.session_token.as_str());
        refused_everywhere(&b, "a revoked session", revoked, "CREDENTIALS_REVOKED").await;
        let session = sign_in(&b, EMAIL, password).await;
        // No longer: retention removes what ended long ago, and then it is nobody's.
        b.clock.advance(b.config.sessions.lifetime);
        let expired = Some(session.session_token.as_str());
        refused_everywhere(&b, "an expired session", expired, "CREDENTIALS_EXPIRED").await;
        b.finish().await;
    }
}
