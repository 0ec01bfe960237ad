//! How each failure looks on the wire: one match, and no other place makes a status of the domain.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::error::{Error, FieldViolation, Resource, StoreError};
use crate::model::{OauthError, OauthErrorCode};

/// `ErrorInfo.domain` of every error.
pub const DOMAIN: &str = "tokenbroker";

/// The reason of what OAuth 2.0 has a code of its own for.
pub const OAUTH_ERROR: &str = "OAUTH_ERROR";

/// What of an error crosses the wire.
#[derive(Clone, Debug)]
pub struct Wire {
    /// The status code.
    pub code: Code,
    /// `ErrorInfo.reason`.
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// `RetryInfo`, where waiting helps.
    pub retry_delay: Option<Duration>,
    /// `ErrorInfo.metadata`.
    pub metadata: Vec<(&'static str, String)>,
}

/// Brief overloads and failovers pass within this.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// Longest text in a status, in bytes. A status travels in headers, of which some clients take 8 KiB
/// and drop the connection at more; its message is there twice, once percent-encoded.
const TEXT_MAX: usize = 600;

/// Longest list of violations, in bytes. Who mends these is told of the rest.
const VIOLATIONS_MAX: usize = 2_000;

/// The one match.
pub fn wire(error: &Error) -> Wire {
    let mut retry_delay = None;
    let mut metadata = Vec::new();
    let mut message = error.to_string();
    let (code, reason) = match error {
        Error::InvalidArgument(_) => (Code::InvalidArgument, "INVALID_ARGUMENT"),
        Error::Unauthenticated(unknown) => {
            unknown.advice().clone_into(&mut message);
            (Code::Unauthenticated, unknown.reason())
        }
        Error::PermissionDenied(permission) | Error::Constrained(permission) => {
            metadata.push(("permission", (*permission).to_owned()));
            (Code::PermissionDenied, "PERMISSION_DENIED")
        }
        Error::NotFound(resource, name) => {
            metadata.push(("resource", resource.name().to_owned()));
            metadata.push(("name", name.clone()));
            let reason = match resource {
                Resource::App => "APP_NOT_FOUND",
                Resource::Authorization => "AUTHORIZATION_NOT_FOUND",
                Resource::Connection => "CONNECTION_NOT_FOUND",
                Resource::Provider => "PROVIDER_NOT_FOUND",
                Resource::ApiKey => "API_KEY_NOT_FOUND",
                Resource::User => "USER_NOT_FOUND",
                Resource::Session => "SESSION_NOT_FOUND",
                Resource::Client => "CLIENT_NOT_FOUND",
                Resource::AuthorizationRequest => "AUTHORIZATION_REQUEST_NOT_FOUND",
                Resource::IssuedGrant => "GRANT_NOT_FOUND",
                Resource::Account => "ACCOUNT_NOT_FOUND",
                Resource::Profile => "PROFILE_NOT_FOUND",
                Resource::Job => "JOB_NOT_FOUND",
                Resource::Batch => "BATCH_NOT_FOUND",
            };
            (Code::NotFound, reason)
        }
        Error::AlreadyExists { name, .. } => {
            metadata.push(("name", name.clone()));
            (Code::AlreadyExists, "ALREADY_EXISTS")
        }
        Error::FailedPrecondition { precondition, .. } => {
            (Code::FailedPrecondition, precondition.reason())
        }
        Error::ReauthorizationRequired {
            connection_id,
            reason,
        } => {
            metadata.push(("connection_id", connection_id.clone()));
            metadata.push(("cause", reason.clone()));
            (Code::FailedPrecondition, "REAUTHORIZATION_REQUIRED")
        }
        Error::ScopesMissing {
            connection_id,
            missing,
        } => {
            metadata.push(("connection_id", connection_id.clone()));
            metadata.push(("missing_scopes", missing.join(" ")));
            (Code::FailedPrecondition, "SCOPES_MISSING")
        }
        Error::ProviderUnavailable { retry_after, .. } => {
            retry_delay = Some(*retry_after);
            (Code::Unavailable, "PROVIDER_UNAVAILABLE")
        }
        Error::Conflict(..) => (Code::Aborted, "ETAG_MISMATCH"),
        Error::ResourceExhausted { retry_after, .. } => {
            retry_delay = Some(*retry_after);
            (Code::ResourceExhausted, "RATE_LIMITED")
        }
        Error::RateLimited {
            limit, retry_after, ..
        } => {
            metadata.push(("limit", (*limit).to_owned()));
            retry_delay = Some(*retry_after);
            (Code::ResourceExhausted, "RATE_LIMITED")
        }
        Error::OutOfRange(_) => (Code::OutOfRange, "CURSOR_OUT_OF_RANGE"),
        Error::WatcherTooSlow => (Code::Aborted, "WATCHER_TOO_SLOW"),
        Error::Unavailable(..) => {
            retry_delay = Some(RETRY_SOON);
            (Code::Unavailable, "UNAVAILABLE")
        }
        Error::Oauth(error) => {
            let code = oauth_code(error, &mut metadata);
            retry_delay = (code == Code::Unavailable).then_some(RETRY_SOON);
            (code, OAUTH_ERROR)
        }
        Error::Store(StoreError::Busy(_) | StoreError::Unavailable(_)) => {
            "the database can't be reached or is overloaded; try again".clone_into(&mut message);
            retry_delay = Some(RETRY_SOON);
            (Code::Unavailable, "DATABASE_UNAVAILABLE")
        }
        Error::Store(StoreError::Internal(_)) | Error::Internal(_) => {
            "an internal error occurred; the server's log has its cause".clone_into(&mut message);
            (Code::Internal, "INTERNAL")
        }
    };
    Wire {
        code,
        reason,
        message,
        retry_delay,
        metadata,
    }
}

fn oauth_code(error: &OauthError, metadata: &mut Vec<(&'static str, String)>) -> Code {
    metadata.push(("error", error.code.as_str().to_owned()));
    if let Some(nonce) = &error.dpop_nonce {
        metadata.push(("dpop_nonce", nonce.clone()));
    }
    match error.code {
        OauthErrorCode::InvalidRequest
        | OauthErrorCode::UnsupportedGrantType
        | OauthErrorCode::UnsupportedResponseType
        | OauthErrorCode::InvalidScope
        | OauthErrorCode::InvalidTarget
        | OauthErrorCode::RequestNotSupported
        | OauthErrorCode::InvalidRequestUri => Code::InvalidArgument,
        OauthErrorCode::InvalidClient
        | OauthErrorCode::InvalidToken
        | OauthErrorCode::InvalidDpopProof
        | OauthErrorCode::UseDpopNonce => Code::Unauthenticated,
        OauthErrorCode::UnauthorizedClient
        | OauthErrorCode::AccessDenied
        | OauthErrorCode::InsufficientScope => Code::PermissionDenied,
        OauthErrorCode::InvalidGrant
        | OauthErrorCode::AuthorizationPending
        | OauthErrorCode::SlowDown
        | OauthErrorCode::ExpiredToken
        | OauthErrorCode::LoginRequired => Code::FailedPrecondition,
        OauthErrorCode::ServerError => Code::Internal,
        OauthErrorCode::TemporarilyUnavailable => Code::Unavailable,
    }
}

impl From<Error> for Status {
    /// Logs the cause, once, and leaves it behind.
    fn from(error: Error) -> Self {
        crate::error::log(&error);
        let wire = wire(&error);
        let metadata: HashMap<String, String> = wire
            .metadata
            .into_iter()
            .map(|(key, value)| (key.to_owned(), clip(value)))
            .collect();
        let mut details = ErrorDetails::new();
        details.set_error_info(wire.reason, DOMAIN, metadata);
        if let Some(delay) = wire.retry_delay {
            details.set_retry_info(Some(delay));
        }
        if let Error::InvalidArgument(violations) = &error {
            details.set_bad_request(first(violations));
        }
        Status::with_error_details(wire.code, clip(wire.message), details)
    }
}

/// As many violations as fit, one at least.
fn first(violations: &[FieldViolation]) -> Vec<tonic_types::FieldViolation> {
    let mut room = VIOLATIONS_MAX;
    let clipped = violations.iter().map(|violation| {
        let field = clip(violation.field.clone());
        tonic_types::FieldViolation::new(field, clip(violation.description.clone()))
    });
    clipped
        .take_while(|violation| {
            let size = violation.field.len() + violation.description.len();
            let fits = room == VIOLATIONS_MAX || size <= room;
            room = room.saturating_sub(size);
            fits
        })
        .collect()
}

fn clip(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let end = (0..=TEXT_MAX).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
        text.push('…');
    }
    text
}
