//! What OAuth clients call: form-encoded requests and JSON answers, as the RFCs have them, on a listener
//! of its own (`issuer.listen`).
//!
//! Programs that run in browsers may read the answers of what they need (CORS, `*`, without cookies): a
//! client's proof is in the request, never in the browser. `par` and `introspect` are for servers.

mod answer;
mod asked;
mod clients;
mod token;
mod userinfo;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use axum::middleware::map_response;
use axum::routing::{MethodRouter, get, post};
use ipnet::IpNet;

use super::origin::Proxies;
use crate::config;
use crate::issuer::Issuer;
use crate::tasks::Tasks;

/// How long metadata and keys may be kept by whoever fetched them. Keys are published for longer than
/// this before they sign.
const PUBLIC: &str = "public, max-age=300";

/// What the handlers work with.
#[derive(Clone)]
struct Edge {
    issuer: Arc<Issuer>,
    tasks: Tasks,
    proxies: Proxies,
    config: Arc<config::Issuer>,
}

impl FromRef<Edge> for Proxies {
    fn from_ref(edge: &Edge) -> Self {
        edge.proxies.clone()
    }
}

/// The routes of the clients' listener. Where `config.url` has a path, a proxy may strip it or leave it:
/// both are served. `trusted_proxies` are the networks whose `X-Forwarded-For` is believed.
pub fn router(
    issuer: Arc<Issuer>,
    tasks: Tasks,
    config: &config::Issuer,
    trusted_proxies: &[IpNet],
) -> Router {
    let edge = Edge {
        issuer,
        tasks,
        proxies: Proxies::new(trusted_proxies),
        config: Arc::new(config.clone()),
    };
    let (mut open, mut closed) = (Router::new(), Router::new());
    let prefix = config.url.path().trim_end_matches('/');
    let mut roots = vec![""];
    if !prefix.is_empty() {
        roots.push(prefix);
        // RFC 8414 section 3.1: there the path comes last.
        for name in ["oauth-authorization-server", "openid-configuration"] {
            let path = format!("/.well-known/{name}{prefix}");
            open = open.route(&path, readable(get(metadata)));
        }
    }
    for root in roots {
        for name in ["oauth-authorization-server", "openid-configuration"] {
            let path = format!("{root}/.well-known/{name}");
            open = open.route(&path, readable(get(metadata)));
        }
        open = open
            .route(&format!("{root}/oauth2/jwks"), readable(get(jwks)))
            .route(
                &format!("{root}/oauth2/userinfo"),
                callable(
                    get(userinfo::claims).post(userinfo::claims),
                    "GET, HEAD, POST, OPTIONS",
                ),
            )
            .route(
                &format!("{root}/oauth2/token"),
                callable(post(token::exchange), "POST, OPTIONS"),
            )
            .route(
                &format!("{root}/oauth2/revoke"),
                callable(post(clients::revoke), "POST, OPTIONS"),
            )
            .route(
                &format!("{root}/oauth2/device_authorization"),
                callable(post(clients::start_device), "POST, OPTIONS"),
            );
        closed = closed
            .route(
                &format!("{root}/oauth2/introspect"),
                otherwise(post(clients::introspect), "POST"),
            )
            .route(
                &format!("{root}/oauth2/par"),
                otherwise(post(clients::push), "POST"),
            );
    }
    open.layer(map_response(for_all_origins))
        .merge(closed)
        .fallback(async || answer::of_client(StatusCode::NOT_FOUND, "there is nothing here"))
        .with_state(edge)
}

fn readable(route: MethodRouter<Edge>) -> MethodRouter<Edge> {
    callable(route, "GET, HEAD, OPTIONS")
}

/// With an answer to browsers that ask first whether a program of another origin may.
fn callable(route: MethodRouter<Edge>, allowed: &'static str) -> MethodRouter<Edge> {
    let route = route.options(async move || preflight(allowed));
    otherwise(route, allowed)
}

/// Another method than those.
fn otherwise(route: MethodRouter<Edge>, allowed: &'static str) -> MethodRouter<Edge> {
    route.fallback(async move || {
        let refusal = "this address takes other methods";
        let mut response = answer::of_client(StatusCode::METHOD_NOT_ALLOWED, refusal);
        let allowed = HeaderValue::from_static(allowed);
        response.headers_mut().insert(header::ALLOW, allowed);
        response
    })
}

fn preflight(allowed: &'static str) -> Response<Body> {
    const HEADERS: [(HeaderName, &str); 2] = [
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, dpop",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let allowed = HeaderValue::from_static(allowed);
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, allowed);
    response
}

async fn for_all_origins(mut response: Response<Body>) -> Response<Body> {
    const HEADERS: [(HeaderName, &str); 2] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "dpop-nonce, retry-after, www-authenticate",
        ),
    ];
    for (name, value) in HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// `GET .well-known/oauth-authorization-server` (RFC 8414), `GET .well-known/openid-configuration`.
async fn metadata(State(edge): State<Edge>) -> Response<Body> {
    answer::public(&edge.issuer.metadata(), PUBLIC)
}

/// `GET oauth2/jwks` (RFC 7517).
async fn jwks(State(edge): State<Edge>) -> Response<Body> {
    answer::public(&edge.issuer.jwks(), PUBLIC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn programs_in_browsers_may_ask_without_cookies() {
        let asked = for_all_origins(preflight("POST, OPTIONS")).await;
        assert_eq!(asked.status(), StatusCode::NO_CONTENT);
        let headers = asked.headers();
        assert_eq!(headers[header::ACCESS_CONTROL_ALLOW_ORIGIN], "*");
        assert_eq!(
            headers[header::ACCESS_CONTROL_ALLOW_METHODS],
            "POST, OPTIONS"
        );
        assert!(!headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
    }
}
