//! The Administration service: every RPC, and where it is handled.

mod api_keys;
mod audit;
mod callers;
mod convert;
mod persons;
mod sessions;
mod users;

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use crate::access::audit::Trail;
use crate::access::{ApiKeys, Callers, Sessions, Users};
use crate::broker::{Authorizations, Persons};
use crate::clock::Clock;
use crate::grpc::streams::Streams;
use crate::pb::{self, administration_server::Administration};
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
pub struct Context {
    /// Whoever calls.
    pub callers: Arc<Callers>,
    /// API keys.
    pub keys: Arc<ApiKeys>,
    /// Users.
    pub users: Arc<Users>,
    /// Sessions.
    pub sessions: Arc<Sessions>,
    /// The audit trail.
    pub trail: Arc<Trail>,
    /// What is held about persons.
    pub persons: Arc<Persons>,
    /// Sign-ins through a provider.
    pub authorizations: Arc<Authorizations>,
    /// Places for streams of audit events.
    pub streams: Streams,
    /// The time.
    pub clock: Clock,
    /// Where work runs that outlives its caller.
    pub tasks: Tasks,
}

type Answer<T> = Result<Response<T>, Status>;

/// What WatchAuditEvents answers with.
type Watching = Pin<Box<dyn Stream<Item = Result<pb::WatchAuditEventsResponse, Status>> + Send>>;

/// Delegates each RPC to its handler.
macro_rules! rpcs {
    ($($rpc:ident($request:ident) -> $response:ident = $handler:path;)+) => {
        #[tonic::async_trait]
        impl Administration for Context {
            type WatchAuditEventsStream = Watching;

            async fn watch_audit_events(
                &self,
                request: Request<pb::WatchAuditEventsRequest>,
            ) -> Answer<Self::WatchAuditEventsStream> {
                audit::watch(self, request).await
            }

            $(async fn $rpc(&self, request: Request<pb::$request>) -> Answer<pb::$response> {
                $handler(self, request).await
            })+
        }
    };
}

rpcs! {
    get_caller(GetCallerRequest) -> GetCallerResponse = callers::get;
    create_user(CreateUserRequest) -> CreateUserResponse = users::create;
    get_user(GetUserRequest) -> GetUserResponse = users::get;
    list_users(ListUsersRequest) -> ListUsersResponse = users::list;
    update_user(UpdateUserRequest) -> UpdateUserResponse = users::update;
    deactivate_user(DeactivateUserRequest) -> DeactivateUserResponse = users::deactivate;
    reactivate_user(ReactivateUserRequest) -> ReactivateUserResponse = users::reactivate;
    delete_user(DeleteUserRequest) -> DeleteUserResponse = users::delete;
    set_password(SetPasswordRequest) -> SetPasswordResponse = users::set_password;
    get_preferences(GetPreferencesRequest) -> GetPreferencesResponse = users::get_preferences;
    update_preferences(UpdatePreferencesRequest) -> UpdatePreferencesResponse = users::update_preferences;
    start_sign_in(StartSignInRequest) -> StartSignInResponse = sessions::start_sign_in;
    create_session(CreateSessionRequest) -> CreateSessionResponse = sessions::create;
    refresh_session(RefreshSessionRequest) -> RefreshSessionResponse = sessions::refresh;
    list_sessions(ListSessionsRequest) -> ListSessionsResponse = sessions::list;
    revoke_session(RevokeSessionRequest) -> RevokeSessionResponse = sessions::revoke;
    revoke_all_sessions(RevokeAllSessionsRequest) -> RevokeAllSessionsResponse = sessions::revoke_all;
    create_api_key(CreateApiKeyRequest) -> CreateApiKeyResponse = api_keys::create;
    list_api_keys(ListApiKeysRequest) -> ListApiKeysResponse = api_keys::list;
    revoke_api_key(RevokeApiKeyRequest) -> RevokeApiKeyResponse = api_keys::revoke;
    rotate_api_key(RotateApiKeyRequest) -> RotateApiKeyResponse = api_keys::rotate;
    list_audit_events(ListAuditEventsRequest) -> ListAuditEventsResponse = audit::list;
    verify_audit_log(VerifyAuditLogRequest) -> VerifyAuditLogResponse = audit::verify;
    list_audit_checkpoints(ListAuditCheckpointsRequest) -> ListAuditCheckpointsResponse = audit::list_checkpoints;
    export_person(ExportPersonRequest) -> ExportPersonResponse = persons::export;
    erase_person(ErasePersonRequest) -> ErasePersonResponse = persons::erase;
}
