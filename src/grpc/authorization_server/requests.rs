//! Server metadata, and authorisation requests for the operator's own sign-in and consent
//! application.

use std::sync::Arc;

use tonic::{Request, Response};

use super::{Answer, AuthorizationServerService, unconstrained};
use crate::access::Permission;
use crate::grpc::convert::{from_timestamp, timestamp};
use crate::grpc::fields::Fields;
use crate::issuer::{Accepted, ScopeWords, Shown};
use crate::model::{IdKind, RequestState};
use crate::pb;

#[allow(clippy::unused_async, reason = "the RPCs are delegated to in one way")]
pub(super) async fn metadata(
    service: &AuthorizationServerService,
    _: Request<pb::GetServerMetadataRequest>,
) -> Answer<pb::GetServerMetadataResponse> {
    Ok(Response::new(pb::GetServerMetadataResponse {
        metadata: service.issuer.metadata().to_string(),
        jwks: service.issuer.jwks().to_string(),
    }))
}

pub(super) async fn get(
    service: &AuthorizationServerService,
    request: Request<pb::GetAuthorizationRequestRequest>,
) -> Answer<pb::GetAuthorizationRequestResponse> {
    let caller = unconstrained(&request, Permission::DriveAuthorizations)?;
    let id = request.into_inner().id;
    let mut fields = Fields::new();
    fields.id("id", &id, IdKind::AuthorizationRequest);
    fields.finish()?;
    let issuer = Arc::clone(&service.issuer);
    let shown = service
        .tasks
        .run(async move { issuer.get_request(&caller, &id).await })
        .await?;
    Ok(Response::new(pb::GetAuthorizationRequestResponse {
        authorization_request: Some(authorization_request(shown)),
    }))
}

pub(super) async fn accept(
    service: &AuthorizationServerService,
    request: Request<pb::AcceptAuthorizationRequestRequest>,
) -> Answer<pb::AcceptAuthorizationRequestResponse> {
    let caller = unconstrained(&request, Permission::DriveAuthorizations)?;
    let pb::AcceptAuthorizationRequestRequest {
        id,
        user_id,
        auth_time,
        scopes,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("id", &id, IdKind::AuthorizationRequest);
    fields.id("user_id", &user_id, IdKind::User);
    fields.scopes("scopes", &scopes);
    let signed_in_at = auth_time.as_ref().and_then(from_timestamp);
    fields.check(
        auth_time.is_some() == signed_in_at.is_some(),
        "auth_time",
        "is no time",
    );
    fields.finish()?;
    let accepted = Accepted {
        user_id,
        auth_time: signed_in_at,
        scopes,
    };
    let issuer = Arc::clone(&service.issuer);
    let url = service
        .tasks
        .run(async move { issuer.accept_request(&caller, &id, accepted).await })
        .await?;
    Ok(Response::new(pb::AcceptAuthorizationRequestResponse {
        redirect_url: url.into(),
    }))
}

pub(super) async fn reject(
    service: &AuthorizationServerService,
    request: Request<pb::RejectAuthorizationRequestRequest>,
) -> Answer<pb::RejectAuthorizationRequestResponse> {
    let caller = unconstrained(&request, Permission::DriveAuthorizations)?;
    let pb::RejectAuthorizationRequestRequest {
        id,
        error,
        error_description,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("id", &id, IdKind::AuthorizationRequest);
    fields.finish()?;
    let issuer = Arc::clone(&service.issuer);
    let url = service
        .tasks
        .run(async move {
            issuer
                .reject_request(&caller, &id, &error, &error_description)
                .await
        })
        .await?;
    Ok(Response::new(pb::RejectAuthorizationRequestResponse {
        redirect_url: url.into(),
    }))
}

fn authorization_request(shown: Shown) -> pb::AuthorizationRequest {
    let Shown {
        request,
        client,
        scopes,
        ..
    } = shown;
    let settings = client.settings;
    pb::AuthorizationRequest {
        id: request.id,
        client_id: request.client_id,
        client_name: settings.name,
        client_description: settings.description,
        client_logo_url: settings.logo_url,
        client_homepage_url: settings.homepage_url,
        client_trusted: settings.trusted,
        scopes: scopes.into_iter().map(described).collect(),
        resources: request.resources,
        redirect_uri: request.redirect_uri,
        login_hint: request.login_hint,
        state: state(request.state).into(),
        user_id: request.user_id.unwrap_or_default(),
        create_time: Some(timestamp(request.created_at)),
        expire_time: Some(timestamp(request.expires_at)),
    }
}

fn described(words: ScopeWords) -> pb::ScopeDescription {
    let ScopeWords { scope, description } = words;
    pb::ScopeDescription { scope, description }
}

const fn state(state: RequestState) -> pb::AuthorizationRequestState {
    match state {
        // A pushed one is shown to nobody before a browser comes with it.
        RequestState::Pushed | RequestState::Pending => pb::AuthorizationRequestState::Pending,
        RequestState::SignedIn => pb::AuthorizationRequestState::SignedIn,
        RequestState::Accepted => pb::AuthorizationRequestState::Accepted,
        RequestState::Rejected => pb::AuthorizationRequestState::Rejected,
        RequestState::Finished => pb::AuthorizationRequestState::Finished,
    }
}
