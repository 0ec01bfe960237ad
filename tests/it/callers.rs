//! Who calls: every RPC has a rule, every rule is kept, and every refusal says why.

mod api_keys;
mod constraints;
mod held;
pub mod keys;
mod mapped;
mod matrix;
mod reasons;
mod serving;
mod table;

use std::collections::BTreeSet;

use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tokenbroker::access::policy::{RULES, Rule, permissions, rule};
use tokenbroker::model::{Constraints, Role};
use tonic::{Code, Status};

use crate::fixture::rpcs::{Descriptors, Rpc, call, channel};
use crate::fixture::scene::Scene;
use crate::fixture::*;
use crate::on_both_engines;
use table::{May, by_role, row};

/// Health and reflection.
fn open_rpcs() -> Vec<Rpc> {
    [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ]
    .into_iter()
    .flat_map(|set| Descriptors::decode(set).rpcs())
    .collect()
}

fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// The code of an answer, and its reason.
fn verdict<T>(answer: &Result<T, Status>) -> (Code, String) {
    match answer {
        Ok(_) => (Code::Ok, String::new()),
        Err(status) => (status.code(), reason(status)),
    }
}

/// What comes of an empty request of an RPC that anybody may call.
fn of_nothing(rpc: &str) -> Code {
    match rpc {
        "GetServerMetadata" => Code::Ok,
        _ => Code::InvalidArgument,
    }
}

#[test]
fn every_rpc_has_one_rule_and_every_rule_an_rpc() {
    let named: BTreeSet<_> = RULES.iter().map(|(path, _)| (*path).to_owned()).collect();
    assert_eq!(named.len(), RULES.len(), "an RPC has two rules");
    let own = Descriptors::own().rpcs().into_iter();
    let served: BTreeSet<_> = own.chain(open_rpcs()).map(|rpc| rpc.path).collect();
    let bare: Vec<_> = served.difference(&named).collect();
    assert!(bare.is_empty(), "without a rule: {bare:?}");
    let left: Vec<_> = named.difference(&served).collect();
    assert!(left.is_empty(), "not served: {left:?}");
}

#[test]
fn only_health_reflection_metadata_and_signing_in_are_open() {
    for rpc in open_rpcs() {
        assert_eq!(rule(&rpc.path), Some(Rule::Open), "{}", rpc.path);
    }
    for rpc in Descriptors::own().rpcs() {
        let fits = match row(&rpc.name).1 {
            May::Anybody => matches!(rule(&rpc.path), Some(Rule::Open)),
            May::AnybodyGood => matches!(rule(&rpc.path), Some(Rule::Optional)),
            May::OwnOr(_) => matches!(rule(&rpc.path), Some(Rule::OwnOr(_))),
            May::Roles(_) => matches!(rule(&rpc.path), Some(Rule::Needs(_) | Rule::Known)),
        };
        assert!(fits, "{}", rpc.path);
    }
}

#[test]
fn the_table_gives_each_role_its_rights_and_no_more() {
    for rpc in Descriptors::own().rpcs() {
        for role in Role::ALL {
            let held = match rule(&rpc.path).unwrap() {
                Rule::Needs(needed) | Rule::OwnOr(needed) => permissions(role).contains(&needed),
                Rule::Open | Rule::Optional | Rule::Known => true,
            };
            assert_eq!(held, by_role(role, &rpc.name), "{role:?} and {}", rpc.path);
        }
    }
}

#[test]
fn the_scene_has_a_request_of_every_rpc() {
    // Told here once, so that the tests that go by the scene leave nothing out.
    let scene = Scene::default();
    let named: BTreeSet<_> = scene.requests().into_keys().map(str::to_owned).collect();
    let served: BTreeSet<_> = Descriptors::own()
        .rpcs()
        .into_iter()
        .map(|rpc| rpc.name)
        .collect();
    assert_eq!(named, served);
}

on_both_engines! {
    async fn each_role_may_call_what_it_may_and_nothing_else(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.events.heartbeat_interval = std::time::Duration::from_millis(100);
        }).await;
        let channel = channel(b.grpc_address());
        for role in Role::ALL.into_iter().filter(|role| *role != Role::User) {
            let key = bearer(&b.key(role, Constraints::default()).await);
            for rpc in Descriptors::own().rpcs() {
                // Every request may be empty; what is missing then is judged after who asks.
                let answer = call(&channel, Some(&key), &rpc.path, Vec::new()).await;
                let (code, reason) = verdict(&answer);
                let what = format!("{role:?} calls {}: {code:?} {reason}", rpc.path);
                if by_role(role, &rpc.name) {
                    let taken = matches!(
                        code,
                        Code::Ok | Code::InvalidArgument | Code::NotFound
                    );
                    assert!(taken, "{what}");
                } else {
                    assert_eq!((code, reason.as_str()), (Code::PermissionDenied, "PERMISSION_DENIED"), "{what}");
                }
            }
        }
        b.finish().await;
    }

    async fn strangers_are_refused_everywhere(engine: Engine) {
        let b = Broker::start(engine).await;
        let good = b.key(Role::Admin, Constraints::default()).await;
        let (id, revoked) = keys::make(&b, None).await;
        b.running().keys().revoke(&id).await.unwrap();
        let (_, expired) = keys::make(&b, Some(b.clock.now())).await;
        let unknown = keys::text(&BearerSecret::generate(Prefix::ApiKey));
        let end = if good.ends_with('x') { 'y' } else { 'x' };
        let mistyped = format!("{}{end}", &good[..good.len() - 1]);
        let invalid = "CREDENTIALS_INVALID";
        let strangers = [
            (None, "CREDENTIALS_MISSING"),
            (Some(String::new()), invalid),
            (Some("Bearer".to_owned()), invalid),
            (Some(good.clone()), invalid),
            (Some(format!("Basic {good}")), invalid),
            (Some(format!("Bearer {good}, Bearer {good}")), invalid),
            (Some(bearer("nonsense")), invalid),
            (Some(bearer(&"x".repeat(4_000))), invalid),
            (Some(bearer(&mistyped)), invalid),
            (Some(bearer(&unknown)), invalid),
            (Some(bearer(&revoked)), "CREDENTIALS_REVOKED"),
            (Some(bearer(&expired)), "CREDENTIALS_EXPIRED"),
        ];
        let channel = channel(b.grpc_address());
        for (which, (authorization, why)) in strangers.into_iter().enumerate() {
            for rpc in Descriptors::own().rpcs() {
                let answer = call(&channel, authorization.as_deref(), &rpc.path, Vec::new()).await;
                let (code, reason) = verdict(&answer);
                let open = match row(&rpc.name).1 {
                    May::Anybody => true,
                    May::AnybodyGood => authorization.is_none(),
                    May::Roles(_) | May::OwnOr(_) => false,
                };
                if open {
                    assert_eq!(code, of_nothing(&rpc.name), "stranger {which} calls {}", rpc.path);
                    continue;
                }
                assert_eq!((code, reason.as_str()), (Code::Unauthenticated, why), "stranger {which} calls {}", rpc.path);
            }
        }
        b.finish().await;
    }

    async fn the_scheme_is_read_in_any_case(engine: Engine) {
        let b = Broker::start(engine).await;
        let key = b.key(Role::Admin, Constraints::default()).await;
        let channel = channel(b.grpc_address());
        for scheme in ["Bearer", "bearer", "BEARER"] {
            let text = format!("{scheme} {key}");
            let path = "/tokenbroker.v1.ClientRegistry/ListApps";
            call(&channel, Some(&text), path, Vec::new()).await.unwrap();
        }
        b.finish().await;
    }

    async fn an_unknown_rpc_is_unimplemented_for_everybody(engine: Engine) {
        let b = Broker::start(engine).await;
        let channel = channel(b.grpc_address());
        for path in ["/tokenbroker.v1.TokenBroker/Nothing", "/nobody.Service/Get"] {
            let refused = call(&channel, None, path, Vec::new()).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{path}");
        }
        b.finish().await;
    }
}
