//! A person's data on the wire.

use tonic::{Request, Response, Status};

use super::Context;
use crate::pb;

pub(super) async fn export(
    _context: &Context,
    _request: Request<pb::ExportPersonRequest>,
) -> Result<Response<pb::ExportPersonResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn erase(
    _context: &Context,
    _request: Request<pb::ErasePersonRequest>,
) -> Result<Response<pb::ErasePersonResponse>, Status> {
    Err(Status::unimplemented("soon"))
}
