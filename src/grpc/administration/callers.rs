//! Who calls, on the wire.

use tonic::{Request, Response, Status};

use super::{Context, convert};
use crate::access::Permission;
use crate::grpc::caller::principal;
use crate::grpc::convert::timestamp;
use crate::pb;

pub(super) async fn get(
    _context: &Context,
    request: Request<pb::GetCallerRequest>,
) -> Result<Response<pb::GetCallerResponse>, Status> {
    let caller = principal(&request)?;
    // What the role gives, and what a single permission of the key adds.
    let held = Permission::ALL.into_iter().filter(|it| caller.may(*it));
    Ok(Response::new(pb::GetCallerResponse {
        caller_id: caller.id.clone(),
        name: caller.name.clone(),
        credential_kind: convert::credential_kind(&caller.credential).into(),
        tenant: caller.tenant.clone(),
        role: convert::role(caller.role).into(),
        constraints: Some(convert::constraints(&caller.constraints)),
        permissions: held.map(|it| it.name().to_owned()).collect(),
        expire_time: caller.expires_at.map(timestamp),
        session_id: caller.session_id().unwrap_or_default().to_owned(),
    }))
}
