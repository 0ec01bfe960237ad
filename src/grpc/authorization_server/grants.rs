//! What people gave to clients, and which tokens came of it.

use std::sync::Arc;

use tonic::{Request, Response};

use super::{Answer, AuthorizationServerService, unconstrained};
use crate::access::Permission;
use crate::grpc::caller::principal;
use crate::grpc::connections::checked;
use crate::grpc::convert::timestamp;
use crate::grpc::fields::{Fields, NAME_MAX};
use crate::grpc::page::Page;
use crate::issuer::GrantFilter;
use crate::model::{IdKind, IssuedGrant, IssuedToken, IssuedTokenKind, TokenFormat};
use crate::pb;

pub(super) async fn list(
    service: &AuthorizationServerService,
    request: Request<pb::ListGrantsRequest>,
) -> Answer<pb::ListGrantsResponse> {
    let caller = principal(&request)?;
    let pb::ListGrantsRequest {
        page_size,
        page_token,
        user_id,
        client_id,
        show_ended,
    } = request.into_inner();
    let mut fields = Fields::new();
    if !user_id.is_empty() {
        fields.own_or_id("user_id", &user_id);
    }
    if !client_id.is_empty() {
        fields.id("client_id", &client_id, IdKind::Client);
    }
    let bound_to = ("ListGrants", &user_id, &client_id, show_ended);
    let page = Page::of(page_size, &page_token, bound_to);
    let page = checked(fields, page)?;
    let filter = GrantFilter {
        user_id: given(user_id),
        client_id: given(client_id),
        ended: show_ended,
    };
    let issuer = Arc::clone(&service.issuer);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = service
        .tasks
        .run(async move { issuer.list_grants(&caller, &filter, &after, limit).await })
        .await?;
    let next_page_token = page.cut(&mut found, |(grant, _)| grant.id.clone());
    Ok(Response::new(pb::ListGrantsResponse {
        grants: found.into_iter().map(grant).collect(),
        next_page_token,
    }))
}

pub(super) async fn revoke(
    service: &AuthorizationServerService,
    request: Request<pb::RevokeGrantRequest>,
) -> Answer<pb::RevokeGrantResponse> {
    let caller = principal(&request)?;
    let pb::RevokeGrantRequest { grant_id, reason } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("grant_id", &grant_id, IdKind::IssuedGrant);
    fields.text("reason", &reason, NAME_MAX);
    fields.finish()?;
    let issuer = Arc::clone(&service.issuer);
    let revoked = service
        .tasks
        .run(async move { issuer.revoke_grant(&caller, &grant_id, &reason).await })
        .await?;
    Ok(Response::new(pb::RevokeGrantResponse {
        grant: Some(grant(revoked)),
    }))
}

pub(super) async fn list_tokens(
    service: &AuthorizationServerService,
    request: Request<pb::ListIssuedTokensRequest>,
) -> Answer<pb::ListIssuedTokensResponse> {
    let caller = unconstrained(&request, Permission::ReadGrants)?;
    let pb::ListIssuedTokensRequest {
        page_size,
        page_token,
        client_id,
        grant_id,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.check(
        !client_id.is_empty() || !grant_id.is_empty(),
        "client_id",
        "this or `grant_id` is required",
    );
    if !client_id.is_empty() {
        fields.id("client_id", &client_id, IdKind::Client);
    }
    if !grant_id.is_empty() {
        fields.id("grant_id", &grant_id, IdKind::IssuedGrant);
    }
    let bound_to = ("ListIssuedTokens", &client_id, &grant_id);
    let page = Page::of(page_size, &page_token, bound_to);
    let page = checked(fields, page)?;
    let (client_id, grant_id) = (given(client_id), given(grant_id));
    let issuer = Arc::clone(&service.issuer);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = service
        .tasks
        .run(async move {
            let (client_id, grant_id) = (client_id.as_deref(), grant_id.as_deref());
            issuer
                .list_tokens(&caller, client_id, grant_id, &after, limit)
                .await
        })
        .await?;
    let next_page_token = page.cut(&mut found, |token| token.id.clone());
    Ok(Response::new(pb::ListIssuedTokensResponse {
        tokens: found.into_iter().map(token).collect(),
        next_page_token,
    }))
}

fn given(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// A grant, and the name of the client that has it.
fn grant((grant, client_name): (IssuedGrant, String)) -> pb::Grant {
    pb::Grant {
        id: grant.id,
        client_id: grant.client_id,
        client_name,
        user_id: grant.user_id,
        scopes: grant.scopes,
        resources: grant.resources,
        create_time: Some(timestamp(grant.created_at)),
        last_issue_time: Some(timestamp(grant.last_issued_at)),
        expire_time: Some(timestamp(grant.expires_at)),
        revoke_time: grant.revoked_at.map(timestamp),
        revoke_reason: grant.revoke_reason,
        ip: grant.ip,
        user_agent: grant.user_agent,
    }
}

fn token(token: IssuedToken) -> pb::IssuedToken {
    let kind = match token.kind {
        IssuedTokenKind::Access => pb::IssuedTokenKind::Access,
        IssuedTokenKind::Refresh => pb::IssuedTokenKind::Refresh,
    };
    pb::IssuedToken {
        id: token.id,
        client_id: token.client_id,
        grant_id: token.grant_id.unwrap_or_default(),
        kind: kind.into(),
        jwt: token.format == TokenFormat::Jwt,
        scopes: token.scopes,
        resources: token.resources,
        dpop_bound: !token.dpop_jkt.is_empty(),
        create_time: Some(timestamp(token.created_at)),
        expire_time: Some(timestamp(token.expires_at)),
        revoke_time: token.revoked_at.map(timestamp),
        revoke_reason: token.revoke_reason,
        consume_time: token.consumed_at.map(timestamp),
        use_count: token.use_count,
        last_use_time: token.last_used_at.map(timestamp),
        ip: token.ip,
        user_agent: token.user_agent,
    }
}
