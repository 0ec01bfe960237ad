//! Server metadata, and authorisation requests for the operator's own sign-in and consent
//! application.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response};

use super::{Answer, AuthorizationServerService, unconstrained};
use crate::access::Permission;
use crate::grpc::convert::{from_timestamp, timestamp};
use crate::grpc::fields::{Fields, NAME_MAX};
use crate::issuer::{Accepted, ScopeWords, Shown};
use crate::model::{IdKind, OauthErrorCode, RequestState, Timestamp};
use crate::pb;

/// How long ago somebody may have signed in.
const SIGN_IN_MAX_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How far another machine's clock may be ahead.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// What an authorisation request may be rejected with.
const REJECTIONS: [OauthErrorCode; 4] = [
    OauthErrorCode::AccessDenied,
    OauthErrorCode::LoginRequired,
    OauthErrorCode::ServerError,
    OauthErrorCode::TemporarilyUnavailable,
];

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
    let now = service.clock.now();
    let auth_time = auth_time.and_then(|time| signed_in_at(&mut fields, &time, now));
    fields.finish()?;
    let accepted = Accepted {
        user_id,
        auth_time,
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
    let code = rejection(&mut fields, &error);
    // RFC 6749 section 4.1.2.1, since it goes to the client as it is.
    let fine = error_description.len() <= NAME_MAX
        && error_description
            .bytes()
            .all(|byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\');
    fields.check(
        fine,
        "error_description",
        format!(
            "at most {NAME_MAX} visible ASCII characters without quotes and backslashes are allowed"
        ),
    );
    fields.finish()?;
    let issuer = Arc::clone(&service.issuer);
    let url = service
        .tasks
        .run(async move {
            issuer
                .reject_request(&caller, &id, code, &error_description)
                .await
        })
        .await?;
    Ok(Response::new(pb::RejectAuthorizationRequestResponse {
        redirect_url: url.into(),
    }))
}

fn rejection(fields: &mut Fields, error: &str) -> OauthErrorCode {
    if error.is_empty() {
        return OauthErrorCode::AccessDenied;
    }
    let code = REJECTIONS.into_iter().find(|code| code.as_str() == error);
    fields.check(
        code.is_some(),
        "error",
        "access_denied, login_required, server_error or temporarily_unavailable is needed",
    );
    code.unwrap_or(OauthErrorCode::AccessDenied)
}

/// When somebody signed in, who may have done so on a machine whose clock is a little ahead.
fn signed_in_at(
    fields: &mut Fields,
    time: &prost_types::Timestamp,
    now: Timestamp,
) -> Option<Timestamp> {
    let time = from_timestamp(time);
    let fine =
        time.is_some_and(|time| time <= now.plus(CLOCK_SKEW) && now.since(time) <= SIGN_IN_MAX_AGE);
    fields.check(
        fine,
        "auth_time",
        "a time that is not in the future and not more than a day ago is needed",
    );
    time.map(|time| time.min(now))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

    fn judged(time: Timestamp) -> Result<Option<Timestamp>, Error> {
        let mut fields = Fields::new();
        let judged = signed_in_at(&mut fields, &timestamp(time), NOW);
        fields.finish().map(|()| judged)
    }

    #[test]
    fn a_sign_in_is_of_today() {
        assert_eq!(judged(NOW).unwrap(), Some(NOW));
        assert_eq!(judged(NOW.plus(CLOCK_SKEW)).unwrap(), Some(NOW));
        let earliest = Timestamp::from_micros(NOW.micros() - 24 * 60 * 60 * 1_000_000);
        assert_eq!(judged(earliest).unwrap(), Some(earliest));
        assert!(judged(NOW.plus(CLOCK_SKEW + Duration::from_secs(1))).is_err());
        assert!(judged(Timestamp::from_micros(earliest.micros() - 1)).is_err());
    }

    #[test]
    fn a_rejection_is_one_of_four() {
        let mut fields = Fields::new();
        assert_eq!(rejection(&mut fields, ""), OauthErrorCode::AccessDenied);
        let code = rejection(&mut fields, "login_required");
        assert_eq!(code, OauthErrorCode::LoginRequired);
        fields.finish().unwrap();
        let mut fields = Fields::new();
        rejection(&mut fields, "invalid_grant");
        assert!(fields.finish().is_err());
    }
}
