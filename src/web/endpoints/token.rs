//! `POST oauth2/token` (RFC 6749 section 3.2).

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::Edge;
use super::answer::{self, Refused};
use super::asked::Asked;
use crate::error::Error;
use crate::issuer::{Exchange, TokenGrant, Tokens};
use crate::model::OauthErrorCode;
use crate::web::origin::Visitor;

/// RFC 8628 section 3.4.
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

pub(super) async fn exchange(
    State(edge): State<Edge>,
    Visitor(origin): Visitor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, Refused> {
    let asked = Asked::read(&headers, body, edge.config.endpoint("oauth2/token")).await?;
    let basic = asked.basic;
    let grant = grant(&asked)?;
    let exchange = Exchange {
        resources: asked.resources(),
        credentials: asked.credentials,
        grant,
        proof: asked.proof,
    };
    let issuer = Arc::clone(&edge.issuer);
    let tokens = edge
        .tasks
        .run(async move { issuer.exchange(exchange, &origin).await })
        .await
        .map_err(|error| Refused::new(error, basic))?;
    let mut response = answer::json(StatusCode::OK, &shown(&tokens));
    answer::nonce(&mut response, edge.issuer.dpop_nonce().as_deref());
    Ok(response)
}

fn grant(asked: &Asked) -> Result<TokenGrant, Refused> {
    let Some(kind) = asked.parameters.get("grant_type") else {
        return Err(Refused::invalid("the parameter grant_type is missing"));
    };
    match kind {
        "authorization_code" => Ok(TokenGrant::Code {
            code: asked.required("code")?,
            redirect_uri: asked.text("redirect_uri"),
            verifier: asked.secret("code_verifier"),
        }),
        "refresh_token" => Ok(TokenGrant::Refresh {
            token: asked.required("refresh_token")?,
            scopes: asked.scopes(),
        }),
        "client_credentials" => Ok(TokenGrant::Client {
            scopes: asked.scopes(),
        }),
        DEVICE_CODE => Ok(TokenGrant::Device {
            code: asked.required("device_code")?,
        }),
        _ => Err(Refused::from(Error::oauth(
            OauthErrorCode::UnsupportedGrantType,
            "this grant_type is not offered",
        ))),
    }
}

fn shown(tokens: &Tokens) -> Value {
    let mut shown = Map::new();
    let secret = |secret: &SecretString| Value::from(secret.expose_secret());
    shown.insert("access_token".into(), secret(&tokens.access_token));
    shown.insert("token_type".into(), tokens.token_type.into());
    shown.insert("expires_in".into(), tokens.expires_in.as_secs().into());
    if let Some(token) = &tokens.refresh_token {
        shown.insert("refresh_token".into(), secret(token));
    }
    if let Some(token) = &tokens.id_token {
        shown.insert("id_token".into(), secret(token));
    }
    if !tokens.scopes.is_empty() {
        shown.insert("scope".into(), tokens.scopes.join(" ").into());
    }
    shown.into()
}
