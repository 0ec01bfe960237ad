//! API keys on the wire.

use tonic::{Request, Response, Status};

use super::Context;
use crate::pb;

pub(super) async fn create(
    _context: &Context,
    _request: Request<pb::CreateApiKeyRequest>,
) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn list(
    _context: &Context,
    _request: Request<pb::ListApiKeysRequest>,
) -> Result<Response<pb::ListApiKeysResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn revoke(
    _context: &Context,
    _request: Request<pb::RevokeApiKeyRequest>,
) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn rotate(
    _context: &Context,
    _request: Request<pb::RotateApiKeyRequest>,
) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
    Err(Status::unimplemented("soon"))
}
