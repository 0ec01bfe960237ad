//! The operator's own sign-in and consent application, over gRPC.

use super::*;
use tokenbroker::model::{Constraints, Role};
use tonic::Status;

/// Where the application is; nothing listens there.
const APPLICATION: &str = "http://127.0.0.1:9/login";

/// With an application of the operator's, and that.
async fn stage(engine: Engine) -> (Stage, Caller) {
    let s = Stage::with(engine, acme(), |config| {
        config.issuer.interaction_url = Some(APPLICATION.parse().unwrap());
    })
    .await;
    let application = s.b.caller(Role::IssuerUi, Constraints::default()).await;
    (s, application)
}

/// Begins a request: its id.
async fn begun(s: &Stage, browser: &Browser) -> String {
    let page = s.authorize(browser, &s.client.ask()).await;
    let next = page.location.as_ref().unwrap();
    assert!(next.as_str().starts_with(APPLICATION), "{}", page.body);
    page.location_query("authorization_request").unwrap()
}

async fn get(caller: &Caller, id: &str) -> Result<pb::AuthorizationRequest, Status> {
    let request = pb::GetAuthorizationRequestRequest { id: id.to_owned() };
    let mut server = caller.authorization_server.clone();
    let found = server.get_authorization_request(request).await?;
    Ok(found.into_inner().authorization_request.unwrap())
}

async fn accept(
    caller: &Caller,
    id: &str,
    user_id: &str,
    scopes: &[&str],
) -> Result<String, Status> {
    let request = pb::AcceptAuthorizationRequestRequest {
        id: id.to_owned(),
        user_id: user_id.to_owned(),
        auth_time: None,
        scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
    };
    let mut server = caller.authorization_server.clone();
    let accepted = server.accept_authorization_request(request).await?;
    Ok(secret(accepted.into_inner().redirect_url))
}

async fn reject(caller: &Caller, id: &str, error: &str) -> Result<String, Status> {
    let request = pb::RejectAuthorizationRequestRequest {
        id: id.to_owned(),
        error: error.to_owned(),
        error_description: "not today".to_owned(),
    };
    let mut server = caller.authorization_server.clone();
    let rejected = server.reject_authorization_request(request).await?;
    Ok(secret(rejected.into_inner().redirect_url))
}

/// What the address proves must not show up anywhere.
fn secret(url: String) -> String {
    let (_, verifier) = url.rsplit_once('=').unwrap();
    leaks::Secrets::register_as("verifier of a decision", verifier);
    url
}

on_both_engines! {
    async fn the_application_has_a_person_decide(engine: Engine) {
        let (s, application) = stage(engine).await;
        let browser = Browser::new();
        let id = begun(&s, &browser).await;
        let found = get(&application, &id).await.unwrap();
        assert_eq!((&found.client_id, &*found.client_name, found.state()), (&s.client.id, "Acme", pb::AuthorizationRequestState::Pending));
        assert_eq!(found.scopes[0].description, "Know who you are here");
        assert_eq!((&*found.redirect_uri, found.client_trusted), (REDIRECT_URI, false));
        let back = accept(&application, &id, &s.person.id, &["openid"]).await.unwrap();
        let page = browser.get(&back).await;
        assert_eq!((page.status.as_u16(), page.location_query("state").as_deref()), (303, Some(STATE)));
        let code = page.location_query("code").unwrap();
        leaks::Secrets::register_as("authorisation code", &code);
        let answer = s.token(&s.client.redeem(&code)).await;
        assert_eq!(answer.text("scope"), "openid");
        assert_eq!(recorded(&s.b, &["issuer.consent_given", &s.person.id]).await, 1);
        s.finish().await;
    }

    async fn the_application_refuses(engine: Engine) {
        let (s, application) = stage(engine).await;
        for (error, told) in [("", "access_denied"), ("login_required", "login_required")] {
            let browser = Browser::new();
            let id = begun(&s, &browser).await;
            let back = reject(&application, &id, error).await.unwrap();
            let page = browser.get(&back).await;
            assert_eq!(page.location_query("error").as_deref(), Some(told));
            assert_eq!(page.location_query("error_description").as_deref(), Some("not today"));
            assert_eq!(page.location_query("iss").as_deref(), Some(ISSUER));
        }
        let id = begun(&s, &Browser::new()).await;
        let refused = reject(&application, &id, "invalid_grant").await.unwrap_err();
        assert_eq!(violations(&refused), ["error"]);
        let tomorrow = s.b.clock.now().plus(DAY).micros() / 1_000_000;
        let request = pb::AcceptAuthorizationRequestRequest {
            id,
            user_id: s.person.id.clone(),
            auth_time: Some(prost_types::Timestamp { seconds: tomorrow, nanos: 0 }),
            scopes: vec!["read".to_owned()],
        };
        let refused = application.authorization_server.clone().accept_authorization_request(request).await;
        assert_eq!(violations(&refused.unwrap_err()), ["auth_time"]);
        s.finish().await;
    }

    async fn whoever_has_somebody_else_decide_gets_nothing(engine: Engine) {
        let (s, application) = stage(engine).await;
        let (mallory, ada) = (Browser::new(), Browser::new());
        let id = begun(&s, &mallory).await;
        begun(&s, &ada).await;
        // Ada was led into the application with Mallory's request, and agreed.
        let back = accept(&application, &id, &s.person.id, &["read"]).await.unwrap();
        assert_eq!(ada.get(&back).await.status, 403);
        // Mallory has the cookie, and not the address that the application sent Ada to.
        let (bare, _) = back.split_once('?').unwrap();
        for url in [bare.to_owned(), format!("{bare}?verifier=made-up")] {
            assert_eq!(mallory.get(&url).await.status, 403);
        }
        assert!(s.grants().await.is_empty());
        s.finish().await;
    }

    async fn a_request_is_decided_once_and_taken_on_once(engine: Engine) {
        let (s, application) = stage(engine).await;
        let browser = Browser::new();
        let id = begun(&s, &browser).await;
        let back = accept(&application, &id, &s.person.id, &["read"]).await.unwrap();
        let again = accept(&application, &id, &s.person.id, &["read"]).await;
        assert_refused(again, Code::FailedPrecondition, "AUTHORIZATION_REQUEST_STATE");
        let again = reject(&application, &id, "").await;
        assert_refused(again, Code::FailedPrecondition, "AUTHORIZATION_REQUEST_STATE");
        let pages = join_all((0..5).map(|_| browser.get(&back))).await;
        assert_eq!(pages.iter().filter(|page| page.status == 303).count(), 1);
        assert_eq!(s.grants().await.len(), 1);
        s.finish().await;
    }

    async fn nobody_agrees_to_more_than_was_asked_for_or_for_somebody_who_is_gone(engine: Engine) {
        let (s, application) = stage(engine).await;
        let id = begun(&s, &Browser::new()).await;
        for scopes in [&["openid", "write"][..], &["admin"], &[]] {
            let refused = accept(&application, &id, &s.person.id, scopes).await.unwrap_err();
            assert_eq!(violations(&refused), ["scopes"]);
        }
        let nobody = tokenbroker::model::IdKind::User.new_id();
        assert_refused(accept(&application, &id, &nobody, &["read"]).await, Code::NotFound, "USER_NOT_FOUND");
        deactivate(&s).await;
        let refused = accept(&application, &id, &s.person.id, &["read"]).await;
        assert_refused(refused, Code::FailedPrecondition, "USER_INACTIVE");
        s.finish().await;
    }

    async fn requests_are_the_applications_of_their_tenant(engine: Engine) {
        let (s, _) = stage(engine).await;
        let id = begun(&s, &Browser::new()).await;
        let abroad = s.b.caller_in("elsewhere", Role::IssuerUi, Constraints::default()).await;
        assert_refused(get(&abroad, &id).await, Code::NotFound, "AUTHORIZATION_REQUEST_NOT_FOUND");
        let refused = accept(&abroad, &id, &s.person.id, &["read"]).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound);
        assert_refused(reject(&abroad, &id, "").await, Code::NotFound, "AUTHORIZATION_REQUEST_NOT_FOUND");
        let consumer = s.b.caller(Role::Consumer, Constraints::default()).await;
        assert_refused(get(&consumer, &id).await, Code::PermissionDenied, "PERMISSION_DENIED");
        s.b.clock.advance(s.b.config.issuer.request_lifetime);
        assert_refused(get(&s.b.admin, &id).await, Code::NotFound, "AUTHORIZATION_REQUEST_NOT_FOUND");
        s.finish().await;
    }

    async fn our_own_pages_are_no_way_around_the_application(engine: Engine) {
        let (s, _) = stage(engine).await;
        let browser = Browser::new();
        let id = begun(&s, &browser).await;
        for page in ["sign-in", "consent"] {
            let url = s.page(&format!("oauth2/{page}/{id}"));
            assert_eq!(browser.get(&url).await.status, 404);
            let form = Form::new(&[("email", EMAIL), ("password", &s.person.password), ("decision", "allow")]);
            assert_eq!(browser.post(&url, &form.encoded(), &[]).await.status, 404);
        }
        s.finish().await;
    }
}
