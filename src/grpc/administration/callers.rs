//! Who calls, on the wire.

use tonic::{Request, Response, Status};

use super::Context;
use crate::pb;

pub(super) async fn get(
    _context: &Context,
    _request: Request<pb::GetCallerRequest>,
) -> Result<Response<pb::GetCallerResponse>, Status> {
    Err(Status::unimplemented("soon"))
}
