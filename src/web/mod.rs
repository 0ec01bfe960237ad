//! The browser edge: redirects and the pages that they need.
//!
//! Two addresses are of a connection's authorisation: `connect/{ticket}` sends the browser to the
//! provider, `callback/{app}` takes it back. The others are of our own authorisation server:
//! `oauth2/authorize` begins, `oauth2/sign-in/{id}` and `oauth2/consent/{id}` ask, `oauth2/continue/{id}`
//! comes back from the operator's own pages, and `device` takes a device's code. What clients call is in
//! `endpoints`, on a listener of its own. Handlers run their work on a task of its own: a browser that
//! hangs up loses nothing.

mod authorize;
mod callback;
mod connect;
mod consent;
mod cookie;
mod device;
mod endpoints;
mod failure;
mod form;
mod origin;
pub mod pages;
mod refusal;
mod sign_in;

pub use endpoints::router as endpoints;

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
use crate::issuer::Issuer;
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
struct Edge {
    authorizations: Arc<Authorizations>,
    issuer: Arc<Issuer>,
    tasks: Tasks,
    cookies: Cookies,
    refusals: Arc<Refusals>,
    proxies: Proxies,
    /// Where browsers reach us; its path ends in a slash.
    public_url: Url,
    /// The same as browsers send it in `Origin`.
    origin: String,
}

impl Edge {
    /// Sends the browser to another page of ours.
    fn see_page(&self, path: &str) -> Response<Body> {
        match self.public_url.join(path) {
            Ok(url) => pages::see_other(&url),
            Err(_) => pages::not_found(),
        }
    }
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
    issuer: Arc<Issuer>,
    tasks: Tasks,
    public_url: &Url,
    refusals: Arc<Refusals>,
    trusted_proxies: &[IpNet],
) -> Router {
    let edge = Edge {
        authorizations,
        issuer,
        tasks,
        cookies: Cookies::of(public_url),
        refusals,
        proxies: Proxies::new(trusted_proxies),
        public_url: public_url.clone(),
        origin: public_url.origin().ascii_serialization(),
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
            )
            .route(
                &format!("{root}oauth2/authorize"),
                form_page(get(authorize::by_link).post(authorize::by_form)),
            )
            .route(
                &format!("{root}oauth2/sign-in/{{id}}"),
                form_page(get(sign_in::page).post(sign_in::submitted)),
            )
            .route(
                &format!("{root}oauth2/consent/{{id}}"),
                form_page(get(consent::page).post(consent::submitted)),
            )
            .route(
                &format!("{root}oauth2/continue/{{id}}"),
                page(get(authorize::resume)),
            )
            .route(
                &format!("{root}device"),
                form_page(get(device::page).post(device::submitted)),
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
        .fallback(async || failure::method_not_allowed("GET, HEAD"))
}

/// A page with a form answers POST, too.
fn form_page(route: MethodRouter<Edge>) -> MethodRouter<Edge> {
    route
        .head(async || untouched(StatusCode::OK))
        .fallback(async || failure::method_not_allowed("GET, HEAD, POST"))
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
