//! Sessions on the wire.

use std::net::IpAddr;
use std::sync::Arc;

use secrecy::SecretString;
use tonic::{Request, Response, Status};

use super::Context;
use crate::access::api_keys::is_tenant;
use crate::access::caller::USER_AGENT_MAX;
use crate::access::sessions::{CURRENT, Issued, Visitor};
use crate::access::{Caller, Origin, Permission};
use crate::broker::authorizations::NewSignIn;
use crate::error::Error;
use crate::grpc::caller::{among, origin, principal};
use crate::grpc::connections::checked;
use crate::grpc::convert::{shown, timestamp};
use crate::grpc::fields::{CLIENT_ID_MAX, Fields, NAME_MAX};
use crate::grpc::page::Page;
use crate::model::{IdKind, Session, SignInMethod};
use crate::pb;

/// Longest e-mail address and password taken, in characters: no user's are longer.
const EMAIL_MAX: usize = 254;
const PASSWORD_MAX: usize = 256;
/// Longest code and refresh token taken, in characters; ours have 43 and 53.
const CODE_MAX: usize = 255;
const REFRESH_TOKEN_MAX: usize = 255;
/// Where a user is who says no tenant.
const DEFAULT_TENANT: &str = "default";

pub(super) async fn start_sign_in(
    context: &Context,
    request: Request<pb::StartSignInRequest>,
) -> Result<Response<pb::StartSignInResponse>, Status> {
    let caller = principal(&request)?;
    let pb::StartSignInRequest {
        app,
        return_url,
        login_hint,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.required("app", &app, CLIENT_ID_MAX);
    fields.browser_url("return_url", &return_url);
    fields.text("login_hint", &login_hint, NAME_MAX);
    fields.finish()?;
    let new = NewSignIn {
        app,
        return_url,
        login_hint,
    };
    let authorizations = Arc::clone(&context.authorizations);
    let started = context
        .tasks
        .run(async move { authorizations.start_sign_in(&caller, new).await })
        .await?;
    Ok(Response::new(pb::StartSignInResponse {
        authorization_id: started.authorization.id,
        sign_in_url: shown(&started.link),
        expire_time: Some(timestamp(started.authorization.expires_at)),
    }))
}

/// How somebody proves who they are.
enum Proof {
    Password {
        email: String,
        password: SecretString,
    },
    Provider {
        authorization_id: String,
        code: SecretString,
    },
}

pub(super) async fn create(
    context: &Context,
    request: Request<pb::CreateSessionRequest>,
) -> Result<Response<pb::CreateSessionResponse>, Status> {
    let caller = match among(request.extensions()) {
        Ok(known) => Some(Caller::new(Arc::clone(known), origin(&request))),
        Err(_) => None,
    };
    let origin = origin(&request);
    let (tenant, proof, visitor) = sign_in(request.into_inner(), caller.as_ref(), origin)?;
    let (users, sessions) = (Arc::clone(&context.users), Arc::clone(&context.sessions));
    let authorizations = Arc::clone(&context.authorizations);
    let issued = context
        .tasks
        .run(async move {
            match proof {
                Proof::Password { email, password } => {
                    let origin = &visitor.origin;
                    let user = users.sign_in(&tenant, &email, &password, origin).await?;
                    sessions.create_by_password(&user, &visitor).await
                }
                Proof::Provider {
                    authorization_id: id,
                    code,
                } => {
                    let proof = authorizations.redeem_sign_in(&tenant, &id, &code);
                    sessions
                        .create_by_provider(&tenant, &id, proof, &visitor)
                        .await
                }
            }
        })
        .await?;
    let session = session(&issued.session, None, context);
    let [session_token, refresh_token] = tokens(&issued);
    Ok(Response::new(pb::CreateSessionResponse {
        session: Some(session),
        session_token,
        refresh_token,
    }))
}

/// What a request asks for: in which tenant, by what proof, for whom.
fn sign_in(
    request: pb::CreateSessionRequest,
    caller: Option<&Caller>,
    mut origin: Origin,
) -> Result<(String, Proof, Visitor), Error> {
    use pb::create_session_request::Credentials;
    let pb::CreateSessionRequest {
        tenant,
        credentials,
        client_ip,
        client_user_agent,
    } = request;
    let tenant = if tenant.is_empty() {
        DEFAULT_TENANT.to_owned()
    } else {
        tenant
    };
    let mut fields = Fields::new();
    fields.check(
        is_tenant(&tenant),
        "tenant",
        "1 to 63 lower-case letters, digits and hyphens are needed",
    );
    let proof = match credentials {
        Some(Credentials::Password(pb::PasswordCredentials { email, password })) => {
            fields.required("password.email", &email, EMAIL_MAX);
            fields.check(!password.is_empty(), "password.password", "is required");
            fields.check(
                !password.chars().any(char::is_control),
                "password.password",
                "control characters are not allowed",
            );
            fields.check(
                password.chars().count() <= PASSWORD_MAX,
                "password.password",
                format!("at most {PASSWORD_MAX} characters are allowed"),
            );
            Some(Proof::Password {
                email,
                password: SecretString::from(password),
            })
        }
        Some(Credentials::Provider(pb::ProviderCredentials {
            authorization_id,
            code,
        })) => {
            fields.id(
                "provider.authorization_id",
                &authorization_id,
                IdKind::Authorization,
            );
            fields.secret("provider.code", &code, CODE_MAX);
            Some(Proof::Provider {
                authorization_id,
                code: SecretString::from(code),
            })
        }
        None => {
            fields.check(false, "credentials", "is required");
            None
        }
    };
    let trusted =
        caller.filter(|caller| caller.may(Permission::SignOthersIn) && caller.tenant == tenant);
    for (field, value) in [
        ("client_ip", &client_ip),
        ("client_user_agent", &client_user_agent),
    ] {
        fields.check(
            value.is_empty() || trusted.is_some(),
            field,
            "is taken only from callers that may sign others in, in their own tenant",
        );
    }
    if !client_ip.is_empty() {
        let ip: Option<IpAddr> = client_ip.parse().ok();
        fields.check(ip.is_some(), "client_ip", "is no IP address");
        origin.ip = ip;
    }
    if !client_user_agent.is_empty() {
        fields.text("client_user_agent", &client_user_agent, USER_AGENT_MAX);
        origin.user_agent = Origin::clean_user_agent(&client_user_agent);
    }
    fields.finish()?;
    let visitor = Visitor {
        origin,
        through: trusted.map(|caller| caller.id.clone()),
    };
    let proof = proof.ok_or_else(|| Error::invalid("credentials", "is required"))?;
    Ok((tenant, proof, visitor))
}

pub(super) async fn refresh(
    context: &Context,
    request: Request<pb::RefreshSessionRequest>,
) -> Result<Response<pb::RefreshSessionResponse>, Status> {
    let origin = origin(&request);
    let pb::RefreshSessionRequest {
        refresh_token,
        request_id,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.secret("refresh_token", &refresh_token, REFRESH_TOKEN_MAX);
    fields.request_id(&request_id);
    fields.finish()?;
    let refresh_token = SecretString::from(refresh_token);
    let sessions = Arc::clone(&context.sessions);
    let issued = context
        .tasks
        .run(async move { sessions.refresh(&refresh_token, &request_id, &origin).await })
        .await?;
    let session = session(&issued.session, None, context);
    let [session_token, refresh_token] = tokens(&issued);
    Ok(Response::new(pb::RefreshSessionResponse {
        session: Some(session),
        session_token,
        refresh_token,
    }))
}

pub(super) async fn list(
    context: &Context,
    request: Request<pb::ListSessionsRequest>,
) -> Result<Response<pb::ListSessionsResponse>, Status> {
    let caller = principal(&request)?;
    let pb::ListSessionsRequest {
        user_id,
        show_ended,
        page_size,
        page_token,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.own_or_id("user_id", &user_id);
    let bound_to = ("ListSessions", &user_id, show_ended);
    let page = Page::of(page_size, &page_token, bound_to);
    let page = checked(fields, page)?;
    let current = caller.session_id().map(str::to_owned);
    let sessions = Arc::clone(&context.sessions);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut rows = context
        .tasks
        .run(async move {
            sessions
                .list(&caller, &user_id, show_ended, &after, limit)
                .await
        })
        .await?;
    let next_page_token = page.cut(&mut rows, |row| row.id.clone());
    Ok(Response::new(pb::ListSessionsResponse {
        sessions: rows
            .iter()
            .map(|row| session(row, current.as_deref(), context))
            .collect(),
        next_page_token,
    }))
}

pub(super) async fn revoke(
    context: &Context,
    request: Request<pb::RevokeSessionRequest>,
) -> Result<Response<pb::RevokeSessionResponse>, Status> {
    let caller = principal(&request)?;
    let id = request.into_inner().session_id;
    let mut fields = Fields::new();
    if id != CURRENT {
        fields.id("session_id", &id, IdKind::Session);
    }
    fields.finish()?;
    let sessions = Arc::clone(&context.sessions);
    context
        .tasks
        .run(async move { sessions.revoke(&caller, &id).await })
        .await?;
    Ok(Response::new(pb::RevokeSessionResponse {}))
}

pub(super) async fn revoke_all(
    context: &Context,
    request: Request<pb::RevokeAllSessionsRequest>,
) -> Result<Response<pb::RevokeAllSessionsResponse>, Status> {
    let caller = principal(&request)?;
    let pb::RevokeAllSessionsRequest {
        user_id,
        keep_current,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.own_or_id("user_id", &user_id);
    fields.finish()?;
    let sessions = Arc::clone(&context.sessions);
    let ended = context
        .tasks
        .run(async move { sessions.revoke_all(&caller, &user_id, keep_current).await })
        .await?;
    Ok(Response::new(pb::RevokeAllSessionsResponse {
        revoked_sessions: i32::try_from(ended).unwrap_or(i32::MAX),
    }))
}

fn tokens(issued: &Issued) -> [String; 2] {
    [&issued.session_token, &issued.refresh_token].map(shown)
}

/// `current` is the id of the session that calls.
fn session(session: &Session, current: Option<&str>, context: &Context) -> pb::Session {
    let idle = session
        .last_used_at
        .plus(context.sessions.idle_timeout())
        .min(session.expires_at);
    let method = match session.method {
        SignInMethod::Password => pb::SignInMethod::Password,
        SignInMethod::Provider => pb::SignInMethod::Provider,
    };
    pb::Session {
        id: session.id.clone(),
        user_id: session.user_id.clone(),
        method: method.into(),
        create_time: Some(timestamp(session.created_at)),
        last_use_time: Some(timestamp(session.last_used_at)),
        idle_expire_time: Some(timestamp(idle)),
        expire_time: Some(timestamp(session.expires_at)),
        refresh_expire_time: Some(timestamp(session.refresh_expires_at)),
        client_ip: session.ip.clone(),
        client_user_agent: session.user_agent.clone(),
        revoke_time: session.revoked_at.map(timestamp),
        revoke_reason: session.revoke_reason.clone(),
        current: current == Some(session.id.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(request: pb::CreateSessionRequest) -> Vec<String> {
        match sign_in(request, None, Origin::default()) {
            Err(Error::InvalidArgument(faults)) => {
                faults.into_iter().map(|fault| fault.field).collect()
            }
            Ok(_) => Vec::new(),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_says_for_whom_they_call_unless_they_may() {
        let by_password = pb::PasswordCredentials {
            email: "ada@example.com".to_owned(),
            password: "x".to_owned(),
        };
        let request = pb::CreateSessionRequest {
            credentials: Some(pb::create_session_request::Credentials::Password(
                by_password,
            )),
            client_ip: "192.0.2.1".to_owned(),
            client_user_agent: "curl".to_owned(),
            ..pb::CreateSessionRequest::default()
        };
        assert_eq!(faults(request), ["client_ip", "client_user_agent"]);
    }

    #[test]
    fn every_fault_of_a_sign_in_is_told() {
        let request = pb::CreateSessionRequest {
            tenant: "T".to_owned(),
            credentials: Some(pb::create_session_request::Credentials::Provider(
                pb::ProviderCredentials::default(),
            )),
            ..pb::CreateSessionRequest::default()
        };
        assert_eq!(
            faults(request),
            ["tenant", "provider.authorization_id", "provider.code"]
        );
        let nothing = pb::CreateSessionRequest::default();
        assert_eq!(faults(nothing), ["credentials"]);
    }
}
