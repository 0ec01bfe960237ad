//! Why a person can't go on at our own authorisation server, in plain words, and what to do.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use uuid::Uuid;

use super::form::{Unfit, Unread};
use super::pages;
use super::pages::issuer::Problem;
use crate::error::{Error, Precondition, StoreError};
use crate::model::{OauthError, OauthErrorCode};

const AGAIN: &str = "Go back to the application that sent you here and start again.";
const LATER: &str = "Wait a moment, then start again in the application that sent you here.";
const SUPPORT: &str = "Tell the people who run the application that sent you here. Trying again \
                       does not help before they have mended it.";

/// A refusal in words.
struct Words {
    status: StatusCode,
    title: &'static str,
    message: &'static str,
    advice: &'static str,
}

const NO_COOKIE: Words = Words {
    status: StatusCode::FORBIDDEN,
    title: "This sign-in can’t be finished here",
    message: "It was open for too long, or it began in another browser. For your safety it can be \
              finished only in the one in which it began, with cookies allowed. Nothing has changed.",
    advice: AGAIN,
};

/// The page for a request that is over: decided before, perhaps in another tab.
pub(super) fn over() -> Response<Body> {
    shown(
        &Words {
            status: StatusCode::CONFLICT,
            title: "This sign-in is over",
            message: "It was finished before, perhaps in another tab, or its time ran out.",
            advice: AGAIN,
        },
        None,
    )
}

/// The page for a request that failed.
pub(super) fn of_error(error: &Error) -> Response<Body> {
    crate::error::log(error);
    let words = match error {
        Error::Oauth(error) => return of_oauth(error),
        Error::FailedPrecondition { precondition, .. } => match precondition {
            Precondition::BrowserMismatch => NO_COOKIE,
            Precondition::ClientState => Words {
                status: StatusCode::FORBIDDEN,
                title: "This application is not let in",
                message: "The application that sent you here may not ask for access at the moment. \
                          Nothing has changed.",
                advice: SUPPORT,
            },
            Precondition::UserInactive => Words {
                status: StatusCode::FORBIDDEN,
                title: "Your account is switched off",
                message: "Nothing can be allowed in its name. Nothing has changed.",
                advice: "Ask whoever looks after your account.",
            },
            _ => return over(),
        },
        Error::NotFound(..) => Words {
            status: StatusCode::NOT_FOUND,
            title: "This sign-in is not known here",
            message: "Its time is over, or the address has lost a part. Nothing has changed.",
            advice: AGAIN,
        },
        Error::ResourceExhausted { .. } | Error::RateLimited { .. } => Words {
            status: StatusCode::TOO_MANY_REQUESTS,
            title: "Too many tries",
            message: "Too many sign-ins were begun. Nothing has changed.",
            advice: LATER,
        },
        Error::ProviderUnavailable { .. }
        | Error::Unavailable(..)
        | Error::Store(StoreError::Busy(_) | StoreError::Unavailable(_)) => Words {
            status: StatusCode::SERVICE_UNAVAILABLE,
            title: "This takes longer than it should",
            message: "A part of this service can’t be reached at the moment.",
            advice: LATER,
        },
        Error::InvalidArgument(_) => Words {
            status: StatusCode::BAD_REQUEST,
            title: "This can’t be read",
            message: "What your browser sent is not what the page asked for. Nothing has changed.",
            advice: AGAIN,
        },
        _ => Words {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            title: "Something went wrong here",
            message: "The fault is ours, not yours. It was written down.",
            advice: LATER,
        },
    };
    let mut response = shown(&words, None);
    if let Error::ResourceExhausted { retry_after, .. } | Error::RateLimited { retry_after, .. } =
        error
    {
        let seconds = HeaderValue::from(retry_after.as_secs().max(1));
        response.headers_mut().insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// The page for a request that its client made wrongly, and that must not be sent back.
pub(super) fn of_oauth(error: &OauthError) -> Response<Body> {
    let status = match error.code {
        OauthErrorCode::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
        OauthErrorCode::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    let words = Words {
        status,
        title: "The application’s request can’t be carried out",
        message: "The application that sent you here asked for something that it can’t have, or in a \
                  way that is not allowed. Nothing has changed.",
        advice: SUPPORT,
    };
    shown(&words, Some((error.code.as_str(), &error.description)))
}

/// The page for a form that is not taken.
pub(super) fn of_form(unfit: Unfit) -> Response<Body> {
    let words = match unfit {
        Unfit::NoCookie => NO_COOKIE,
        Unfit::Foreign => Words {
            status: StatusCode::FORBIDDEN,
            title: "This form did not come from here",
            message: "Another site sent it, or the page was open for too long. Nothing has changed.",
            advice: AGAIN,
        },
        Unfit::Unread(unread) => Words {
            status: match unread {
                Unread::NotAForm => StatusCode::UNSUPPORTED_MEDIA_TYPE,
                Unread::TooLong => StatusCode::PAYLOAD_TOO_LARGE,
                Unread::Broken => StatusCode::BAD_REQUEST,
            },
            title: "This can’t be read",
            message: "What your browser sent did not arrive, or is no form. Nothing has changed.",
            advice: AGAIN,
        },
    };
    shown(&words, None)
}

fn shown(words: &Words, error: Option<(&str, &str)>) -> Response<Body> {
    // Found again in the log by its reference.
    let reference = Uuid::now_v7().simple().to_string();
    let code = error.map(|(code, _)| code);
    tracing::info!(%reference, status = words.status.as_u16(), code, "a failure page was shown");
    pages::issuer::refusal(&pages::issuer::Refusal {
        status: words.status,
        title: words.title,
        message: words.message,
        error,
        advice: words.advice,
        reference: &reference,
    })
}

/// What to say above a form to whoever tried too often; nothing for another error.
pub(super) fn too_many_tries(error: &Error) -> Option<Problem> {
    let (Error::ResourceExhausted { retry_after, .. } | Error::RateLimited { retry_after, .. }) =
        error
    else {
        return None;
    };
    let wait = in_words(*retry_after);
    Some(Problem {
        status: StatusCode::TOO_MANY_REQUESTS,
        message: format!("There were too many tries. Wait {wait}, then try again."),
        retry_after: Some(*retry_after),
    })
}

/// How long to wait, in words.
fn in_words(wait: Duration) -> String {
    let seconds = wait.as_secs().max(1);
    let (count, unit) = if seconds <= 90 {
        (seconds, "second")
    } else {
        (seconds.div_ceil(60), "minute")
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_status() {
        let status = |error: &Error| of_error(error).status();
        let state = |precondition| status(&Error::precondition(precondition, ""));
        assert_eq!(state(Precondition::BrowserMismatch), StatusCode::FORBIDDEN);
        assert_eq!(
            state(Precondition::AuthorizationRequestState),
            StatusCode::CONFLICT
        );
        let oauth = Error::oauth(OauthErrorCode::InvalidScope, "no");
        assert_eq!(status(&oauth), StatusCode::BAD_REQUEST);
        let wait = Error::ResourceExhausted {
            message: String::new(),
            retry_after: Duration::ZERO,
        };
        assert_eq!(of_error(&wait).headers()[header::RETRY_AFTER], "1");
        let long = of_form(Unfit::Unread(Unread::TooLong));
        assert_eq!(long.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[test]
    fn waits_are_told_in_words() {
        let words = |seconds| in_words(Duration::from_secs(seconds));
        assert_eq!((words(0), words(1)), ("1 second".into(), "1 second".into()));
        assert_eq!(words(90), "90 seconds");
        assert_eq!(words(91), "2 minutes");
        assert_eq!(words(900), "15 minutes");
    }
}
