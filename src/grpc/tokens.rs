//! Access tokens on the wire.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tonic::{Code, Request, Response, Status};

use super::caller::{address, among, origin_of, principal};
use super::convert;
use super::fields::{CLIENT_ID_MAX, Fields, NAME_MAX};
use super::gate::DeniedParts;
use super::status::wire;
use super::token_broker::Context;
use crate::access::{Caller, Permission, Principal};
use crate::broker::cache::Held;
use crate::broker::tokens::{Rejection, Served, Target, Wanted};
use crate::error::Error;
use crate::model::IdKind;
use crate::pb;

/// Nobody means more; longer requests are mistakes of unit.
const MIN_VALIDITY_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
const BATCH_MAX: usize = 100;

pub(super) async fn get(
    context: &Context,
    request: Request<pb::GetAccessTokenRequest>,
) -> Result<Response<pb::GetAccessTokenResponse>, Status> {
    // Taken apart, so that the caller is borrowed and not cloned.
    let (metadata, extensions, request) = request.into_parts();
    let principal = among(&extensions)?;
    let caller = || {
        let origin = origin_of(metadata.as_ref(), &extensions);
        Caller::new(Arc::clone(principal), origin)
    };
    let ip = address(&extensions);
    let served = serve(context, principal, ip, caller, request).await?;
    Ok(Response::new(pb::GetAccessTokenResponse {
        token: Some(token(&served.held, served.below_min_validity)),
    }))
}

async fn serve(
    context: &Context,
    principal: &Arc<Principal>,
    ip: Option<IpAddr>,
    caller: impl FnOnce() -> Caller,
    request: pb::GetAccessTokenRequest,
) -> Result<Served, Error> {
    let (target, wanted) = read(request)?;
    // The hot path: nothing is awaited, nothing is spawned.
    if let Some(outcome) = context.tokens.get_held(principal, ip, &target, &wanted) {
        return outcome;
    }
    let tokens = Arc::clone(&context.tokens);
    let caller = caller();
    let rest = async move { tokens.get(&caller, &target, &wanted).await };
    // Boxed: what waits for databases and providers is large, and would be moved with every call.
    Box::pin(context.tasks.run(rest)).await
}

fn read(request: pb::GetAccessTokenRequest) -> Result<(Target, Wanted), Error> {
    let mut fields = Fields::new();
    let target = target(
        &mut fields,
        request.connection_id,
        request.app,
        request.owner,
    );
    let min_validity = fields.duration("min_validity", request.min_validity, MIN_VALIDITY_MAX);
    if !request.required_scopes.is_empty() {
        fields.scopes("required_scopes", &request.required_scopes);
    }
    fields.finish()?;
    let wanted = Wanted {
        min_validity,
        required_scopes: request.required_scopes,
        strict: request.strict,
    };
    Ok((target, wanted))
}

/// A connection, or an app with an owner: one of them.
fn target(fields: &mut Fields, connection_id: String, app: String, owner: String) -> Target {
    if connection_id.is_empty() {
        fields.check(
            !app.is_empty(),
            "connection_id",
            "either `connection_id` or `app` is required",
        );
        fields.text("app", &app, CLIENT_ID_MAX);
        fields.text("owner", &owner, NAME_MAX);
        Target::App {
            app,
            owner: Some(owner).filter(|owner| !owner.is_empty()),
        }
    } else {
        fields.check(
            app.is_empty() && owner.is_empty(),
            "connection_id",
            "can't be given together with `app` or `owner`",
        );
        fields.id("connection_id", &connection_id, IdKind::Connection);
        Target::Connection(connection_id)
    }
}

/// A held token on the wire.
pub(super) fn token(held: &Held, below_min_validity: bool) -> pb::AccessToken {
    pb::AccessToken {
        access_token: convert::shown(&held.token),
        token_type: held.token_type.clone(),
        token_id: held.token_id.clone(),
        expire_time: held.expires_at.map(convert::timestamp),
        scopes: held.scopes.clone(),
        connection_id: held.connection_id.clone(),
        below_min_validity,
        kind: convert::kind(held.kind).into(),
        token_secret: convert::shown(held.token_secret.as_ref()),
        metadata: (!held.metadata.is_empty()).then(|| convert::structure(&held.metadata)),
    }
}

pub(super) async fn batch_get(
    context: &Context,
    request: Request<pb::BatchGetAccessTokensRequest>,
) -> Result<Response<pb::BatchGetAccessTokensResponse>, Status> {
    let principal = principal(&request)?;
    let requests = request.into_inner().requests;
    if requests.is_empty() || requests.len() > BATCH_MAX {
        let fault = format!("1 to {BATCH_MAX} requests are needed");
        return Err(Error::invalid("requests", fault).into());
    }
    let mut outcomes: FuturesOrdered<_> = requests
        .into_iter()
        .map(|request| {
            let caller = || principal.clone();
            serve(
                context,
                principal.principal(),
                principal.origin.ip,
                caller,
                request,
            )
        })
        .collect();
    let mut results = Vec::with_capacity(outcomes.len());
    let mut denied = 0;
    while let Some(outcome) = outcomes.next().await {
        let result = match outcome {
            Ok(served) => pb::access_token_result::Result::Token(token(
                &served.held,
                served.below_min_validity,
            )),
            Err(error) => {
                let error = token_error(&error);
                denied += usize::from(error.code == Code::PermissionDenied as i32);
                pb::access_token_result::Result::Error(error)
            }
        };
        results.push(pb::AccessTokenResult {
            result: Some(result),
        });
    }
    let mut response = Response::new(pb::BatchGetAccessTokensResponse { results });
    if denied > 0 {
        // The call itself succeeds: without this the gate would not hear of them.
        response.extensions_mut().insert(DeniedParts(denied));
    }
    Ok(response)
}

fn token_error(error: &Error) -> pb::AccessTokenError {
    crate::error::log(error);
    let wire = wire(error);
    pb::AccessTokenError {
        code: wire.code.into(),
        reason: wire.reason.to_owned(),
        message: wire.message,
        retry_delay: wire.retry_delay.map(convert::duration),
    }
}

pub(super) async fn refresh(
    context: &Context,
    request: Request<pb::RefreshAccessTokenRequest>,
) -> Result<Response<pb::RefreshAccessTokenResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let target = target(
        &mut fields,
        request.connection_id,
        request.app,
        request.owner,
    );
    fields.finish()?;
    let tokens = Arc::clone(&context.tokens);
    let caller = principal.clone();
    let served = context
        .tasks
        .run(async move { tokens.refresh_now(&caller, &target).await })
        .await?;
    let mut token = token(&served.held, served.below_min_validity);
    if !principal.may(Permission::ReadTokens) {
        token.access_token = String::new();
        token.token_secret = String::new();
    }
    Ok(Response::new(pb::RefreshAccessTokenResponse {
        token: Some(token),
    }))
}

pub(super) async fn report_rejected(
    context: &Context,
    request: Request<pb::ReportAccessTokenRejectedRequest>,
) -> Result<Response<pb::ReportAccessTokenRejectedResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.id("connection_id", &request.connection_id, IdKind::Connection);
    fields.required("token_id", &request.token_id, NAME_MAX);
    fields.check(
        request.http_status == 0 || (100..600).contains(&request.http_status),
        "http_status",
        "an HTTP status from 100 to 599 is needed, or 0 when not known",
    );
    fields.finish()?;
    let tokens = Arc::clone(&context.tokens);
    let outcome = context
        .tasks
        .run(async move {
            tokens
                .report_rejected(
                    &principal,
                    &request.connection_id,
                    &request.token_id,
                    request.http_status,
                )
                .await
        })
        .await?;
    let outcome = match outcome {
        Rejection::Refreshed => pb::RejectionOutcome::Refreshed,
        Rejection::AlreadyReplaced => pb::RejectionOutcome::AlreadyReplaced,
        Rejection::NotRefreshable => pb::RejectionOutcome::NotRefreshable,
    };
    Ok(Response::new(pb::ReportAccessTokenRejectedResponse {
        outcome: outcome.into(),
    }))
}
