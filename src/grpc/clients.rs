//! OAuth clients on the wire.

mod wire;

use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::caller::principal;
use super::client_registry::{ClientRegistryService, version};
use super::convert::{shown, timestamp};
use super::fields::{self, Fields};
use super::page::Page;
use crate::error::Error;
use crate::model::IdKind;
use crate::pb;
use crate::registry::{MAX_SECRET_OVERLAP, RegisteredClient, Registry, Rotation};

type Answer<T> = Result<Response<T>, Status>;

pub(super) async fn create(
    service: &ClientRegistryService,
    request: Request<pb::CreateClientRequest>,
) -> Answer<pb::CreateClientResponse> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let message = request.encode_to_vec();
    let new = wire::new_client(request)?;
    let registry = Arc::clone(&service.registry);
    let issued = service
        .tasks
        .run(async move { registry.create_client(&caller, &new, &message).await })
        .await?;
    Ok(Response::new(pb::CreateClientResponse {
        client: Some(wire::client(&issued.registered)),
        client_secret: shown(issued.client_secret.as_ref()),
        webhook_secret: shown(issued.webhook_secret.as_ref()),
    }))
}

pub(super) async fn get(
    service: &ClientRegistryService,
    request: Request<pb::GetClientRequest>,
) -> Answer<pb::GetClientResponse> {
    let caller = principal(&request)?;
    let id = request.into_inner().client_id;
    let mut fields = Fields::new();
    fields.id("client_id", &id, IdKind::Client);
    fields.finish()?;
    let registry = Arc::clone(&service.registry);
    let found = service
        .tasks
        .run(async move { registry.get_client(&caller, &id).await })
        .await?;
    let client = Some(wire::client(&found));
    Ok(Response::new(pb::GetClientResponse { client }))
}

pub(super) async fn list(
    service: &ClientRegistryService,
    request: Request<pb::ListClientsRequest>,
) -> Answer<pb::ListClientsResponse> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let state = wire::from_state(&mut fields, "state", request.state);
    fields.finish()?;
    let bound_to = ("clients", request.state);
    let page = Page::of(request.page_size, &request.page_token, bound_to)?;
    let registry = Arc::clone(&service.registry);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = service
        .tasks
        .run(async move { registry.list_clients(&caller, state, &after, limit).await })
        .await?;
    let next_page_token = page.cut(&mut found, |it| it.client.id.clone());
    Ok(Response::new(pb::ListClientsResponse {
        clients: found.iter().map(wire::client).collect(),
        next_page_token,
    }))
}

pub(super) async fn update(
    service: &ClientRegistryService,
    request: Request<pb::UpdateClientRequest>,
) -> Answer<pb::UpdateClientResponse> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.check(request.client.is_some(), "client", "is required");
    let client = request.client.unwrap_or_default();
    fields.id("client.id", &client.id, IdKind::Client);
    let version = version(&mut fields, "client.etag", &client.etag);
    let id = client.id.clone();
    let changes = wire::changes(&mut fields, client, request.update_mask);
    fields.finish()?;
    let registry = Arc::clone(&service.registry);
    let issued = service
        .tasks
        .run(async move {
            registry
                .update_client(&caller, &id, &changes, version)
                .await
        })
        .await?;
    Ok(Response::new(pb::UpdateClientResponse {
        client: Some(wire::client(&issued.registered)),
        webhook_secret: shown(issued.webhook_secret.as_ref()),
    }))
}

pub(super) async fn delete(
    service: &ClientRegistryService,
    request: Request<pb::DeleteClientRequest>,
) -> Answer<pb::DeleteClientResponse> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let id = request.client_id;
    let mut fields = Fields::new();
    fields.id("client_id", &id, IdKind::Client);
    let version = version(&mut fields, "etag", &request.etag);
    fields.finish()?;
    let registry = Arc::clone(&service.registry);
    service
        .tasks
        .run(async move { registry.delete_client(&caller, &id, version).await })
        .await?;
    Ok(Response::new(pb::DeleteClientResponse {}))
}

pub(super) async fn rotate_secret(
    service: &ClientRegistryService,
    request: Request<pb::RotateClientSecretRequest>,
) -> Answer<pb::RotateClientSecretResponse> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let message = request.encode_to_vec();
    let mut fields = Fields::new();
    fields.id("client_id", &request.client_id, IdKind::Client);
    let rotation = Rotation {
        overlap: fields.duration("overlap", request.overlap, MAX_SECRET_OVERLAP),
        lifetime: wire::secret_lifetime(&mut fields, request.secret_lifetime),
        request_id: request.request_id,
    };
    fields.request_id(&rotation.request_id);
    fields.finish()?;
    let (registry, id) = (Arc::clone(&service.registry), request.client_id);
    let issued = service
        .tasks
        .run(async move {
            registry
                .rotate_client_secret(&caller, &id, &rotation, &message)
                .await
        })
        .await?;
    Ok(Response::new(pb::RotateClientSecretResponse {
        client: Some(wire::client(&issued.registered)),
        client_secret: shown(issued.client_secret.as_ref()),
    }))
}

/// A step of a client from one state to another, as it is asked for.
struct Step {
    client_id: String,
    reason: String,
    needs_reason: bool,
    etag: String,
}

/// Judges a step, and has the registry take it; the client as it is then.
async fn moved<F>(
    service: &ClientRegistryService,
    step: Step,
    take: impl FnOnce(Arc<Registry>, Step, Option<i64>) -> F,
) -> Result<Option<pb::Client>, Status>
where
    F: Future<Output = Result<RegisteredClient, Error>> + Send + 'static,
{
    let mut fields = Fields::new();
    fields.id("client_id", &step.client_id, IdKind::Client);
    let given = !step.needs_reason || !step.reason.is_empty();
    fields.check(given, "reason", "is required");
    fields.text("reason", &step.reason, fields::NAME_MAX);
    let version = version(&mut fields, "etag", &step.etag);
    fields.finish()?;
    let registry = Arc::clone(&service.registry);
    let moved = service.tasks.run(take(registry, step, version)).await?;
    Ok(Some(wire::client(&moved)))
}

pub(super) async fn approve(
    service: &ClientRegistryService,
    request: Request<pb::ApproveClientRequest>,
) -> Answer<pb::ApproveClientResponse> {
    let caller = principal(&request)?;
    let pb::ApproveClientRequest {
        client_id,
        reason,
        etag,
    } = request.into_inner();
    let step = Step {
        client_id,
        reason,
        needs_reason: false,
        etag,
    };
    let client = moved(service, step, |registry, step, version| async move {
        registry
            .approve_client(&caller, &step.client_id, &step.reason, version)
            .await
    });
    let client = client.await?;
    Ok(Response::new(pb::ApproveClientResponse { client }))
}

pub(super) async fn suspend(
    service: &ClientRegistryService,
    request: Request<pb::SuspendClientRequest>,
) -> Answer<pb::SuspendClientResponse> {
    let caller = principal(&request)?;
    let pb::SuspendClientRequest { client_id, reason } = request.into_inner();
    let step = Step {
        client_id,
        reason,
        needs_reason: true,
        etag: String::new(),
    };
    let client = moved(service, step, |registry, step, _| async move {
        registry
            .suspend_client(&caller, &step.client_id, &step.reason)
            .await
    });
    let client = client.await?;
    Ok(Response::new(pb::SuspendClientResponse { client }))
}

pub(super) async fn reactivate(
    service: &ClientRegistryService,
    request: Request<pb::ReactivateClientRequest>,
) -> Answer<pb::ReactivateClientResponse> {
    let caller = principal(&request)?;
    let pb::ReactivateClientRequest { client_id, reason } = request.into_inner();
    let step = Step {
        client_id,
        reason,
        needs_reason: false,
        etag: String::new(),
    };
    let client = moved(service, step, |registry, step, _| async move {
        registry
            .reactivate_client(&caller, &step.client_id, &step.reason)
            .await
    });
    let client = client.await?;
    Ok(Response::new(pb::ReactivateClientResponse { client }))
}

pub(super) async fn revoke(
    service: &ClientRegistryService,
    request: Request<pb::RevokeClientRequest>,
) -> Answer<pb::RevokeClientResponse> {
    let caller = principal(&request)?;
    let pb::RevokeClientRequest { client_id, reason } = request.into_inner();
    let step = Step {
        client_id,
        reason,
        needs_reason: true,
        etag: String::new(),
    };
    let client = moved(service, step, |registry, step, _| async move {
        registry
            .revoke_client(&caller, &step.client_id, &step.reason)
            .await
    });
    let client = client.await?;
    Ok(Response::new(pb::RevokeClientResponse { client }))
}

pub(super) async fn stats(
    service: &ClientRegistryService,
    request: Request<pb::GetClientStatsRequest>,
) -> Answer<pb::GetClientStatsResponse> {
    let caller = principal(&request)?;
    let client_id = request.into_inner().client_id;
    let mut fields = Fields::new();
    fields.id("client_id", &client_id, IdKind::Client);
    fields.finish()?;
    let (registry, id) = (Arc::clone(&service.registry), client_id.clone());
    let usage = service
        .tasks
        .run(async move { registry.client_usage(&caller, &id).await })
        .await?;
    Ok(Response::new(pb::GetClientStatsResponse {
        stats: Some(pb::ClientStats {
            client_id,
            authorization_count: usage.authorizations,
            token_count: usage.tokens,
            last_use_time: usage.last_used_at.map(timestamp),
            unique_user_count: usage.unique_users,
        }),
    }))
}
