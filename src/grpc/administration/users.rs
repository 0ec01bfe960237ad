//! Users on the wire.

use tonic::{Request, Response, Status};

use super::Context;
use crate::pb;

pub(super) async fn create(
    _context: &Context,
    _request: Request<pb::CreateUserRequest>,
) -> Result<Response<pb::CreateUserResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn get(
    _context: &Context,
    _request: Request<pb::GetUserRequest>,
) -> Result<Response<pb::GetUserResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn list(
    _context: &Context,
    _request: Request<pb::ListUsersRequest>,
) -> Result<Response<pb::ListUsersResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn update(
    _context: &Context,
    _request: Request<pb::UpdateUserRequest>,
) -> Result<Response<pb::UpdateUserResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn deactivate(
    _context: &Context,
    _request: Request<pb::DeactivateUserRequest>,
) -> Result<Response<pb::DeactivateUserResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn reactivate(
    _context: &Context,
    _request: Request<pb::ReactivateUserRequest>,
) -> Result<Response<pb::ReactivateUserResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn delete(
    _context: &Context,
    _request: Request<pb::DeleteUserRequest>,
) -> Result<Response<pb::DeleteUserResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn set_password(
    _context: &Context,
    _request: Request<pb::SetPasswordRequest>,
) -> Result<Response<pb::SetPasswordResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn get_preferences(
    _context: &Context,
    _request: Request<pb::GetPreferencesRequest>,
) -> Result<Response<pb::GetPreferencesResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn update_preferences(
    _context: &Context,
    _request: Request<pb::UpdatePreferencesRequest>,
) -> Result<Response<pb::UpdatePreferencesResponse>, Status> {
    Err(Status::unimplemented("soon"))
}
