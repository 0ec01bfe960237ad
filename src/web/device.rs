//! `device`: where a person types the code that a device shows (RFC 8628 section 3.3).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};

use super::authorize::on_the_way;
use super::origin::Visitor;
use super::pages::issuer::{Device, Problem};
use super::{Edge, form, is_preview, pages, refusal, set_cookie, untouched};
use crate::error::Error;
use crate::issuer::Parameters;

/// What the page's cookie and its form are known by.
const PAGE: &str = "device";

/// How long the page can stay open.
const OPEN_FOR: Duration = Duration::from_secs(60 * 60);

/// Characters of the page's cookie.
const COOKIE_CHARS: usize = 43;

/// `GET`: the form. A code in the address is filled in and nothing more: whoever follows a link has not
/// said yes to anything.
pub(super) async fn page(
    State(edge): State<Edge>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    if is_preview(&headers) {
        return untouched(StatusCode::SERVICE_UNAVAILABLE);
    }
    let parameters = Parameters::parse(query.unwrap_or_default().as_bytes()).ok();
    let code = parameters
        .as_ref()
        .and_then(|parameters| parameters.get("user_code"));
    // Kept while it is there, so that two tabs don't get into each other's way.
    let held = edge.cookies.find(&headers, PAGE).filter(|cookie| {
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        cookie.len() == COOKIE_CHARS && cookie.bytes().all(fit)
    });
    let cookie = held.map_or_else(|| edge.issuer.form_cookie(), SecretString::from);
    let cookie = cookie.expose_secret();
    let mut response = asked(&edge, cookie, code.unwrap_or_default(), None);
    // Also one that was held: from now on this page can stay open for as long.
    set_cookie(&mut response, &edge.cookies.set(PAGE, cookie, OPEN_FOR));
    response
}

/// `POST`: the code.
pub(super) async fn submitted(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let sent = match form::sent(&edge, PAGE, &headers, body).await {
        Ok(sent) => sent,
        Err(unfit) => return refusal::of_form(unfit),
    };
    let code = sent.fields.get("user_code").trim().to_owned();
    let begun = {
        let (issuer, code) = (Arc::clone(&edge.issuer), code.clone());
        let work = async move { issuer.enter_user_code(&code, &origin).await };
        edge.tasks.run(work).await
    };
    match begun {
        Ok(begun) => on_the_way(&edge, &begun),
        Err(error) => match problem(&error) {
            Some(problem) => asked(&edge, &sent.cookie, &code, Some(&problem)),
            None => refusal::of_error(&error),
        },
    }
}

fn problem(error: &Error) -> Option<Problem> {
    match error {
        Error::NotFound(..) | Error::InvalidArgument(_) => Some(Problem {
            status: StatusCode::BAD_REQUEST,
            message: "This code is not known, or its time is over. Look at your device again."
                .to_owned(),
            retry_after: None,
        }),
        _ => refusal::too_many_tries(error),
    }
}

fn asked(edge: &Edge, cookie: &str, code: &str, problem: Option<&Problem>) -> Response<Body> {
    pages::issuer::device(&Device {
        code,
        csrf: &edge.issuer.csrf(PAGE, cookie),
        next: edge.issuer.interaction_url(),
        problem,
    })
}
