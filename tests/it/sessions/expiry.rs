//! How long sessions live.

use std::time::Duration;

use tonic::Code;

use super::{refresh, signed_in, whoami};
use crate::fixture::*;
use crate::on_both_engines;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

on_both_engines! {
    async fn a_session_token_ends_without_use(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, session) = signed_in(&b).await;
        for _ in 0..3 {
            b.clock.advance(29 * MINUTE);
            whoami(&b, &session.token).await.unwrap();
        }
        b.clock.advance(30 * MINUTE);
        let refused = whoami(&b, &session.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        let renewed = refresh(&b, &session.refresh, "").await.unwrap();
        whoami(&b, &renewed.token).await.unwrap();
        b.finish().await;
    }

    async fn a_session_token_ends_in_any_case(engine: Engine) {
        let b = Broker::start_with(engine, |c| c.sessions.idle_timeout = c.sessions.lifetime).await;
        let (_, session) = signed_in(&b).await;
        b.clock.advance(11 * HOUR);
        whoami(&b, &session.token).await.unwrap();
        b.clock.advance(HOUR);
        let refused = whoami(&b, &session.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        b.finish().await;
    }

    async fn refreshing_does_not_prolong_a_session_for_ever(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, session) = signed_in(&b).await;
        b.clock.advance(30 * DAY - MINUTE);
        let last = refresh(&b, &session.refresh, "").await.unwrap();
        assert_eq!(last.session.expire_time, session.session.refresh_expire_time);
        whoami(&b, &last.token).await.unwrap();
        b.clock.advance(MINUTE);
        let refused = whoami(&b, &last.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        let refused = refresh(&b, &last.refresh, "").await;
        assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        b.finish().await;
    }
}
