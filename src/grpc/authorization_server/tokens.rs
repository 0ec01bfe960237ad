//! Tokens: exchanged, introspected, revoked, and what they say of a person.

use std::sync::Arc;
use std::task::Poll;

use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Request, Response};

use super::credentials::{
    JWT_MAX, SECRET_MAX, client_origin, credentials, optional, proof, resources,
};
use super::{Answer, AuthorizationServerService, unconstrained};
use crate::access::{Caller, Origin, Permission};
use crate::error::Error;
use crate::grpc::caller::origin;
use crate::grpc::convert::{duration, shown, timestamp};
use crate::grpc::fields::{Fields, URL_MAX};
use crate::issuer::{Exchange, Introspection, NewDevice, Reader, TokenGrant};
use crate::pb;

/// Longest PKCE verifier, in characters (RFC 7636 section 4.1).
const VERIFIER_MAX: usize = 128;

pub(super) async fn exchange(
    service: &AuthorizationServerService,
    request: Request<pb::ExchangeTokenRequest>,
) -> Answer<pb::ExchangeTokenResponse> {
    let caller = unconstrained(&request, Permission::ExchangeTokens)?;
    let origin = origin(&request);
    let (exchange, origin) = asked(&caller, request.into_inner(), origin)?;
    let issuer = Arc::clone(&service.issuer);
    let tokens = service
        .tasks
        .run(async move { issuer.exchange(exchange, &origin).await })
        .await?;
    Ok(Response::new(pb::ExchangeTokenResponse {
        access_token: shown(&tokens.access_token),
        token_type: tokens.token_type.to_owned(),
        expires_in: Some(duration(tokens.expires_in)),
        refresh_token: shown(tokens.refresh_token.as_ref()),
        scopes: tokens.scopes,
        id_token: shown(tokens.id_token.as_ref()),
    }))
}

/// What a request asks for, and from where.
fn asked(
    caller: &Caller,
    request: pb::ExchangeTokenRequest,
    origin: Origin,
) -> Result<(Exchange, Origin), Error> {
    let mut fields = Fields::new();
    let credentials = credentials(&mut fields, caller, request.credentials);
    let proof = proof(&mut fields, request.dpop);
    resources(&mut fields, &request.resources);
    let grant = grant(&mut fields, request.grant);
    let (ip, program) = (&request.client_ip, &request.client_user_agent);
    let origin = client_origin(&mut fields, origin, ip, program);
    fields.finish()?;
    let exchange = Exchange {
        credentials,
        grant: grant.ok_or_else(|| Error::invalid("grant", "is required"))?,
        resources: request.resources,
        proof,
    };
    Ok((exchange, origin))
}

fn grant(
    fields: &mut Fields,
    wire: Option<pb::exchange_token_request::Grant>,
) -> Option<TokenGrant> {
    use pb::exchange_token_request::Grant;
    fields.check(wire.is_some(), "grant", "is required");
    Some(match wire? {
        Grant::AuthorizationCode(pb::AuthorizationCodeGrant {
            code,
            redirect_uri,
            code_verifier,
        }) => {
            fields.secret("authorization_code.code", &code, SECRET_MAX);
            fields.text("authorization_code.redirect_uri", &redirect_uri, URL_MAX);
            let field = "authorization_code.code_verifier";
            optional(fields, field, &code_verifier, VERIFIER_MAX);
            TokenGrant::Code {
                code: code.into(),
                redirect_uri,
                verifier: code_verifier.into(),
            }
        }
        Grant::RefreshToken(pb::RefreshTokenGrant {
            refresh_token,
            scopes,
        }) => {
            fields.secret("refresh_token.refresh_token", &refresh_token, SECRET_MAX);
            fields.scopes("refresh_token.scopes", &scopes);
            TokenGrant::Refresh {
                token: refresh_token.into(),
                scopes,
            }
        }
        Grant::ClientCredentials(pb::ClientCredentialsGrant { scopes }) => {
            fields.scopes("client_credentials.scopes", &scopes);
            TokenGrant::Client { scopes }
        }
        Grant::DeviceCode(pb::DeviceCodeGrant { device_code }) => {
            fields.secret("device_code.device_code", &device_code, SECRET_MAX);
            TokenGrant::Device {
                code: device_code.into(),
            }
        }
    })
}

pub(super) async fn start_device(
    service: &AuthorizationServerService,
    request: Request<pb::StartDeviceAuthorizationRequest>,
) -> Answer<pb::StartDeviceAuthorizationResponse> {
    let caller = unconstrained(&request, Permission::ExchangeTokens)?;
    let origin = origin(&request);
    let request = request.into_inner();
    let mut fields = Fields::new();
    let credentials = credentials(&mut fields, &caller, request.credentials);
    fields.scopes("scopes", &request.scopes);
    resources(&mut fields, &request.resources);
    let (ip, program) = (&request.client_ip, &request.client_user_agent);
    let origin = client_origin(&mut fields, origin, ip, program);
    fields.finish()?;
    let new = NewDevice {
        scopes: request.scopes,
        resources: request.resources,
    };
    let issuer = Arc::clone(&service.issuer);
    let started = service
        .tasks
        .run(async move { issuer.start_device(&credentials, new, &origin).await })
        .await?;
    Ok(Response::new(pb::StartDeviceAuthorizationResponse {
        device_code: shown(&started.device_code),
        user_code: shown(&started.user_code),
        verification_uri: started.verification_uri,
        verification_uri_complete: started.verification_uri_complete,
        expires_in: Some(duration(started.expires_in)),
        interval: Some(duration(started.interval)),
    }))
}

pub(super) async fn introspect(
    service: &AuthorizationServerService,
    request: Request<pb::IntrospectTokenRequest>,
) -> Answer<pb::IntrospectTokenResponse> {
    let caller = unconstrained(&request, Permission::IntrospectTokens)?;
    let token = token("token", request.into_inner().token)?;
    let reader = Reader::Tenant(caller.tenant.clone());
    let issuer = Arc::clone(&service.issuer);
    let introspected = async move { issuer.introspect(reader, token.expose_secret()).await };
    let mut introspected = Box::pin(introspected);
    // What is answered from memory is ready at once: no task is made for it.
    let once = std::future::poll_fn(|cx| Poll::Ready(introspected.as_mut().poll(cx))).await;
    let found = match once {
        Poll::Ready(found) => found?,
        Poll::Pending => service.tasks.run(introspected).await?,
    };
    let answer = found.map_or_else(pb::IntrospectTokenResponse::default, |it| active(&it));
    Ok(Response::new(answer))
}

fn active(found: &Introspection) -> pb::IntrospectTokenResponse {
    let token = &found.token;
    pb::IntrospectTokenResponse {
        active: true,
        scopes: token.scopes.clone(),
        client_id: token.client_id.clone(),
        token_type: found.token_type.to_owned(),
        expire_time: Some(timestamp(token.expires_at)),
        issue_time: Some(timestamp(token.created_at)),
        subject: found.subject.clone(),
        username: found.username.clone(),
        audiences: token.resources.clone(),
        issuer: found.issuer.clone(),
        token_id: token.id.clone(),
        dpop_jkt: token.dpop_jkt.clone(),
        grant_id: token.grant_id.clone().unwrap_or_default(),
    }
}

pub(super) async fn revoke(
    service: &AuthorizationServerService,
    request: Request<pb::RevokeTokenRequest>,
) -> Answer<pb::RevokeTokenResponse> {
    let caller = unconstrained(&request, Permission::ExchangeTokens)?;
    let origin = origin(&request);
    let pb::RevokeTokenRequest {
        credentials: wire,
        token,
        client_ip,
        client_user_agent,
    } = request.into_inner();
    let mut fields = Fields::new();
    let credentials = credentials(&mut fields, &caller, wire);
    fields.secret("token", &token, JWT_MAX);
    let token = SecretString::from(token);
    let origin = client_origin(&mut fields, origin, &client_ip, &client_user_agent);
    fields.finish()?;
    let issuer = Arc::clone(&service.issuer);
    service
        .tasks
        .run(async move {
            issuer
                .revoke_token(&credentials, token.expose_secret(), &origin)
                .await
        })
        .await?;
    Ok(Response::new(pb::RevokeTokenResponse {}))
}

pub(super) async fn user_info(
    service: &AuthorizationServerService,
    request: Request<pb::GetUserInfoRequest>,
) -> Answer<pb::GetUserInfoResponse> {
    let caller = unconstrained(&request, Permission::IntrospectTokens)?;
    let pb::GetUserInfoRequest { access_token, dpop } = request.into_inner();
    let mut fields = Fields::new();
    fields.secret("access_token", &access_token, JWT_MAX);
    let token = SecretString::from(access_token);
    let proof = proof(&mut fields, dpop);
    fields.finish()?;
    let issuer = Arc::clone(&service.issuer);
    let info = service
        .tasks
        .run(async move {
            let (within, token) = (Some(caller.tenant.as_str()), token.expose_secret());
            issuer.user_info(within, token, None, proof.as_ref()).await
        })
        .await?;
    Ok(Response::new(pb::GetUserInfoResponse {
        subject: info.subject,
        email: info.email.unwrap_or_default(),
        email_verified: info.email_verified.unwrap_or_default(),
        name: info.name.unwrap_or_default(),
    }))
}

/// A token of either kind.
fn token(field: &str, text: String) -> Result<SecretString, Error> {
    let mut fields = Fields::new();
    fields.secret(field, &text, JWT_MAX);
    let token = SecretString::from(text);
    fields.finish()?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> Caller {
        Caller::command_line("acme")
    }

    fn faults(request: pb::ExchangeTokenRequest) -> Vec<String> {
        match asked(&caller(), request, Origin::default()) {
            Err(Error::InvalidArgument(faults)) => {
                faults.into_iter().map(|fault| fault.field).collect()
            }
            Ok(_) => Vec::new(),
            Err(other) => panic!("{other:?}"),
        }
    }

    fn sound() -> pb::ExchangeTokenRequest {
        pb::ExchangeTokenRequest {
            credentials: Some(pb::ClientCredentials {
                client_id: "client".to_owned(),
                ..Default::default()
            }),
            grant: Some(pb::exchange_token_request::Grant::DeviceCode(
                pb::DeviceCodeGrant {
                    device_code: "tbd_x".to_owned(),
                },
            )),
            client_ip: "192.0.2.1".to_owned(),
            client_user_agent: "curl".to_owned(),
            ..Default::default()
        }
    }

    #[test]
    fn a_gateway_says_where_the_client_is() {
        let (exchange, origin) = asked(&caller(), sound(), Origin::default()).unwrap();
        assert_eq!(
            (&*origin.ip_text(), &*origin.user_agent),
            ("192.0.2.1", "curl")
        );
        assert!(exchange.credentials.secret.is_none() && exchange.proof.is_none());
        assert_eq!(exchange.credentials.within.as_deref(), Some("acme"));
    }

    #[test]
    fn every_fault_of_an_exchange_is_told() {
        let nothing = pb::ExchangeTokenRequest::default();
        assert_eq!(
            faults(nothing),
            ["credentials", "credentials.client_id", "grant"]
        );
        let request = pb::ExchangeTokenRequest {
            credentials: Some(pb::ClientCredentials {
                client_id: String::new(),
                client_secret: "\u{fc}".to_owned(),
                client_assertion: "x".repeat(JWT_MAX + 1),
            }),
            dpop: Some(pb::DpopProof::default()),
            resources: vec!["https://api.example".to_owned(); 6],
            grant: Some(pb::exchange_token_request::Grant::AuthorizationCode(
                pb::AuthorizationCodeGrant {
                    code_verifier: "x".repeat(VERIFIER_MAX + 1),
                    ..Default::default()
                },
            )),
            client_ip: "here".to_owned(),
            client_user_agent: "a\u{7}b".to_owned(),
        };
        assert_eq!(
            faults(request),
            [
                "credentials.client_secret",
                "credentials.client_assertion",
                "credentials.client_assertion",
                "dpop.proof",
                "dpop.http_method",
                "dpop.http_uri",
                "resources",
                "authorization_code.code",
                "authorization_code.code_verifier",
                "client_ip",
                "client_user_agent",
            ]
        );
    }
}
