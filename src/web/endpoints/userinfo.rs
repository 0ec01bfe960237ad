//! `oauth2/userinfo` (OpenID Connect Core section 5.3), for whoever holds an access token.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{self, HeaderValue};
use axum::http::{HeaderMap, Method, Response, StatusCode};
use axum::response::IntoResponse as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::Edge;
use super::answer::{self, Refused};
use super::asked;
use crate::error::Error;
use crate::issuer::{PROOF_ALGORITHMS, UserInfo};
use crate::model::{OauthError, OauthErrorCode};

/// How an access token was sent: in the `Authorization` header and nowhere else. What stands in a query
/// is in every log on the way (RFC 6750 section 5.3).
struct Sent {
    dpop: bool,
    token: SecretString,
}

/// `GET` and `POST`.
pub(super) async fn claims(
    State(edge): State<Edge>,
    method: Method,
    headers: HeaderMap,
) -> Response<Body> {
    let sent = match sent(&headers) {
        Ok(Some(sent)) => sent,
        Ok(None) => return challenge(false, None),
        Err(refused) => return refused.into_response(),
    };
    let proof = match asked::proof(
        &headers,
        method.as_str(),
        edge.config.endpoint("oauth2/userinfo"),
    ) {
        Ok(proof) => proof,
        Err(refused) => return refused.into_response(),
    };
    let issuer = Arc::clone(&edge.issuer);
    let dpop = sent.dpop;
    let work = async move {
        issuer
            .user_info(None, sent.token.expose_secret(), Some(dpop), proof.as_ref())
            .await
    };
    match edge.tasks.run(work).await {
        Ok(info) => {
            let mut response = answer::json(StatusCode::OK, &shown(&info));
            answer::nonce(&mut response, edge.issuer.dpop_nonce().as_deref());
            response
        }
        Err(Error::Oauth(error)) => challenge(dpop, Some(&error)),
        Err(error) => Refused::from(error).into_response(),
    }
}

fn sent(headers: &HeaderMap) -> Result<Option<Sent>, Refused> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let value = match (all.next(), all.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().unwrap_or_default(),
        (Some(_), Some(_)) => {
            return Err(Refused::invalid("there are two Authorization headers"));
        }
    };
    let Some((scheme, token)) = value.split_once(' ') else {
        return Ok(None);
    };
    let dpop = scheme.eq_ignore_ascii_case("dpop");
    if !dpop && !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let token = SecretString::from(token.trim());
    Ok(Some(Sent { dpop, token }))
}

/// What is missing (RFC 6750 section 3, RFC 9449 section 7.1). Whoever sent no token learns no more
/// than which sorts there are.
fn challenge(dpop: bool, error: Option<&OauthError>) -> Response<Body> {
    let algorithms = format!("algs=\"{}\"", PROOF_ALGORITHMS.join(" "));
    let Some(error) = error else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let headers = response.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for scheme in ["Bearer".to_owned(), format!("DPoP {algorithms}")] {
            if let Ok(scheme) = HeaderValue::try_from(scheme) {
                headers.append(header::WWW_AUTHENTICATE, scheme);
            }
        }
        return response;
    };
    let (status, scope) = match error.code {
        OauthErrorCode::InsufficientScope => (StatusCode::FORBIDDEN, ", scope=\"openid\""),
        OauthErrorCode::InvalidRequest => (StatusCode::BAD_REQUEST, ""),
        _ => (StatusCode::UNAUTHORIZED, ""),
    };
    let mut response = answer::of_oauth(status, &answer::told(&Error::Oauth(error.clone())));
    let about_proof = matches!(
        error.code,
        OauthErrorCode::InvalidDpopProof | OauthErrorCode::UseDpopNonce
    );
    let scheme = if dpop || about_proof {
        format!("DPoP {algorithms},")
    } else {
        "Bearer".to_owned()
    };
    let value = format!(
        "{scheme} error=\"{}\", error_description=\"{}\"{scope}",
        error.code.as_str(),
        answer::visible(&error.description)
    );
    if let Ok(value) = HeaderValue::try_from(value) {
        response
            .headers_mut()
            .insert(header::WWW_AUTHENTICATE, value);
    }
    response
}

fn shown(info: &UserInfo) -> Value {
    let mut shown = Map::new();
    shown.insert("sub".into(), info.subject.as_str().into());
    if let Some(email) = &info.email {
        shown.insert("email".into(), email.as_str().into());
    }
    if let Some(verified) = info.email_verified {
        shown.insert("email_verified".into(), verified.into());
    }
    if let Some(name) = &info.name {
        shown.insert("name".into(), name.as_str().into());
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_no_more_than_it_should() {
        let bare = challenge(false, None);
        let schemes = bare.headers().get_all(header::WWW_AUTHENTICATE);
        let algorithms = "DPoP algs=\"ES256 ES384 EdDSA RS256 RS384 RS512 PS256 PS384 PS512\"";
        assert!(schemes.iter().eq(["Bearer", algorithms]));
        let told = |code, dpop| challenge(dpop, Some(&OauthError::new(code, "why")));
        let over = told(OauthErrorCode::InvalidToken, false);
        assert_eq!(over.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(
            over.headers()[header::WWW_AUTHENTICATE],
            "Bearer error=\"invalid_token\", error_description=\"why\""
        );
        let less = told(OauthErrorCode::InsufficientScope, true);
        assert_eq!(less.status(), StatusCode::FORBIDDEN);
        assert!(
            less.headers()[header::WWW_AUTHENTICATE]
                .to_str()
                .unwrap()
                .starts_with(&format!("{algorithms}, error=\"insufficient_scope\""))
        );
    }

    #[test]
    fn only_tokens_in_the_header_count() {
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            sent(&headers).unwrap()
        };
        let bearer = with("bearer tba_x").unwrap();
        assert!(!bearer.dpop && bearer.token.expose_secret() == "tba_x");
        assert!(with("DPoP tba_x").unwrap().dpop);
        assert!(with("Basic YTpi").is_none() && with("Bearer").is_none());
    }
}
