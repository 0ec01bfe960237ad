//! `GET connect/{ticket}`: on to the provider.

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use secrecy::ExposeSecret as _;
use std::sync::Arc;

use super::{Edge, failure, is_preview, pages, set_cookie, untouched};
use crate::broker::authorizations::{Gone, Visited};

pub(super) async fn connect(
    State(edge): State<Edge>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Response<Body> {
    if is_preview(&headers) {
        return untouched(StatusCode::SERVICE_UNAVAILABLE);
    }
    let Ok(Path(ticket)) = path else {
        return pages::not_found();
    };
    let authorizations = Arc::clone(&edge.authorizations);
    let visited = edge
        .tasks
        .run(async move { authorizations.visit(&ticket).await })
        .await;
    match visited {
        Ok(Visited::Redirect { url, tie }) => {
            let mut response = pages::see_other(&url);
            let cookie = edge
                .cookies
                .set(&tie.key, tie.value.expose_secret(), tie.max_age);
            set_cookie(&mut response, &cookie);
            response
        }
        Ok(Visited::Gone(Gone::Expired)) => pages::link_gone(pages::LinkGone::Expired),
        Ok(Visited::Gone(Gone::Used)) => pages::link_gone(pages::LinkGone::Used),
        Ok(Visited::Unknown) => pages::not_found(),
        Err(error) => failure::of_error(&error),
    }
}
