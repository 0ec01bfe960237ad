//! Every RPC, once and with success: who did what, on what, from where, in which trace.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::table::{Line, TABLE, Tells};
use super::*;
use crate::fixture::leaks::Secrets;
use crate::fixture::provider::Account;
use crate::fixture::rpcs::{Descriptors, Rpc, call_traced, channel};
use crate::fixture::scene::Scene;
use crate::fixture::scene::administration::user;
use crate::fixture::scene::clients::pending;

/// The caller's own redirect URI; nothing listens there.
const OWN_URI: &str = "http://127.0.0.1:9/own";

/// Every RPC with its row, in the table's order.
fn rows() -> Vec<(Rpc, Tells)> {
    let place = |rpc: &Rpc| TABLE.iter().position(|(name, _)| *name == rpc.name);
    let mut rows: Vec<_> = Descriptors::own()
        .rpcs()
        .into_iter()
        .map(|rpc| {
            let at = place(&rpc);
            let at = at.unwrap_or_else(|| {
                panic!("{} has no row in tests/it/audit_entries/table.rs", rpc.name)
            });
            (at, rpc)
        })
        .collect();
    rows.sort_by_key(|(at, _)| *at);
    rows.into_iter()
        .map(|(at, rpc)| (rpc, TABLE[at].1))
        .collect()
}

/// The scene's requests; and where those would be refused, or mean what others need, requests of
/// their own.
async fn requests(b: &Broker, scene: &Scene) -> BTreeMap<&'static str, Vec<u8>> {
    let mut all = scene.requests();
    all.insert("ConfirmAuthorization", confirmable(b, scene).await);
    all.insert("CompleteAuthorization", completable(b, scene).await);
    let acme = "acme".to_owned();
    let changed = pb::UpdateProviderRequest {
        provider_id: acme.clone(),
        definition: Some(definition("Changed again")),
        ..Default::default()
    };
    all.insert("UpdateProvider", changed.encode_to_vec());
    let unused = pb::DeleteProviderRequest {
        provider_id: acme,
        ..Default::default()
    };
    all.insert("DeleteProvider", unused.encode_to_vec());
    let unused = pb::DeleteAppRequest {
        app: "another-client".to_owned(),
        ..Default::default()
    };
    all.insert("DeleteApp", unused.encode_to_vec());
    let unapproved = pb::ApproveClientRequest {
        client_id: pending(b).await.id,
        reason: "by the book".to_owned(),
        ..Default::default()
    };
    all.insert("ApproveClient", unapproved.encode_to_vec());
    // Of somebody who has nothing that would be told of by itself.
    let password = "an uncommon phrase of words";
    let gone = user(b, "gone@example.com", "owner-9", password).await;
    let erase = pb::ErasePersonRequest {
        person: Some(pb::erase_person_request::Person::UserId(gone)),
        ..Default::default()
    };
    all.insert("ErasePerson", erase.encode_to_vec());
    all
}

/// The confirmation of somebody who has come back from the provider.
async fn confirmable(b: &Broker, scene: &Scene) -> Vec<u8> {
    b.provider.sign_in_as(Account::named("grace"));
    let owner = "owner-2";
    let started = b.authorize(&scene.app, owner).await;
    let returned = b.consent(&started.connect_url).await;
    let code = &returned["confirmation_code"];
    Secrets::register_as("confirmation code", code);
    let request = pb::ConfirmAuthorizationRequest {
        authorization_id: returned["authorization_id"].clone(),
        confirmation_code: code.clone(),
        owner: owner.to_owned(),
    };
    request.encode_to_vec()
}

/// The completion of what the provider has answered at the caller's own redirect URI.
async fn completable(b: &Broker, scene: &Scene) -> Vec<u8> {
    b.provider.sign_in_as(Account::named("hedy"));
    b.provider.register_redirect_uri(OWN_URI);
    let own = pb::UpdateAppRequest {
        app: Some(pb::App {
            id: scene.app.id.clone(),
            redirect_uris: vec![OWN_URI.to_owned()],
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["redirect_uris".to_owned()],
        }),
    };
    b.admin.registry.clone().update_app(own).await.unwrap();
    let start = pb::StartAuthorizationRequest {
        app: scene.app.id.clone(),
        owner: "owner-3".to_owned(),
        redirect_uri: OWN_URI.to_owned(),
        ..Default::default()
    };
    let started = b.start_authorization(start).await.unwrap();
    let page = Browser::new().get(&started.authorization_url).await;
    let location = page.location.unwrap_or_else(|| panic!("{}", page.body));
    let request = pb::CompleteAuthorizationRequest {
        authorization_id: started.authorization.unwrap().id,
        owner: "owner-3".to_owned(),
        parameters: location.query_pairs().into_owned().collect(),
    };
    request.encode_to_vec()
}

/// The provider that an entry on something of this kind concerns.
fn provider_of(rpc: &str, kind: &str) -> &'static str {
    match kind {
        // The others are of no account.
        "job" if rpc == "CreateJob" => "fake",
        "connection" | "authorization" | "app" | "account" => "fake",
        "provider" => "acme",
        _ => "",
    }
}

#[test]
fn every_rpc_has_one_row_and_every_row_an_rpc() {
    assert_eq!(rows().len(), TABLE.len());
    let names: BTreeSet<_> = TABLE.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), TABLE.len(), "a name stands twice");
}

on_both_engines! {
    async fn every_rpc_tells_what_its_row_says(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.events.heartbeat_interval = std::time::Duration::from_millis(100);
        }).await;
        let scene = Scene::of(&b).await;
        let requests = requests(&b, &scene).await;
        let (id, key) = b.key_id(Role::Admin, Constraints::default()).await;
        let admin = ("api_key".to_owned(), id.clone());
        let signed_in = ("user".to_owned(), scene.known.user_id.clone());
        let client = ("client".to_owned(), scene.client_id.clone());
        let (channel, bearer) = (channel(b.grpc_address()), format!("Bearer {key}"));
        let mut heard = String::new();
        for (number, (rpc, tells)) in (1..).zip(rows()) {
            // What others write meanwhile, workers too, is of no trace.
            let trace_id = format!("{number:032x}");
            let parent = format!("00-{trace_id}-00f067aa0ba902b7-01");
            let request = requests[rpc.name.as_str()].clone();
            heard.push_str(&String::from_utf8_lossy(&request));
            let answer = call_traced(&channel, Some(&bearer), Some(&parent), &rpc.path, request).await;
            let answer = answer.unwrap_or_else(|status| panic!("{}: {status:?}", rpc.name));
            heard.push_str(&String::from_utf8_lossy(&answer));
            let mut entries = told(&b.ground).await;
            entries.retain(|it| it.trace_id == trace_id);
            let lines: &[Line] = match tells {
                Tells::Nothing | Tells::Counted => &[],
                Tells::These(lines) => lines,
            };
            assert_eq!(entries.len(), lines.len(), "{} told {entries:#?}", rpc.name);
            for (it, (action, kind, reason)) in entries.iter().zip(lines) {
                let actor = match rpc.name.as_str() {
                    "CreateSession" | "RefreshSession" => &signed_in,
                    "ExchangeToken" | "StartDeviceAuthorization" | "RevokeToken" => &client,
                    _ => &admin,
                };
                let expected = Told {
                    action: (*action).to_owned(),
                    success: true,
                    reason: (*reason).to_owned(),
                    actor: actor.clone(),
                    resource: ((*kind).to_owned(), it.resource.1.clone()),
                    tenant: "default".to_owned(),
                    provider: provider_of(&rpc.name, kind).to_owned(),
                    ip: "127.0.0.1".to_owned(),
                    trace_id: trace_id.clone(),
                    // What these are is the business of others.
                    user_agent: it.user_agent.clone(),
                    details: it.details.clone(),
                };
                assert_eq!(*it, expected, "{}", rpc.name);
                assert!(it.user_agent.starts_with("tonic/"), "{}: {it:?}", rpc.name);
                assert_eq!(it.resource.1.is_empty(), matches!(*kind, "audit" | ""), "{}: {it:?}", rpc.name);
                // A device knows itself by its code.
                assert!(heard.contains(&it.resource.1) || *kind == "device", "{}: {it:?}", rpc.name);
            }
        }
        let mut untraced = told_by(&b.ground, &id).await;
        untraced.retain(|it| it.trace_id.is_empty() && it.action != "token.read");
        assert_eq!(untraced, []);
        b.finish().await;
    }
}
