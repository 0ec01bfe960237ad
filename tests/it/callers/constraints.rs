//! What narrows a key down: tenants, apps, owners, providers, and single permissions.

use std::collections::BTreeSet;
use std::time::Duration;

use tokenbroker::model::{Constraints, IdKind, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{bearer, verdict};
use crate::fixture::provider::{Account, FakeProvider};
use crate::fixture::rpcs::{Descriptors, call, channel};
use crate::fixture::scene::{OWNER, Scene};
use crate::fixture::*;
use crate::on_both_engines;

/// Three connections: of two owners of one team through one app, and of another team's through
/// another app at another provider.
struct Accounts {
    b: Broker,
    alice: pb::Connection,
    bob: pb::Connection,
    carol: pb::Connection,
}

impl Accounts {
    async fn of(engine: Engine) -> Self {
        let b = Broker::start(engine).await;
        let second = FakeProvider::start().await;
        second.use_clock(b.clock.clone());
        let one = b.app().await;
        let two = b.app_of(&second, "second").await;
        b.provider.sign_in_as(Account::named("alice"));
        let alice = b.connect(&one, "team-1/alice").await;
        b.provider.sign_in_as(Account::named("bob"));
        let bob = b.connect(&one, "team-1/bob").await;
        second.sign_in_as(Account::named("carol"));
        let carol = b.connect(&two, "team-2/carol").await;
        // Each was created and activated. What is to be seen of the past is there before anybody looks.
        eventually("the events are numbered", || async {
            b.events().await.len() == 6
        })
        .await;
        Self {
            b,
            alice,
            bob,
            carol,
        }
    }

    fn all(&self) -> [&pb::Connection; 3] {
        [&self.alice, &self.bob, &self.carol]
    }

    /// That a consumer with these constraints sees these connections, in every way, and no other.
    async fn assert_sees(&self, constraints: Constraints, allowed: &[&pb::Connection]) {
        let caller = self.b.caller(Role::Consumer, constraints).await;
        let ids: BTreeSet<_> = allowed.iter().map(|c| c.id.clone()).collect();
        for connection in self.all() {
            let seen = ids.contains(&connection.id);
            for (way, answer) in ways(&caller, connection).await {
                let (code, reason) = verdict(&answer);
                let expected = if seen {
                    Code::Ok
                } else {
                    Code::PermissionDenied
                };
                assert_eq!(code, expected, "{way} of {}: {reason}", connection.owner);
            }
        }
        assert_eq!(listed(&caller).await, ids);
        assert_eq!(events_listed(&caller).await, ids);
        assert_eq!(watched(&caller, &ids).await, ids);
    }
}

/// Every way to read one connection.
async fn ways(
    caller: &Caller,
    connection: &pb::Connection,
) -> Vec<(&'static str, Result<(), Status>)> {
    let connection_id = connection.id.clone();
    let by_id = pb::GetAccessTokenRequest {
        connection_id: connection_id.clone(),
        ..Default::default()
    };
    let by_name = pb::GetAccessTokenRequest {
        app: connection.app_id.clone(),
        owner: connection.owner.clone(),
        ..Default::default()
    };
    let get = pb::GetConnectionRequest {
        connection_id: connection_id.clone(),
    };
    let attempts = pb::ListRefreshAttemptsRequest {
        connection_id: connection_id.clone(),
        ..Default::default()
    };
    let syncs = pb::ListSyncRecordsRequest {
        connection_id,
        ..Default::default()
    };
    let mut broker = caller.broker.clone();
    vec![
        ("the token", caller.get_token(by_id).await.map(drop)),
        (
            "the token by name",
            caller.get_token(by_name).await.map(drop),
        ),
        ("the connection", broker.get_connection(get).await.map(drop)),
        (
            "the attempts",
            broker.list_refresh_attempts(attempts).await.map(drop),
        ),
        (
            "the synchronisations",
            broker.list_sync_records(syncs).await.map(drop),
        ),
    ]
}

/// The connections that are listed, a page at a time.
async fn listed(caller: &Caller) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListConnectionsRequest {
            page_size: 1,
            page_token,
            ..Default::default()
        };
        let page = caller
            .broker
            .clone()
            .list_connections(request)
            .await
            .unwrap()
            .into_inner();
        ids.extend(page.connections.into_iter().map(|c| c.id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        page_token = page.next_page_token;
    }
}

/// The connections that past events tell of.
async fn events_listed(caller: &Caller) -> BTreeSet<String> {
    let request = pb::ListTokenEventsRequest {
        page_size: 1_000,
        ..Default::default()
    };
    let answer = caller
        .broker
        .clone()
        .list_token_events(request)
        .await
        .unwrap();
    answer
        .into_inner()
        .events
        .into_iter()
        .map(|event| event.connection_id)
        .collect()
}

/// The connections that a watcher hears of, from the beginning on.
async fn watched(caller: &Caller, expected: &BTreeSet<String>) -> BTreeSet<String> {
    let request = pb::WatchTokenEventsRequest {
        cursor: "START".to_owned(),
        ..Default::default()
    };
    let answer = caller
        .broker
        .clone()
        .watch_token_events(request)
        .await
        .unwrap();
    let mut stream = answer.into_inner();
    let mut heard = BTreeSet::new();
    while !expected.is_subset(&heard) {
        let next = soon("the next event", stream.message()).await;
        let response = next.unwrap().unwrap();
        heard.extend(response.event.map(|event| event.connection_id));
    }
    // What should not come has had its turn: the events are in order and carol's are the last.
    while let Ok(next) = tokio::time::timeout(Duration::from_millis(200), stream.message()).await {
        heard.extend(
            next.unwrap()
                .unwrap()
                .event
                .map(|event| event.connection_id),
        );
    }
    heard
}

fn owners(owners: &[&str]) -> Constraints {
    Constraints {
        owners: owners.iter().map(|owner| (*owner).to_owned()).collect(),
        ..Default::default()
    }
}

fn apps(apps: &[&str]) -> Constraints {
    Constraints {
        apps: apps.iter().map(|app| (*app).to_owned()).collect(),
        ..Default::default()
    }
}

fn providers(providers: &[&str]) -> Constraints {
    Constraints {
        providers: providers.iter().map(|it| (*it).to_owned()).collect(),
        ..Default::default()
    }
}

/// Code, message and details: all that a caller gets to see.
fn seen(answer: Result<Vec<u8>, Status>) -> (Code, String, Vec<u8>) {
    match answer {
        Ok(message) => (Code::Ok, String::new(), message),
        Err(status) => (
            status.code(),
            status.message().to_owned(),
            status.details().to_vec(),
        ),
    }
}

on_both_engines! {
    async fn a_consumer_sees_what_it_is_allowed_and_nothing_else(engine: Engine) {
        let a = Accounts::of(engine).await;
        let Accounts { alice, bob, carol, .. } = &a;
        a.assert_sees(Constraints::default(), &[alice, bob, carol]).await;
        a.assert_sees(apps(&[&alice.app_id]), &[alice, bob]).await;
        a.assert_sees(providers(&["second"]), &[carol]).await;
        a.assert_sees(owners(&["team-1/alice"]), &[alice]).await;
        a.assert_sees(owners(&["team-1/*"]), &[alice, bob]).await;
        a.assert_sees(owners(&["team-1/bob", "team-2/*"]), &[bob, carol]).await;
        // An exact owner is no prefix, and constraints of several kinds all hold.
        a.assert_sees(owners(&["team-1/ali", "team-1"]), &[]).await;
        let both = Constraints { providers: vec!["second".to_owned()], ..owners(&["team-1/*"]) };
        a.assert_sees(both, &[]).await;
        a.b.finish().await;
    }

    async fn a_filter_widens_nothing(engine: Engine) {
        let a = Accounts::of(engine).await;
        let caller = a.b.caller(Role::Consumer, owners(&["team-1/alice"])).await;
        let by_owner = |owner: &str| pb::ListConnectionsRequest { owner: owner.to_owned(), ..Default::default() };
        let mut broker = caller.broker.clone();
        let own = broker.list_connections(by_owner("team-1/alice")).await.unwrap().into_inner();
        assert_eq!(own.connections.len(), 1);
        assert_refused(broker.list_connections(by_owner("team-1/bob")).await, Code::PermissionDenied, "PERMISSION_DENIED");
        let events = pb::ListTokenEventsRequest { owner: "team-1/bob".to_owned(), ..Default::default() };
        assert_refused(broker.list_token_events(events).await, Code::PermissionDenied, "PERMISSION_DENIED");
        let events = pb::ListTokenEventsRequest { connection_id: a.bob.id.clone(), ..Default::default() };
        assert!(broker.list_token_events(events).await.unwrap().into_inner().events.is_empty());
        let accounts = pb::ListConnectedAccountsRequest { owner: "team-1/bob".to_owned(), ..Default::default() };
        assert_refused(broker.list_connected_accounts(accounts).await, Code::PermissionDenied, "PERMISSION_DENIED");
        a.b.finish().await;
    }

    async fn an_app_alone_names_the_only_connection_that_one_may_see(engine: Engine) {
        let a = Accounts::of(engine).await;
        let request = pb::GetAccessTokenRequest { app: a.alice.app_id.clone(), ..Default::default() };
        assert_refused(a.b.get_token(request.clone()).await, Code::FailedPrecondition, "AMBIGUOUS_CONNECTION");
        let alice = a.b.caller(Role::Consumer, owners(&["team-1/alice"])).await;
        assert_eq!(alice.get_token(request.clone()).await.unwrap().connection_id, a.alice.id);
        // What one caller is answered is not what the next one gets.
        let bob = a.b.caller(Role::Consumer, owners(&["team-1/bob"])).await;
        assert_eq!(bob.get_token(request.clone()).await.unwrap().connection_id, a.bob.id);
        assert_refused(a.b.get_token(request.clone()).await, Code::FailedPrecondition, "AMBIGUOUS_CONNECTION");
        let nobody = a.b.caller(Role::Consumer, owners(&["nobody"])).await;
        assert_refused(nobody.get_token(request.clone()).await, Code::PermissionDenied, "PERMISSION_DENIED");
        let several = a.b.caller(Role::Consumer, owners(&["team-1/*"])).await;
        let refused = several.get_token(request).await.unwrap_err();
        assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec!["owner".to_owned()]));
        a.b.finish().await;
    }

    async fn the_unknown_and_the_forbidden_look_alike(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let channel = channel(b.grpc_address());
        for narrow in [apps(&["app_01h455vb4pex5vsknk084sn02q"]), providers(&["nobody"])] {
            let key = |tenant| b.key_in(tenant, Role::Admin, narrow.clone());
            // The same ids: there they exist and are forbidden, here they do not exist.
            let there = bearer(&key("default").await);
            let here = bearer(&key("elsewhere").await);
            let requests = scene.requests();
            for rpc in Descriptors::own().rpcs() {
                // Of users and their sessions only owners are hidden.
                let by_app = ["StartSignIn", "RevokeApiKey", "RotateApiKey"].contains(&rpc.name.as_str());
                if rpc.path.contains(".Administration/") && !by_app {
                    continue;
                }
                // It is anybody's.
                if rpc.name == "GetServerMetadata" {
                    continue;
                }
                // Providers are not hidden from a key that is held to apps.
                if narrow.providers.is_empty() && ["ListProviders", "GetProvider"].contains(&rpc.name.as_str()) {
                    continue;
                }
                let request = &requests[rpc.name.as_str()];
                let forbidden = seen(call(&channel, Some(&there), &rpc.path, request.clone()).await);
                let unknown = seen(call(&channel, Some(&here), &rpc.path, request.clone()).await);
                assert_eq!(forbidden, unknown, "{} with {narrow:?}", rpc.name);
                let refused = forbidden.0 == Code::PermissionDenied;
                assert!(refused || rpc.name.starts_with("List") || rpc.name == "BatchGetAccessTokens", "{} with {narrow:?}: {forbidden:?}", rpc.name);
            }
        }
        b.finish().await;
    }

    async fn forbidden_owners_look_like_unknown_connections(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let channel = channel(b.grpc_address());
        let narrow = owners(&["somebody-else"]);
        let there = bearer(&b.key_in("default", Role::Admin, narrow.clone()).await);
        let here = bearer(&b.key_in("elsewhere", Role::Admin, narrow).await);
        for (name, request) in scene.requests() {
            if !names_an_owner(name) {
                continue;
            }
            let path = format!("/tokenbroker.v1.TokenBroker/{name}");
            let forbidden = seen(call(&channel, Some(&there), &path, request.clone()).await);
            let unknown = seen(call(&channel, Some(&here), &path, request).await);
            assert_eq!(forbidden, unknown, "{name}");
            assert_eq!(forbidden.0, Code::PermissionDenied, "{name}");
        }
        b.finish().await;
    }

    async fn another_tenant_sees_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let scene = Scene::of(&b).await;
        let channel = channel(b.grpc_address());
        let key = bearer(&b.key_in("elsewhere", Role::Admin, Constraints::default()).await);
        let before = tables::rows(&b).await;
        // The others are in the matrix.
        let rpcs = Descriptors::own().rpcs().into_iter();
        let here = [".TokenBroker/", ".ClientRegistry/"];
        for rpc in rpcs.filter(|rpc| here.iter().any(|service| rpc.path.contains(service))) {
            let request = scene.requests()[rpc.name.as_str()].clone();
            let answer = call(&channel, Some(&key), &rpc.path, request).await;
            let (code, reason) = verdict(&answer);
            let what = format!("{}: {code:?} {reason}", rpc.name);
            match rpc.name.as_str() {
                // Those that name nothing of the first tenant's.
                "ListApps" | "ListConnectedAccounts" => assert!(answer.unwrap().is_empty(), "{what}"),
                "ListProviders" => {
                    let text = String::from_utf8_lossy(&answer.unwrap()).into_owned();
                    assert!(text.contains("github") && !text.contains("Fake provider"));
                }
                // The tenant has registered one of its own by now.
                "ListClients" => {
                    let text = String::from_utf8_lossy(&answer.unwrap()).into_owned();
                    assert!(!text.contains(&scene.client_id), "{text}");
                }
                "CreateClient" | "CreateProvider" => assert_eq!(code, Code::Ok, "{what}"),
                "BatchGetAccessTokens" => {
                    let text = String::from_utf8_lossy(&answer.unwrap()).into_owned();
                    assert!(text.contains("APP_NOT_FOUND"), "{text}");
                }
                _ => {
                    assert_eq!(code, Code::NotFound, "{what}");
                    assert!(reason.ends_with("_NOT_FOUND"), "{what}");
                }
            }
        }
        let after = tables::rows(&b).await;
        for table in ["apps", "connections", "grants", "authorizations", "sync_records"] {
            assert_eq!(before[table], after[table], "{table}");
        }
        b.finish().await;
    }

    async fn an_unconstrained_caller_is_told_what_does_not_exist(engine: Engine) {
        let b = Broker::start(engine).await;
        let mut broker = b.caller(Role::Consumer, Constraints::default()).await.broker;
        let connection_id = IdKind::Connection.new_id();
        let request = pb::GetConnectionRequest { connection_id: connection_id.clone() };
        let refused = broker.get_connection(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        let info = refused.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.domain.as_str()), ("CONNECTION_NOT_FOUND", "tokenbroker"));
        assert_eq!(info.metadata["name"], connection_id);
        let request = pb::GetAccessTokenRequest { app: "nobody".to_owned(), ..Default::default() };
        assert_refused(broker.get_access_token(request).await, Code::NotFound, "APP_NOT_FOUND");
        b.finish().await;
    }

    async fn links_that_nobody_confirms_need_a_permission_of_their_own(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let request = pb::StartAuthorizationRequest {
            app: app.id.clone(),
            owner: OWNER.to_owned(),
            mode: pb::AuthorizationMode::LinkOnly.into(),
            ..Default::default()
        };
        let plain = b.caller(Role::Consumer, Constraints::default()).await;
        let refused = plain.broker.clone().start_authorization(request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
        let info = refused.get_details_error_info().unwrap();
        assert_eq!(info.metadata["permission"], "authorizations.link_only");
        let widened = Constraints { link_only: true, ..Default::default() };
        for caller in [
            b.caller(Role::Consumer, widened.clone()).await,
            b.caller(Role::Operator, Constraints::default()).await,
            b.caller(Role::Admin, Constraints::default()).await,
        ] {
            caller.broker.clone().start_authorization(request.clone()).await.unwrap();
        }
        // It widens authorising, and gives nothing to those who may not do that at all.
        let worker = b.caller(Role::Worker, widened).await;
        assert_refused(worker.broker.clone().start_authorization(request).await.map(drop), Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn events_carry_tokens_for_those_who_may_read_them(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let request = pb::WatchTokenEventsRequest {
            cursor: "START".to_owned(),
            include_access_tokens: true,
            ..Default::default()
        };
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        let refused = operator.broker.clone().watch_token_events(request.clone()).await.map(drop);
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let consumer = b.caller(Role::Consumer, Constraints::default()).await;
        let mut stream = consumer.broker.clone().watch_token_events(request).await.unwrap().into_inner();
        let token = loop {
            let response = stream.message().await.unwrap().unwrap();
            if let Some(token) = response.event.and_then(|event| event.token) {
                break token;
            }
        };
        assert_eq!(token.connection_id, c.id);
        assert!(b.provider.is_access_token_valid(&token.access_token));
        b.finish().await;
    }
}

/// Of the requests of the scene: those about what belongs to an owner, which another owner may
/// not know to exist.
fn names_an_owner(rpc: &str) -> bool {
    [
        "StartAuthorization",
        "GetAuthorization",
        "ConfirmAuthorization",
        "CompleteAuthorization",
        "ImportConnection",
        "GetConnection",
        "ListConnectedAccounts",
        "UpdateConnection",
        "DeleteConnection",
        "RevokeConnection",
        "RefreshAccessToken",
        "ReportAccessTokenRejected",
        "GetAccessToken",
        "ListRefreshAttempts",
        "ListSyncRecords",
        "RecordSync",
    ]
    .contains(&rpc)
}
