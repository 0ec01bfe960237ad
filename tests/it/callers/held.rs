//! What a caller who is held to some owners, apps or providers does not get to see; and page tokens
//! that somebody made up.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use super::{bearer, verdict};
use crate::fixture::rpcs::{Descriptors, call, channel};
use crate::fixture::scene::Scene;
use crate::fixture::*;
use crate::on_both_engines;

fn owners(owner: &str) -> Constraints {
    Constraints {
        owners: vec![owner.to_owned()],
        ..Default::default()
    }
}

fn providers(provider: &str) -> Constraints {
    Constraints {
        providers: vec![provider.to_owned()],
        ..Default::default()
    }
}

/// The names of the keys that are listed, one a page.
async fn keys(caller: &Caller) -> Vec<String> {
    let (mut names, mut request) = (Vec::new(), pb::ListApiKeysRequest::default());
    request.page_size = 1;
    loop {
        let mut administration = caller.administration.clone();
        let page = administration.list_api_keys(request.clone()).await;
        let page = page.unwrap().into_inner();
        names.extend(page.api_keys.into_iter().map(|key| key.name));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return names;
        }
    }
}

async fn make_key(b: &Broker, name: &str, owners: &[&str]) {
    let request = pb::CreateApiKeyRequest {
        name: name.to_owned(),
        role: pb::Role::Consumer.into(),
        constraints: Some(pb::Constraints {
            owners: owners.iter().map(|owner| (*owner).to_owned()).collect(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut administration = b.admin.administration.clone();
    let made = administration.create_api_key(request).await.unwrap();
    leaks::Secrets::register_as("API key", &made.into_inner().secret);
}

/// The token with a NUL at its end.
fn spoilt(token: &str) -> String {
    let mut bytes = URL_SAFE_NO_PAD.decode(token).unwrap();
    bytes.push(0);
    URL_SAFE_NO_PAD.encode(bytes)
}

on_both_engines! {
    async fn who_is_held_to_owners_does_not_see_keys_that_are_not(engine: Engine) {
        let b = Broker::start(engine).await;
        let held = b.caller(Role::Admin, owners("team-1/*")).await;
        make_key(&b, "wide", &[]).await;
        make_key(&b, "within", &["team-1/x"]).await;
        make_key(&b, "beside", &["team-2/x"]).await;
        make_key(&b, "within too", &["team-1/*"]).await;
        assert_eq!(keys(&held).await, ["test", "within", "within too"]);
        assert!(keys(&b.admin).await.contains(&"wide".to_owned()));
        b.finish().await;
    }

    async fn who_is_held_to_a_provider_does_not_see_users_who_are_not(engine: Engine) {
        let b = Broker::start(engine).await;
        for (email, providers) in [("free@example.com", vec![]), ("held@example.com", vec!["github".to_owned()])] {
            let request = pb::CreateUserRequest {
                email: email.to_owned(),
                constraints: Some(pb::Constraints { providers, ..Default::default() }),
                ..Default::default()
            };
            b.admin.administration.clone().create_user(request).await.unwrap();
        }
        let mut held = b.caller(Role::Operator, providers("github")).await.administration;
        let seen = held.list_users(pb::ListUsersRequest::default()).await.unwrap().into_inner().users;
        assert_eq!(seen.iter().map(|user| user.email.as_str()).collect::<Vec<_>>(), ["held@example.com"]);
        let request = pb::GetUserRequest { email: "free@example.com".to_owned(), ..Default::default() };
        assert_refused(held.get_user(request).await, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn who_is_held_to_anything_reads_nothing_of_the_trail(engine: Engine) {
        let b = Broker::start(engine).await;
        for constraints in [owners("team-1/*"), providers("github")] {
            let mut held = b.caller(Role::Auditor, constraints).await.administration;
            let listed = held.list_audit_events(pb::ListAuditEventsRequest::default()).await;
            assert!(listed.as_ref().unwrap_err().message().contains("use a caller without constraints"));
            assert_refused(listed, Code::PermissionDenied, "PERMISSION_DENIED");
            let watched = held.watch_audit_events(pb::WatchAuditEventsRequest::default()).await;
            assert_refused(watched.map(drop), Code::PermissionDenied, "PERMISSION_DENIED");
            let verified = held.verify_audit_log(pb::VerifyAuditLogRequest::default()).await;
            assert_refused(verified, Code::PermissionDenied, "PERMISSION_DENIED");
            let checkpoints = held.list_audit_checkpoints(pb::ListAuditCheckpointsRequest::default()).await;
            assert_refused(checkpoints, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        b.finish().await;
    }

    async fn who_is_held_to_anything_has_no_part_in_automation(engine: Engine) {
        let b = Broker::start(engine).await;
        let requests = Scene::of(&b).await.requests();
        let channel = channel(b.grpc_address());
        let app = Constraints { apps: vec!["app_01h455vb4pex5vsknk084sn02q".to_owned()], ..Default::default() };
        for constraints in [owners("team-1/*"), providers("fake"), app] {
            let held = bearer(&b.key(Role::Admin, constraints).await);
            let rpcs = Descriptors::own().rpcs().into_iter();
            for rpc in rpcs.filter(|rpc| rpc.path.contains(".AutomationJobs/")) {
                let request = requests[rpc.name.as_str()].clone();
                let answer = call(&channel, Some(&held), &rpc.path, request).await;
                let denied = (Code::PermissionDenied, "PERMISSION_DENIED".to_owned());
                assert_eq!(verdict(&answer), denied, "{}", rpc.name);
                assert!(answer.unwrap_err().message().contains("use a caller without constraints"), "{}", rpc.name);
            }
        }
        b.finish().await;
    }

    async fn a_nul_in_a_page_token_is_the_callers_mistake(engine: Engine) {
        let b = Broker::start(engine).await;
        make_key(&b, "one", &[]).await;
        make_key(&b, "two", &[]).await;
        let mut administration = b.admin.administration.clone();
        let mut request = pb::ListApiKeysRequest { page_size: 1, ..Default::default() };
        let page = administration.list_api_keys(request.clone()).await.unwrap().into_inner();
        request.page_token = spoilt(&page.next_page_token);
        let refused = administration.list_api_keys(request).await.unwrap_err();
        assert_eq!(violations(&refused), ["page_token"]);
        b.finish().await;
    }
}
