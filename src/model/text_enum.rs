//! Enums that are text in a column.

/// Gives an enum `as_str` and `parse`, from one list of its variants and their text.
macro_rules! text_enum {
    ($name:ty { $($variant:ident = $text:literal),+ $(,)? }) => {
        impl $name {
            /// Its text in a column.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }

            /// From its text.
            pub fn parse(text: &str) -> Option<Self> {
                match text { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}
use super::*;

text_enum!(AppState { Active = "active", Inactive = "inactive" });
text_enum!(ConnectionKind { Oauth2 = "oauth2", Oauth1 = "oauth1", ApiKey = "api_key" });
text_enum!(ConnectionState { Pending = "pending", Active = "active", Revoked = "revoked" });
text_enum!(GrantState {
    Active = "active",
    ReauthorizationRequired = "reauthorization_required",
    Revoked = "revoked",
});
text_enum!(RefreshPolicy { Always = "always", WhenUsed = "when_used", OnDemand = "on_demand" });
text_enum!(AuthorizationMode { Confirmed = "confirmed", LinkOnly = "link_only" });
text_enum!(AuthorizationIntent { Connect = "connect", SignIn = "sign_in" });
text_enum!(AuthorizationState {
    Pending = "pending",
    Exchanged = "exchanged",
    AwaitingConfirmation = "awaiting_confirmation",
    Succeeded = "succeeded",
    Failed = "failed",
    Expired = "expired",
});
text_enum!(RefreshOutcome {
    Succeeded = "succeeded",
    Transient = "transient",
    Ambiguous = "ambiguous",
    GrantDead = "grant_dead",
    ClientMisconfigured = "client_misconfigured",
    Superseded = "superseded",
});
text_enum!(RefreshTrigger {
    Demand = "demand",
    Ahead = "ahead",
    KeepAlive = "keep_alive",
    Forced = "forced",
    Rejected = "rejected",
    Recovery = "recovery",
});
text_enum!(SyncStatus { Succeeded = "succeeded", Partial = "partial", Failed = "failed" });
text_enum!(EventKind {
    Created = "created",
    Activated = "activated",
    Reconnected = "reconnected",
    Refreshed = "refreshed",
    RefreshFailed = "refresh_failed",
    ReauthorizationRequired = "reauthorization_required",
    Revoked = "revoked",
    Deleted = "deleted",
    Expiring = "expiring",
    Updated = "updated",
    AppChanged = "app_changed",
    ProviderChanged = "provider_changed",
    ApiKeyChanged = "api_key_changed",
    SessionsEnded = "sessions_ended",
    IssuedEnded = "issued_ended",
    AuthorizationEnded = "authorization_ended",
    JobScheduled = "job_scheduled",
    JobPending = "job_pending",
    JobRunning = "job_running",
    JobProgressed = "job_progressed",
    JobRetryable = "job_retryable",
    JobSnoozed = "job_snoozed",
    JobCompleted = "job_completed",
    JobFailed = "job_failed",
    JobCancelled = "job_cancelled",
    JobCancelRequested = "job_cancel_requested",
    BatchFinished = "batch_finished",
});
text_enum!(ExecutionMode { Any = "any", Cloud = "cloud", Local = "local" });
text_enum!(Captcha { None = "none", Detected = "detected", Resolved = "resolved" });
text_enum!(JobState {
    Scheduled = "scheduled",
    Pending = "pending",
    Running = "running",
    Retryable = "retryable",
    Snoozed = "snoozed",
    Completed = "completed",
    Failed = "failed",
    Cancelled = "cancelled",
});
text_enum!(Role {
    Admin = "admin",
    Operator = "operator",
    Auditor = "auditor",
    Consumer = "consumer",
    Worker = "worker",
    IssuerUi = "issuer_ui",
    User = "user",
});
text_enum!(ClientState {
    Pending = "pending",
    Active = "active",
    Suspended = "suspended",
    Revoked = "revoked",
});
text_enum!(ClientAuthMethod {
    None = "none",
    SecretBasic = "client_secret_basic",
    SecretPost = "client_secret_post",
    PrivateKeyJwt = "private_key_jwt",
});
text_enum!(ClientGrantType {
    AuthorizationCode = "authorization_code",
    RefreshToken = "refresh_token",
    ClientCredentials = "client_credentials",
    DeviceCode = "urn:ietf:params:oauth:grant-type:device_code",
});
text_enum!(ClientResponseType { Code = "code" });
text_enum!(OauthErrorCode {
    InvalidRequest = "invalid_request",
    InvalidClient = "invalid_client",
    InvalidGrant = "invalid_grant",
    UnauthorizedClient = "unauthorized_client",
    UnsupportedGrantType = "unsupported_grant_type",
    UnsupportedResponseType = "unsupported_response_type",
    InvalidScope = "invalid_scope",
    AccessDenied = "access_denied",
    ServerError = "server_error",
    TemporarilyUnavailable = "temporarily_unavailable",
    InvalidTarget = "invalid_target",
    InvalidToken = "invalid_token",
    InsufficientScope = "insufficient_scope",
    InvalidDpopProof = "invalid_dpop_proof",
    UseDpopNonce = "use_dpop_nonce",
    AuthorizationPending = "authorization_pending",
    SlowDown = "slow_down",
    ExpiredToken = "expired_token",
    LoginRequired = "login_required",
    RequestNotSupported = "request_not_supported",
    InvalidRequestUri = "invalid_request_uri",
});
text_enum!(RequestState {
    Pushed = "pushed",
    Pending = "pending",
    SignedIn = "signed_in",
    Accepted = "accepted",
    Rejected = "rejected",
    Finished = "finished",
});
text_enum!(IssuedTokenKind { Access = "access", Refresh = "refresh" });
text_enum!(TokenFormat { Opaque = "opaque", Jwt = "jwt" });
text_enum!(DeviceState {
    Pending = "pending",
    Accepted = "accepted",
    Rejected = "rejected",
    Finished = "finished",
});
text_enum!(UserState { Active = "active", Inactive = "inactive" });
text_enum!(SignInMethod { Password = "password", Provider = "provider" });
text_enum!(ActorKind {
    ApiKey = "api_key",
    User = "user",
    Certificate = "certificate",
    Jwt = "jwt",
    Browser = "browser",
    Anonymous = "anonymous",
    System = "system",
    CommandLine = "command_line",
    Client = "client",
});
