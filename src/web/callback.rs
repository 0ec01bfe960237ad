//! `GET callback/{app}`: back from the provider.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, Response, StatusCode};
use url::form_urlencoded;

use super::origin::Visitor;
use super::{Edge, failure, is_preview, pages, set_cookie, untouched};
use crate::broker::authorizations::{CallbackOutcome, browser_key};
use crate::error::{Error, Precondition};

/// Longest query, in bytes. Codes of a few kilobytes are known.
const QUERY_MAX: usize = 16 * 1_024;
/// Most parameters in one.
const PARAMETERS_MAX: usize = 50;

pub(super) async fn callback(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Response<Body> {
    if is_preview(&headers) {
        return untouched(StatusCode::SERVICE_UNAVAILABLE);
    }
    let Ok(Path(app_id)) = path else {
        return pages::not_found();
    };
    let query = query.unwrap_or_default();
    if query.len() > QUERY_MAX {
        return failure::query_too_long();
    }
    let parameters: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .into_owned()
        .take(PARAMETERS_MAX + 1)
        .collect();
    if parameters.len() > PARAMETERS_MAX {
        return failure::query_too_long();
    }
    let key = parameters
        .iter()
        .find(|(name, _)| name == "state")
        .map(|(_, state)| browser_key(state));
    let cookie = key
        .as_deref()
        .and_then(|key| edge.cookies.find(&headers, key))
        .map(str::to_owned);
    let authorizations = Arc::clone(&edge.authorizations);
    let visitor = origin.clone();
    let outcome = edge
        .tasks
        .run(async move {
            authorizations
                .callback(&app_id, parameters, cookie.as_deref(), &visitor)
                .await
        })
        .await;
    let mut response = match outcome {
        Ok(outcome) => shown(outcome),
        Err(error) => {
            if let Error::FailedPrecondition { precondition, .. } = &error
                && let Precondition::State | Precondition::BrowserMismatch = precondition
            {
                edge.refusals.browser(precondition.reason(), &origin);
            }
            return failure::of_error(&error);
        }
    };
    if let Some(key) = key {
        set_cookie(&mut response, &edge.cookies.clear(&key));
    }
    response
}

fn shown(outcome: CallbackOutcome) -> Response<Body> {
    match outcome {
        CallbackOutcome::Return(url) => pages::see_other(&url),
        CallbackOutcome::Connected { provider, account } => pages::connected(pages::Connected {
            provider: &provider,
            account: account.as_deref(),
        }),
        CallbackOutcome::Failed {
            authorization_id,
            failure,
            provider,
        } => failure::of_authorization(&authorization_id, &failure, &provider),
    }
}
