//! Links and callbacks at the browser listener, and those who tamper with them.

use std::collections::HashMap;

use futures_util::future::join;
use tokenbroker::pb;
use tokenbroker::pb::AuthorizationState as State;
use tonic::Code;
use url::Url;

use crate::fixture::browser::{Browser, Page, plain_client};
use crate::fixture::leaks::Secrets;
use crate::fixture::provider::{Account, FakeProvider, Fault, Target};
use crate::fixture::*;
use crate::{on_both_engines, web};

/// A person who has consented: the provider's answer is on its way, not delivered yet.
pub struct Consented {
    pub b: Broker,
    pub app: pb::App,
    pub connect_url: String,
    pub id: String,
    pub browser: Browser,
    pub callback: Url,
}

impl Consented {
    pub async fn start(engine: Engine) -> Self {
        Self::at(Broker::start(engine).await, |_| {}).await
    }

    async fn at(b: Broker, ask: impl FnOnce(&mut pb::StartAuthorizationRequest)) -> Self {
        let app = b.app().await;
        let mut request = asked(&app);
        ask(&mut request);
        let started = b.start_authorization(request).await.unwrap();
        let browser = Browser::new();
        let callback = consent(&b, &browser, &started.connect_url).await;
        Self {
            b,
            app,
            connect_url: started.connect_url,
            id: started.authorization.unwrap().id,
            browser,
            callback,
        }
    }

    /// Delivers an answer that is refused.
    pub async fn refused(&self, browser: &Browser, callback: &Url, status: u16) -> Page {
        let page = browser.get(callback).await;
        assert_eq!(page.status.as_u16(), status, "{}", page.body);
        page
    }

    /// Nothing has changed, and whoever began can finish.
    pub async fn unharmed(self) {
        let Self { b, id, .. } = self;
        assert_eq!(authorization(&b, &id).await.state(), State::Pending);
        assert_eq!(b.provider.exchanges(), 0);
        assert!(connections(&b).await.is_empty());
        let page = self.browser.get(&self.callback).await;
        let connection = b.confirm(&returned(&page), "owner-1").await.unwrap();
        assert_eq!(connection.state(), pb::ConnectionState::Active);
        b.finish().await;
    }

    /// Delivers the answer, which ends the authorisation: the browser comes back with a failure
    /// and without a code.
    async fn failed(&self) -> pb::AuthorizationFailure {
        let returned = returned(&self.browser.get(&self.callback).await);
        assert_eq!(returned["outcome"], "failure");
        assert_eq!(returned["authorization_id"], self.id);
        assert_eq!(returned.len(), 2, "{:?}", returned.keys());
        let authorization = authorization(&self.b, &self.id).await;
        assert_eq!(authorization.state(), State::Failed);
        assert!(connections(&self.b).await.is_empty());
        authorization.failure.unwrap()
    }
}

/// What a test usually asks for.
pub fn asked(app: &pb::App) -> pb::StartAuthorizationRequest {
    pb::StartAuthorizationRequest {
        app: app.id.clone(),
        owner: "owner-1".to_owned(),
        return_url: RETURN_URL.to_owned(),
        ..Default::default()
    }
}

/// Opens a link and consents: where the provider sends the browser.
pub async fn consent(b: &Broker, browser: &Browser, connect_url: &str) -> Url {
    let page = browser.follow(connect_url, &host(b)).await;
    let callback = page.location.unwrap_or_else(|| panic!("{}", page.body));
    let state = callback.query_pairs().find(|(name, _)| name == "state");
    Secrets::register_as("state", &state.unwrap().1);
    for cookie in browser.cookies() {
        Secrets::register_as("cookie", &cookie.value);
    }
    callback
}

/// The parameters that the browser brings back to the product.
pub fn returned(page: &Page) -> HashMap<String, String> {
    let location = page.location.as_ref();
    let location = location.unwrap_or_else(|| panic!("{}", page.body));
    assert!(location.as_str().starts_with(RETURN_URL));
    location.query_pairs().into_owned().collect()
}

pub async fn authorization(b: &Broker, id: &str) -> pb::Authorization {
    let request = pb::GetAuthorizationRequest {
        authorization_id: id.to_owned(),
    };
    let found = b.admin.broker.clone().get_authorization(request).await;
    found.unwrap().into_inner().authorization.unwrap()
}

pub async fn connections(b: &Broker) -> Vec<pb::Connection> {
    let request = pb::ListConnectionsRequest::default();
    let found = b.admin.broker.clone().list_connections(request).await;
    found.unwrap().into_inner().connections
}

pub fn host(b: &Broker) -> String {
    b.running().web_address().to_string()
}

/// The address with a parameter changed, or left out.
pub fn with(url: &Url, name: &str, value: Option<&str>) -> Url {
    let mut changed = url.clone();
    let kept = url.query_pairs().filter(|(key, _)| key != name);
    changed.query_pairs_mut().clear().extend_pairs(kept);
    if let Some(value) = value {
        changed.query_pairs_mut().append_pair(name, value);
    }
    changed
}

on_both_engines! {
    async fn a_scanner_before_the_person_burns_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let link = b.authorize(&app, "owner-1").await.connect_url;
        for _ in 0..3 {
            assert_eq!(Browser::new().get(&link).await.status, 303);
            assert_eq!(plain_client().head(&link).send().await.unwrap().status(), 200);
            let ahead = plain_client().get(&link).header("sec-purpose", "prefetch");
            assert_eq!(ahead.send().await.unwrap().status(), 503);
        }
        let returned = b.consent(&link).await;
        b.confirm(&returned, "owner-1").await.unwrap();
        b.finish().await;
    }

    async fn a_link_that_is_opened_without_end_is_closed(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let link = b.authorize(&app, "owner-1").await.connect_url;
        for _ in 0..50 {
            assert_eq!(Browser::new().get(&link).await.status, 303);
        }
        let page = Browser::new().get(&link).await;
        assert_eq!(page.status, 429);
        assert!(page.header("retry-after").is_some());
        b.finish().await;
    }

    async fn an_expired_link_is_gone(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let started = b.authorize(&app, "owner-1").await;
        b.clock.advance(b.config.authorizations.ttl);
        let page = Browser::new().get(&started.connect_url).await;
        assert_eq!(page.status, 410);
        assert!(page.body.contains("This link has expired"));
        let id = started.authorization.unwrap().id;
        assert_eq!(authorization(&b, &id).await.state(), State::Expired);
        b.finish().await;
    }

    async fn a_finished_link_is_gone(engine: Engine) {
        let c = Consented::start(engine).await;
        for opened_by in [&c.browser, &Browser::new()] {
            assert_eq!(opened_by.get(&c.connect_url).await.status, 303);
        }
        returned(&c.browser.get(&c.callback).await);
        for opened_by in [&c.browser, &Browser::new()] {
            let page = opened_by.get(&c.connect_url).await;
            assert_eq!(page.status, 410);
            assert!(page.body.contains("This link was already used"));
        }
        c.b.finish().await;
    }

    async fn an_inactive_app_sends_nobody_anywhere(engine: Engine) {
        let c = Consented::start(engine).await;
        let off = pb::UpdateAppRequest {
            app: Some(pb::App {
                id: c.app.id.clone(),
                state: pb::AppState::Inactive.into(),
                ..Default::default()
            }),
            update_mask: Some(prost_types::FieldMask { paths: vec!["state".to_owned()] }),
        };
        c.b.admin.registry.clone().update_app(off).await.unwrap();
        assert_eq!(Browser::new().get(&c.connect_url).await.status, 409);
        c.refused(&c.browser, &c.callback, 409).await;
        assert_eq!(c.b.provider.exchanges(), 0);
        c.b.finish().await;
    }

    async fn a_forged_state_is_refused(engine: Engine) {
        let c = Consented::start(engine).await;
        let long = "s".repeat(4_000);
        for state in [Some("forged"), Some(""), Some(&*long), None] {
            let forged = with(&c.callback, "state", state);
            let page = c.refused(&c.browser, &forged, 400).await;
            assert!(page.body.contains("Nothing has changed"));
        }
        c.unharmed().await;
    }

    async fn a_replayed_callback_is_refused(engine: Engine) {
        let c = Consented::start(engine).await;
        let back = returned(&c.browser.get(&c.callback).await);
        let connection = c.b.confirm(&back, "owner-1").await.unwrap();
        c.refused(&c.browser, &c.callback, 400).await;
        c.refused(&Browser::new(), &c.callback, 400).await;
        assert_eq!(c.b.provider.exchanges(), 1);
        let token = c.b.token(&connection.id).await.unwrap();
        assert!(c.b.provider.is_access_token_valid(&token.access_token));
        c.b.finish().await;
    }

    async fn a_callback_that_comes_too_late_is_refused(engine: Engine) {
        let c = Consented::start(engine).await;
        c.b.clock.advance(c.b.config.authorizations.state_ttl);
        c.refused(&c.browser, &c.callback, 400).await;
        assert_eq!(c.b.provider.exchanges(), 0);
        let returned = c.b.consent(&c.connect_url).await;
        c.b.confirm(&returned, "owner-1").await.unwrap();
        c.b.finish().await;
    }

    async fn a_code_for_one_app_is_not_fed_to_another(engine: Engine) {
        let c = Consented::start(engine).await;
        let evil = FakeProvider::start().await;
        let other = c.b.app_of(&evil, "evil").await;
        let mixed = c.callback.as_str().replace(&c.app.id, &other.id);
        c.refused(&c.browser, &mixed.parse().unwrap(), 400).await;
        assert_eq!(evil.exchanges(), 0);
        c.unharmed().await;
    }

    async fn another_browser_is_refused(engine: Engine) {
        let c = Consented::start(engine).await;
        let stranger = Browser::new();
        // One that has a cookie, from a visit of its own.
        stranger.get(&c.connect_url).await;
        for browser in [&stranger, &Browser::new()] {
            let page = c.refused(browser, &c.callback, 403).await;
            assert!(page.body.contains("began in another browser"));
        }
        c.unharmed().await;
    }

    async fn a_victim_who_finishes_an_attackers_link_connects_nothing(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let started = b.authorize(&app, "mallory").await;
        b.provider.sign_in_as(Account::named("victim"));
        let returned = b.consent(&started.connect_url).await;
        assert_refused(b.confirm(&returned, "victim").await, Code::FailedPrecondition, "OWNER_MISMATCH");
        let id = started.authorization.unwrap().id;
        assert_eq!(authorization(&b, &id).await.state(), State::AwaitingConfirmation);
        let made = connections(&b).await.remove(0);
        assert_eq!((made.owner.as_str(), made.state()), ("mallory", pb::ConnectionState::Pending));
        assert_refused(b.token(&made.id).await, Code::FailedPrecondition, "CONNECTION_PENDING");
        b.finish().await;
    }

    async fn two_tabs_that_finish_at_once_make_one_connection(engine: Engine) {
        let c = Consented::start(engine).await;
        let other = Browser::new();
        let callback = consent(&c.b, &other, &c.connect_url).await;
        let (one, two) = join(c.browser.get(&c.callback), other.get(&callback)).await;
        let statuses = [one.status.as_u16(), two.status.as_u16()];
        assert!(statuses == [303, 409] || statuses == [409, 303], "{statuses:?}");
        let winner = if one.status == 303 { one } else { two };
        let connection = c.b.confirm(&returned(&winner), "owner-1").await.unwrap();
        assert_eq!(connections(&c.b).await.len(), 1);
        let token = c.b.token(&connection.id).await.unwrap();
        assert!(c.b.provider.is_access_token_valid(&token.access_token));
        c.b.finish().await;
    }

    async fn duplicated_parameters_are_refused(engine: Engine) {
        let c = Consented::start(engine).await;
        for name in ["code", "state", "iss", "anything"] {
            let mut twice = c.callback.clone();
            twice.query_pairs_mut().append_pair(name, "x").append_pair(name, "x");
            c.refused(&c.browser, &twice, 400).await;
        }
        c.unharmed().await;
    }

    async fn an_answer_without_end_is_not_read(engine: Engine) {
        let c = Consented::start(engine).await;
        let long = with(&c.callback, "junk", Some(&"x".repeat(17_000)));
        c.refused(&c.browser, &long, 414).await;
        let mut many = c.callback.clone();
        many.query_pairs_mut().extend_pairs((0..60).map(|i| (format!("p{i}"), "x")));
        c.refused(&c.browser, &many, 414).await;
        let neither = with(&c.callback, "code", None);
        c.refused(&c.browser, &neither, 400).await;
        c.unharmed().await;
    }

    async fn an_answer_from_another_issuer_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.wrong_iss_next();
        let c = Consented::at(b, |_| {}).await;
        assert_eq!(c.failed().await.reason, "ISSUER_MISMATCH");
        assert_eq!(c.b.provider.exchanges(), 0);
        c.b.finish().await;
    }

    async fn an_answer_without_the_issuer_that_is_always_sent_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.send_iss(false);
        let c = Consented::at(b, |_| {}).await;
        assert_eq!(c.failed().await.reason, "ISSUER_MISMATCH");
        assert_eq!(c.b.provider.exchanges(), 0);
        c.b.finish().await;
    }

    async fn an_id_token_of_another_sign_in_is_refused_and_revoked(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.wrong_nonce_next();
        let c = Consented::at(b, |request| request.scopes = vec!["openid".to_owned()]).await;
        assert_eq!(c.failed().await.reason, "NONCE_MISMATCH");
        assert_eq!(c.b.provider.successful_exchanges(), 1);
        assert_eq!(c.b.provider.live_grants(), 0);
        c.b.finish().await;
    }

    async fn a_denial_is_recorded_and_told(engine: Engine) {
        let b = Broker::start(engine).await;
        b.provider.deny_next("access_denied", "not today");
        let c = Consented::at(b, |_| {}).await;
        let failure = c.failed().await;
        assert_eq!(failure.reason, "PROVIDER_ERROR");
        assert_eq!(failure.provider_error, "access_denied");
        assert_eq!(failure.provider_error_description, "not today");
        assert_eq!(Browser::new().get(&c.connect_url).await.status, 410);
        c.b.finish().await;
    }

    async fn hostile_words_of_a_provider_are_shown_as_text(engine: Engine) {
        let b = Broker::start(engine).await;
        let hostile = format!("<script>alert(1)</script>\u{7}\u{202e}\r\n{}", "x".repeat(10_000));
        b.provider.deny_next("server_error\"><b>", &hostile);
        let c = Consented::at(b, |request| {
            request.return_url = String::new();
            request.mode = pb::AuthorizationMode::LinkOnly.into();
        }).await;
        let page = c.refused(&c.browser, &c.callback, 502).await;
        web::assert_headers(&page);
        for banned in ["<script", "<b>", "\u{7}", "\u{202e}"] {
            assert!(!page.body.contains(banned), "{banned:?}");
        }
        assert!(page.body.contains("&#60;script&#62;alert(1)&#60;/script&#62;"));
        assert!(page.body.contains(&c.id) && !page.body.contains(&"x".repeat(500)));
        let failure = authorization(&c.b, &c.id).await.failure.unwrap();
        assert!(failure.provider_error_description.chars().count() <= 200);
        assert!(!failure.provider_error_description.chars().any(char::is_control));
        c.b.finish().await;
    }

    async fn a_code_that_the_provider_refuses_ends_it(engine: Engine) {
        let c = Consented::start(engine).await;
        let refusal = Fault::oauth_error(400, "invalid_grant", "the code is too old");
        c.b.provider.fail_next(Target::Exchange, refusal);
        let failure = c.failed().await;
        assert_eq!(failure.reason, "EXCHANGE_FAILED");
        assert_eq!(failure.provider_error, "invalid_grant");
        assert_eq!(failure.provider_error_description, "the code is too old");
        c.b.finish().await;
    }

    async fn a_code_whose_answer_was_lost_is_not_sent_again(engine: Engine) {
        let c = Consented::start(engine).await;
        c.b.provider.fail_next(Target::Exchange, Fault::DropAfter);
        assert_eq!(c.failed().await.reason, "EXCHANGE_FAILED");
        assert_eq!(c.b.provider.exchanges(), 1);
        c.b.finish().await;
    }

    async fn an_account_that_stays_unknown_is_connected_all_the_same(engine: Engine) {
        let c = Consented::start(engine).await;
        c.b.provider.fail_always(Target::Userinfo, Fault::Status(500));
        let back = returned(&c.browser.get(&c.callback).await);
        let connection = c.b.confirm(&back, "owner-1").await.unwrap();
        assert_eq!(connection.account_id, "");
        let token = c.b.token(&connection.id).await.unwrap();
        assert!(c.b.provider.is_access_token_valid(&token.access_token));
        // Keyed by the authorisation: another one is another connection.
        let other = c.b.connect(&c.app, "owner-1").await;
        assert_ne!(other.id, connection.id);
        c.b.finish().await;
    }
}
