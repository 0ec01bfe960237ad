//! Listing: filters, pages, tenants, and who may.

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use super::*;

async fn list(
    caller: &Caller,
    request: pb::ListAuditEventsRequest,
) -> Result<pb::ListAuditEventsResponse, tonic::Status> {
    let mut client = caller.administration.clone();
    Ok(client.list_audit_events(request).await?.into_inner())
}

/// The things that a listing names.
async fn things(caller: &Caller, request: pb::ListAuditEventsRequest) -> Vec<String> {
    let listed = list(caller, request).await.unwrap().events.into_iter();
    let things = listed.filter(|event| event.resource_kind == "thing");
    things.map(|event| event.resource_id).collect()
}

on_both_engines! {
    async fn entries_are_listed_in_order_with_all_they_say(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one", "two"]).await;
        let entry = Entry::new(Action::SessionCreated, someone("default"))
            .on("thing", "three")
            .provider("github")
            .detail("n", 1)
            .failed("WRONG_PASSWORD");
        let written = beside.record(&b, &entry).await;
        // Not chained yet: listing sees to that.
        let listed = list(&b.admin, pb::ListAuditEventsRequest::default()).await.unwrap();
        assert!(listed.events.is_sorted_by_key(|event| event.position));
        let event = listed.events.iter().find(|event| event.id == written).unwrap();
        assert_eq!((event.action.as_str(), event.success), ("session.created", false));
        assert_eq!((event.reason.as_str(), event.provider.as_str()), ("WRONG_PASSWORD", "github"));
        assert_eq!(event.actor_kind(), pb::ActorKind::User);
        assert_eq!((event.actor_id.as_str(), event.client_ip.as_str()), ("user_1", "192.0.2.7"));
        assert_eq!((event.client_user_agent.as_str(), event.erased), ("test/1", false));
        assert_eq!((event.details["n"].as_str(), event.hash.len()), ("1", 32));
        b.finish().await;
    }

    async fn filters_narrow_a_listing(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        let begun = b.clock.now();
        beside.write(&b, &["one"]).await;
        b.clock.advance(std::time::Duration::from_secs(10));
        let later = b.clock.now();
        let who = Who::user("user_2", "default", &Origin::default());
        let entry = Entry::new(Action::SessionCreated, who).on("thing", "two").provider("github");
        beside.record(&b, &entry.failed("X")).await;
        let time = |at| Some(tokenbroker::grpc::convert::timestamp(at));
        let all = pb::ListAuditEventsRequest { page_size: 1000, ..Default::default() };
        for (request, expected) in [
            (pb::ListAuditEventsRequest { action: "session.*".into(), ..all.clone() }, "two"),
            (pb::ListAuditEventsRequest { action: "app.updated".into(), ..all.clone() }, "one"),
            (pb::ListAuditEventsRequest { actor_id: "user_1".into(), ..all.clone() }, "one"),
            (pb::ListAuditEventsRequest { resource_id: "two".into(), ..all.clone() }, "two"),
            (pb::ListAuditEventsRequest { provider: "github".into(), ..all.clone() }, "two"),
            (pb::ListAuditEventsRequest { failed_only: true, ..all.clone() }, "two"),
            (pb::ListAuditEventsRequest { start_time: time(later), ..all.clone() }, "two"),
            (
                pb::ListAuditEventsRequest {
                    start_time: time(begun),
                    end_time: time(later),
                    ..all.clone()
                },
                "one",
            ),
        ] {
            assert_eq!(things(&b.admin, request.clone()).await, [expected], "{request:?}");
        }
        let wrong = pb::ListAuditEventsRequest { action: "Session%".into(), ..all };
        let status = list(&b.admin, wrong).await.unwrap_err();
        assert_eq!(violations(&status), ["action"]);
        b.finish().await;
    }

    async fn pages_end_although_reading_them_is_recorded(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one", "two", "three"]).await;
        for action in ["", "app.*"] {
            let mut request = pb::ListAuditEventsRequest {
                page_size: 1,
                action: action.to_owned(),
                ..Default::default()
            };
            let mut seen = Vec::new();
            for _ in 0..100 {
                let page = list(&b.admin, request.clone()).await.unwrap();
                seen.extend(page.events.into_iter().map(|event| event.resource_id));
                request.page_token = page.next_page_token;
                if request.page_token.is_empty() {
                    break;
                }
            }
            assert!(request.page_token.is_empty(), "it never ends");
            seen.retain(|thing| ["one", "two", "three"].contains(&thing.as_str()));
            assert_eq!(seen, ["one", "two", "three"]);
        }
        b.finish().await;
    }

    async fn whoever_reads_leaves_an_entry(engine: Engine) {
        let b = Broker::start(engine).await;
        let auditor = b.caller(Role::Auditor, Constraints::default()).await;
        list(&auditor, pb::ListAuditEventsRequest::default()).await.unwrap();
        let request = pb::VerifyAuditLogRequest::default();
        auditor.administration.clone().verify_audit_log(request).await.unwrap();
        let request = pb::ListAuditEventsRequest { action: "audit.*".into(), ..Default::default() };
        let listed = list(&auditor, request).await.unwrap().events;
        let actions: Vec<&str> = listed.iter().map(|event| event.action.as_str()).collect();
        assert_eq!(actions, ["audit.read", "audit.verified"]);
        assert_eq!(listed[0].details["how"], "list");
        assert_eq!(listed[1].details["intact"], "true");
        assert!(listed.iter().all(|event| event.actor_kind() == pb::ActorKind::ApiKey));
        b.finish().await;
    }

    async fn other_tenants_events_are_not_seen(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one"]).await;
        let entry = Entry::new(Action::AppUpdated, someone("other")).on("thing", "theirs");
        beside.record(&b, &entry).await;
        let own = things(&b.admin, pb::ListAuditEventsRequest::default()).await;
        assert_eq!(own, ["one"]);
        let named = pb::ListAuditEventsRequest { resource_id: "theirs".into(), ..Default::default() };
        assert_eq!(things(&b.admin, named).await, [""; 0]);
        let other = b.caller_in("other", Role::Auditor, Constraints::default()).await;
        assert_eq!(things(&other, pb::ListAuditEventsRequest::default()).await, ["theirs"]);
        // A page of one tenant is no page of another.
        let small = pb::ListAuditEventsRequest { page_size: 1, ..Default::default() };
        let page_token = list(&other, small.clone()).await.unwrap().next_page_token;
        let status = list(&b.admin, pb::ListAuditEventsRequest { page_token, ..small }).await;
        assert_eq!(violations(&status.unwrap_err()), ["page_token"]);
        b.finish().await;
    }

    async fn an_auditor_reads_the_trail_and_nothing_else(engine: Engine) {
        let b = Broker::start(engine).await;
        let auditor = b.caller(Role::Auditor, Constraints::default()).await;
        let mut administration = auditor.administration.clone();
        list(&auditor, pb::ListAuditEventsRequest::default()).await.unwrap();
        let request = pb::ListAuditCheckpointsRequest::default();
        administration.list_audit_checkpoints(request).await.unwrap();
        let users = administration.list_users(pb::ListUsersRequest::default()).await;
        assert_eq!(users.unwrap_err().code(), Code::PermissionDenied);
        let token = auditor.get_token(pb::GetAccessTokenRequest::default()).await;
        assert_eq!(token.unwrap_err().code(), Code::PermissionDenied);
        let apps = auditor.registry.clone().list_apps(pb::ListAppsRequest::default()).await;
        assert_eq!(apps.unwrap_err().code(), Code::PermissionDenied);
        for role in [Role::Operator, Role::Consumer, Role::Worker] {
            let other = b.caller(role, Constraints::default()).await;
            let listed = list(&other, pb::ListAuditEventsRequest::default()).await;
            let allowed = tokenbroker::access::policy::permissions(role)
                .contains(&tokenbroker::access::Permission::ReadAudit);
            assert_eq!(listed.is_ok(), allowed, "{role:?}");
        }
        b.finish().await;
    }
}
