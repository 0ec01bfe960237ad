//! What clients post besides the exchange for tokens: revocation (RFC 7009), introspection (RFC 7662),
//! the authorisation of devices (RFC 8628), pushed requests (RFC 9126).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, Response, StatusCode};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use super::Edge;
use super::answer::{self, Refused};
use super::asked::Asked;
use crate::error::Error;
use crate::issuer::{Introspection, NewDevice, Reader};
use crate::model::{ClientAuthMethod, OauthErrorCode, Timestamp};
use crate::web::origin::Visitor;

/// `POST oauth2/revoke`.
pub(super) async fn revoke(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refused> {
    let asked = Asked::read(&headers, body, edge.config.endpoint("oauth2/revoke")).await?;
    let token = asked.required("token")?;
    let (issuer, credentials) = (Arc::clone(&edge.issuer), asked.credentials);
    let work = async move {
        let token = token.expose_secret();
        issuer.revoke_token(&credentials, token, &origin).await
    };
    let revoked = edge.tasks.run(work).await;
    revoked.map_err(|error| Refused::new(error, asked.basic))?;
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// `POST oauth2/introspect`.
pub(super) async fn introspect(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refused> {
    let asked = Asked::read(&headers, body, edge.config.endpoint("oauth2/introspect")).await?;
    let token = asked.required("token")?;
    let (issuer, credentials) = (Arc::clone(&edge.issuer), asked.credentials);
    let work = async move {
        let client = issuer.authenticate(&credentials, &origin).await?;
        if client.settings.auth_method == ClientAuthMethod::None {
            // Anybody could try tokens out in its name (RFC 7662 section 4).
            let why = "a public client can not ask about tokens";
            return Err(Error::oauth(OauthErrorCode::InvalidClient, why));
        }
        let reader = Reader::Client(Box::new(client));
        issuer.introspect(reader, token.expose_secret()).await
    };
    let found = edge.tasks.run(work).await;
    // RFC 7662 section 2.3: 401 in any case, however the client tried to prove who it is.
    let found = found.map_err(|error| Refused::new(error, true))?;
    let shown = found.map_or_else(|| json!({"active": false}), |found| introspected(&found));
    Ok(answer::json(StatusCode::OK, &shown))
}

fn introspected(found: &Introspection) -> Value {
    let token = &found.token;
    let mut shown = Map::new();
    let mut tell = |name: &str, value: Value| shown.insert(name.to_owned(), value);
    tell("active", true.into());
    tell("client_id", token.client_id.as_str().into());
    tell("token_type", found.token_type.into());
    tell("sub", found.subject.as_str().into());
    tell("iss", found.issuer.as_str().into());
    tell("jti", token.id.as_str().into());
    tell("iat", seconds(token.created_at).into());
    tell("exp", seconds(token.expires_at).into());
    if !token.scopes.is_empty() {
        tell("scope", token.scopes.join(" ").into());
    }
    if !token.resources.is_empty() {
        tell("aud", token.resources.clone().into());
    }
    if !found.username.is_empty() {
        tell("username", found.username.as_str().into());
    }
    if !token.dpop_jkt.is_empty() {
        tell("cnf", json!({"jkt": token.dpop_jkt}));
    }
    shown.into()
}

/// NumericDate (RFC 7519 section 2).
fn seconds(time: Timestamp) -> i64 {
    time.micros().div_euclid(1_000_000)
}

/// `POST oauth2/device_authorization`.
pub(super) async fn start_device(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refused> {
    let address = edge.config.endpoint("oauth2/device_authorization");
    let asked = Asked::read(&headers, body, address).await?;
    let new = NewDevice {
        scopes: asked.scopes(),
        resources: asked.resources(),
    };
    let (issuer, credentials) = (Arc::clone(&edge.issuer), asked.credentials);
    let work = async move { issuer.start_device(&credentials, new, &origin).await };
    let started = edge.tasks.run(work).await;
    let started = started.map_err(|error| Refused::new(error, asked.basic))?;
    let shown = json!({
        "device_code": started.device_code.expose_secret(),
        "user_code": started.user_code.expose_secret(),
        "verification_uri": started.verification_uri,
        "verification_uri_complete": started.verification_uri_complete,
        "expires_in": started.expires_in.as_secs(),
        "interval": started.interval.as_secs(),
    });
    Ok(answer::json(StatusCode::OK, &shown))
}

/// `POST oauth2/par`.
pub(super) async fn push(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refused> {
    let asked = Asked::read(&headers, body, edge.config.endpoint("oauth2/par")).await?;
    let basic = asked.basic;
    let issuer = Arc::clone(&edge.issuer);
    let work = async move {
        let Asked {
            parameters,
            credentials,
            proof,
            ..
        } = asked;
        issuer
            .push(&credentials, &parameters, proof.as_ref(), &origin)
            .await
    };
    let pushed = edge.tasks.run(work).await;
    let pushed = pushed.map_err(|error| Refused::new(error, basic))?;
    let shown = json!({
        "request_uri": pushed.request_uri.expose_secret(),
        "expires_in": pushed.expires_in.as_secs(),
    });
    let mut response = answer::json(StatusCode::CREATED, &shown);
    answer::nonce(&mut response, edge.issuer.dpop_nonce().as_deref());
    Ok(response)
}
