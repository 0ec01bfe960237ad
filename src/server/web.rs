//! The listeners that speak HTTP/1.1, of browsers and of OAuth clients: capped, and done with
//! connections that say nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use super::incoming::{Seldom, accept};
use super::places::{Full, Places};

/// A listener, and who is let in.
pub(super) struct Door {
    /// Its name, for the log.
    pub(super) name: &'static str,
    /// Where connections come in.
    pub(super) listener: TcpListener,
    /// How many there may be.
    pub(super) places: Arc<Places>,
    /// How long a connection may be silent.
    pub(super) idle_timeout: Duration,
    /// How long an answer may take.
    pub(super) request_timeout: Duration,
}

/// Serves pages until `stop`, and returns when the requests under way are answered.
pub(super) async fn serve(door: Door, pages: Router, stop: CancellationToken) {
    let name = door.name;
    let (mut full, mut crowded, mut failing) =
        (Seldom::default(), Seldom::default(), Seldom::default());
    let connections = TaskTracker::new();
    loop {
        let accepted = accept(&door.listener, name, &mut failing);
        let Some((tcp, address)) = stop.run_until_cancelled(accepted).await else {
            break;
        };
        match door.places.take(address.ip()) {
            Ok(place) => {
                let (idle, longest) = (door.idle_timeout, door.request_timeout);
                let (pages, stop) = (pages.clone(), stop.clone());
                connections.spawn(async move {
                    let _place = place;
                    connection(tcp, address, pages, idle, longest, stop).await;
                });
            }
            Err(refusal) => {
                // Apart: an address that is refused all the time must not hide that there is no
                // place left.
                let (seldom, why) = match refusal {
                    Full::All => (&mut full, "there are web.max_connections already"),
                    Full::Address => (
                        &mut crowded,
                        "its address has limits.connections_per_address already",
                    ),
                };
                if let Some(others) = seldom.admit() {
                    tracing::warn!(%address, others, "a connection to the {name} listener was closed: {why}");
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
    longest: Duration,
    stop: CancellationToken,
) {
    // Answers are small: waiting to fill a packet only delays them.
    let _ = tcp.set_nodelay(true);
    let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(address));
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(answered(pages, request.map(Body::new), longest).await) }
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
        tracing::debug!(%address, %error, "a connection broke");
    }
}

/// The answer, or 503 when it takes longer than `longest`. Work that a handler began goes on: it runs
/// on a task of its own.
async fn answered(pages: Router, request: Request<Body>, longest: Duration) -> Response<Body> {
    match tokio::time::timeout(longest, pages.oneshot(request)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(never)) => match never {},
        Err(_) => {
            tracing::info!("an answer took longer than web.request_timeout");
            too_slow()
        }
    }
}

fn too_slow() -> Response<Body> {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        (header::RETRY_AFTER, "5"),
    ];
    let words = "This takes longer than it should. Wait a moment, then try again.\n";
    let mut response = Response::new(Body::from(words));
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let pages = Router::new()
            .route("/", get(async || "here"))
            .route("/slow", get(std::future::pending::<()>));
        let asked = |path: &str| {
            let request = Request::get(path).body(Body::empty()).unwrap();
            answered(pages.clone(), request, Duration::from_millis(1))
        };
        assert_eq!(asked("/").await.status(), StatusCode::OK);
        let slow = asked("/slow").await;
        assert_eq!(slow.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(slow.headers()[header::RETRY_AFTER], "5");
        assert_eq!(slow.headers()[header::CACHE_CONTROL], "no-store");
    }
}
