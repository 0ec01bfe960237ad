//! Compiles the protos with protox, so that no `protoc` is needed.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const PROTOS: [&str; 5] = [
    "tokenbroker/v1/administration.proto",
    "tokenbroker/v1/authorization_server.proto",
    "tokenbroker/v1/automation_jobs.proto",
    "tokenbroker/v1/client_registry.proto",
    "tokenbroker/v1/token_broker.proto",
];

/// Messages with a secret field: their generated `Debug` would print it. `src/pb.rs` gives them one
/// that does not, and fails to compile when a name is missing there.
const SECRET_MESSAGES: [&str; 45] = [
    "AccessToken",
    "AccountCredentials",
    "AuthorizationCodeGrant",
    "ClaimJobsResponse",
    "ClaimedJob",
    "ClientCredentials",
    "CompleteAuthorizationRequest",
    "ConfirmAuthorizationRequest",
    "ConnectedAccount",
    "CreateAccountRequest",
    "CreateApiKeyResponse",
    "CreateAppRequest",
    "CreateClientResponse",
    "CreateJobResponse",
    "CreateSessionRequest",
    "CreateSessionResponse",
    "CreateUserRequest",
    "DeviceCodeGrant",
    "DpopProof",
    "ExchangeTokenRequest",
    "ExchangeTokenResponse",
    "ExportPersonResponse",
    "GetJobCredentialsResponse",
    "GetUserInfoRequest",
    "ImportedApiKey",
    "ImportedOAuth1",
    "ImportedOAuth2",
    "IntrospectTokenRequest",
    "PasswordCredentials",
    "ProviderCredentials",
    "RefreshSessionRequest",
    "RefreshSessionResponse",
    "RefreshTokenGrant",
    "RetryJobResponse",
    "RevokeTokenRequest",
    "RotateApiKeyResponse",
    "RotateAppSecretRequest",
    "RotateClientSecretResponse",
    "SetCredentialsRequest",
    "SetPasswordRequest",
    "StartAuthorizationResponse",
    "StartDeviceAuthorizationRequest",
    "StartDeviceAuthorizationResponse",
    "StartSignInResponse",
    "UpdateClientResponse",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=migrations");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(SECRET_MESSAGES.map(|name| format!(".tokenbroker.v1.{name}")));
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
