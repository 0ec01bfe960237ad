//! `oauth2/authorize`, where a client sends a browser, and `oauth2/continue/{id}`, where the operator's
//! own sign-in and consent application does.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode};
use secrecy::ExposeSecret as _;

use super::form::Unfit;
use super::origin::Visitor;
use super::{Edge, form, is_preview, pages, refusal, set_cookie, untouched};
use crate::access::Origin;
use crate::error::{Error, Precondition, Resource};
use crate::issuer::{Begun, Finish, NotBegun, Parameters, Shown};

/// `GET oauth2/authorize`.
pub(super) async fn by_link(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    if is_preview(&headers) {
        return untouched(StatusCode::SERVICE_UNAVAILABLE);
    }
    begin(&edge, query.unwrap_or_default().as_bytes(), origin).await
}

/// `POST oauth2/authorize` (OpenID Connect Core section 3.1.2.1): from the client's site, so nothing of
/// ours proves it.
pub(super) async fn by_form(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    match form::read(&headers, body).await {
        Ok(form) => begin(&edge, &form, origin).await,
        Err(unread) => refusal::of_form(Unfit::Unread(unread)),
    }
}

async fn begin(edge: &Edge, parameters: &[u8], origin: Origin) -> Response<Body> {
    let parameters = match Parameters::parse(parameters) {
        Ok(parameters) => parameters,
        Err(error) => return refusal::of_error(&error),
    };
    let issuer = Arc::clone(&edge.issuer);
    let begun = edge
        .tasks
        .run(async move { Ok(issuer.begin(&parameters, &origin).await) })
        .await;
    match begun {
        Ok(Ok(begun)) => on_the_way(edge, &begun),
        Ok(Err(NotBegun::Page(error))) => refusal::of_oauth(&error),
        Ok(Err(NotBegun::Redirect(url))) => pages::see_other(&url),
        Ok(Err(NotBegun::Failed(error))) | Err(error) => refusal::of_error(&error),
    }
}

/// Sends the browser on to where a person decides, tied to the request.
pub(super) fn on_the_way(edge: &Edge, begun: &Begun) -> Response<Body> {
    let mut response = pages::see_other(&begun.next);
    let cookie = edge
        .cookies
        .set(&begun.id, begun.cookie.expose_secret(), begun.lifetime);
    set_cookie(&mut response, &cookie);
    response
}

/// `GET oauth2/continue/{id}?verifier=…`.
pub(super) async fn resume(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    if is_preview(&headers) {
        return untouched(StatusCode::SERVICE_UNAVAILABLE);
    }
    let Ok(Path(id)) = path else {
        return pages::not_found();
    };
    let Some(cookie) = edge.cookies.find(&headers, &id).map(str::to_owned) else {
        return refusal::of_form(Unfit::NoCookie);
    };
    let (issuer, request, from) = (Arc::clone(&edge.issuer), id.clone(), origin.clone());
    let resumed = edge
        .tasks
        .run(async move {
            let sent = Parameters::parse(query.unwrap_or_default().as_bytes())?;
            let verifier = sent.get("verifier").unwrap_or_default();
            issuer.resume(&request, &cookie, verifier, &from).await
        })
        .await;
    match resumed {
        Ok(finish) => finished(&edge, &id, &finish),
        Err(error) => refused(&edge, &error, &origin),
    }
}

/// A request is over for this browser.
pub(super) fn finished(edge: &Edge, id: &str, finish: &Finish) -> Response<Body> {
    let mut response = match finish {
        Finish::Redirect(url) => pages::see_other(url),
        Finish::Device { accepted } => pages::issuer::device_done(*accepted),
    };
    set_cookie(&mut response, &edge.cookies.clear(id));
    response
}

/// The page for a failure, which is counted where it may be an attack.
pub(super) fn refused(edge: &Edge, error: &Error, origin: &Origin) -> Response<Body> {
    if let Error::FailedPrecondition { precondition, .. } = error
        && let Precondition::BrowserMismatch = precondition
    {
        edge.refusals.browser(precondition.reason(), origin);
    }
    refusal::of_error(error)
}

/// A request that a browser has open on one of our pages.
pub(super) struct Opened {
    /// Its id.
    pub(super) id: String,
    /// What ties the browser to it.
    pub(super) cookie: String,
    /// What is shown of it.
    pub(super) shown: Shown,
}

/// The request of a page's address, for its browser.
///
/// # Errors
/// There is none, it is another browser's, or our pages are off.
pub(super) async fn opened(
    edge: &Edge,
    headers: &HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Result<Opened, Error> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    if id.is_empty() || edge.issuer.interaction_url().is_some() {
        return Err(Error::NotFound(Resource::AuthorizationRequest, id));
    }
    let cookie = edge.cookies.find(headers, &id).map(str::to_owned);
    let cookie = cookie.ok_or_else(|| {
        let message = "the browser brings no cookie of this request";
        Error::precondition(Precondition::BrowserMismatch, message)
    })?;
    let shown = edge.issuer.shown(&id, &cookie).await?;
    Ok(Opened { id, cookie, shown })
}
