//! Traces and metrics, as a collector gets them.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http_body_util::{BodyExt as _, StreamBody};
use tokenbroker::model::Role;
use tokenbroker::pb;

use crate::fixture::process::Process;
use crate::fixture::*;
use crate::on_both_engines;

type Received = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A collector that takes everything: gRPC over plain HTTP/2, each call answered with an empty
/// message.
async fn collector() -> (String, Received) {
    let received = Received::default();
    let router = Router::new()
        .fallback(take)
        .with_state(Arc::clone(&received));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (endpoint, received)
}

async fn take(State(received): State<Received>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    received.lock().unwrap().push((path, body.to_vec()));
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    let frames = [
        hyper::body::Frame::data(axum::body::Bytes::from_static(&[0; 5])),
        hyper::body::Frame::trailers(trailers),
    ];
    let frames = frames.map(Ok::<_, std::convert::Infallible>);
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(tokio_stream::iter(frames))))
        .unwrap()
}

fn holds(received: &Received, path: &str, needle: &[u8]) -> bool {
    received.lock().unwrap().iter().any(|(at, body)| {
        at.contains(path) && body.windows(needle.len()).any(|window| window == needle)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traces_continue_the_callers_and_hold_no_secret() {
    let mut b = Broker::start(Engine::Sqlite).await;
    let c = b.connected().await;
    let key = b.key(Role::Admin, Default::default()).await;
    b.stop().await;
    let (endpoint, received) = collector().await;
    let more = [("TOKENBROKER__TELEMETRY__OTLP_ENDPOINT", endpoint.as_str())];
    let process = Process::start(&b.config, &more).await;
    let mut request = tonic::Request::new(pb::GetAccessTokenRequest {
        connection_id: c.id.clone(),
        ..Default::default()
    });
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    let caller = caller_at(process.address, &key);
    caller
        .broker
        .clone()
        .get_access_token(request)
        .await
        .unwrap();
    let forced = pb::RefreshAccessTokenRequest {
        connection_id: c.id.clone(),
        ..Default::default()
    };
    caller
        .broker
        .clone()
        .refresh_access_token(forced)
        .await
        .unwrap();
    assert!(process.terminate().await, "stopped in good order");

    let trace_id = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
    assert!(holds(&received, "TraceService", &trace_id));
    assert!(holds(
        &received,
        "TraceService",
        b"tokenbroker.v1.TokenBroker/GetAccessToken"
    ));
    assert!(holds(
        &received,
        "MetricsService",
        b"tokenbroker.refresh.attempts"
    ));
    for (_, body) in received.lock().unwrap().iter() {
        assert_eq!(leaks::scan(body), Vec::<String>::new());
    }
    b.finish().await;
}

on_both_engines! {
    async fn a_calls_trace_is_in_its_audit_entry(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let parents = [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736"),
            // Zeroes are no id, and ids have small letters; what can't be read is passed over.
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", ""),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", ""),
            ("nonsense", ""),
        ];
        for (parent, _) in parents {
            let mut request = tonic::Request::new(pb::UpdateConnectionRequest {
                connection: Some(pb::Connection {
                    id: c.id.clone(),
                    display_name: format!("Changed with {parent}"),
                    ..Default::default()
                }),
                update_mask: None,
            });
            request.metadata_mut().insert("traceparent", parent.parse().unwrap());
            b.admin.broker.clone().update_connection(request).await.unwrap();
        }
        let list = pb::ListAuditEventsRequest {
            action: "connection.updated".to_owned(),
            resource_id: c.id.clone(),
            ..Default::default()
        };
        let listed = b.admin.administration.clone().list_audit_events(list).await.unwrap();
        let traces: Vec<_> = listed.into_inner().events.into_iter().map(|it| it.trace_id).collect();
        assert_eq!(traces, parents.map(|(_, trace_id)| trace_id));
        b.finish().await;
    }
}
