//! What a failure looks like to the person at the browser: plain words, and what to do.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use uuid::Uuid;

use super::pages;
use crate::error::{Error, Precondition, StoreError};
use crate::model::AuthorizationFailure;

const AGAIN: &str = "Go back to the application that sent you here and start again.";
const LATER: &str = "Wait a moment, then open the link again or start again in the application \
                     that sent you here.";
const SUPPORT: &str = "Tell the people who run the application that sent you here. Trying again \
                       does not help before they have mended it.";

/// A failure in words.
struct Words {
    status: StatusCode,
    title: &'static str,
    message: &'static str,
    advice: &'static str,
}

/// The page for a request that was refused or could not be carried out.
pub(super) fn of_error(error: &Error) -> Response<Body> {
    crate::error::log(error);
    let words = words(error);
    let mut response = plain(&words);
    if let Error::ResourceExhausted { retry_after, .. } = error {
        let seconds = HeaderValue::from(retry_after.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

fn words(error: &Error) -> Words {
    match error {
        Error::FailedPrecondition { precondition, .. } => of_precondition(*precondition),
        Error::InvalidArgument(_) => Words {
            status: StatusCode::BAD_REQUEST,
            title: "The answer can’t be read",
            message: "The provider sent you back with an answer that is not complete, or that says \
                      one thing twice. Nothing has changed.",
            advice: AGAIN,
        },
        Error::ResourceExhausted { .. } => Words {
            status: StatusCode::TOO_MANY_REQUESTS,
            title: "This link was opened too often",
            message: "A link for connecting an account can be opened a limited number of times, and \
                      this one has reached its limit.",
            advice: AGAIN,
        },
        Error::ProviderUnavailable { .. }
        | Error::Unavailable(..)
        | Error::Store(StoreError::Busy(_) | StoreError::Unavailable(_)) => Words {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "This takes longer than it should",
            message: "A part of this service can’t be reached at the moment. If you have given your \
                      consent already, it is not lost.",
            advice: LATER,
        },
        Error::NotFound(..) => Words {
            status: StatusCode::NOT_FOUND,
            title: "There is nothing here",
            message: "What this link belongs to no longer exists. Nothing has changed.",
            advice: AGAIN,
        },
        Error::Unauthenticated(_)
        | Error::PermissionDenied(_)
        | Error::Constrained(_)
        | Error::AlreadyExists { .. }
        | Error::ReauthorizationRequired { .. }
        | Error::ScopesMissing { .. }
        | Error::Conflict(..)
        | Error::RateLimited { .. }
        | Error::OutOfRange(_)
        | Error::WatcherTooSlow
        | Error::Oauth(_)
        | Error::Internal(_)
        | Error::Store(StoreError::Internal(_)) => Words {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            title: "Something went wrong here",
            message: "The fault is ours, not yours. It was written down.",
            advice: LATER,
        },
    }
}

fn of_precondition(precondition: Precondition) -> Words {
    match precondition {
        Precondition::State => Words {
            status: StatusCode::BAD_REQUEST,
            title: "This sign-in can’t be continued",
            message: "It was finished before, took too long, or did not begin here. Nothing has \
                      changed.",
            advice: AGAIN,
        },
        Precondition::BrowserMismatch => Words {
            status: StatusCode::FORBIDDEN,
            title: "This sign-in began in another browser",
            message: "For your safety an account can be connected only in the browser in which its \
                      link was opened, with cookies allowed. Nothing has changed.",
            advice: "Open the link again in this browser, and finish here.",
        },
        Precondition::AppInactive => Words {
            status: StatusCode::CONFLICT,
            title: "Accounts can’t be connected here at the moment",
            message: "The application’s access to this provider was switched off.",
            advice: SUPPORT,
        },
        Precondition::AppMisconfigured | Precondition::NotAuthorizable => Words {
            status: StatusCode::CONFLICT,
            title: "The application is not set up for this",
            message: "Its registration at the provider does not fit. Nothing has changed.",
            advice: SUPPORT,
        },
        Precondition::UserInactive
        | Precondition::ApiKeyEnded
        | Precondition::NotASignInProvider
        | Precondition::JobState
        | Precondition::LeaseLost
        | Precondition::HasOpenJobs
        | Precondition::NoCredentials
        | Precondition::ClientState
        | Precondition::AppInUse
        | Precondition::ConnectionPending
        | Precondition::ConnectionRevoked
        | Precondition::NotRefreshable
        | Precondition::AmbiguousConnection
        | Precondition::AuthorizationState
        | Precondition::AuthorizationRequestState
        | Precondition::ConfirmationCode
        | Precondition::OwnerMismatch
        | Precondition::AccountMismatch
        | Precondition::ProviderBuiltin
        | Precondition::ProviderInUse => Words {
            status: StatusCode::CONFLICT,
            title: "This sign-in is over",
            message: "It was finished before, perhaps in another tab, or its time ran out.",
            advice: AGAIN,
        },
    }
}

/// The page for an authorisation that failed, where no return URL takes the browser on.
pub(super) fn of_authorization(
    authorization_id: &str,
    failure: &AuthorizationFailure,
    provider: &str,
) -> Response<Body> {
    let denied = failure.provider_error == "access_denied";
    let (status, message, advice) = match failure.reason.as_str() {
        "PROVIDER_ERROR" if denied => (
            StatusCode::FORBIDDEN,
            format!("{provider} says that consent was not given."),
            "If you changed your mind, start again in the application that sent you here.",
        ),
        "PROVIDER_ERROR" => (
            StatusCode::BAD_GATEWAY,
            format!("{provider} refused the request."),
            AGAIN,
        ),
        "EXCHANGE_FAILED" => (
            StatusCode::BAD_GATEWAY,
            format!("{provider} did not complete the sign-in."),
            AGAIN,
        ),
        "ACCOUNT_MISMATCH" => (
            StatusCode::CONFLICT,
            format!(
                "Another {provider} account was chosen than the one that is to be connected again."
            ),
            "Start again in the application that sent you here, and choose the same account as \
             before.",
        ),
        // ISSUER_MISMATCH, NONCE_MISMATCH: what an attack looks like.
        _ => (
            StatusCode::BAD_REQUEST,
            format!("The answer does not belong to the request that was sent to {provider}."),
            AGAIN,
        ),
    };
    pages::failure(pages::Failure {
        status,
        title: "The account was not connected",
        message: &message,
        provider_code: some(&failure.provider_error),
        provider_description: some(&failure.provider_description),
        advice,
        reference: authorization_id,
    })
}

/// The page for a query that is longer than any provider's.
pub(super) fn query_too_long() -> Response<Body> {
    plain(&Words {
        status: StatusCode::URI_TOO_LONG,
        title: "The address is too long",
        message: "It holds more than any provider sends. Nothing has changed.",
        advice: AGAIN,
    })
}

/// The page for another method than those that are allowed.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = plain(&Words {
        status: StatusCode::METHOD_NOT_ALLOWED,
        title: "This is not how it works",
        message: "This address is opened as a link; nothing can be sent to it.",
        advice: AGAIN,
    });
    let allowed = HeaderValue::from_static(allowed);
    response.headers_mut().insert(header::ALLOW, allowed);
    response
}

fn plain(words: &Words) -> Response<Body> {
    // Found again in the log by its reference.
    let reference = Uuid::now_v7().simple().to_string();
    tracing::info!(%reference, status = words.status.as_u16(), "a failure page was shown");
    pages::failure(pages::Failure {
        status: words.status,
        title: words.title,
        message: words.message,
        provider_code: None,
        provider_description: None,
        advice: words.advice,
        reference: &reference,
    })
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_status() {
        let status = |precondition| words(&Error::precondition(precondition, "")).status;
        assert_eq!(status(Precondition::State), StatusCode::BAD_REQUEST);
        assert_eq!(status(Precondition::BrowserMismatch), StatusCode::FORBIDDEN);
        assert_eq!(
            status(Precondition::AuthorizationState),
            StatusCode::CONFLICT
        );
        assert_eq!(
            words(&Error::internal("x")).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }

    #[test]
    fn methods_that_are_not_ours_hear_which_are() {
        let answer = method_not_allowed("GET, HEAD");
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(answer.headers()[header::ALLOW], "GET, HEAD");
    }
}
