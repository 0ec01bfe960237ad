//! The ClientRegistry service: requests are judged field by field, handed to the registry, and its
//! answers put on the wire. What is about OAuth clients is in `clients`.

use std::sync::Arc;

use secrecy::SecretString;
use tonic::{Request, Response, Status};

use super::caller::principal;
use super::clients;
use super::convert::{from_etag, from_structure};
use super::fields::Fields;
use super::page::Page;
use super::registry_convert::{self as wire, APP_NAME_MAX, CLIENT_SECRET_MAX, PROVIDER_MAX};
use crate::error::Error;
use crate::model::{App, IdKind};
use crate::pb;
use crate::pb::client_registry_server::ClientRegistry;
use crate::registry::{MAX_OVERLAP, Registry};
use crate::tasks::Tasks;

/// Longest etag, in characters.
const ETAG_MAX: usize = 32;

/// ClientRegistry over gRPC.
#[derive(Clone)]
pub struct ClientRegistryService {
    /// What it is the edge of.
    pub registry: Arc<Registry>,
    /// Where its work runs to its end.
    pub tasks: Tasks,
}

impl ClientRegistryService {
    /// The edge of this registry; its work runs on `tasks`.
    pub fn new(registry: Arc<Registry>, tasks: Tasks) -> Self {
        Self { registry, tasks }
    }

    fn wire(&self, app: &App) -> Option<pb::App> {
        Some(wire::app(app, self.registry.callback_url(&app.id)))
    }
}

#[tonic::async_trait]
impl ClientRegistry for ClientRegistryService {
    async fn list_providers(
        &self,
        request: Request<pb::ListProvidersRequest>,
    ) -> Result<Response<pb::ListProvidersResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let page = Page::of(request.page_size, &request.page_token, "providers")?;
        let (registry, after, limit) = (self.registry.clone(), page.after.clone(), page.size + 1);
        let mut entries = self
            .tasks
            .run(async move { registry.list_providers(&caller, &after, limit).await })
            .await?;
        let next_page_token = page.cut(&mut entries, |entry| entry.definition().id.clone());
        let providers: Result<Vec<_>, Error> = entries.iter().map(wire::provider).collect();
        Ok(Response::new(pb::ListProvidersResponse {
            providers: providers?,
            next_page_token,
        }))
    }

    async fn get_provider(
        &self,
        request: Request<pb::GetProviderRequest>,
    ) -> Result<Response<pb::GetProviderResponse>, Status> {
        let caller = principal(&request)?;
        let id = request.into_inner().provider_id;
        let mut fields = Fields::new();
        fields.required("provider_id", &id, PROVIDER_MAX);
        fields.finish()?;
        let registry = self.registry.clone();
        let entry = self
            .tasks
            .run(async move { registry.get_provider(&caller, &id).await })
            .await?;
        Ok(Response::new(pb::GetProviderResponse {
            provider: Some(wire::provider(&entry)?),
        }))
    }

    async fn create_provider(
        &self,
        request: Request<pb::CreateProviderRequest>,
    ) -> Result<Response<pb::CreateProviderResponse>, Status> {
        let caller = principal(&request)?;
        let new = wire::new_provider(request.into_inner())?;
        let registry = self.registry.clone();
        let entry = self
            .tasks
            .run(async move { registry.create_provider(&caller, new).await })
            .await?;
        Ok(Response::new(pb::CreateProviderResponse {
            provider: Some(wire::provider(&entry)?),
        }))
    }

    async fn update_provider(
        &self,
        request: Request<pb::UpdateProviderRequest>,
    ) -> Result<Response<pb::UpdateProviderResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = request.provider_id;
        fields.required("provider_id", &id, PROVIDER_MAX);
        fields.check(request.definition.is_some(), "definition", "is required");
        let definition = request.definition.unwrap_or_default();
        wire::definition_size(&mut fields, &definition);
        let version = version(&mut fields, "etag", &request.etag);
        fields.finish()?;
        let definition = from_structure(definition);
        let registry = self.registry.clone();
        let entry = self
            .tasks
            .run(async move {
                registry
                    .update_provider(&caller, &id, &definition, version)
                    .await
            })
            .await?;
        Ok(Response::new(pb::UpdateProviderResponse {
            provider: Some(wire::provider(&entry)?),
        }))
    }

    async fn delete_provider(
        &self,
        request: Request<pb::DeleteProviderRequest>,
    ) -> Result<Response<pb::DeleteProviderResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let id = request.provider_id;
        fields.required("provider_id", &id, PROVIDER_MAX);
        let version = version(&mut fields, "etag", &request.etag);
        fields.finish()?;
        let registry = self.registry.clone();
        self.tasks
            .run(async move { registry.delete_provider(&caller, &id, version).await })
            .await?;
        Ok(Response::new(pb::DeleteProviderResponse {}))
    }

    async fn create_app(
        &self,
        request: Request<pb::CreateAppRequest>,
    ) -> Result<Response<pb::CreateAppResponse>, Status> {
        let caller = principal(&request)?;
        let new = wire::new_app(request.into_inner())?;
        let registry = self.registry.clone();
        let app = self
            .tasks
            .run(async move { registry.create_app(&caller, new).await })
            .await?;
        let app = self.wire(&app);
        Ok(Response::new(pb::CreateAppResponse { app }))
    }

    async fn get_app(
        &self,
        request: Request<pb::GetAppRequest>,
    ) -> Result<Response<pb::GetAppResponse>, Status> {
        let caller = principal(&request)?;
        let name = request.into_inner().app;
        let mut fields = Fields::new();
        fields.required("app", &name, APP_NAME_MAX);
        fields.finish()?;
        let registry = self.registry.clone();
        let app = self
            .tasks
            .run(async move { registry.get_app(&caller, &name).await })
            .await?;
        let app = self.wire(&app);
        Ok(Response::new(pb::GetAppResponse { app }))
    }

    async fn list_apps(
        &self,
        request: Request<pb::ListAppsRequest>,
    ) -> Result<Response<pb::ListAppsResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let provider = request.provider;
        fields.text("provider", &provider, PROVIDER_MAX);
        fields.finish()?;
        let page = Page::of(request.page_size, &request.page_token, ("apps", &provider))?;
        let (registry, after, limit) = (self.registry.clone(), page.after.clone(), page.size + 1);
        let mut apps = self
            .tasks
            .run(async move {
                let provider = Some(provider.as_str()).filter(|provider| !provider.is_empty());
                registry.list_apps(&caller, provider, &after, limit).await
            })
            .await?;
        let next_page_token = page.cut(&mut apps, |app| app.id.clone());
        Ok(Response::new(pb::ListAppsResponse {
            apps: apps.iter().filter_map(|app| self.wire(app)).collect(),
            next_page_token,
        }))
    }

    async fn update_app(
        &self,
        request: Request<pb::UpdateAppRequest>,
    ) -> Result<Response<pb::UpdateAppResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        fields.check(request.app.is_some(), "app", "is required");
        let app = request.app.unwrap_or_default();
        fields.id("app.id", &app.id, IdKind::App);
        let version = version(&mut fields, "app.etag", &app.etag);
        let id = app.id.clone();
        let changes = together(fields, wire::changes(app, request.update_mask))?;
        let registry = self.registry.clone();
        let app = self
            .tasks
            .run(async move { registry.update_app(&caller, &id, &changes, version).await })
            .await?;
        let app = self.wire(&app);
        Ok(Response::new(pb::UpdateAppResponse { app }))
    }

    async fn delete_app(
        &self,
        request: Request<pb::DeleteAppRequest>,
    ) -> Result<Response<pb::DeleteAppResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let name = request.app;
        fields.required("app", &name, APP_NAME_MAX);
        let version = version(&mut fields, "etag", &request.etag);
        fields.finish()?;
        let registry = self.registry.clone();
        self.tasks
            .run(async move { registry.delete_app(&caller, &name, version).await })
            .await?;
        Ok(Response::new(pb::DeleteAppResponse {}))
    }

    async fn rotate_app_secret(
        &self,
        request: Request<pb::RotateAppSecretRequest>,
    ) -> Result<Response<pb::RotateAppSecretResponse>, Status> {
        let caller = principal(&request)?;
        let request = request.into_inner();
        let mut fields = Fields::new();
        let name = request.app;
        fields.required("app", &name, APP_NAME_MAX);
        fields.secret("client_secret", &request.client_secret, CLIENT_SECRET_MAX);
        let secret = SecretString::from(request.client_secret);
        let overlap = fields.duration("overlap", request.overlap, MAX_OVERLAP);
        fields.finish()?;
        let registry = self.registry.clone();
        let app = self
            .tasks
            .run(async move {
                registry
                    .rotate_app_secret(&caller, &name, &secret, overlap)
                    .await
            })
            .await?;
        let app = self.wire(&app);
        Ok(Response::new(pb::RotateAppSecretResponse { app }))
    }

    async fn create_client(
        &self,
        request: Request<pb::CreateClientRequest>,
    ) -> Result<Response<pb::CreateClientResponse>, Status> {
        clients::create(self, request).await
    }

    async fn get_client(
        &self,
        request: Request<pb::GetClientRequest>,
    ) -> Result<Response<pb::GetClientResponse>, Status> {
        clients::get(self, request).await
    }

    async fn list_clients(
        &self,
        request: Request<pb::ListClientsRequest>,
    ) -> Result<Response<pb::ListClientsResponse>, Status> {
        clients::list(self, request).await
    }

    async fn update_client(
        &self,
        request: Request<pb::UpdateClientRequest>,
    ) -> Result<Response<pb::UpdateClientResponse>, Status> {
        clients::update(self, request).await
    }

    async fn delete_client(
        &self,
        request: Request<pb::DeleteClientRequest>,
    ) -> Result<Response<pb::DeleteClientResponse>, Status> {
        clients::delete(self, request).await
    }

    async fn approve_client(
        &self,
        request: Request<pb::ApproveClientRequest>,
    ) -> Result<Response<pb::ApproveClientResponse>, Status> {
        clients::approve(self, request).await
    }

    async fn rotate_client_secret(
        &self,
        request: Request<pb::RotateClientSecretRequest>,
    ) -> Result<Response<pb::RotateClientSecretResponse>, Status> {
        clients::rotate_secret(self, request).await
    }

    async fn suspend_client(
        &self,
        request: Request<pb::SuspendClientRequest>,
    ) -> Result<Response<pb::SuspendClientResponse>, Status> {
        clients::suspend(self, request).await
    }

    async fn reactivate_client(
        &self,
        request: Request<pb::ReactivateClientRequest>,
    ) -> Result<Response<pb::ReactivateClientResponse>, Status> {
        clients::reactivate(self, request).await
    }

    async fn revoke_client(
        &self,
        request: Request<pb::RevokeClientRequest>,
    ) -> Result<Response<pb::RevokeClientResponse>, Status> {
        clients::revoke(self, request).await
    }

    async fn get_client_stats(
        &self,
        request: Request<pb::GetClientStatsRequest>,
    ) -> Result<Response<pb::GetClientStatsResponse>, Status> {
        clients::stats(self, request).await
    }
}

/// The version that an etag names, if there is one.
pub(super) fn version(fields: &mut Fields, field: &str, etag: &str) -> Option<i64> {
    match from_etag(etag) {
        Ok(version) if etag.len() <= ETAG_MAX => version,
        _ => {
            fields.check(false, field, "is not an etag that this service gave");
            None
        }
    }
}

/// The faults of both, so that all are told at once.
fn together<T>(fields: Fields, outcome: Result<T, Error>) -> Result<T, Error> {
    match (fields.finish(), outcome) {
        (Err(Error::InvalidArgument(mut faults)), Err(Error::InvalidArgument(more))) => {
            faults.extend(more);
            Err(Error::InvalidArgument(faults))
        }
        (Err(error), _) => Err(error),
        (Ok(()), outcome) => outcome,
    }
}
