//! Generated from the protos: messages, servers and clients.
#![allow(missing_docs, clippy::all, clippy::indexing_slicing)]

pub mod json;

tonic::include_proto!("tokenbroker.v1");

/// Every proto of the service, for reflection and for tests that go through all RPCs.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

macro_rules! redacted {
    ($($message:ident),+ $(,)?) => {
        $(impl std::fmt::Debug for $message {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        })+
    };
}

redacted!(
    AccessToken,
    AccountCredentials,
    AuthorizationCodeGrant,
    ClaimJobsResponse,
    ClaimedJob,
    ClientCredentials,
    CompleteAuthorizationRequest,
    ConfirmAuthorizationRequest,
    ConnectedAccount,
    CreateAccountRequest,
    CreateApiKeyResponse,
    CreateAppRequest,
    CreateClientResponse,
    CreateJobResponse,
    CreateSessionRequest,
    CreateSessionResponse,
    CreateUserRequest,
    DeviceCodeGrant,
    DpopProof,
    ExchangeTokenRequest,
    ExchangeTokenResponse,
    ExportPersonResponse,
    GetJobCredentialsResponse,
    GetUserInfoRequest,
    ImportedApiKey,
    ImportedOAuth1,
    ImportedOAuth2,
    IntrospectTokenRequest,
    PasswordCredentials,
    ProviderCredentials,
    RefreshSessionRequest,
    RefreshSessionResponse,
    RefreshTokenGrant,
    RetryJobResponse,
    RevokeTokenRequest,
    RotateApiKeyResponse,
    RotateAppSecretRequest,
    RotateClientSecretResponse,
    SetCredentialsRequest,
    SetPasswordRequest,
    StartAuthorizationResponse,
    StartDeviceAuthorizationRequest,
    StartDeviceAuthorizationResponse,
    StartSignInResponse,
    UpdateClientResponse,
);
