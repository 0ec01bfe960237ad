//! Every RPC by every role: of its own tenant, of another, of nobody's, and of those whose time is
//! over.

use std::time::Duration;

use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tokenbroker::model::{Constraints, Role};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::table::{Abroad, May, TABLE, allowed, row};
use super::{bearer, keys, verdict};
use crate::fixture::rpcs::{Descriptors, Rpc, call, channel};
use crate::fixture::scene::administration::{EMAIL, sign_in, user};
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

/// Sends the same from another tenant: nothing is there, and nothing comes of it.
async fn another_tenant(b: &Broker, scene: &Scene, role: Role, channel: &Channel) {
    let key = b.key_in("acme", role, Constraints::default()).await;
    let requests = scene.requests();
    let ids = [
        &scene.app.id,
        &scene.connection.id,
        &scene.authorization_id,
        &scene.token_id,
        &scene.known.user_id,
        &scene.known.session_id,
        &scene.known.api_key_id,
    ];
    for rpc in rpcs() {
        let (_, may, _, abroad) = row(&rpc.name);
        if *abroad == Abroad::Own {
            continue;
        }
        let request = requests[rpc.name.as_str()].clone();
        let answer = call(channel, Some(&bearer(&key)), &rpc.path, request).await;
        let what = format!(
            "{role:?} calls {} ({may:?}): {:?}",
            rpc.name,
            answer.as_ref().err()
        );
        if !allowed(role, false, &rpc.name) {
            assert_denied(&what, &answer);
            continue;
        }
        match abroad {
            Abroad::NotFound => assert_eq!(verdict(&answer).0, Code::NotFound, "{what}"),
            Abroad::Empty => {
                let answer = answer.unwrap_or_else(|_| panic!("{what}"));
                let told = String::from_utf8_lossy(&answer).into_owned();
                let found: Vec<_> = ids.iter().filter(|id| told.contains(id.as_str())).collect();
                // A batch repeats the names that it was asked for.
                assert!(
                    found.is_empty() || rpc.name == "BatchGetAccessTokens",
                    "{what} {found:?}"
                );
            }
            Abroad::Own => {}
        }
    }
}

/// Sends empty requests with credentials that are no longer, or not, any.
async fn refused_everywhere(b: &Broker, authorization: Option<&str>, why: &str) {
    let channel = channel(b.grpc_address());
    for rpc in rpcs() {
        let answer = call(&channel, authorization, &rpc.path, Vec::new()).await;
        let got = verdict(&answer);
        let open = match row(&rpc.name).1 {
            May::Anybody => true,
            May::AnybodyGood => authorization.is_none(),
            May::Roles(_) | May::OwnOr(_) => false,
        };
        if open {
            assert_eq!(got.0, Code::InvalidArgument, "{}: {got:?}", rpc.name);
        } else {
            assert_eq!(got, (Code::Unauthenticated, why.to_owned()), "{}", rpc.name);
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
    a_worker_may_nothing_by_its_role = Role::Worker;
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
            let told_nothing = matches!(rpc.name.as_str(), "GetCaller" | "CreateSession" | "RefreshSession" | "ListConnections");
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
        let channel = channel(b.grpc_address());
        let before = tables::settled(&b).await;
        for role in KEY_ROLES {
            another_tenant(&b, &scene, role, &channel).await;
        }
        let mut after = tables::settled(&b).await;
        // Six keys were made to call with.
        after.insert("api_keys".to_owned(), before["api_keys"].clone());
        assert_eq!(after, before);
        b.finish().await;
    }

    async fn without_credentials_nothing_is_done(engine: Engine) {
        let b = broker(engine).await;
        refused_everywhere(&b, None, "CREDENTIALS_MISSING").await;
        b.finish().await;
    }

    async fn a_revoked_key_is_nobodys_whatever_it_asks(engine: Engine) {
        let b = broker(engine).await;
        let (id, key) = keys::make(&b, None).await;
        b.running().keys().revoke(&id).await.unwrap();
        refused_everywhere(&b, Some(&bearer(&key)), "CREDENTIALS_REVOKED").await;
        b.finish().await;
    }

    async fn a_session_whose_time_is_over_is_nobodys(engine: Engine) {
        let b = broker(engine).await;
        let password = "an uncommon phrase of words";
        user(&b, "somebody@example.com", "", password).await;
        let session = sign_in(&b, "somebody@example.com", password).await;
        b.clock.advance(Duration::from_secs(400 * 24 * 60 * 60));
        refused_everywhere(&b, Some(&bearer(&session.session_token)), "CREDENTIALS_EXPIRED").await;
        let unknown = keys::text(&BearerSecret::generate(Prefix::Session));
        refused_everywhere(&b, Some(&bearer(&unknown)), "CREDENTIALS_INVALID").await;
        b.finish().await;
    }
}
