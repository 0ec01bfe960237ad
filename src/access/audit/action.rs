//! What can be recorded: a closed catalogue. A name, once released, keeps its meaning for ever.

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A user was made.
    UserCreated,
    /// A user was changed.
    UserUpdated,
    /// A user was switched off.
    UserDeactivated,
    /// A user was switched on again.
    UserReactivated,
    /// A user was deleted, softly.
    UserDeleted,
    /// Retention removed a deleted user.
    UserPurged,
    /// A password was set or taken away.
    UserPasswordSet,
    /// Preferences were changed.
    UserPreferencesUpdated,
    /// A sign-in through a provider was begun.
    SessionSignInStarted,
    /// A user signed in, or failed to.
    SessionCreated,
    /// A session's tokens were exchanged, or a refresh token was refused.
    SessionRefreshed,
    /// Sessions were ended.
    SessionRevoked,
    /// An API key was made.
    ApiKeyCreated,
    /// An API key was given a successor.
    ApiKeyRotated,
    /// An API key was revoked.
    ApiKeyRevoked,
    /// Credentials were refused; counted by minute.
    CallerRefused,
    /// A known caller lacked a permission; counted by minute.
    CallerDenied,
    /// An authorisation was begun.
    AuthorizationStarted,
    /// A browser came back from a provider, or with an error.
    AuthorizationCompleted,
    /// An owner confirmed, or failed to.
    AuthorizationConfirmed,
    /// A connection was made.
    ConnectionCreated,
    /// A connection got new tokens by a new consent.
    ConnectionReconnected,
    /// Tokens obtained elsewhere were imported.
    ConnectionImported,
    /// A connection's settings were changed.
    ConnectionUpdated,
    /// A connection was revoked.
    ConnectionRevoked,
    /// A connection was deleted.
    ConnectionDeleted,
    /// A synchronisation was recorded.
    ConnectionSynced,
    /// Access tokens were handed out; counted by caller, connection and minute unless configured otherwise.
    TokenRead,
    /// An access token was refreshed, or could not be.
    TokenRefreshed,
    /// A caller reported that a provider rejected a token.
    TokenRejected,
    /// An app was registered.
    AppCreated,
    /// An app was changed.
    AppUpdated,
    /// An app was deleted.
    AppDeleted,
    /// An app got a new client secret.
    AppSecretRotated,
    /// A provider was added.
    ProviderCreated,
    /// A provider was changed.
    ProviderUpdated,
    /// A provider was deleted.
    ProviderDeleted,
    /// An OAuth client was registered.
    ClientCreated,
    /// An OAuth client was changed.
    ClientUpdated,
    /// An OAuth client was approved.
    ClientApproved,
    /// An OAuth client was suspended.
    ClientSuspended,
    /// A suspended OAuth client was let in again.
    ClientReactivated,
    /// An OAuth client was revoked, for good.
    ClientRevoked,
    /// An OAuth client was deleted, softly.
    ClientDeleted,
    /// An OAuth client got a new secret.
    ClientSecretRotated,
    /// An OAuth client could not prove who it is.
    ClientAuthenticationFailed,
    /// An OAuth client began the authorisation of a device.
    DeviceStarted,
    /// An OAuth client pushed an authorisation request.
    RequestPushed,
    /// A person signed in to decide on an OAuth client's request, or failed to.
    ConsentSignedIn,
    /// A person agreed to what an OAuth client asked for.
    ConsentGiven,
    /// What an OAuth client asked for was refused.
    ConsentRefused,
    /// An OAuth client was given tokens for a code, a device code or its own credentials.
    IssuedTokens,
    /// An OAuth client was given tokens for a refresh token.
    IssuedRefreshed,
    /// An OAuth client was refused tokens.
    IssuedRefused,
    /// A token that we issued was revoked.
    IssuedTokenRevoked,
    /// What a person gave an OAuth client was revoked, with all its tokens.
    IssuedGrantRevoked,
    /// An automated account was made.
    AccountCreated,
    /// An automated account was changed.
    AccountUpdated,
    /// An automated account was deleted.
    AccountDeleted,
    /// An automated account's credentials were set or taken away.
    AccountCredentialsSet,
    /// A worker was given an automated account's credentials, or was refused them.
    AccountCredentialsRead,
    /// An automated account was marked as connected, or as not.
    AccountConnected,
    /// A browser profile was made.
    ProfileCreated,
    /// A browser profile was changed.
    ProfileUpdated,
    /// A browser profile was deleted.
    ProfileDeleted,
    /// A job was asked for.
    JobCreated,
    /// A job was called off.
    JobCancelled,
    /// A finished job was begun again.
    JobRetried,
    /// A batch of jobs was asked for.
    BatchCreated,
    /// A batch of jobs was called off.
    BatchCancelled,
    /// The failed jobs of a batch were begun again.
    BatchRetried,
    /// Failed jobs were begun again.
    DeadLettersRedriven,
    /// Failed jobs were deleted.
    DeadLettersPurged,
    /// A person's data was exported.
    PersonExported,
    /// A person's data was erased.
    PersonErased,
    /// The trail was listed or watched.
    AuditRead,
    /// The trail was verified.
    AuditVerified,
    /// Retention removed the oldest part of the trail.
    AuditTrimmed,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 78] = [
        Self::UserCreated,
        Self::UserUpdated,
        Self::UserDeactivated,
        Self::UserReactivated,
        Self::UserDeleted,
        Self::UserPurged,
        Self::UserPasswordSet,
        Self::UserPreferencesUpdated,
        Self::SessionSignInStarted,
        Self::SessionCreated,
        Self::SessionRefreshed,
        Self::SessionRevoked,
        Self::ApiKeyCreated,
        Self::ApiKeyRotated,
        Self::ApiKeyRevoked,
        Self::CallerRefused,
        Self::CallerDenied,
        Self::AuthorizationStarted,
        Self::AuthorizationCompleted,
        Self::AuthorizationConfirmed,
        Self::ConnectionCreated,
        Self::ConnectionReconnected,
        Self::ConnectionImported,
        Self::ConnectionUpdated,
        Self::ConnectionRevoked,
        Self::ConnectionDeleted,
        Self::ConnectionSynced,
        Self::TokenRead,
        Self::TokenRefreshed,
        Self::TokenRejected,
        Self::AppCreated,
        Self::AppUpdated,
        Self::AppDeleted,
        Self::AppSecretRotated,
        Self::ProviderCreated,
        Self::ProviderUpdated,
        Self::ProviderDeleted,
        Self::ClientCreated,
        Self::ClientUpdated,
        Self::ClientApproved,
        Self::ClientSuspended,
        Self::ClientReactivated,
        Self::ClientRevoked,
        Self::ClientDeleted,
        Self::ClientSecretRotated,
        Self::ClientAuthenticationFailed,
        Self::DeviceStarted,
        Self::RequestPushed,
        Self::ConsentSignedIn,
        Self::ConsentGiven,
        Self::ConsentRefused,
        Self::IssuedTokens,
        Self::IssuedRefreshed,
        Self::IssuedRefused,
        Self::IssuedTokenRevoked,
        Self::IssuedGrantRevoked,
        Self::AccountCreated,
        Self::AccountUpdated,
        Self::AccountDeleted,
        Self::AccountCredentialsSet,
        Self::AccountCredentialsRead,
        Self::AccountConnected,
        Self::ProfileCreated,
        Self::ProfileUpdated,
        Self::ProfileDeleted,
        Self::JobCreated,
        Self::JobCancelled,
        Self::JobRetried,
        Self::BatchCreated,
        Self::BatchCancelled,
        Self::BatchRetried,
        Self::DeadLettersRedriven,
        Self::DeadLettersPurged,
        Self::PersonExported,
        Self::PersonErased,
        Self::AuditRead,
        Self::AuditVerified,
        Self::AuditTrimmed,
    ];

    /// Its name in the trail.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UserCreated => "user.created",
            Self::UserUpdated => "user.updated",
            Self::UserDeactivated => "user.deactivated",
            Self::UserReactivated => "user.reactivated",
            Self::UserDeleted => "user.deleted",
            Self::UserPurged => "user.purged",
            Self::UserPasswordSet => "user.password_set",
            Self::UserPreferencesUpdated => "user.preferences_updated",
            Self::SessionSignInStarted => "session.sign_in_started",
            Self::SessionCreated => "session.created",
            Self::SessionRefreshed => "session.refreshed",
            Self::SessionRevoked => "session.revoked",
            Self::ApiKeyCreated => "api_key.created",
            Self::ApiKeyRotated => "api_key.rotated",
            Self::ApiKeyRevoked => "api_key.revoked",
            Self::CallerRefused => "caller.refused",
            Self::CallerDenied => "caller.denied",
            Self::AuthorizationStarted => "authorization.started",
            Self::AuthorizationCompleted => "authorization.completed",
            Self::AuthorizationConfirmed => "authorization.confirmed",
            Self::ConnectionCreated => "connection.created",
            Self::ConnectionReconnected => "connection.reconnected",
            Self::ConnectionImported => "connection.imported",
            Self::ConnectionUpdated => "connection.updated",
            Self::ConnectionRevoked => "connection.revoked",
            Self::ConnectionDeleted => "connection.deleted",
            Self::ConnectionSynced => "connection.synced",
            Self::TokenRead => "token.read",
            Self::TokenRefreshed => "token.refreshed",
            Self::TokenRejected => "token.rejected",
            Self::AppCreated => "app.created",
            Self::AppUpdated => "app.updated",
            Self::AppDeleted => "app.deleted",
            Self::AppSecretRotated => "app.secret_rotated",
            Self::ProviderCreated => "provider.created",
            Self::ProviderUpdated => "provider.updated",
            Self::ProviderDeleted => "provider.deleted",
            Self::ClientCreated => "client.created",
            Self::ClientUpdated => "client.updated",
            Self::ClientApproved => "client.approved",
            Self::ClientSuspended => "client.suspended",
            Self::ClientReactivated => "client.reactivated",
            Self::ClientRevoked => "client.revoked",
            Self::ClientDeleted => "client.deleted",
            Self::ClientSecretRotated => "client.secret_rotated",
            Self::ClientAuthenticationFailed => "client.authentication_failed",
            Self::DeviceStarted => "issuer.device_started",
            Self::RequestPushed => "issuer.request_pushed",
            Self::ConsentSignedIn => "issuer.signed_in",
            Self::ConsentGiven => "issuer.consent_given",
            Self::ConsentRefused => "issuer.consent_refused",
            Self::IssuedTokens => "issuer.tokens_issued",
            Self::IssuedRefreshed => "issuer.tokens_refreshed",
            Self::IssuedRefused => "issuer.token_refused",
            Self::IssuedTokenRevoked => "issuer.token_revoked",
            Self::IssuedGrantRevoked => "issuer.grant_revoked",
            Self::AccountCreated => "account.created",
            Self::AccountUpdated => "account.updated",
            Self::AccountDeleted => "account.deleted",
            Self::AccountCredentialsSet => "account.credentials_set",
            Self::AccountCredentialsRead => "account.credentials_read",
            Self::AccountConnected => "account.connected",
            Self::ProfileCreated => "profile.created",
            Self::ProfileUpdated => "profile.updated",
            Self::ProfileDeleted => "profile.deleted",
            Self::JobCreated => "job.created",
            Self::JobCancelled => "job.cancelled",
            Self::JobRetried => "job.retried",
            Self::BatchCreated => "batch.created",
            Self::BatchCancelled => "batch.cancelled",
            Self::BatchRetried => "batch.retried",
            Self::DeadLettersRedriven => "dead_letters.redriven",
            Self::DeadLettersPurged => "dead_letters.purged",
            Self::PersonExported => "person.exported",
            Self::PersonErased => "person.erased",
            Self::AuditRead => "audit.read",
            Self::AuditVerified => "audit.verified",
            Self::AuditTrimmed => "audit.trimmed",
        }
    }
}
