//! One attempt to refresh: classes of failure, back-off, rotation, deadlines.

use std::time::Duration;

use tokenbroker::model::provider::Rotation as Policy;
use tokenbroker::pb;
use tokenbroker::store::grants::{any_tenant_due, move_due};
use tonic::Code;

use crate::fixture::provider::{Account, FakeProvider, Fault, Rotation, Target};
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3600);

/// Outcomes of a connection's attempts, newest first.
async fn outcomes(b: &Broker, id: &str) -> Vec<pb::RefreshOutcome> {
    b.attempts(id)
        .await
        .iter()
        .map(pb::RefreshAttempt::outcome)
        .collect()
}

on_both_engines! {
    async fn a_dead_grant_asks_for_consent_and_is_never_retried(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.provider.revoke_account(&c.account_id);
        b.clock.advance(HOUR);
        for _ in 0..3 {
            assert_refused(b.token(&c.id).await, Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED");
        }
        assert_eq!(b.provider.refreshes(), 1);
        assert_eq!(b.connection(&c.id).await.state(), pb::ConnectionState::ReauthorizationRequired);
        assert_eq!(outcomes(&b, &c.id).await, [pb::RefreshOutcome::GrantDead]);
        eventually("watchers are told", || async {
            b.events().await.last().is_some_and(|event| event.r#type() == pb::TokenEventType::ReauthorizationRequired)
        }).await;
        b.finish().await;
    }

    async fn a_failing_provider_is_asked_once_a_back_off(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.provider.fail_always(Target::Refresh, Fault::Status(500));
        b.clock.advance(HOUR);
        for _ in 0..20 {
            assert_refused(b.token(&c.id).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        }
        assert_eq!(b.provider.refreshes(), 1);
        b.clock.advance(Duration::from_secs(3));
        // Written down, not only asked: from then on the next back-off counts.
        eventually("the worker tries again by itself", || async { outcomes(&b, &c.id).await.len() == 2 }).await;
        assert_eq!(b.provider.refreshes(), 2);
        b.provider.heal(Target::Refresh);
        b.clock.advance(Duration::from_secs(60));
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }

    async fn retry_after_is_honoured(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.provider.fail_next(Target::Refresh, Fault::TooManyRequests { retry_after: 120 });
        b.clock.advance(HOUR);
        let refused = b.token(&c.id).await.unwrap_err();
        use tonic_types::StatusExt as _;
        let delay = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
        assert!(delay >= Duration::from_secs(120), "{delay:?}");
        b.clock.advance(Duration::from_secs(100));
        assert_refused(b.token(&c.id).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        assert_eq!(b.provider.refreshes(), 1);
        b.clock.advance(Duration::from_secs(30));
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }

    async fn a_lost_answer_is_never_answered_by_a_replay(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_rotation(Rotation::STRICT);
        let c = b.connected().await;
        let held = b.token(&c.id).await.unwrap();
        b.provider.fail_next(Target::Refresh, Fault::DropAfter);
        b.clock.advance(HOUR - Duration::from_secs(60));
        for _ in 0..5 {
            let served = b.token(&c.id).await.unwrap();
            assert_eq!(served.access_token, held.access_token);
            assert!(served.below_min_validity);
        }
        assert_eq!(b.provider.refreshes(), 1);
        assert_eq!(b.provider.reuse_detected(), 0);
        assert_eq!(outcomes(&b, &c.id).await, [pb::RefreshOutcome::Ambiguous]);
        b.finish().await;
    }

    async fn a_lost_answer_is_repeated_within_the_providers_grace(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_rotation(Rotation::with_grace(Duration::from_secs(600)));
        let c = b.connected_as(|provider| provider.reuse_grace = Duration::from_secs(600)).await;
        b.provider.fail_next(Target::Refresh, Fault::DropAfter);
        b.clock.advance(HOUR);
        assert_refused(b.token(&c.id).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        b.clock.advance(Duration::from_secs(10));
        let token = b.token(&c.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        assert_eq!(b.provider.reuse_detected(), 0);
        b.finish().await;
    }

    async fn a_provider_that_never_rotates_is_simply_asked_again(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_rotation(Rotation::Never);
        let c = b.connected_as(|provider| provider.rotation = Policy::Never).await;
        b.provider.fail_next(Target::Refresh, Fault::DropAfter);
        b.clock.advance(HOUR);
        assert_refused(b.token(&c.id).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        b.clock.advance(Duration::from_secs(10));
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }

    async fn an_answer_without_a_refresh_token_keeps_the_old_one(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_rotation(Rotation::Never);
        b.provider.omit_refresh_token_on_refresh();
        let c = b.connected().await;
        for _ in 0..3 {
            b.clock.advance(HOUR);
            b.token(&c.id).await.unwrap();
        }
        let attempts = b.attempts(&c.id).await;
        assert_eq!(attempts.len(), 3);
        assert!(attempts.iter().all(|a| a.new_refresh_token_fingerprint.is_empty()));
        assert!(attempts.iter().all(|a| !a.refresh_token_fingerprint.is_empty()));
        b.finish().await;
    }

    async fn a_form_encoded_answer_is_read(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.form_encoded_answers(true);
        let c = b.connected().await;
        b.clock.advance(HOUR);
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }

    async fn a_refused_client_marks_the_app_and_parks_its_grants(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.provider.set_client_secret("another-secret-altogether", false);
        b.clock.advance(HOUR);
        // Whoever made the attempt is told, and whoever comes after it.
        for _ in 0..3 {
            assert_refused(b.token(&c.id).await, Code::FailedPrecondition, "APP_MISCONFIGURED");
        }
        assert_eq!(b.connection(&c.id).await.state(), pb::ConnectionState::Active);
        let app = b.admin.registry.clone()
            .get_app(pb::GetAppRequest { app: c.app_id.clone() })
            .await.unwrap().into_inner().app.unwrap();
        assert_eq!(app.misconfiguration, "invalid_client");
        let asked = b.provider.refreshes();
        b.clock.advance(Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(b.provider.refreshes(), asked);
        b.admin.registry.clone().rotate_app_secret(pb::RotateAppSecretRequest {
            app: c.app_id.clone(),
            client_secret: "another-secret-altogether".to_owned(),
            ..Default::default()
        }).await.unwrap();
        eventually("the grant is refreshed again", || async { b.token(&c.id).await.is_ok() }).await;
        b.finish().await;
    }

    async fn a_worker_that_comes_late_moves_nothing(engine: Engine) {
        // The worker of this test is the test.
        let b = Broker::start_with(engine, |config| config.refresh.scan_interval = HOUR).await;
        let app = b.app().await;
        let mut grants = Vec::new();
        for owner in ["ada", "grace"] {
            b.provider.sign_in_as(Account::named(owner));
            grants.push(b.connect(&app, owner).await);
        }
        b.clock.advance(HOUR);
        let store = b.ground.store().await;
        let due = async || {
            let mut conn = store.read().await.unwrap();
            any_tenant_due(&mut conn, b.clock.now(), &[], 10).await.unwrap()
        };
        let seen = due().await;
        assert_eq!(seen.len(), 2);
        let park = async || {
            let mut conn = store.write().await.unwrap();
            for grant in &seen {
                move_due(&mut conn, grant, None).await.unwrap();
            }
        };
        // An attempt has moved the one, and mending the app the other.
        b.provider.set_client_secret("another-secret-altogether", false);
        assert_refused(b.token(&grants[0].id).await, Code::FailedPrecondition, "APP_MISCONFIGURED");
        assert_eq!(due().await.len(), 1);
        b.admin.registry.clone().rotate_app_secret(pb::RotateAppSecretRequest {
            app: app.id.clone(),
            client_secret: "another-secret-altogether".to_owned(),
            ..Default::default()
        }).await.unwrap();
        park().await;
        assert_eq!(due().await.len(), 2);
        b.finish().await;
    }

    async fn both_secrets_are_tried_during_a_rotation(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.admin.registry.clone().rotate_app_secret(pb::RotateAppSecretRequest {
            app: c.app_id.clone(),
            client_secret: "the-secret-of-tomorrow".to_owned(),
            ..Default::default()
        }).await.unwrap();
        // The provider still knows only the old one.
        b.clock.advance(HOUR);
        b.token(&c.id).await.unwrap();
        b.provider.set_client_secret("the-secret-of-tomorrow", false);
        b.clock.advance(HOUR);
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }

    async fn the_worker_refreshes_ahead_of_expiry(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let before = b.token(&c.id).await.unwrap();
        b.clock.advance(HOUR - Duration::from_secs(120));
        eventually("refreshed without being asked", || async {
            b.connection(&c.id).await.last_refresh_time.is_some()
        }).await;
        assert_eq!(b.provider.refreshes(), 1);
        eventually("and the new one is served", || async {
            b.token(&c.id).await.unwrap().access_token != before.access_token
        }).await;
        assert_eq!(b.attempts(&c.id).await[0].trigger, "ahead");
        b.finish().await;
    }

    async fn a_provider_that_does_not_answer_holds_up_nobody_elses_grants(engine: Engine) {
        // One app has four grants in hand at most, and three of the slots.
        let b = Broker::start_with(engine, |config| {
            (config.refresh.concurrency, config.refresh.batch) = (4, 4);
        }).await;
        let app = b.app().await;
        for owner in ["a", "b", "c", "d", "e"] {
            b.connect(&app, owner).await;
        }
        let other = FakeProvider::start().await;
        other.use_clock(b.clock.clone());
        let elsewhere = b.app_of(&other, "other").await;
        b.connect(&elsewhere, "a").await;
        let held = b.provider.hold_token_answers();
        b.clock.advance(HOUR - Duration::from_secs(120));
        b.provider.wait_for_refreshes(3).await;
        other.wait_for_refreshes(1).await;
        assert_eq!(b.provider.refreshes(), 3);
        drop(held);
        eventually("all are answered", || async { b.provider.successful_refreshes() == 5 }).await;
        b.finish().await;
    }

    async fn an_idle_refresh_token_is_kept_alive(engine: Engine) {
        let b = Broker::start(engine).await;
        let idle = Duration::from_secs(100 * 3600);
        let app = b.app_defined(&b.provider, "fake", |provider| {
            provider.refresh_token_idle_lifetime = Some(idle);
        }).await;
        b.provider.sign_in_as(Account::named("ada"));
        let started = b.start_authorization(pb::StartAuthorizationRequest {
            app: app.id.clone(),
            owner: "owner-1".to_owned(),
            return_url: RETURN_URL.to_owned(),
            refresh_policy: pb::RefreshPolicy::OnDemand.into(),
            ..Default::default()
        }).await.unwrap();
        let returned = b.consent(&started.connect_url).await;
        let c = b.confirm(&returned, "owner-1").await.unwrap();
        b.clock.advance(Duration::from_secs(50 * 3600));
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(b.provider.refreshes(), 0);
        b.clock.advance(Duration::from_secs(25 * 3600));
        eventually("kept alive", || async { b.provider.refreshes() == 1 }).await;
        eventually("recorded", || async {
            b.attempts(&c.id).await.first().is_some_and(|a| a.trigger == "keep_alive")
        }).await;
        b.finish().await;
    }

    async fn garbage_and_oversize_answers_are_failures_that_leak_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_rotation(Rotation::Never);
        let c = b.connected_as(|provider| provider.rotation = Policy::Never).await;
        for fault in [
            Fault::Garbage,
            Fault::HugeBody(4 << 20),
            Fault::Redirect("http://127.0.0.1:9/elsewhere".to_owned()),
            Fault::DropBefore,
            Fault::Status(502),
        ] {
            b.provider.fail_next(Target::Refresh, fault);
            b.clock.advance(HOUR);
            assert_refused(b.token(&c.id).await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        }
        b.clock.advance(HOUR);
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }
}
