//! Sessions on the wire.

use tonic::{Request, Response, Status};

use super::Context;
use crate::pb;

pub(super) async fn start_sign_in(
    _context: &Context,
    _request: Request<pb::StartSignInRequest>,
) -> Result<Response<pb::StartSignInResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn create(
    _context: &Context,
    _request: Request<pb::CreateSessionRequest>,
) -> Result<Response<pb::CreateSessionResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn refresh(
    _context: &Context,
    _request: Request<pb::RefreshSessionRequest>,
) -> Result<Response<pb::RefreshSessionResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn list(
    _context: &Context,
    _request: Request<pb::ListSessionsRequest>,
) -> Result<Response<pb::ListSessionsResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn revoke(
    _context: &Context,
    _request: Request<pb::RevokeSessionRequest>,
) -> Result<Response<pb::RevokeSessionResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn revoke_all(
    _context: &Context,
    _request: Request<pb::RevokeAllSessionsRequest>,
) -> Result<Response<pb::RevokeAllSessionsResponse>, Status> {
    Err(Status::unimplemented("soon"))
}
