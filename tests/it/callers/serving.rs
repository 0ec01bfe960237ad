//! What anybody may ask: whether the server serves, and what it is made of.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokenbroker::config::Reflection;
use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::{v1, v1alpha};

use crate::fixture::rpcs::channel;
use crate::fixture::*;
use crate::on_both_engines;

const SERVICES: [&str; 6] = [
    "",
    "tokenbroker.v1.TokenBroker",
    "tokenbroker.v1.ClientRegistry",
    "tokenbroker.v1.Administration",
    "tokenbroker.v1.AuthorizationServer",
    "tokenbroker.v1.AutomationJobs",
];

fn health(b: &Broker) -> HealthClient<Channel> {
    HealthClient::new(channel(b.grpc_address()))
}

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest {
        service: service.to_owned(),
    }
}

async fn next(stream: &mut Streaming<HealthCheckResponse>) -> Option<ServingStatus> {
    let message = soon("the health", stream.message()).await;
    let answer = message.ok().flatten();
    answer.map(|answer| answer.status())
}

macro_rules! listed {
    ($version:ident, $b:expr) => {{
        use $version::server_reflection_client::ServerReflectionClient;
        use $version::server_reflection_request::MessageRequest;
        use $version::server_reflection_response::MessageResponse;
        let request = $version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new(channel($b.grpc_address()));
        let asked = Request::new(tokio_stream::once(request));
        match client.server_reflection_info(asked).await {
            Err(status) => Err(status.code()),
            Ok(answer) => match answer
                .into_inner()
                .message()
                .await
                .unwrap()
                .unwrap()
                .message_response
            {
                Some(MessageResponse::ListServicesResponse(list)) => Ok(list
                    .service
                    .into_iter()
                    .map(|it| it.name)
                    .collect::<BTreeSet<_>>()),
                other => panic!("{other:?}"),
            },
        }
    }};
}

on_both_engines! {
    async fn health_answers_anybody(engine: Engine) {
        let b = Broker::start(engine).await;
        for service in SERVICES {
            let answer = health(&b).check(of(service)).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
        }
        let unknown = health(&b).check(of("nobody")).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound);
        b.finish().await;
    }

    async fn a_stop_is_announced_before_anything_is_refused(engine: Engine) {
        let mut b = Broker::start_with(engine, |config| {
            config.grpc.drain_timeout = 2 * PATIENCE;
            // The call's own refresh, not the worker's: what arrives there says that it is under way here.
            config.refresh.scan_interval = Duration::from_secs(3_600);
        }).await;
        let c = b.connected().await;
        let mut watches = Vec::new();
        for service in SERVICES {
            let mut watch = health(&b).watch(of(service)).await.unwrap().into_inner();
            assert_eq!(next(&mut watch).await, Some(ServingStatus::Serving));
            watches.push(watch);
        }
        // A call that is under way when the stop begins is answered.
        let held = b.provider.hold_token_answers();
        b.clock.advance(Duration::from_secs(3_600));
        let (admin, id) = (b.admin.clone(), c.id.clone());
        let call = tokio::spawn(async move {
            let request = tokenbroker::pb::GetAccessTokenRequest { connection_id: id, ..Default::default() };
            admin.get_token(request).await
        });
        b.provider.wait_for_refreshes(1).await;
        let began = Instant::now();
        let drain = b.config.grpc.drain_timeout;
        let stop = async {
            b.stop().await;
            began.elapsed()
        };
        let watched = async {
            for watch in &mut watches {
                assert_eq!(next(watch).await, Some(ServingStatus::NotServing));
            }
            drop(held);
            // The streams end by themselves: whoever watches does not keep the server from leaving.
            for watch in &mut watches {
                assert_eq!(next(watch).await, None);
            }
        };
        let (took, ()) = tokio::join!(stop, watched);
        assert!(took < drain / 2, "{took:?} of {drain:?}");
        call.await.unwrap().unwrap();
        b.finish().await;
    }

    async fn event_streams_are_limited(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.grpc.max_streams_watching = 1).await;
        let watch = || {
            let mut broker = b.admin.broker.clone();
            async move { broker.watch_token_events(tokenbroker::pb::WatchTokenEventsRequest::default()).await }
        };
        let first = watch().await.unwrap();
        assert_refused(watch().await.map(drop), Code::ResourceExhausted, "RATE_LIMITED");
        drop(first);
        eventually("there is room again", || async { watch().await.is_ok() }).await;
        b.finish().await;
    }

    async fn reflection_lists_the_services_on_loopback(engine: Engine) {
        let b = Broker::start(engine).await;
        let own = ["grpc.health.v1.Health", "tokenbroker.v1.Administration", "tokenbroker.v1.AuthorizationServer", "tokenbroker.v1.AutomationJobs", "tokenbroker.v1.ClientRegistry", "tokenbroker.v1.TokenBroker"];
        let mut expected: BTreeSet<_> = own.into_iter().map(str::to_owned).collect();
        let newer = listed!(v1, b).unwrap();
        let older = listed!(v1alpha, b).unwrap();
        expected.insert("grpc.reflection.v1.ServerReflection".to_owned());
        assert_eq!(newer, expected);
        expected.remove("grpc.reflection.v1.ServerReflection");
        expected.insert("grpc.reflection.v1alpha.ServerReflection".to_owned());
        assert_eq!(older, expected);
        b.finish().await;
    }

    async fn reflection_can_be_switched_off(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.grpc.reflection = Reflection::Off).await;
        assert_eq!(listed!(v1, b).unwrap_err(), Code::Unimplemented);
        assert_eq!(listed!(v1alpha, b).unwrap_err(), Code::Unimplemented);
        b.finish().await;
    }
}
