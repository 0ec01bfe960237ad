//! `oauth2/consent/{id}`: what the client asks for, and the person's answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode};

use super::authorize::{Opened, finished, opened, refused};
use super::origin::Visitor;
use super::pages::issuer::Consent;
use super::{Edge, form, is_preview, pages, refusal, untouched};
use crate::error::{Error, Precondition};
use crate::issuer::Decision;
use crate::model::RequestState;

/// `GET`: the question, or on to where the request stands.
pub(super) async fn page(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Response<Body> {
    if is_preview(&headers) {
        return untouched(StatusCode::SERVICE_UNAVAILABLE);
    }
    match opened(&edge, &headers, path).await {
        Ok(opened) => match opened.shown.request.state {
            RequestState::SignedIn => asked(&edge, &opened),
            RequestState::Pushed | RequestState::Pending => {
                edge.see_page(&format!("oauth2/sign-in/{}", opened.id))
            }
            RequestState::Accepted | RequestState::Rejected | RequestState::Finished => {
                refusal::over()
            }
        },
        Err(error) => refused(&edge, &error, &origin),
    }
}

/// `POST`: the answer.
pub(super) async fn submitted(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Response<Body> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    if id.is_empty() || edge.issuer.interaction_url().is_some() {
        return pages::not_found();
    }
    let sent = match form::sent(&edge, &id, &headers, body).await {
        Ok(sent) => sent,
        Err(unfit) => return refusal::of_form(unfit),
    };
    let decision = match sent.fields.get("decision") {
        "allow" => Decision::Allow,
        "deny" => Decision::Deny,
        // No button was pressed: the question is still open.
        _ => return edge.see_page(&format!("oauth2/consent/{id}")),
    };
    let decided = {
        let (issuer, id, from) = (Arc::clone(&edge.issuer), id.clone(), origin.clone());
        let work = async move { issuer.decide(&id, &sent.cookie, decision, &from).await };
        edge.tasks.run(work).await
    };
    match decided {
        Ok(finish) => finished(&edge, &id, &finish),
        // Sent twice: this page's address knows how to go on.
        Err(Error::FailedPrecondition {
            precondition: Precondition::AuthorizationRequestState,
            ..
        }) => edge.see_page(&format!("oauth2/consent/{id}")),
        Err(error) => refused(&edge, &error, &origin),
    }
}

fn asked(edge: &Edge, opened: &Opened) -> Response<Body> {
    let shown = &opened.shown;
    let settings = &shown.client.settings;
    pages::issuer::consent(&Consent {
        client: &settings.name,
        description: &settings.description,
        homepage_url: &settings.homepage_url,
        trusted: settings.trusted,
        account: shown.user.as_ref().map_or("", |user| &user.email),
        scopes: shown
            .scopes
            .iter()
            .map(|scope| scope.description.as_str())
            .collect(),
        resources: &shown.request.resources,
        redirect_uri: &shown.request.redirect_uri,
        csrf: &edge.issuer.csrf(&opened.id, &opened.cookie),
    })
}
