//! API keys on the wire.

use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{Context, convert};
use crate::access::api_keys::{DEFAULT_OVERLAP, MAX_OVERLAP, NewApiKey};
use crate::grpc::caller::principal;
use crate::grpc::convert::shown;
use crate::grpc::fields::Fields;
use crate::grpc::page::Page;
use crate::model::{IdKind, Role};
use crate::pb;

/// Longest name, in characters.
const NAME_MAX: usize = 128;

/// Longest life that can be asked for: ten years.
const LIFE_MAX: Duration = Duration::from_secs(3_650 * 24 * 60 * 60);

pub(super) async fn create(
    context: &Context,
    request: Request<pb::CreateApiKeyRequest>,
) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let message = request.encode_to_vec();
    let mut fields = Fields::new();
    fields.required("name", &request.name, NAME_MAX);
    let role = convert::from_role(&mut fields, "role", request.role);
    if pb::Role::try_from(request.role).is_ok() {
        fields.check(role.is_some(), "role", "is required");
    }
    fields.check(
        role != Some(Role::User),
        "role",
        "is for users only, who sign in",
    );
    let constraints = convert::from_constraints(&mut fields, "constraints", request.constraints);
    let rate_limit = convert::from_rate_limit(&mut fields, "rate_limit", request.rate_limit);
    let life = fields.duration("expires_in", request.expires_in, LIFE_MAX);
    fields.check(
        life.is_none_or(|life| !life.is_zero()),
        "expires_in",
        "must be longer than 0; leave it out for a key that never ends",
    );
    fields.request_id(&request.request_id);
    fields.finish()?;
    let new = NewApiKey {
        tenant: caller.tenant.clone(),
        name: request.name,
        role: role.unwrap_or(Role::Auditor),
        constraints,
        rate_limit,
        created_by: caller.id.clone(),
        expires_at: life.map(|life| context.clock.now().plus(life)),
    };
    let (keys, request_id) = (Arc::clone(&context.keys), request.request_id);
    let issued = context
        .tasks
        .run(async move { keys.issue(&caller, new, &request_id, &message).await })
        .await?;
    Ok(Response::new(pb::CreateApiKeyResponse {
        api_key: Some(convert::api_key(&issued.key, context.clock.now())),
        secret: shown(&issued.secret),
    }))
}

pub(super) async fn list(
    context: &Context,
    request: Request<pb::ListApiKeysRequest>,
) -> Result<Response<pb::ListApiKeysResponse>, Status> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let bound_to = ("api keys", &caller.tenant, request.show_ended);
    let page = Page::of(request.page_size, &request.page_token, bound_to)?;
    let keys = Arc::clone(&context.keys);
    let (after, size, show_ended) = (page.after.clone(), page.size, request.show_ended);
    let listed = context
        .tasks
        .run(async move { keys.page(&caller, show_ended, &after, size).await })
        .await?;
    let now = context.clock.now();
    let api_keys = listed.keys.iter();
    Ok(Response::new(pb::ListApiKeysResponse {
        api_keys: api_keys.map(|key| convert::api_key(key, now)).collect(),
        next_page_token: listed.next.map_or_else(String::new, |key| page.token(&key)),
    }))
}

pub(super) async fn revoke(
    context: &Context,
    request: Request<pb::RevokeApiKeyRequest>,
) -> Result<Response<pb::RevokeApiKeyResponse>, Status> {
    let caller = principal(&request)?;
    let id = request.into_inner().api_key_id;
    let mut fields = Fields::new();
    fields.id("api_key_id", &id, IdKind::ApiKey);
    fields.finish()?;
    let keys = Arc::clone(&context.keys);
    let key = context
        .tasks
        .run(async move { keys.revoke_own(&caller, &id).await })
        .await?;
    Ok(Response::new(pb::RevokeApiKeyResponse {
        api_key: Some(convert::api_key(&key, context.clock.now())),
    }))
}

pub(super) async fn rotate(
    context: &Context,
    request: Request<pb::RotateApiKeyRequest>,
) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let message = request.encode_to_vec();
    let mut fields = Fields::new();
    fields.id("api_key_id", &request.api_key_id, IdKind::ApiKey);
    let overlap = fields.duration("overlap", request.overlap, MAX_OVERLAP);
    fields.request_id(&request.request_id);
    fields.finish()?;
    let overlap = overlap.unwrap_or(DEFAULT_OVERLAP);
    let keys = Arc::clone(&context.keys);
    let issued = context
        .tasks
        .run(async move {
            let pb::RotateApiKeyRequest {
                api_key_id,
                request_id,
                ..
            } = request;
            keys.rotate(&caller, &api_key_id, overlap, &request_id, &message)
                .await
        })
        .await?;
    Ok(Response::new(pb::RotateApiKeyResponse {
        api_key: Some(convert::api_key(&issued.key, context.clock.now())),
        secret: shown(&issued.secret),
    }))
}
