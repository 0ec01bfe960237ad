//! Connecting accounts: from the link to the confirmed connection, and the short ways.

use std::collections::HashMap;
use std::time::Duration;

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tokenbroker::pb::AuthorizationState as State;
use tonic::{Code, Status};
use url::Url;

use crate::callbacks::{asked, authorization, connections, consent};
use crate::fixture::browser::Browser;
use crate::fixture::provider::{Account, Fault, Target};
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3600);

/// The caller's own redirect URI; nothing listens there.
const OWN_URI: &str = "http://127.0.0.1:9/own";

/// The provider's answer at the caller's own redirect URI.
struct Own {
    id: String,
    parameters: HashMap<String, String>,
}

impl Own {
    async fn consent(b: &Broker, app: &pb::App) -> Self {
        let request = pb::StartAuthorizationRequest {
            return_url: String::new(),
            redirect_uri: OWN_URI.to_owned(),
            ..asked(app)
        };
        let started = b.start_authorization(request).await.unwrap();
        assert_eq!(started.connect_url, "");
        let page = Browser::new().get(&started.authorization_url).await;
        let location = page.location.unwrap_or_else(|| panic!("{}", page.body));
        assert!(location.as_str().starts_with(OWN_URI));
        Self {
            id: started.authorization.unwrap().id,
            parameters: location.query_pairs().into_owned().collect(),
        }
    }

    async fn complete(
        &self,
        b: &Broker,
        owner: &str,
    ) -> Result<pb::CompleteAuthorizationResponse, Status> {
        let request = pb::CompleteAuthorizationRequest {
            authorization_id: self.id.clone(),
            owner: owner.to_owned(),
            parameters: self.parameters.clone(),
        };
        Ok(b.admin
            .broker
            .clone()
            .complete_authorization(request)
            .await?
            .into_inner())
    }
}

/// An app whose redirect URI is the caller's own.
async fn own_app(b: &Broker) -> pb::App {
    let app = b.app().await;
    b.provider.register_redirect_uri(OWN_URI);
    let request = pb::UpdateAppRequest {
        app: Some(pb::App {
            id: app.id,
            redirect_uris: vec![OWN_URI.to_owned()],
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["redirect_uris".to_owned()],
        }),
    };
    b.admin
        .registry
        .clone()
        .update_app(request)
        .await
        .unwrap()
        .into_inner()
        .app
        .unwrap()
}

fn link_only(app: &pb::App) -> pb::StartAuthorizationRequest {
    pb::StartAuthorizationRequest {
        mode: pb::AuthorizationMode::LinkOnly.into(),
        return_url: String::new(),
        ..asked(app)
    }
}

async fn assert_invalid(b: &Broker, request: pb::StartAuthorizationRequest, field: &str) {
    let status = b.start_authorization(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert_eq!(violations(&status), [field]);
}

/// The types of all events, once there are so many.
async fn event_types(b: &Broker, count: usize) -> Vec<pb::TokenEventType> {
    eventually("all events are there", || async {
        b.events().await.len() >= count
    })
    .await;
    b.events()
        .await
        .iter()
        .map(pb::TokenEvent::r#type)
        .collect()
}

on_both_engines! {
    async fn consent_and_confirmation_make_a_connection(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let started = b.authorize(&app, "owner-1").await;
        let id = started.authorization.unwrap().id;
        assert_eq!(authorization(&b, &id).await.state(), State::Pending);
        let returned = b.consent(&started.connect_url).await;
        assert_eq!((&returned["authorization_id"], returned["outcome"].as_str()), (&id, "success"));
        let waiting = authorization(&b, &id).await;
        assert_eq!(waiting.state(), State::AwaitingConfirmation);
        let refused = b.token(&waiting.connection_id).await;
        assert_refused(refused, Code::FailedPrecondition, "CONNECTION_PENDING");
        let connection = b.confirm(&returned, "owner-1").await.unwrap();
        assert_eq!(connection.id, waiting.connection_id);
        assert_eq!(connection.state(), pb::ConnectionState::Active);
        assert_eq!((connection.account_id.as_str(), connection.owner.as_str()), ("acct-ada", "owner-1"));
        assert_eq!(authorization(&b, &id).await.state(), State::Succeeded);
        let token = b.token(&connection.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        use pb::TokenEventType as Type;
        assert_eq!(event_types(&b, 2).await, [Type::Created, Type::Activated]);
        b.finish().await;
    }

    async fn a_confirmation_code_is_its_authorisations_own_and_works_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let one = b.consent(&b.authorize(&app, "owner-1").await.connect_url).await;
        b.provider.sign_in_as(Account::named("grace"));
        let two = b.consent(&b.authorize(&app, "owner-1").await.connect_url).await;
        let with_code = |code: &str| {
            let mut changed = one.clone();
            changed.insert("confirmation_code".to_owned(), code.to_owned());
            changed
        };
        for code in [&two["confirmation_code"], &"A".repeat(43)] {
            let refused = b.confirm(&with_code(code), "owner-1").await;
            assert_refused(refused, Code::FailedPrecondition, "CONFIRMATION_CODE_INVALID");
        }
        b.confirm(&one, "owner-1").await.unwrap();
        let replayed = b.confirm(&one, "owner-1").await;
        assert_refused(replayed, Code::FailedPrecondition, "CONFIRMATION_CODE_INVALID");
        b.finish().await;
    }

    async fn a_wrong_owner_leaves_the_code_unspent(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let returned = b.consent(&b.authorize(&app, "owner-1").await.connect_url).await;
        for owner in ["owner-2", "owner-1 ", "OWNER-1"] {
            assert_refused(b.confirm(&returned, owner).await, Code::FailedPrecondition, "OWNER_MISMATCH");
        }
        b.confirm(&returned, "owner-1").await.unwrap();
        b.finish().await;
    }

    async fn only_the_apps_own_addresses_are_returned_to(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = own_app(&b).await;
        for url in [format!("{RETURN_URL}/"), format!("{RETURN_URL}?a=b"), "https://evil.example/".to_owned(), String::new()] {
            assert_invalid(&b, pb::StartAuthorizationRequest { return_url: url, ..asked(&app) }, "return_url").await;
        }
        for uri in [format!("{OWN_URI}/"), "https://evil.example/".to_owned(), app.callback_url.clone()] {
            assert_invalid(&b, pb::StartAuthorizationRequest { redirect_uri: uri, ..asked(&app) }, "redirect_uri").await;
        }
        b.finish().await;
    }

    async fn a_parameter_of_the_protocol_is_not_the_callers(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let with = |name: &str, value: &str| pb::StartAuthorizationRequest {
            parameters: HashMap::from([(name.to_owned(), value.to_owned())]),
            ..asked(&app)
        };
        for name in ["state", "redirect_uri", "code_challenge", "NONCE", "request_uri", "response_mode"] {
            assert_invalid(&b, with(name, "x"), &format!("parameters[{name}]")).await;
        }
        let started = b.start_authorization(with("prompt", "select_account")).await.unwrap();
        b.consent(&started.connect_url).await;
        let asked = b.provider.last_authorize_request().unwrap();
        assert_eq!(asked.param("prompt"), Some("select_account"));
        b.finish().await;
    }

    async fn an_owner_has_only_so_many_links_open(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.authorizations.max_pending_per_owner = 2).await;
        let app = b.app().await;
        b.authorize(&app, "owner-1").await;
        b.authorize(&app, "owner-1").await;
        let third = b.start_authorization(asked(&app)).await;
        assert_refused(third, Code::ResourceExhausted, "RATE_LIMITED");
        b.authorize(&app, "owner-2").await;
        b.clock.advance(b.config.authorizations.ttl + Duration::from_secs(60));
        eventually("old links make room", || async { b.start_authorization(asked(&app)).await.is_ok() }).await;
        b.finish().await;
    }

    async fn a_retried_start_answers_the_same_link(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let request = pb::StartAuthorizationRequest {
            request_id: "0192f0c1-7d2b-7c3a-9e4f-5a6b7c8d9e0f".to_owned(),
            parameters: ["a", "b", "c"].map(|name| (name.to_owned(), "x".to_owned())).into(),
            ..asked(&app)
        };
        let first = b.start_authorization(request.clone()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(b.start_authorization(request.clone()).await.unwrap(), first);
        }
        let other = pb::StartAuthorizationRequest { owner: "owner-2".to_owned(), ..request.clone() };
        assert_invalid(&b, other, "request_id").await;
        b.clock.advance(Duration::from_secs(601));
        assert_refused(b.start_authorization(request).await, Code::AlreadyExists, "ALREADY_EXISTS");
        b.finish().await;
    }

    async fn a_link_alone_connects_where_that_is_permitted(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let consumer = b.caller(Role::Consumer, Constraints::default()).await;
        let refused = consumer.broker.clone().start_authorization(link_only(&app)).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let permitted = Constraints { link_only: true, ..Default::default() };
        let permitted = b.caller(Role::Consumer, permitted).await;
        permitted.broker.clone().start_authorization(link_only(&app)).await.unwrap();
        let started = b.start_authorization(link_only(&app)).await.unwrap();
        let page = Browser::new().follow_all(&started.connect_url).await;
        assert_eq!(page.status, 200);
        assert!(page.body.contains("Fake provider is connected") && page.body.contains("ada Example"));
        let done = authorization(&b, &started.authorization.unwrap().id).await;
        assert_eq!(done.state(), State::Succeeded);
        b.token(&done.connection_id).await.unwrap();
        b.finish().await;
    }

    async fn the_same_account_is_connected_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let first = b.connect(&app, "owner-1").await;
        let old = b.token(&first.id).await.unwrap();
        let again = b.connect(&app, "owner-1").await;
        assert_eq!(again.id, first.id);
        assert_eq!(connections(&b).await.len(), 1);
        eventually("the new token is served", || async {
            b.token(&first.id).await.unwrap().access_token != old.access_token
        }).await;
        // Another owner's is another connection, to the same account.
        assert_ne!(b.connect(&app, "owner-2").await.id, first.id);
        use pb::TokenEventType as Type;
        let wanted = [Type::Created, Type::Activated, Type::Reconnected, Type::Created, Type::Activated];
        assert_eq!(event_types(&b, 5).await, wanted);
        b.finish().await;
    }

    async fn a_live_connection_is_untouched_until_its_owner_confirms(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let live = b.connect(&app, "owner-1").await;
        let held = b.token(&live.id).await.unwrap().access_token;
        let returned = b.consent(&b.authorize(&app, "owner-1").await.connect_url).await;
        let waiting = authorization(&b, &returned["authorization_id"]).await;
        assert_eq!((waiting.state(), &waiting.connection_id), (State::AwaitingConfirmation, &live.id));
        assert_eq!(b.connection(&live.id).await.etag, live.etag);
        assert_eq!(b.token(&live.id).await.unwrap().access_token, held);
        b.clock.advance(b.config.authorizations.confirmation_ttl);
        eventually("the second consent lapses", || async {
            authorization(&b, &waiting.id).await.state() == State::Expired
        }).await;
        assert_refused(b.confirm(&returned, "owner-1").await, Code::FailedPrecondition, "AUTHORIZATION_STATE");
        assert_eq!(b.token(&live.id).await.unwrap().access_token, held);
        assert!(b.provider.is_access_token_valid(&held));
        b.finish().await;
    }

    async fn another_account_does_not_renew_a_connection(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let c = b.connect(&app, "owner-1").await;
        let held = b.token(&c.id).await.unwrap().access_token;
        let renew = pb::StartAuthorizationRequest { connection_id: c.id.clone(), ..asked(&app) };
        b.provider.sign_in_as(Account::named("grace"));
        let started = b.start_authorization(renew.clone()).await.unwrap();
        let returned = b.consent(&started.connect_url).await;
        assert_eq!(returned["outcome"], "failure");
        let failed = authorization(&b, &returned["authorization_id"]).await;
        assert_eq!(failed.failure.unwrap().reason, "ACCOUNT_MISMATCH");
        assert_eq!(b.provider.live_grants(), 1, "the stranger's tokens are revoked");
        assert_eq!(b.token(&c.id).await.unwrap().access_token, held);
        b.provider.sign_in_as(Account::named("ada"));
        let returned = b.consent(&b.start_authorization(renew).await.unwrap().connect_url).await;
        assert_eq!(b.confirm(&returned, "owner-1").await.unwrap().id, c.id);
        b.finish().await;
    }

    async fn only_the_owners_own_connection_is_renewed(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let c = b.connect(&app, "owner-1").await;
        let foreign = pb::StartAuthorizationRequest {
            connection_id: c.id,
            owner: "owner-2".to_owned(),
            ..asked(&app)
        };
        assert_refused(b.start_authorization(foreign).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        b.finish().await;
    }

    async fn a_callers_own_redirect_uri_is_completed_by_the_caller(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = own_app(&b).await;
        let own = Own::consent(&b, &app).await;
        assert_refused(own.complete(&b, "owner-2").await, Code::FailedPrecondition, "OWNER_MISMATCH");
        let mut forged = own.parameters.clone();
        forged.insert("state".to_owned(), "forged".to_owned());
        let forged = Own { id: own.id.clone(), parameters: forged };
        assert_refused(forged.complete(&b, "owner-1").await, Code::FailedPrecondition, "STATE_INVALID");
        // Our own callback does not take it either: no cookie was ever set.
        let mut callback = Url::parse(&app.callback_url).unwrap();
        callback.query_pairs_mut().extend_pairs(&own.parameters);
        assert_eq!(Browser::new().get(callback).await.status, 400);
        assert_eq!(b.provider.exchanges(), 0);
        let done = own.complete(&b, "owner-1").await.unwrap();
        assert_eq!(done.authorization.unwrap().state(), State::Succeeded);
        b.token(&done.connection.unwrap().id).await.unwrap();
        assert_refused(own.complete(&b, "owner-1").await, Code::FailedPrecondition, "STATE_INVALID");
        b.finish().await;
    }

    async fn one_authorisation_is_not_completed_with_anothers_answer(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = own_app(&b).await;
        let (one, two) = (Own::consent(&b, &app).await, Own::consent(&b, &app).await);
        let mixed = Own { id: one.id, parameters: two.parameters };
        assert_refused(mixed.complete(&b, "owner-1").await, Code::FailedPrecondition, "STATE_INVALID");
        let ours = b.authorize(&app, "owner-1").await.authorization.unwrap();
        let mixed = Own { id: ours.id, ..mixed };
        assert_refused(mixed.complete(&b, "owner-1").await, Code::FailedPrecondition, "AUTHORIZATION_STATE");
        assert_eq!(b.provider.exchanges(), 0);
        b.finish().await;
    }

    async fn a_denial_is_completed_as_a_failure(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = own_app(&b).await;
        b.provider.deny_next("access_denied", "not today");
        let done = Own::consent(&b, &app).await.complete(&b, "owner-1").await.unwrap();
        let authorization = done.authorization.unwrap();
        assert_eq!(authorization.state(), State::Failed);
        assert_eq!(authorization.failure.unwrap().provider_error, "access_denied");
        assert!(done.connection.is_none() && connections(&b).await.is_empty());
        b.finish().await;
    }

    async fn what_nobody_confirms_is_taken_back(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let returned = b.consent(&b.authorize(&app, "owner-1").await.connect_url).await;
        assert_eq!((connections(&b).await.len(), b.provider.live_grants()), (1, 1));
        b.clock.advance(b.config.authorizations.confirmation_ttl);
        assert_refused(b.confirm(&returned, "owner-1").await, Code::FailedPrecondition, "AUTHORIZATION_STATE");
        eventually("the pending connection is gone", || async { connections(&b).await.is_empty() }).await;
        eventually("its tokens are revoked at the provider", || async { b.provider.live_grants() == 0 }).await;
        assert_eq!(authorization(&b, &returned["authorization_id"]).await.state(), State::Expired);
        use pb::TokenEventType as Type;
        assert_eq!(event_types(&b, 2).await, [Type::Created, Type::Deleted]);
        b.finish().await;
    }

    async fn a_server_that_stops_in_the_middle_loses_nothing(engine: Engine) {
        let mut b = Broker::start_with(engine, |config| {
            config.grpc.drain_timeout = Duration::from_millis(200);
        }).await;
        let app = b.app().await;
        let started = b.start_authorization(link_only(&app)).await.unwrap();
        let browser = Browser::new();
        let callback = consent(&b, &browser, &started.connect_url).await;
        b.provider.fail_next(Target::Userinfo, Fault::HangForever);
        let hanging = tokio::spawn(async move { browser.get(callback).await });
        b.provider.wait_for(Target::Userinfo, 1).await;
        b.stop().await;
        hanging.abort();
        let b = b.replica("a", |_| {}).await;
        let id = started.authorization.unwrap().id;
        assert_eq!(authorization(&b, &id).await.state(), State::Exchanged);
        b.clock.advance(Duration::from_secs(60));
        eventually("the sweeper finishes it", || async {
            authorization(&b, &id).await.state() == State::Succeeded
        }).await;
        let connection = connections(&b).await.remove(0);
        assert_eq!(connection.account_id, "acct-ada");
        let token = b.token(&connection.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        assert_eq!(b.provider.exchanges(), 1);
        b.finish().await;
    }

    async fn scopes_that_were_not_granted_are_missing(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.grant_scopes(&["read"]);
        let c = b.connected().await;
        assert_eq!((c.scopes, c.missing_scopes), (vec!["read".to_owned()], vec!["write".to_owned()]));
        let wanted = |scope: &str| pb::GetAccessTokenRequest {
            connection_id: c.id.clone(),
            required_scopes: vec![scope.to_owned()],
            ..Default::default()
        };
        b.get_token(wanted("read")).await.unwrap();
        assert_refused(b.get_token(wanted("write")).await, Code::FailedPrecondition, "SCOPES_MISSING");
        b.finish().await;
    }

    async fn connected_accounts_come_with_the_links_that_are_needed(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let other = provider::FakeProvider::start().await;
        b.app_of(&other, "other").await;
        let connected = b.connect(&app, "owner-1").await;
        let list = |links: bool| {
            let request = pb::ListConnectedAccountsRequest {
                owner: "owner-1".to_owned(),
                include_connect_urls: links,
                return_url: RETURN_URL.to_owned(),
                ..Default::default()
            };
            let mut broker = b.admin.broker.clone();
            async move { broker.list_connected_accounts(request).await.unwrap().into_inner().accounts }
        };
        assert!(list(false).await.iter().all(|account| account.connect_url.is_empty()));
        let accounts = list(true).await;
        assert_eq!((accounts.len(), accounts[0].connected, accounts[1].connected), (2, true, false));
        assert_eq!(accounts[0].connection.as_ref().unwrap().id, connected.id);
        assert_eq!((accounts[0].connect_url.as_str(), accounts[1].provider.as_str()), ("", "other"));
        b.consent(&accounts[1].connect_url).await;
        b.provider.revoke_account("acct-ada");
        b.clock.advance(HOUR);
        b.token(&connected.id).await.unwrap_err();
        let account = list(true).await.remove(0);
        assert!(!account.connected);
        let returned = b.consent(&account.connect_url).await;
        assert_eq!(b.confirm(&returned, "owner-1").await.unwrap().id, connected.id);
        b.finish().await;
    }
}
