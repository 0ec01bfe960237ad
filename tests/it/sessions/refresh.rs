//! Exchanging a session's tokens, lost answers, and thieves.

use std::time::Duration;

use futures_util::future::join;
use secrecy::ExposeSecret as _;
use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tonic::Code;

use super::{recorded, refresh, revoke, sessions_of, signed_in, whoami};
use crate::fixture::*;
use crate::on_both_engines;

fn request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// A refresh token that is nobody's.
fn unknown() -> String {
    let token = BearerSecret::generate(Prefix::SessionRefresh);
    token.text().expose_secret().to_owned()
}

on_both_engines! {
    async fn a_refresh_replaces_both_tokens(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, old) = signed_in(&b).await;
        whoami(&b, &old.token).await.unwrap();
        let new = refresh(&b, &old.refresh, "").await.unwrap();
        assert_eq!(new.session.id, old.session.id);
        assert_ne!((&new.token, &new.refresh), (&old.token, &old.refresh));
        let refused = whoami(&b, &old.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_INVALID");
        whoami(&b, &new.token).await.unwrap();
        let again = refresh(&b, &new.refresh, "").await.unwrap();
        whoami(&b, &again.token).await.unwrap();
        assert_eq!(recorded(&b, &["session.refreshed", &old.session.id]).await, 2);
        b.finish().await;
    }

    async fn a_spent_refresh_token_ends_the_session(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, old) = signed_in(&b).await;
        let new = refresh(&b, &old.refresh, "").await.unwrap();
        whoami(&b, &new.token).await.unwrap();
        for _ in 0..2 {
            let refused = refresh(&b, &old.refresh, "").await;
            assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        }
        let refused = whoami(&b, &new.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        let refused = refresh(&b, &new.refresh, "").await;
        assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        let ended = sessions_of(&b.admin, &ada.user.id, true).await;
        assert_eq!(ended[0].revoke_reason, "refresh_token_reused");
        assert_eq!(recorded(&b, &["session.refreshed", "refresh_token_reused"]).await, 1);
        b.finish().await;
    }

    async fn an_unknown_refresh_token_looks_like_a_spent_one(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, session) = signed_in(&b).await;
        for text in [&unknown(), "x", &session.token] {
            let refused = refresh(&b, text, "").await;
            assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        }
        whoami(&b, &session.token).await.unwrap();
        b.finish().await;
    }

    async fn a_lost_answer_can_be_fetched_again_with_its_request_id(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, old) = signed_in(&b).await;
        let id = request_id();
        let lost = refresh(&b, &old.refresh, &id).await.unwrap();
        b.clock.advance(Duration::from_secs(599));
        let fetched = refresh(&b, &old.refresh, &id).await.unwrap();
        assert_eq!((&fetched.token, &fetched.refresh), (&lost.token, &lost.refresh));
        whoami(&b, &fetched.token).await.unwrap();
        refresh(&b, &fetched.refresh, &request_id()).await.unwrap();
        b.finish().await;
    }

    async fn a_retry_after_ten_minutes_is_a_second_use(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, old) = signed_in(&b).await;
        let id = request_id();
        let new = refresh(&b, &old.refresh, &id).await.unwrap();
        b.clock.advance(Duration::from_secs(601));
        let refused = refresh(&b, &old.refresh, &id).await;
        assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        assert!(whoami(&b, &new.token).await.is_err());
        b.finish().await;
    }

    async fn a_retry_whose_answer_was_used_ends_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, old) = signed_in(&b).await;
        let id = request_id();
        let new = refresh(&b, &old.refresh, &id).await.unwrap();
        let newer = refresh(&b, &new.refresh, &request_id()).await.unwrap();
        let refused = refresh(&b, &old.refresh, &id).await;
        assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        whoami(&b, &newer.token).await.unwrap();
        b.finish().await;
    }

    async fn a_request_id_stands_for_one_refresh(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, old) = signed_in(&b).await;
        let id = request_id();
        let new = refresh(&b, &old.refresh, &id).await.unwrap();
        let refused = refresh(&b, &new.refresh, &id).await.unwrap_err();
        assert_eq!(violations(&refused), ["request_id"]);
        refresh(&b, &new.refresh, &request_id()).await.unwrap();
        b.finish().await;
    }

    async fn two_refreshes_at_once_with_one_request_id_get_one_answer(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, mut session) = signed_in(&b).await;
        for _ in 0..5 {
            let id = request_id();
            let (one, other) = join(
                refresh(&b, &session.refresh, &id),
                refresh(&b, &session.refresh, &id),
            )
            .await;
            let (one, other) = (one.unwrap(), other.unwrap());
            assert_eq!((&one.token, &one.refresh), (&other.token, &other.refresh));
            whoami(&b, &one.token).await.unwrap();
            session = one;
        }
        b.finish().await;
    }

    async fn two_refreshes_at_once_without_a_request_id_end_the_session(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, session) = signed_in(&b).await;
        let (one, other) = join(
            refresh(&b, &session.refresh, ""),
            refresh(&b, &session.refresh, ""),
        )
        .await;
        let mut both = [one, other];
        both.sort_by_key(|outcome| outcome.is_err());
        let [won, lost] = both;
        assert_refused(lost, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        assert!(whoami(&b, &won.unwrap().token).await.is_err());
        b.finish().await;
    }

    async fn guessed_refresh_tokens_have_to_wait_and_good_ones_do_not(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.passwords.free_failures = 1).await;
        let (ada, session) = signed_in(&b).await;
        for _ in 0..11 {
            let refused = refresh(&b, &unknown(), "").await;
            assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        }
        for _ in 0..3 {
            let refused = refresh(&b, &unknown(), "").await;
            assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");
        }
        refresh(&b, &session.refresh, "").await.unwrap();
        // Nor does whoever signs in from there.
        ada.sign_in(&b).await;
        for (why, times) in [("UNKNOWN_REFRESH_TOKEN", 11), ("THROTTLED", 1)] {
            assert_eq!(recorded(&b, &["session.refreshed", why]).await, times, "{why}");
        }
        b.finish().await;
    }

    async fn a_dead_refresh_token_fills_no_trail_and_uses_up_nobodys_calls(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            let limit = tokenbroker::config::RoleLimit { requests_per_second: 1, burst: 4 };
            config.limits.set_role("user", limit);
            config.passwords.free_failures = 2;
        })
        .await;
        let (ada, stolen) = signed_in(&b).await;
        let kept = ada.sign_in(&b).await;
        revoke(&b.admin, &stolen.session.id).await.unwrap();
        for attempt in 0..10 {
            let refused = refresh(&b, &stolen.refresh, "").await.unwrap_err();
            assert_eq!(refused.code() == Code::Unauthenticated, attempt < 3, "{refused:?}");
        }
        assert_eq!(recorded(&b, &["session.refreshed", "SESSION_ENDED"]).await, 3);
        whoami(&b, &kept.token).await.unwrap();
        refresh(&b, &kept.refresh, "").await.unwrap();
        b.finish().await;
    }

    async fn a_used_up_request_id_does_not_hide_a_stolen_refresh_token(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, stolen) = signed_in(&b).await;
        let new = refresh(&b, &stolen.refresh, &request_id()).await.unwrap();
        let used_up = request_id();
        let newer = refresh(&b, &new.refresh, &used_up).await.unwrap();
        let refused = refresh(&b, &stolen.refresh, &used_up).await;
        assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        assert!(whoami(&b, &newer.token).await.is_err());
        let ended = sessions_of(&b.admin, &ada.user.id, true).await;
        assert_eq!(ended[0].revoke_reason, "refresh_token_reused");
        b.finish().await;
    }
}
