//! Serving tokens.

use std::time::Duration;

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use crate::fixture::provider::Account;
use crate::fixture::*;
use crate::on_both_engines;

fn of(connection: &pb::Connection) -> pb::GetAccessTokenRequest {
    pb::GetAccessTokenRequest {
        connection_id: connection.id.clone(),
        ..Default::default()
    }
}

fn seconds(seconds: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos: 0 })
}

on_both_engines! {
    async fn a_connection_serves_its_token_from_memory(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let first = b.token(&c.id).await.unwrap();
        let second = b.token(&c.id).await.unwrap();
        assert_eq!(first.access_token, second.access_token);
        assert!(b.provider.is_access_token_valid(&first.access_token));
        assert_eq!(first.token_type, "Bearer");
        assert_eq!(b.provider.refreshes(), 0);
        b.finish().await;
    }

    async fn an_ended_token_is_refreshed_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let before = b.token(&c.id).await.unwrap();
        b.clock.advance(Duration::from_secs(3600));
        let after = b.token(&c.id).await.unwrap();
        assert_ne!(before.access_token, after.access_token);
        assert!(b.provider.is_access_token_valid(&after.access_token));
        assert_eq!(b.provider.refreshes(), 1);
        assert_eq!(b.provider.reuse_detected(), 0);
        b.finish().await;
    }

    async fn an_app_and_an_owner_name_a_connection(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("ada"));
        let c = b.connect(&app, "owner-1").await;
        for name in [&app.id, &app.client_id, &app.external_key] {
            for owner in ["owner-1", ""] {
                let request = pb::GetAccessTokenRequest {
                    app: name.clone(),
                    owner: owner.to_owned(),
                    ..Default::default()
                };
                for _ in 0..2 {
                    let token = b.get_token(request.clone()).await.unwrap();
                    assert_eq!(token.connection_id, c.id);
                }
            }
        }
        b.provider.sign_in_as(Account::named("grace"));
        b.connect(&app, "owner-2").await;
        eventually("the name is ambiguous", || async {
            let request = pb::GetAccessTokenRequest { app: app.id.clone(), ..Default::default() };
            b.get_token(request).await.is_err_and(|s| reason(&s) == "AMBIGUOUS_CONNECTION")
        }).await;
        b.finish().await;
    }

    async fn min_validity_decides_when_to_refresh(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_access_lifetime(Some(Duration::from_secs(3600)));
        let c = b.connected().await;
        b.clock.advance(Duration::from_secs(3600 - 600));
        let held = b.get_token(pb::GetAccessTokenRequest { min_validity: seconds(30), ..of(&c) }).await.unwrap();
        assert!(!held.below_min_validity);
        assert_eq!(b.provider.refreshes(), 0);
        let longer = b.get_token(pb::GetAccessTokenRequest { min_validity: seconds(700), ..of(&c) }).await.unwrap();
        assert_ne!(held.access_token, longer.access_token);
        assert_eq!(b.provider.refreshes(), 1);
        b.finish().await;
    }

    async fn more_validity_than_can_be_had_does_not_refresh_for_ever(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_access_lifetime(Some(Duration::from_secs(3600)));
        let c = b.connected().await;
        let request = pb::GetAccessTokenRequest { min_validity: seconds(86_400), ..of(&c) };
        for _ in 0..5 {
            let token = b.get_token(request.clone()).await.unwrap();
            assert!(token.below_min_validity);
        }
        assert_eq!(b.provider.refreshes(), 0);
        b.finish().await;
    }

    async fn missing_scopes_are_a_typed_error(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.grant_scopes(&["read"]);
        let c = b.connected().await;
        assert_eq!(c.missing_scopes, ["write"]);
        let request = |scope: &str| pb::GetAccessTokenRequest {
            required_scopes: vec![scope.to_owned()],
            ..of(&c)
        };
        b.get_token(request("read")).await.unwrap();
        for _ in 0..2 {
            assert_refused(b.get_token(request("write")).await, Code::FailedPrecondition, "SCOPES_MISSING");
        }
        b.finish().await;
    }

    async fn a_provider_that_is_down_leaves_the_held_token_in_service(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let held = b.token(&c.id).await.unwrap();
        b.provider.go_down().await;
        b.clock.advance(Duration::from_secs(3600 - 20));
        let served = b.token(&c.id).await.unwrap();
        assert_eq!(served.access_token, held.access_token);
        assert!(served.below_min_validity);
        let strict = pb::GetAccessTokenRequest { strict: true, ..of(&c) };
        assert_refused(b.get_token(strict).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        b.clock.advance(Duration::from_secs(60));
        assert_refused(b.token(&c.id).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        b.provider.come_back().await;
        b.clock.advance(Duration::from_secs(3600));
        assert_ne!(b.token(&c.id).await.unwrap().access_token, held.access_token);
        b.finish().await;
    }

    async fn a_batch_answers_each_request_on_its_own(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let requests = vec![of(&c), pb::GetAccessTokenRequest { app: "nobody".to_owned(), ..Default::default() }];
        let results = b.admin.broker.clone()
            .batch_get_access_tokens(pb::BatchGetAccessTokensRequest { requests })
            .await.unwrap().into_inner().results;
        let [one, other] = results.as_slice() else { panic!("{results:?}") };
        assert!(matches!(one.result, Some(pb::access_token_result::Result::Token(_))));
        let Some(pb::access_token_result::Result::Error(error)) = &other.result else { panic!() };
        assert_eq!((error.code, error.reason.as_str()), (Code::NotFound as i32, "APP_NOT_FOUND"));
        b.finish().await;
    }

    async fn a_rejected_token_is_replaced_once(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.refresh.rejected_report_interval = Duration::from_secs(3600);
        }).await;
        let c = b.connected().await;
        let token = b.token(&c.id).await.unwrap();
        let report = |token_id: &str| {
            let request = pb::ReportAccessTokenRejectedRequest {
                connection_id: c.id.clone(),
                token_id: token_id.to_owned(),
                http_status: 401,
            };
            let mut broker = b.admin.broker.clone();
            async move { broker.report_access_token_rejected(request).await.map(|r| r.into_inner().outcome()) }
        };
        assert_eq!(report(&token.token_id).await.unwrap(), pb::RejectionOutcome::Refreshed);
        assert_eq!(report(&token.token_id).await.unwrap(), pb::RejectionOutcome::AlreadyReplaced);
        assert_eq!(b.provider.refreshes(), 1);
        let newer = b.token(&c.id).await.unwrap();
        assert_ne!(newer.token_id, token.token_id);
        assert_refused(report(&newer.token_id).await, Code::ResourceExhausted, "RATE_LIMITED");
        assert_refused(report("nonsense").await, Code::InvalidArgument, "INVALID_ARGUMENT");
        b.finish().await;
    }

    async fn a_report_that_could_not_be_written_down_can_be_made_again(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.refresh.rejected_report_interval = Duration::from_secs(3600);
        }).await;
        let c = b.connected().await;
        let request = pb::ReportAccessTokenRejectedRequest {
            connection_id: c.id.clone(),
            token_id: b.token(&c.id).await.unwrap().token_id,
            http_status: 401,
        };
        let mut broker = b.admin.broker.clone();
        b.ground.execute("ALTER TABLE audit_events RENAME TO away").await;
        let failed = broker.report_access_token_rejected(request.clone()).await;
        b.ground.execute("ALTER TABLE away RENAME TO audit_events").await;
        assert_ne!(reason(&failed.unwrap_err()), "RATE_LIMITED");
        let report = broker.report_access_token_rejected(request).await.unwrap();
        assert_eq!(report.into_inner().outcome(), pb::RejectionOutcome::Refreshed);
        b.finish().await;
    }

    async fn an_operator_refreshes_without_seeing_the_token(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        let request = pb::RefreshAccessTokenRequest { connection_id: c.id.clone(), ..Default::default() };
        let token = operator.broker.clone().refresh_access_token(request.clone())
            .await.unwrap().into_inner().token.unwrap();
        assert_eq!(token.access_token, "");
        assert_ne!(token.token_id, "");
        let own = b.admin.broker.clone().refresh_access_token(request)
            .await.unwrap().into_inner().token.unwrap();
        assert!(b.provider.is_access_token_valid(&own.access_token));
        assert_refused(operator.get_token(of(&c)).await, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn use_is_counted_and_stored(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        for _ in 0..7 {
            b.token(&c.id).await.unwrap();
        }
        eventually("the use is stored", || async { b.connection(&c.id).await.use_count == 7 }).await;
        assert!(b.connection(&c.id).await.last_used_time.is_some());
        b.finish().await;
    }

    async fn an_inactive_app_serves_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.token(&c.id).await.unwrap();
        let set = |state: pb::AppState| {
            let request = pb::UpdateAppRequest {
                app: Some(pb::App { id: c.app_id.clone(), state: state.into(), ..Default::default() }),
                update_mask: Some(prost_types::FieldMask { paths: vec!["state".to_owned()] }),
            };
            let mut registry = b.admin.registry.clone();
            async move { registry.update_app(request).await.unwrap() }
        };
        set(pb::AppState::Inactive).await;
        eventually("no token is served", || async { b.token(&c.id).await.is_err() }).await;
        assert_refused(b.token(&c.id).await, Code::FailedPrecondition, "APP_INACTIVE");
        set(pb::AppState::Active).await;
        eventually("tokens are served again", || async { b.token(&c.id).await.is_ok() }).await;
        b.finish().await;
    }

    async fn a_token_without_an_end_is_served_until_it_is_rejected(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.omit_expires_in(true);
        let c = b.connected().await;
        b.clock.advance(Duration::from_secs(90 * 24 * 3600));
        let token = b.token(&c.id).await.unwrap();
        assert!(token.expire_time.is_none());
        assert_eq!(b.provider.refreshes(), 0);
        b.finish().await;
    }

    async fn a_jwt_tells_its_own_end(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.omit_expires_in(true);
        b.provider.jwt_access_tokens(true);
        b.provider.set_access_lifetime(Some(Duration::from_secs(1200)));
        let c = b.connected().await;
        assert!(b.token(&c.id).await.unwrap().expire_time.is_some());
        b.clock.advance(Duration::from_secs(1200));
        b.token(&c.id).await.unwrap();
        assert_eq!(b.provider.refreshes(), 1);
        b.finish().await;
    }
}
