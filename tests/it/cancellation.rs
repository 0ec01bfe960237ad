//! Callers that hang up lose nothing, and a server that is told to stop finishes what it began.

use std::time::Duration;

use tokenbroker::pb;
use tonic::Code;

use crate::fixture::provider::{Account, Rotation};
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3600);

on_both_engines! {
    async fn a_caller_that_hangs_up_during_a_refresh_loses_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.set_rotation(Rotation::STRICT);
        let c = b.connected().await;
        let gate = b.provider.hold_finished_answers();
        b.clock.advance(HOUR);
        {
            let asking = b.token(&c.id);
            let arrived = b.provider.wait_for_refreshes(1);
            tokio::select! {
                _ = asking => panic!("answered before the provider was"),
                () = arrived => {}
            }
        }
        gate.release();
        eventually("the new tokens are kept", || async {
            b.attempts(&c.id).await.first().is_some_and(|a| a.outcome() == pb::RefreshOutcome::Succeeded)
        }).await;
        let token = b.token(&c.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        assert_eq!(b.provider.refreshes(), 1);
        b.finish().await;
    }

    async fn callers_that_hang_up_leave_no_transaction_open(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        for round in 0..40 {
            let request = pb::StartAuthorizationRequest {
                app: app.id.clone(),
                owner: format!("owner-{round}"),
                return_url: RETURN_URL.to_owned(),
                ..Default::default()
            };
            let mut broker = b.admin.broker.clone();
            let call = broker.start_authorization(request);
            let _ = tokio::time::timeout(Duration::from_micros(50 * round), call).await;
        }
        b.provider.sign_in_as(Account::named("ada"));
        let c = b.connect(&app, "owner-1").await;
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }

    async fn a_server_that_stops_finishes_the_refresh_it_began(engine: Engine) {
        // The request's own refresh, not the worker's: what arrives there says that it is under way here.
        let mut b = Broker::start_with(engine, |config| config.refresh.scan_interval = HOUR).await;
        b.provider.set_rotation(Rotation::STRICT);
        let c = b.connected().await;
        let gate = b.provider.hold_finished_answers();
        b.clock.advance(HOUR);
        let admin = b.admin.clone();
        let request = pb::GetAccessTokenRequest { connection_id: c.id.clone(), ..Default::default() };
        let asking = tokio::spawn(async move { admin.get_token(request).await });
        b.provider.wait_for_refreshes(1).await;
        let releasing = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(200)).await;
            gate.release();
        });
        b.stop().await;
        releasing.await.unwrap();
        assert!(asking.await.unwrap().is_ok(), "the request under way was answered");
        let again = b.replica("a", |_| {}).await;
        let token = again.token(&c.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        assert_eq!(b.provider.refreshes(), 1);
        again.finish().await;
    }

    async fn a_stream_is_told_that_the_server_stops(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let mut stream = b.admin.broker.clone()
            .watch_token_events(pb::WatchTokenEventsRequest::default())
            .await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        let ((), ended) = tokio::join!(b.stop(), async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        });
        assert_refused(ended, Code::Unavailable, "UNAVAILABLE");
    }
}
