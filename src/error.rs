//! The one error of the domain: an enum by what the caller can do about it.

use std::time::Duration;

/// What [`Error::Store`] holds: the edges tell a busy store from a defect.
pub use crate::store::Error as StoreError;

/// One field that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldViolation {
    /// The field's path in the request, such as `app.allowed_return_urls[0]`.
    pub field: String,
    /// What is wrong and what would be right. Never repeats a secret.
    pub description: String,
}

impl FieldViolation {
    /// A violation of `field`.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            description: description.into(),
        }
    }
}

/// What a name in a request stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// An app.
    App,
    /// An authorisation.
    Authorization,
    /// A connection.
    Connection,
    /// A provider.
    Provider,
    /// An API key.
    ApiKey,
    /// A user.
    User,
    /// A session.
    Session,
    /// An OAuth client.
    Client,
    /// A request at our authorisation server.
    AuthorizationRequest,
    /// What a person gave a client.
    IssuedGrant,
    /// An account that is connected by browser automation.
    Account,
    /// A browser profile.
    Profile,
    /// A job.
    Job,
    /// A batch of jobs.
    Batch,
}

impl Resource {
    /// For a person.
    pub const fn name(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Authorization => "authorization",
            Self::Connection => "connection",
            Self::Provider => "provider",
            Self::ApiKey => "API key",
            Self::User => "user",
            Self::Session => "session",
            Self::Client => "client",
            Self::AuthorizationRequest => "authorization request",
            Self::IssuedGrant => "grant",
            Self::Account => "account",
            Self::Profile => "profile",
            Self::Job => "job",
            Self::Batch => "batch",
        }
    }
}

/// Why something can't be done in the state in which things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The app was switched off.
    AppInactive,
    /// The provider refuses the app; its registration must be mended.
    AppMisconfigured,
    /// The app has connections.
    AppInUse,
    /// The connection waits for its owner's confirmation.
    ConnectionPending,
    /// The connection was revoked.
    ConnectionRevoked,
    /// The credential can't be refreshed: it is no OAuth 2.0 grant, or has no refresh token.
    NotRefreshable,
    /// The app's provider has no OAuth 2.0 consent.
    NotAuthorizable,
    /// An apps' several connections of one owner, where one was asked for.
    AmbiguousConnection,
    /// The authorisation is not in a state for this step.
    AuthorizationState,
    /// The confirmation code is wrong or spent.
    ConfirmationCode,
    /// The state is forged, spent or has lapsed.
    State,
    /// Another browser began this.
    BrowserMismatch,
    /// The signed-in person is not the authorisation's owner.
    OwnerMismatch,
    /// Another account was chosen at the provider than the connection's.
    AccountMismatch,
    /// A provider of the catalogue can't be changed.
    ProviderBuiltin,
    /// The provider has apps.
    ProviderInUse,
    /// The user was switched off.
    UserInactive,
    /// The key was revoked, has expired, or was rotated before.
    ApiKeyEnded,
    /// The provider does not tell whose account it is.
    NotASignInProvider,
    /// The OAuth client is not in a state for this.
    ClientState,
    /// The authorisation request is not in a state for this.
    AuthorizationRequestState,
    /// The job is not in a state for this.
    JobState,
    /// The lease was lost: the job was handed to another worker, rescued, or is finished.
    LeaseLost,
    /// The account or profile has jobs that are not finished.
    HasOpenJobs,
    /// The account has no credentials.
    NoCredentials,
}

impl Precondition {
    /// The `ErrorInfo` reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::AppInactive => "APP_INACTIVE",
            Self::AppMisconfigured => "APP_MISCONFIGURED",
            Self::AppInUse => "APP_IN_USE",
            Self::ConnectionPending => "CONNECTION_PENDING",
            Self::ConnectionRevoked => "CONNECTION_REVOKED",
            Self::NotRefreshable => "NOT_REFRESHABLE",
            Self::NotAuthorizable => "NOT_AUTHORIZABLE",
            Self::AmbiguousConnection => "AMBIGUOUS_CONNECTION",
            Self::AuthorizationState => "AUTHORIZATION_STATE",
            Self::ConfirmationCode => "CONFIRMATION_CODE_INVALID",
            Self::State => "STATE_INVALID",
            Self::BrowserMismatch => "BROWSER_MISMATCH",
            Self::OwnerMismatch => "OWNER_MISMATCH",
            Self::AccountMismatch => "ACCOUNT_MISMATCH",
            Self::ProviderBuiltin => "PROVIDER_BUILTIN",
            Self::ProviderInUse => "PROVIDER_IN_USE",
            Self::UserInactive => "USER_INACTIVE",
            Self::ApiKeyEnded => "API_KEY_ENDED",
            Self::NotASignInProvider => "NOT_A_SIGN_IN_PROVIDER",
            Self::ClientState => "CLIENT_STATE",
            Self::AuthorizationRequestState => "AUTHORIZATION_REQUEST_STATE",
            Self::JobState => "JOB_STATE",
            Self::LeaseLost => "LEASE_LOST",
            Self::HasOpenJobs => "HAS_OPEN_JOBS",
            Self::NoCredentials => "NO_CREDENTIALS",
        }
    }
}

/// Why a caller is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No credentials were sent.
    Missing,
    /// They are not well-formed, or nobody's.
    Invalid,
    /// They have expired.
    Expired,
    /// They were revoked.
    Revoked,
    /// A sign-in failed; whether the user exists is not said.
    SignInFailed,
    /// A session's refresh token is nobody's, spent, or has ended.
    RefreshTokenInvalid,
    /// The credentials are good, but no rule of the configuration takes them.
    Unmapped,
}

impl Unknown {
    /// What to do, for a person.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Missing | Self::Invalid | Self::Expired | Self::Revoked => {
                "send `authorization: Bearer <API key or session token>` with a valid one"
            }
            Self::SignInFailed => "who signs in is not known, or the proof is not right",
            Self::RefreshTokenInvalid => "the refresh token is not valid; sign in again",
            Self::Unmapped => {
                "the credentials are good, but the configuration maps them to no role; see \
                 access.certificates and access.jwt"
            }
        }
    }

    /// The `ErrorInfo` reason.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "CREDENTIALS_MISSING",
            Self::Invalid => "CREDENTIALS_INVALID",
            Self::Expired => "CREDENTIALS_EXPIRED",
            Self::Revoked => "CREDENTIALS_REVOKED",
            Self::SignInFailed => "SIGN_IN_FAILED",
            Self::RefreshTokenInvalid => "REFRESH_TOKEN_INVALID",
            Self::Unmapped => "CREDENTIALS_NOT_MAPPED",
        }
    }
}

/// A failure, by what the caller can do. `grpc/status.rs` says how each looks on the wire; causes
/// are for the log and never cross it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Send other values.
    #[error("{}", describe(.0))]
    InvalidArgument(Vec<FieldViolation>),
    /// Say who you are.
    #[error("the caller is not known")]
    Unauthenticated(Unknown),
    /// Ask somebody who may.
    #[error("the caller may not do this: it needs the permission {0}")]
    PermissionDenied(&'static str),
    /// Ask somebody whom no constraints hold.
    #[error(
        "the caller has the permission {0}, but is constrained to apps, owners or providers, and what \
         was asked for tells of others too: use a caller without constraints"
    )]
    Constrained(&'static str),
    /// Name something that exists.
    #[error("there is no {} {:?}", .0.name(), .1)]
    NotFound(Resource, String),
    /// It is there already.
    #[error("{} {name:?} exists already: {detail}", resource.name())]
    AlreadyExists {
        /// What exists.
        resource: Resource,
        /// Its name or the value that is taken.
        name: String,
        /// Which field collides, or why the first answer can't be repeated.
        detail: String,
    },
    /// Change the state of things first.
    #[error("{message}")]
    FailedPrecondition {
        /// Which state is wrong.
        precondition: Precondition,
        /// What to do, for a person.
        message: String,
    },
    /// The owner must consent again.
    #[error("connection {connection_id} needs its owner's consent again: {reason}")]
    ReauthorizationRequired {
        /// The connection.
        connection_id: String,
        /// Why, machine-readable, such as `invalid_grant`.
        reason: String,
    },
    /// The owner must consent to more.
    #[error("connection {connection_id} lacks the scopes {}", missing.join(" "))]
    ScopesMissing {
        /// The connection.
        connection_id: String,
        /// What was not granted.
        missing: Vec<String>,
    },
    /// Wait: the provider can't be reached, is overloaded, or answered nonsense.
    #[error("the provider is not available: {detail}")]
    ProviderUnavailable {
        /// How long to wait.
        retry_after: Duration,
        /// What happened, without secrets.
        detail: String,
    },
    /// Read again, then write: somebody else was first.
    #[error("the {} {:?} was changed by somebody else; read it again", .0.name(), .1)]
    Conflict(Resource, String),
    /// Ask less often.
    #[error("{message}")]
    ResourceExhausted {
        /// Which limit.
        message: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// Call less often: a limit of the caller's own.
    #[error("{message}")]
    RateLimited {
        /// Which limit, as the configuration calls it.
        limit: &'static str,
        /// What it allows, for a person.
        message: String,
        /// How long to wait.
        retry_after: Duration,
    },
    /// Begin anew: that part of history is gone.
    #[error("{0}")]
    OutOfRange(String),
    /// Resume from the last cursor: events came faster than they were taken.
    #[error("the watcher is too slow; resume from the last cursor received")]
    WatcherTooSlow,
    /// Try again, maybe elsewhere.
    #[error("the service is not available: {0}")]
    Unavailable(
        String,
        #[source] Option<Box<dyn std::error::Error + Send + Sync>>,
    ),
    /// Report it: a defect.
    #[error("an internal error occurred")]
    Internal(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Do as OAuth 2.0 says: a client of our authorisation server asked for what it can't have.
    #[error("{}: {}", .0.code.as_str(), .0.description)]
    Oauth(crate::model::OauthError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] StoreError),
}

fn describe(violations: &[FieldViolation]) -> String {
    violations
        .iter()
        .map(|violation| format!("{}: {}", violation.field, violation.description))
        .collect::<Vec<_>>()
        .join("; ")
}

/// That the server stops, for those whose streams end with it.
const STOPPING: &str = "the server is stopping; resume elsewhere";

impl Error {
    /// One field that is not as it must be.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::InvalidArgument(vec![FieldViolation::new(field, description)])
    }

    /// A state in which this can't be done.
    pub fn precondition(precondition: Precondition, message: impl Into<String>) -> Self {
        Self::FailedPrecondition {
            precondition,
            message: message.into(),
        }
    }

    /// A refusal in the words of OAuth 2.0.
    pub fn oauth(code: crate::model::OauthErrorCode, description: impl Into<String>) -> Self {
        Self::Oauth(crate::model::OauthError::new(code, description))
    }

    /// What streams end with when the server stops.
    pub fn stopping() -> Self {
        Self::Unavailable(STOPPING.to_owned(), None)
    }

    /// A defect.
    pub fn internal(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// Whether what was asked for was refused for what it is or names: nothing was done, and others may
    /// do well.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::AlreadyExists { .. }
                | Self::NotFound(..)
                | Self::InvalidArgument(_)
                | Self::FailedPrecondition { .. }
        )
    }

    /// Whether running the transaction once more may help.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_busy())
    }
}

impl From<crate::crypto::Error> for Error {
    fn from(error: crate::crypto::Error) -> Self {
        Self::internal(error)
    }
}

/// Logs what an operator can act on, with all its causes; callers' own mistakes are theirs. Called
/// once, where an error is turned into an answer.
pub fn log(error: &Error) {
    // Whoever stopped the server knows, and there is one for each stream.
    if matches!(error, Error::Unavailable(what, None) if what == STOPPING) {
        return;
    }
    if let Error::Unavailable(..) | Error::Internal(_) | Error::Store(_) = error {
        let mut causes = String::new();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            causes.push_str(": ");
            causes.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!("{error}{causes}");
    }
}
