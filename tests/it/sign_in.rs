//! Signing in through a provider: by an account that the user has connected.

use std::collections::HashMap;
use std::time::Duration;

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tokenbroker::pb::create_session_request::Credentials;
use tonic::{Code, Status};

use crate::callbacks::{connections, consent as to_callback, returned};
use crate::fixture::browser::Browser;
use crate::fixture::leaks::Secrets;
use crate::fixture::provider::Account;
use crate::fixture::*;
use crate::on_both_engines;
use crate::sessions::{SignedIn, create, recorded, user_with, whoami};

const EMAIL: &str = "ada@example.com";

/// An app, and a user without a password who has connected their account through it.
struct Connected {
    b: Broker,
    app: pb::App,
    user: pb::User,
    connection: pb::Connection,
    ui: Caller,
}

impl Connected {
    async fn start(engine: Engine) -> Self {
        Self::with_role(engine, pb::Role::User).await
    }

    async fn with_role(engine: Engine, role: pb::Role) -> Self {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let user = user_with(&b, EMAIL, role, "").await;
        b.provider.sign_in_as(Account::named("ada"));
        let connection = b.connect(&app, "ada").await;
        let ui = b.caller(Role::IssuerUi, Constraints::default()).await;
        Self {
            b,
            app,
            user,
            connection,
            ui,
        }
    }

    async fn begin(&self) -> pb::StartSignInResponse {
        begin(&self.ui, &self.app).await.unwrap()
    }

    /// Goes through the provider in a browser of its own: what that brings back.
    async fn prove(&self) -> HashMap<String, String> {
        let returned = self.b.consent(&self.begin().await.sign_in_url).await;
        if let Some(code) = returned.get("code") {
            Secrets::register_as("sign-in code", code);
        }
        returned
    }

    async fn sign_in(&self, returned: &HashMap<String, String>) -> Result<SignedIn, Status> {
        create(&self.b, by_provider(returned)).await
    }

    async fn refused(&self, returned: &HashMap<String, String>, why: &str) {
        let refused = self.sign_in(returned).await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert_eq!(recorded(&self.b, &["session.created", why]).await, 1);
    }
}

async fn begin(caller: &Caller, app: &pb::App) -> Result<pb::StartSignInResponse, Status> {
    let request = pb::StartSignInRequest {
        app: app.id.clone(),
        return_url: RETURN_URL.to_owned(),
        ..Default::default()
    };
    let mut client = caller.administration.clone();
    let started = client.start_sign_in(request).await?.into_inner();
    Secrets::register_as("ticket", started.sign_in_url.rsplit('/').next().unwrap());
    Ok(started)
}

fn by_provider(returned: &HashMap<String, String>) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest {
        credentials: Some(Credentials::Provider(pb::ProviderCredentials {
            authorization_id: returned["authorization_id"].clone(),
            code: returned["code"].clone(),
        })),
        ..Default::default()
    }
}

on_both_engines! {
    async fn a_user_signs_in_through_a_provider(engine: Engine) {
        let c = Connected::start(engine).await;
        let returned = c.prove().await;
        assert_eq!(returned["outcome"], "success", "{returned:?}");
        let session = c.sign_in(&returned).await.unwrap();
        assert_eq!(session.session.method(), pb::SignInMethod::Provider);
        let who = whoami(&c.b, &session.token).await.unwrap();
        assert_eq!((&who.caller_id, who.role()), (&c.user.id, pb::Role::User));
        let made: Vec<_> = connections(&c.b).await.into_iter().map(|it| it.id).collect();
        assert_eq!(made, std::slice::from_ref(&c.connection.id));
        // Ends by searching the database for every token that the provider gave.
        c.b.finish().await;
    }

    async fn a_sign_in_asks_for_the_identity_alone(engine: Engine) {
        let c = Connected::start(engine).await;
        let started = c.begin().await;
        let page = Browser::new().get(&started.sign_in_url).await;
        assert_eq!(page.location_query("scope").unwrap(), "openid profile");
        assert!(page.location_query("code_challenge").is_some());
        assert!(page.location_query("nonce").is_some());
        Secrets::register_as("state", &page.location_query("state").unwrap());
        c.b.finish().await;
    }

    async fn a_sign_in_with_an_account_that_is_nobodys(engine: Engine) {
        let c = Connected::start(engine).await;
        c.b.provider.sign_in_as(Account::named("eve"));
        let returned = c.prove().await;
        c.refused(&returned, "UNKNOWN_ACCOUNT").await;
        c.b.finish().await;
    }

    async fn a_sign_in_with_an_account_of_two_users(engine: Engine) {
        let c = Connected::start(engine).await;
        user_with(&c.b, "eve@example.com", pb::Role::User, "").await;
        c.b.connect(&c.app, "eve").await;
        let returned = c.prove().await;
        c.refused(&returned, "AMBIGUOUS_ACCOUNT").await;
        c.b.finish().await;
    }

    async fn a_sign_in_with_an_account_whose_connection_was_revoked(engine: Engine) {
        let c = Connected::start(engine).await;
        let request = pb::RevokeConnectionRequest {
            connection_id: c.connection.id.clone(),
            ..Default::default()
        };
        c.b.admin.broker.clone().revoke_connection(request).await.unwrap();
        let returned = c.prove().await;
        c.refused(&returned, "UNKNOWN_ACCOUNT").await;
        c.b.finish().await;
    }

    async fn a_sign_in_by_an_account_that_a_consumer_could_have_planted_on_an_admin(engine: Engine) {
        let c = Connected::with_role(engine, pb::Role::Admin).await;
        let returned = c.prove().await;
        c.refused(&returned, "ROLE_NOT_ALLOWED").await;
        c.b.finish().await;
    }

    async fn a_sign_in_code_works_once(engine: Engine) {
        let c = Connected::start(engine).await;
        let returned = c.prove().await;
        let (one, other) = futures_util::future::join(c.sign_in(&returned), c.sign_in(&returned)).await;
        assert_eq!(usize::from(one.is_ok()) + usize::from(other.is_ok()), 1);
        let refused = c.sign_in(&returned).await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        c.b.finish().await;
    }

    async fn a_sign_in_code_is_bound_to_its_sign_in_its_tenant_and_its_time(engine: Engine) {
        let c = Connected::start(engine).await;
        let (one, other) = (c.prove().await, c.prove().await);
        let mut mixed = one.clone();
        mixed.insert("code".to_owned(), other["code"].clone());
        c.refused(&mixed, "CODE_INVALID").await;
        let elsewhere = pb::CreateSessionRequest { tenant: "other".to_owned(), ..by_provider(&one) };
        let refused = create(&c.b, elsewhere).await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        c.sign_in(&one).await.unwrap();
        c.b.clock.advance(std::time::Duration::from_secs(600));
        c.refused(&other, "CODE_SPENT").await;
        c.b.finish().await;
    }

    async fn a_sign_in_begun_in_another_browser_is_refused(engine: Engine) {
        let c = Connected::start(engine).await;
        let started = c.begin().await;
        let attacker = Browser::new();
        let callback = to_callback(&c.b, &attacker, &started.sign_in_url).await;
        let exchanged = c.b.provider.exchanges();
        let page = Browser::new().get(&callback).await;
        assert_eq!(page.status.as_u16(), 403, "{}", page.body);
        assert_eq!(c.b.provider.exchanges(), exchanged);
        let back = returned(&attacker.get(&callback).await);
        Secrets::register_as("sign-in code", &back["code"]);
        c.sign_in(&back).await.unwrap();
        c.b.finish().await;
    }

    async fn a_sign_in_is_confirmed_as_no_connection(engine: Engine) {
        let c = Connected::start(engine).await;
        let returned = c.prove().await;
        let request = pb::ConfirmAuthorizationRequest {
            authorization_id: returned["authorization_id"].clone(),
            confirmation_code: returned["code"].clone(),
            owner: "eve".to_owned(),
        };
        let refused = c.b.admin.broker.clone().confirm_authorization(request).await;
        assert_refused(refused, Code::FailedPrecondition, "AUTHORIZATION_STATE");
        c.sign_in(&returned).await.unwrap();
        c.b.finish().await;
    }

    async fn a_confirmation_code_signs_nobody_in(engine: Engine) {
        let c = Connected::start(engine).await;
        let link = c.b.authorize(&c.app, "ada").await.connect_url;
        let mut returned = c.b.consent(&link).await;
        let code = returned.remove("confirmation_code").unwrap();
        Secrets::register_as("confirmation code", &code);
        returned.insert("code".to_owned(), code);
        c.refused(&returned, "SIGN_IN_UNKNOWN").await;
        c.b.finish().await;
    }

    async fn a_provider_that_does_not_tell_whose_account_it_is_signs_nobody_in(engine: Engine) {
        let b = Broker::start(engine).await;
        let mute = b.app_defined(&b.provider, "mute", |provider| provider.userinfo = None).await;
        let refused = begin(&b.admin, &mute).await;
        assert_refused(refused, Code::FailedPrecondition, "NOT_A_SIGN_IN_PROVIDER");
        b.finish().await;
    }

    async fn a_sign_in_is_begun_by_whoever_may_and_leads_to_the_apps_own_pages(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let consumer = b.caller(Role::Consumer, Constraints::default()).await;
        let refused = begin(&consumer, &app).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        let held = Constraints { providers: vec!["github".to_owned()], ..Constraints::default() };
        let elsewhere = b.caller(Role::IssuerUi, held).await;
        assert_eq!(begin(&elsewhere, &app).await.unwrap_err().code(), Code::PermissionDenied);
        let request = pb::StartSignInRequest {
            app: app.id.clone(),
            return_url: "https://evil.example/".to_owned(),
            ..Default::default()
        };
        let refused = b.admin.administration.clone().start_sign_in(request).await;
        assert_eq!(violations(&refused.unwrap_err()), ["return_url"]);
        b.finish().await;
    }

    async fn no_more_sign_ins_wait_than_the_limit_says(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.authorizations.max_pending_sign_ins_per_app = 2;
        })
        .await;
        let app = b.app().await;
        for _ in 0..2 {
            begin(&b.admin, &app).await.unwrap();
        }
        let refused = begin(&b.admin, &app).await;
        assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
        // Those who never go on keep nobody out for longer than a minute, whatever the link's time.
        b.clock.advance(Duration::from_secs(60));
        begin(&b.admin, &app).await.unwrap();
        b.finish().await;
    }
}
