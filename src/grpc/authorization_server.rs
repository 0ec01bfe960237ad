//! The AuthorizationServer service: every RPC, and where it is handled.

mod credentials;
mod grants;
mod requests;
mod tokens;

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::caller::principal;
use crate::access::{Caller, Permission};
use crate::issuer::Issuer;
use crate::pb::{self, authorization_server_server::AuthorizationServer};
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
pub struct AuthorizationServerService {
    /// What it is the edge of.
    pub issuer: Arc<Issuer>,
    /// Where work runs that outlives its caller.
    pub tasks: Tasks,
}

impl AuthorizationServerService {
    /// The edge of this issuer; its work runs on `tasks`.
    pub fn new(issuer: Arc<Issuer>, tasks: Tasks) -> Self {
        Self { issuer, tasks }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Delegates each RPC to its handler.
macro_rules! rpcs {
    ($($rpc:ident($request:ident) -> $response:ident = $handler:path;)+) => {
        #[tonic::async_trait]
        impl AuthorizationServer for AuthorizationServerService {
            $(async fn $rpc(&self, request: Request<pb::$request>) -> Answer<pb::$response> {
                $handler(self, request).await
            })+
        }
    };
}

rpcs! {
    get_server_metadata(GetServerMetadataRequest) -> GetServerMetadataResponse = requests::metadata;
    get_authorization_request(GetAuthorizationRequestRequest) -> GetAuthorizationRequestResponse = requests::get;
    accept_authorization_request(AcceptAuthorizationRequestRequest) -> AcceptAuthorizationRequestResponse = requests::accept;
    reject_authorization_request(RejectAuthorizationRequestRequest) -> RejectAuthorizationRequestResponse = requests::reject;
    exchange_token(ExchangeTokenRequest) -> ExchangeTokenResponse = tokens::exchange;
    start_device_authorization(StartDeviceAuthorizationRequest) -> StartDeviceAuthorizationResponse = tokens::start_device;
    introspect_token(IntrospectTokenRequest) -> IntrospectTokenResponse = tokens::introspect;
    revoke_token(RevokeTokenRequest) -> RevokeTokenResponse = tokens::revoke;
    get_user_info(GetUserInfoRequest) -> GetUserInfoResponse = tokens::user_info;
    list_issued_tokens(ListIssuedTokensRequest) -> ListIssuedTokensResponse = grants::list_tokens;
    list_grants(ListGrantsRequest) -> ListGrantsResponse = grants::list;
    revoke_grant(RevokeGrantRequest) -> RevokeGrantResponse = grants::revoke;
}

/// Who calls for what concerns the whole tenant: nobody who is held to a part of it.
fn unconstrained<T>(request: &Request<T>, permission: Permission) -> Result<Caller, Status> {
    let caller = principal(request)?;
    caller.require_unconstrained(permission)?;
    Ok(caller)
}
