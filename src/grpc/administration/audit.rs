//! The audit trail on the wire.

use tonic::{Request, Response, Status};

use super::Context;
use crate::pb;

pub(super) async fn list(
    _context: &Context,
    _request: Request<pb::ListAuditEventsRequest>,
) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn verify(
    _context: &Context,
    _request: Request<pb::VerifyAuditLogRequest>,
) -> Result<Response<pb::VerifyAuditLogResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn list_checkpoints(
    _context: &Context,
    _request: Request<pb::ListAuditCheckpointsRequest>,
) -> Result<Response<pb::ListAuditCheckpointsResponse>, Status> {
    Err(Status::unimplemented("soon"))
}

pub(super) async fn watch(
    _context: &Context,
    _request: Request<pb::WatchAuditEventsRequest>,
) -> Result<Response<super::Watching>, Status> {
    Err(Status::unimplemented("soon"))
}
