//! The browser's listener: capped, and done with connections that say nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::incoming::{Seldom, accept};
use super::places::Places;
use crate::config;

/// Serves pages until `stop`, and returns when the requests under way are answered.
pub(super) async fn serve(
    listener: TcpListener,
    pages: Router,
    config: &config::Web,
    stop: CancellationToken,
) {
    // One proxy before it is the rule: no limit for an address.
    let places = Places::new(config.max_connections, 0);
    let (mut full, mut failing) = (Seldom::default(), Seldom::default());
    let connections = TaskTracker::new();
    loop {
        let accepted = accept(&listener, "browser", &mut failing);
        let Some((tcp, address)) = stop.run_until_cancelled(accepted).await else {
            break;
        };
        match Arc::clone(&places).take(address.ip()) {
            Ok(place) => {
                let (pages, idle, stop) = (pages.clone(), config.idle_timeout, stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection(tcp, address, pages, idle, stop).await;
                });
            }
            Err(_) => {
                if let Some(others) = full.admit() {
                    tracing::warn!(%address, others, "a browser's connection was closed: there are web.max_connections already");
                }
            }
        }
    }
    connections.close();
    connections.wait().await;
}

async fn connection(
    tcp: TcpStream,
    address: SocketAddr,
    pages: Router,
    idle: Duration,
    stop: CancellationToken,
) {
    // Answers are small: waiting to fill a packet only delays them.
    let _ = tcp.set_nodelay(true);
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        let pages = pages.clone();
        async move {
            let answered = pages.oneshot(request.map(axum::body::Body::new)).await;
            Ok::<_, Infallible>(match answered {
                Ok(answer) => answer,
                Err(never) => match never {},
            })
        }
    });
    let mut serving = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(idle)
            .serve_connection(TokioIo::new(tcp), answer)
    );
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = stop.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, %error, "a browser's connection broke");
    }
}
