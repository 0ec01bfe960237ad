//! `oauth2/sign-in/{id}`: who is there.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode};
use secrecy::SecretString;

use super::authorize::{Opened, opened, refused};
use super::origin::Visitor;
use super::pages::issuer::{Problem, SignIn};
use super::{Edge, form, is_preview, pages, refusal, untouched};
use crate::error::{Error, Precondition, Unknown};
use crate::model::RequestState;

/// `GET`: the form, or on to where the request stands.
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
            RequestState::Pushed | RequestState::Pending => {
                let email = opened.shown.request.login_hint.clone();
                asked(&edge, &opened, &email, None)
            }
            RequestState::SignedIn => edge.see_page(&format!("oauth2/consent/{}", opened.id)),
            RequestState::Accepted | RequestState::Rejected | RequestState::Finished => {
                refusal::over()
            }
        },
        Err(error) => refused(&edge, &error, &origin),
    }
}

/// `POST`: the form, filled in.
pub(super) async fn submitted(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
    body: Body,
) -> Response<Body> {
    let opened = match opened(&edge, &headers, path).await {
        Ok(opened) => opened,
        Err(error) => return refused(&edge, &error, &origin),
    };
    let sent = match form::sent(&edge, &opened.id, &headers, body).await {
        Ok(sent) => sent,
        Err(unfit) => return refusal::of_form(unfit),
    };
    let email = sent.fields.get("email").trim().to_owned();
    let password = SecretString::from(sent.fields.get("password"));
    if email.is_empty() || sent.fields.get("password").is_empty() {
        let missing = Problem {
            status: StatusCode::BAD_REQUEST,
            message: "Type your e-mail address and your password.".to_owned(),
            retry_after: None,
        };
        return asked(&edge, &opened, &email, Some(&missing));
    }
    let signed_in = {
        let (issuer, from) = (Arc::clone(&edge.issuer), origin.clone());
        let (id, email) = (opened.id.clone(), email.clone());
        let work = async move {
            issuer
                .sign_in(&id, &sent.cookie, &email, &password, &from)
                .await
        };
        edge.tasks.run(work).await
    };
    match signed_in {
        Ok(()) => edge.see_page(&format!("oauth2/consent/{}", opened.id)),
        // Sent twice: this page's address knows how to go on.
        Err(Error::FailedPrecondition {
            precondition: Precondition::AuthorizationRequestState,
            ..
        }) => edge.see_page(&format!("oauth2/sign-in/{}", opened.id)),
        Err(error) => match problem(&error) {
            Some(problem) => asked(&edge, &opened, &email, Some(&problem)),
            None => refused(&edge, &error, &origin),
        },
    }
}

/// What to say where the person can mend it. It does not tell whether there is such an account.
fn problem(error: &Error) -> Option<Problem> {
    match error {
        Error::Unauthenticated(Unknown::SignInFailed) | Error::InvalidArgument(_) => {
            Some(Problem {
                status: StatusCode::FORBIDDEN,
                message: "The e-mail address or the password is not right. Try again.".to_owned(),
                retry_after: None,
            })
        }
        _ => refusal::too_many_tries(error),
    }
}

fn asked(edge: &Edge, opened: &Opened, email: &str, problem: Option<&Problem>) -> Response<Body> {
    pages::issuer::sign_in(&SignIn {
        client: &opened.shown.client.settings.name,
        device: opened.shown.request.device_id.is_some(),
        csrf: &edge.issuer.csrf(&opened.id, &opened.cookie),
        email,
        problem,
    })
}
