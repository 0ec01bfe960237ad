//! What clients are answered: JSON, and errors as RFC 6749 section 5.2 has them.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{self, HeaderName, HeaderValue};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::error::{Error, StoreError};
use crate::model::{OauthError, OauthErrorCode};

/// How long to wait where nothing tells.
const A_MOMENT: Duration = Duration::from_secs(1);

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// Why a client does not get what it asked for.
#[derive(Debug)]
pub(super) struct Refused {
    error: Error,
    /// A client that did not prove who it is is asked to do so by HTTP Basic.
    basic: bool,
    /// Where the error's own does not do.
    status: Option<StatusCode>,
}

impl Refused {
    /// Of a client that used HTTP Basic, or did not.
    pub(super) fn new(error: Error, basic: bool) -> Self {
        Self {
            error,
            basic,
            status: None,
        }
    }

    /// What the client asked is wrong.
    pub(super) fn invalid(why: &str) -> Self {
        Error::oauth(OauthErrorCode::InvalidRequest, why).into()
    }

    /// With this status.
    pub(super) fn with(mut self, status: StatusCode) -> Self {
        self.status = Some(status);
        self
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::new(error, false)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response<Body> {
        crate::error::log(&self.error);
        let told = told(&self.error);
        let unproved = told.error.code == OauthErrorCode::InvalidClient && self.basic;
        let status = match self.status {
            Some(status) => status,
            None if unproved => StatusCode::UNAUTHORIZED,
            None => told.status,
        };
        let mut response = of_oauth(status, &told);
        if unproved {
            let challenge = HeaderValue::from_static("Basic realm=\"oauth2\", charset=\"UTF-8\"");
            let headers = response.headers_mut();
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// An error as a client is told of it.
pub(super) struct Told {
    pub(super) status: StatusCode,
    pub(super) error: OauthError,
    retry_after: Option<Duration>,
}

/// What a client is told of an error; causes are for the log.
pub(super) fn told(error: &Error) -> Told {
    let unavailable = |wait: Duration| Told {
        status: StatusCode::SERVICE_UNAVAILABLE,
        error: OauthError::new(
            OauthErrorCode::TemporarilyUnavailable,
            "a part of the service can not be reached",
        ),
        retry_after: Some(wait),
    };
    match error {
        Error::Oauth(error) => match error.code {
            OauthErrorCode::TemporarilyUnavailable => unavailable(A_MOMENT),
            OauthErrorCode::ServerError => defect(),
            _ => Told {
                status: StatusCode::BAD_REQUEST,
                error: error.clone(),
                retry_after: None,
            },
        },
        Error::RateLimited {
            message,
            retry_after,
            ..
        }
        | Error::ResourceExhausted {
            message,
            retry_after,
        } => Told {
            status: StatusCode::TOO_MANY_REQUESTS,
            error: OauthError::new(OauthErrorCode::TemporarilyUnavailable, message.as_str()),
            retry_after: Some(*retry_after),
        },
        Error::ProviderUnavailable { retry_after, .. } => unavailable(*retry_after),
        Error::Unavailable(..) | Error::Store(StoreError::Busy(_) | StoreError::Unavailable(_)) => {
            unavailable(A_MOMENT)
        }
        Error::InvalidArgument(_) => Told {
            status: StatusCode::BAD_REQUEST,
            error: OauthError::new(OauthErrorCode::InvalidRequest, error.to_string()),
            retry_after: None,
        },
        _ => defect(),
    }
}

fn defect() -> Told {
    Told {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        error: OauthError::new(OauthErrorCode::ServerError, "an internal error occurred"),
        retry_after: None,
    }
}

/// The answer with an error.
pub(super) fn of_oauth(status: StatusCode, told: &Told) -> Response<Body> {
    let Told {
        error, retry_after, ..
    } = told;
    let mut response = json(
        status,
        &json!({
            "error": error.code.as_str(),
            "error_description": visible(&error.description),
        }),
    );
    let headers = response.headers_mut();
    if let Some(wait) = retry_after {
        let seconds = HeaderValue::from(wait.as_secs().max(1));
        headers.insert(header::RETRY_AFTER, seconds);
    }
    nonce(&mut response, error.dpop_nonce.as_deref());
    response
}

/// The answer to what no endpoint takes.
pub(super) fn of_client(status: StatusCode, why: &str) -> Response<Body> {
    Refused::invalid(why).with(status).into_response()
}

/// Says which nonce the client's next proof must carry.
pub(super) fn nonce(response: &mut Response<Body>, nonce: Option<&str>) {
    if let Some(nonce) = nonce
        && let Ok(nonce) = HeaderValue::try_from(nonce)
    {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
}

/// What RFC 6749 section 5.2 and RFC 6750 section 3 allow in a description.
pub(super) fn visible(text: &str) -> String {
    text.chars()
        .filter(|c| matches!(c, ' '..='~') && !matches!(c, '"' | '\\'))
        .collect()
}

/// JSON that nobody keeps.
pub(super) fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = public(value, "no-store");
    *response.status_mut() = status;
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::PRAGMA, no_cache);
    response
}

/// JSON that may be kept for as long as `cache` says.
pub(super) fn public(value: &Value, cache: &'static str) -> Response<Body> {
    const HEADERS: [(HeaderName, &str); 3] = [
        (header::CONTENT_TYPE, "application/json"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    let mut response = Response::new(Body::from(value.to_string()));
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oauth(code: OauthErrorCode) -> Error {
        Error::oauth(code, "no \"such\" thing\n")
    }

    #[tokio::test]
    async fn errors_are_told_as_the_rfc_has_them() {
        let answer = Refused::from(oauth(OauthErrorCode::InvalidGrant)).into_response();
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        assert_eq!(answer.headers()[header::CACHE_CONTROL], "no-store");
        let body = axum::body::to_bytes(answer.into_body(), 1_024)
            .await
            .unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            json!({"error": "invalid_grant", "error_description": "no such thing"})
        );
    }

    #[test]
    fn only_who_used_basic_is_asked_for_it() {
        let answer =
            |basic| Refused::new(oauth(OauthErrorCode::InvalidClient), basic).into_response();
        let asked = answer(true);
        assert_eq!(asked.status(), StatusCode::UNAUTHORIZED);
        assert!(asked.headers().contains_key(header::WWW_AUTHENTICATE));
        let other = answer(false);
        assert_eq!(other.status(), StatusCode::BAD_REQUEST);
        assert!(!other.headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn whoever_should_wait_is_told_how_long() {
        let busy = Error::Store(StoreError::Busy("locked".into()));
        let limited = Error::RateLimited {
            limit: "x",
            message: String::new(),
            retry_after: Duration::from_secs(7),
        };
        for (error, status, wait) in [
            (busy, StatusCode::SERVICE_UNAVAILABLE, "1"),
            (limited, StatusCode::TOO_MANY_REQUESTS, "7"),
        ] {
            let answer = Refused::from(error).into_response();
            assert_eq!(answer.status(), status);
            assert_eq!(answer.headers()[header::RETRY_AFTER], wait);
        }
        let defect = Refused::from(Error::internal("x")).into_response();
        assert_eq!(defect.status(), StatusCode::INTERNAL_SERVER_ERROR);
    }
}
