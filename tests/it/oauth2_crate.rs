//! The crate `oauth2` as a client of our authorisation server: nobody here wrote it, and its own types have
//! to take every answer.

use std::time::Duration;

use oauth2::basic::{BasicClient, BasicErrorResponseType, BasicTokenResponse, BasicTokenType};
use oauth2::{
    AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    DeviceAuthorizationUrl, EndpointSet, HttpRequest, HttpResponse, IntrospectionUrl,
    PkceCodeChallenge, RedirectUrl, RequestTokenError, RevocationUrl, Scope,
    StandardDeviceAuthorizationResponse, TokenIntrospectionResponse as _, TokenResponse as _,
    TokenUrl,
};
use tokenbroker::pb;

use crate::fixture::browser::{Browser, Page, plain_client};
use crate::fixture::leaks::Secrets;
use crate::fixture::scene::issuer::*;
use crate::fixture::*;
use crate::on_both_engines;

type Acme = BasicClient<EndpointSet, EndpointSet, EndpointSet, EndpointSet, EndpointSet>;

/// What the crate sends by, as its own reqwest (of another version than ours) would.
async fn send(request: HttpRequest) -> Result<HttpResponse, reqwest::Error> {
    let mut request = reqwest::Request::try_from(request)?;
    // The crate revokes at https addresses alone, and the listener leaves TLS to what is before it.
    request.url_mut().set_scheme("http").unwrap();
    let answer = plain_client().execute(request).await?;
    let mut response = HttpResponse::default();
    *response.status_mut() = answer.status();
    *response.headers_mut() = answer.headers().clone();
    *response.body_mut() = answer.bytes().await?.to_vec();
    Ok(response)
}

/// The crate's client with all that it knows of us.
fn client(s: &Stage, auth: AuthType) -> Acme {
    let revocation = s.endpoint("oauth2/revoke").replace("http:", "https:");
    let introspection = s.endpoint("oauth2/introspect");
    let device = s.endpoint("oauth2/device_authorization");
    let mut client = BasicClient::new(ClientId::new(s.client.id.clone()))
        .set_auth_type(auth)
        .set_redirect_uri(RedirectUrl::new(s.client.redirect_uri.clone()).unwrap())
        .set_auth_uri(AuthUrl::new(s.page("oauth2/authorize")).unwrap())
        .set_token_uri(TokenUrl::new(s.endpoint("oauth2/token")).unwrap())
        .set_device_authorization_url(DeviceAuthorizationUrl::new(device).unwrap())
        .set_introspection_url(IntrospectionUrl::new(introspection).unwrap())
        .set_revocation_url(RevocationUrl::new(revocation).unwrap());
    if !s.client.secret.is_empty() {
        client = client.set_client_secret(ClientSecret::new(s.client.secret.clone()));
    }
    client
}

fn with_basic() -> pb::Client {
    pb::Client {
        auth_method: pb::ClientAuthMethod::ClientSecretBasic.into(),
        ..acme()
    }
}

fn scopes(names: &[&str]) -> Vec<Scope> {
    let names = names.iter();
    names.map(|name| Scope::new((*name).to_owned())).collect()
}

/// A person signs in and agrees; what the browser is answered.
async fn agree(s: &Stage, browser: &Browser, begun: &Page) -> Page {
    let signed_in = s.sign_in(browser, begun).await;
    let asked = browser.get(signed_in.location.unwrap()).await;
    s.decide(browser, &asked, "allow").await
}

/// Somebody follows the crate's link, agrees, and the crate exchanges the code.
async fn connected(s: &Stage, acme: &Acme) -> BasicTokenResponse {
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    Secrets::register_as("PKCE verifier", verifier.secret());
    let (link, state) = acme
        .authorize_url(CsrfToken::new_random)
        .add_scopes(scopes(&["openid", "read"]))
        .set_pkce_challenge(challenge)
        .url();
    let browser = Browser::new();
    let begun = browser.get(link).await;
    let back = agree(s, &browser, &begun).await;
    assert_eq!(back.location_query("state").as_ref(), Some(state.secret()));
    let code = AuthorizationCode::new(back.location_query("code").unwrap());
    Secrets::register_as("authorisation code", code.secret());
    let asked = acme.exchange_code(code).set_pkce_verifier(verifier);
    kept(asked.request_async(&send).await.unwrap())
}

/// Refreshes.
async fn refreshed(
    acme: &Acme,
    tokens: &BasicTokenResponse,
) -> Result<BasicTokenResponse, BasicErrorResponseType> {
    let token = tokens.refresh_token().unwrap();
    match acme
        .exchange_refresh_token(token)
        .request_async(&send)
        .await
    {
        Ok(tokens) => Ok(kept(tokens)),
        Err(RequestTokenError::ServerResponse(refusal)) => Err(refusal.error().clone()),
        Err(other) => panic!("{other:?}"),
    }
}

/// With its tokens known as secrets.
fn kept(tokens: BasicTokenResponse) -> BasicTokenResponse {
    Secrets::register_as("access token", tokens.access_token().secret());
    if let Some(token) = tokens.refresh_token() {
        Secrets::register_as("refresh token", token.secret());
    }
    assert_eq!(tokens.token_type(), &BasicTokenType::Bearer);
    tokens
}

/// Whether an access token is good.
async fn is_good(acme: &Acme, tokens: &BasicTokenResponse) -> bool {
    let asked = acme.introspect(tokens.access_token());
    asked.request_async(&send).await.unwrap().active()
}

on_both_engines! {
    async fn it_gets_tokens_by_code_and_pkce(engine: Engine) {
        let s = Stage::of(engine, with_basic()).await;
        let acme = client(&s, AuthType::BasicAuth);
        let tokens = connected(&s, &acme).await;
        assert_eq!(tokens.scopes(), Some(&scopes(&["openid", "read"])));
        assert_eq!(tokens.expires_in(), Some(Duration::from_secs(3_600)));
        assert_eq!(s.introspect(tokens.access_token().secret()).await.subject, s.person.id);
        s.finish().await;
    }

    async fn it_gets_them_without_a_secret(engine: Engine) {
        let s = Stage::of(engine, public()).await;
        let acme = client(&s, AuthType::RequestBody);
        let tokens = connected(&s, &acme).await;
        assert!(s.is_active(refreshed(&acme, &tokens).await.unwrap().access_token().secret()).await);
        s.finish().await;
    }

    async fn it_refreshes_and_hears_of_a_spent_token(engine: Engine) {
        let s = Stage::of(engine, with_basic()).await;
        let acme = client(&s, AuthType::BasicAuth);
        let first = connected(&s, &acme).await;
        let second = refreshed(&acme, &first).await.unwrap();
        assert_ne!(second.refresh_token().unwrap().secret(), first.refresh_token().unwrap().secret());
        let third = refreshed(&acme, &second).await.unwrap();
        assert!(is_good(&acme, &third).await);
        assert_eq!(refreshed(&acme, &first).await.unwrap_err(), BasicErrorResponseType::InvalidGrant);
        assert!(!is_good(&acme, &third).await);
        s.finish().await;
    }

    async fn it_introspects(engine: Engine) {
        let s = Stage::of(engine, with_basic()).await;
        let acme = client(&s, AuthType::BasicAuth);
        let tokens = connected(&s, &acme).await;
        let known = acme.introspect(tokens.access_token()).request_async(&send).await.unwrap();
        assert!(known.active());
        assert_eq!((known.client_id(), known.sub()), (Some(acme.client_id()), Some(&*s.person.id)));
        assert_eq!((known.iss(), known.scopes()), (Some(ISSUER), tokens.scopes()));
        assert_eq!(known.exp().unwrap().timestamp() - known.iat().unwrap().timestamp(), 3_600);
        s.finish().await;
    }

    async fn it_revokes(engine: Engine) {
        let s = Stage::of(engine, with_basic()).await;
        let acme = client(&s, AuthType::BasicAuth);
        let tokens = connected(&s, &acme).await;
        let asked = acme.revoke_token(tokens.refresh_token().unwrap().into()).unwrap();
        asked.request_async(&send).await.unwrap();
        assert!(!is_good(&acme, &tokens).await);
        assert_eq!(refreshed(&acme, &tokens).await.unwrap_err(), BasicErrorResponseType::InvalidGrant);
        s.finish().await;
    }

    async fn it_connects_a_device(engine: Engine) {
        let s = Stage::of(engine, with_basic()).await;
        let acme = client(&s, AuthType::BasicAuth);
        let asked = acme.exchange_device_code().add_scopes(scopes(&["read"]));
        let device: StandardDeviceAuthorizationResponse = asked.request_async(&send).await.unwrap();
        Secrets::register_as("device code", device.device_code().secret());
        // It asks at once, is told to wait, and asks again when the person has agreed.
        let waits = async |wait: Duration| {
            let browser = Browser::new();
            let page = browser.get(device.verification_uri().as_str()).await;
            let form = Form::new(&[("csrf", page.hidden("csrf")), ("user_code", device.user_code().secret())]);
            let begun = browser.post(&page.url, &form.encoded(), &[]).await;
            assert_eq!(agree(&s, &browser, &begun).await.status, 200);
            s.b.clock.advance(wait);
        };
        let asked = acme.exchange_device_access_token(&device);
        let tokens = kept(asked.request_async(&send, waits, None).await.unwrap());
        assert_eq!(s.introspect(tokens.access_token().secret()).await.subject, s.person.id);
        refreshed(&acme, &tokens).await.unwrap();
        s.finish().await;
    }

    async fn it_gets_tokens_of_its_own(engine: Engine) {
        let s = Stage::new(engine).await;
        let acme = client(&s, AuthType::RequestBody);
        let asked = acme.exchange_client_credentials().add_scopes(scopes(&["read", "write"]));
        let tokens = kept(asked.request_async(&send).await.unwrap());
        assert!(tokens.refresh_token().is_none());
        assert_eq!(s.introspect(tokens.access_token().secret()).await.subject, s.client.id);
        assert!(is_good(&acme, &tokens).await);
        s.finish().await;
    }
}
