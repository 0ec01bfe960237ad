//! The browser edge: redirects and the pages that they need.
//!
//! Two addresses, both of an authorisation's: `connect/{ticket}` sends the browser to the provider,
//! `callback/{app}` takes it back. Handlers run their work on a task of its own: a browser that
//! hangs up loses nothing.

mod callback;
mod connect;
mod cookie;
mod failure;
mod origin;
pub mod pages;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::FromRef;
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::routing::{MethodRouter, get};
use ipnet::IpNet;
use url::Url;

use self::cookie::Cookies;
use self::origin::Proxies;
use crate::access::audit::Refusals;
use crate::broker::Authorizations;
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
struct Edge {
    authorizations: Arc<Authorizations>,
    tasks: Tasks,
    cookies: Cookies,
    refusals: Arc<Refusals>,
    proxies: Proxies,
}

impl FromRef<Edge> for Proxies {
    fn from_ref(edge: &Edge) -> Self {
        edge.proxies.clone()
    }
}

/// The browser listener's routes. `public_url` is where browsers reach them; its path ends in a
/// slash. Where that path is a prefix, a proxy may strip it or leave it: both are served.
/// `refusals` counts callbacks that are turned away, `trusted_proxies` are the networks whose
/// `X-Forwarded-For` is believed.
pub fn router(
    authorizations: Arc<Authorizations>,
    tasks: Tasks,
    public_url: &Url,
    refusals: Arc<Refusals>,
    trusted_proxies: &[IpNet],
) -> Router {
    let edge = Edge {
        authorizations,
        tasks,
        cookies: Cookies::of(public_url),
        refusals,
        proxies: Proxies::new(trusted_proxies),
    };
    let mut router = Router::new();
    let prefix = public_url.path();
    let mut roots = vec!["/"];
    if prefix != "/" {
        roots.push(prefix);
    }
    for root in roots {
        router = router
            .route(
                &format!("{root}connect/{{ticket}}"),
                page(get(connect::connect)),
            )
            .route(
                &format!("{root}callback/{{app}}"),
                page(get(callback::callback)),
            );
    }
    router
        .fallback(async || pages::not_found())
        .with_state(edge)
}

/// A page answers GET. HEAD is answered without doing anything, so that a link checker spends
/// nothing; whatever else is refused (`response_mode=form_post` is not ours).
fn page(route: MethodRouter<Edge>) -> MethodRouter<Edge> {
    route
        .head(async || untouched(StatusCode::OK))
        .fallback(async || failure::method_not_allowed())
}

/// An empty answer, after nothing was done.
fn untouched(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = pages::security_headers();
    response
}

/// Whether a browser or a messenger looks ahead, and nobody has followed the link yet. It is
/// answered with 503, which is not kept: the real visit comes here again.
fn is_preview(headers: &HeaderMap) -> bool {
    ["sec-purpose", "purpose", "x-purpose", "x-moz"]
        .into_iter()
        .flat_map(|name| headers.get_all(name))
        .filter_map(|value| value.to_str().ok())
        .map(str::to_ascii_lowercase)
        .any(|purpose| {
            ["prefetch", "prerender", "preview"]
                .into_iter()
                .any(|word| purpose.contains(word))
        })
}

/// Adds a `Set-Cookie` header.
fn set_cookie(response: &mut Response<Body>, cookie: &str) {
    if let Ok(mut value) = HeaderValue::try_from(cookie) {
        value.set_sensitive(true);
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_look_ahead_are_told_apart() {
        let seen = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            is_preview(&headers)
        };
        assert!(seen("sec-purpose", "prefetch;prerender"));
        assert!(seen("purpose", "Prefetch"));
        assert!(seen("x-moz", "prefetch"));
        assert!(!seen("sec-fetch-mode", "navigate"));
        assert!(!is_preview(&HeaderMap::new()));
    }

    #[test]
    fn an_untouched_answer_carries_the_headers() {
        let answer = untouched(StatusCode::OK);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
    }
}
