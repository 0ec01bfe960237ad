//! `oauth2/authorize`: what a client may ask for, and where browsers may be sent.

use super::*;

/// A parameter, a value that is wrong, and what comes of it.
const FAULTS: [(&str, &str, &str); 9] = [
    ("response_type", "", "invalid_request"),
    ("response_type", "token", "unsupported_response_type"),
    ("response_mode", "fragment", "invalid_request"),
    ("scope", "openid admin", "invalid_scope"),
    ("resource", "https://evil.example", "invalid_target"),
    ("prompt", "none", "login_required"),
    ("request", "x.y.z", "request_not_supported"),
    ("code_challenge", "short", "invalid_request"),
    ("nonce", "a\nb", "invalid_request"),
];

on_both_engines! {
    async fn an_address_that_resembles_the_registered_one_gets_no_code(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        for uri in [
            "https://acme.example/callback/", "https://acme.example/callback?x=1", "https://acme.example/callback#x",
            "https://ACME.example/callback", "https://acme.example:443/callback", "https://acme.example/%63allback",
            "https://acme.example/x/../callback", "https://acme.example@evil.example/callback",
            "http://acme.example/callback", "https://evil.example/callback",
        ] {
            stays(&opened(&s, &s.client.ask().with("redirect_uri", uri)).await, "invalid_request");
        }
        assert_eq!(s.agreed(&s.client.ask()).await.status, 303);
        s.finish().await;
    }

    async fn a_native_app_chooses_its_port_and_nothing_else(engine: Engine) {
        let app = pb::Client { redirect_uris: vec!["http://127.0.0.1/cb".to_owned()], ..public() };
        let s = Stage::of(engine, app).await;
        for uri in [
            "http://127.0.0.1:49152/other", "http://127.0.0.1:0/cb", "http://localhost:49152/cb",
            "http://[::1]:49152/cb", "http://127.0.0.1:80@evil.example/cb", "http://127.0.0.1.evil.example/cb",
        ] {
            stays(&opened(&s, &s.client.ask().with("redirect_uri", uri)).await, "invalid_request");
        }
        let back = s.agreed(&s.client.ask().with("redirect_uri", "http://127.0.0.1:49152/cb")).await;
        assert_eq!(back.location.unwrap().port(), Some(49_152));
        s.finish().await;
    }

    async fn unsafe_addresses_are_not_registered(engine: Engine) {
        let b = Broker::start(engine).await;
        let unsafe_ones = ["https://acme.example/cb#x", "http://acme.example/cb", "acme:/cb", "https://*.acme.example/cb", "javascript:alert(1)"];
        let client = pb::Client { redirect_uris: unsafe_ones.map(str::to_owned).to_vec(), ..acme() };
        let request = pb::CreateClientRequest { client: Some(client), ..Default::default() };
        let refused = b.admin.registry.clone().create_client(request).await.unwrap_err();
        let each: Vec<_> = (0..unsafe_ones.len()).map(|i| format!("client.redirect_uris[{i}]")).collect();
        assert_eq!(violations(&refused), each);
        b.finish().await;
    }

    async fn an_unknown_client_leads_nobody_anywhere(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        let unknown = tokenbroker::model::IdKind::Client.new_id();
        for id in [&*unknown, "x", "client_' OR 1=1 --", &"x".repeat(3_000)] {
            stays(&opened(&s, &s.client.ask().with("client_id", id)).await, "invalid_client");
        }
        stays(&opened(&s, &s.client.ask().without("client_id")).await, "invalid_request");
        s.finish().await;
    }

    async fn errors_of_a_third_party_lead_nobody_anywhere(engine: Engine) {
        let s = Stage::new(engine).await;
        for (name, value, error) in FAULTS {
            stays(&opened(&s, &s.client.ask().with(name, value)).await, error);
        }
        s.finish().await;
    }

    async fn the_tenants_own_client_is_told_of_its_errors(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        for (name, value, error) in FAULTS {
            let page = opened(&s, &s.client.ask().with(name, value)).await;
            assert_eq!(page.status, 303, "{name}");
            assert!(page.location.as_ref().unwrap().as_str().starts_with(REDIRECT_URI));
            for (name, value) in [("error", error), ("state", STATE), ("iss", ISSUER)] {
                assert_eq!(page.location_query(name).as_deref(), Some(value));
            }
            assert_headers(&page);
        }
        s.finish().await;
    }

    async fn a_request_without_a_challenge_or_with_a_plain_one_is_refused(engine: Engine) {
        let s = Stage::of(engine, public()).await;
        let ask = s.client.ask();
        for request in [
            ask.clone().without("code_challenge").without("code_challenge_method"),
            ask.clone().without("code_challenge"),
            ask.clone().without("code_challenge_method"),
            ask.clone().with("code_challenge_method", "plain"),
            ask.clone().with("code_challenge_method", "s256"),
            ask.with("code_challenge", &"x".repeat(44)),
        ] {
            stays(&opened(&s, &request).await, "invalid_request");
        }
        s.finish().await;
    }

    async fn state_and_issuer_come_back_with_the_code_and_with_a_no(engine: Engine) {
        let s = Stage::new(engine).await;
        let yes = s.agreed(&s.client.ask()).await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        let no = s.decide(&browser, &asked, "deny").await;
        for page in [&yes, &no] {
            assert_eq!(page.status, 303);
            assert_eq!(page.location_query("state").as_deref(), Some(STATE));
            assert_eq!(page.location_query("iss").as_deref(), Some(ISSUER));
            assert_headers(page);
        }
        assert!(yes.location_query("code").unwrap().starts_with("tbo_"));
        assert_eq!(no.location_query("error").as_deref(), Some("access_denied"));
        assert_eq!((no.location_query("code"), s.grants().await.len()), (None, 1));
        s.finish().await;
    }

    async fn a_parameter_that_is_there_twice_is_refused(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        for name in ["client_id", "redirect_uri", "state", "scope", "code_challenge", "prompt"] {
            let twice = s.client.ask().with(name, "x").and(name, "x");
            stays(&opened(&s, &twice).await, "invalid_request");
        }
        // What nobody knows is ignored, and what is empty was not sent.
        let fine = s.client.ask().and("utm", "1").and("utm", "2").and("nonce", "").and("prompt", "");
        s.code_for(&fine).await;
        s.finish().await;
    }

    async fn implicit_and_password_are_not_offered(engine: Engine) {
        let s = Stage::new(engine).await;
        for kind in ["token", "id_token", "code token", "code id_token", "none"] {
            stays(&opened(&s, &s.client.ask().with("response_type", kind)).await, "unsupported_response_type");
        }
        let password = [("grant_type", "password"), ("username", &*s.person.email), ("password", &*s.person.password)];
        s.token(&s.client.form(&password)).await.refused(400, "unsupported_grant_type");
        s.finish().await;
    }

    async fn whoever_is_led_into_somebody_elses_request_gives_them_nothing(engine: Engine) {
        let s = Stage::new(engine).await;
        let (mallory, ada) = (Browser::new(), Browser::new());
        let begun = s.authorize(&mallory, &s.client.ask()).await;
        let link = begun.location.clone().unwrap();
        assert_eq!(ada.get(&link).await.status, 403);
        let theirs = mallory.get(&link).await;
        let form = Form::new(&[("csrf", theirs.hidden("csrf")), ("email", &s.person.email), ("password", &s.person.password)]);
        assert_eq!(ada.post(&link, &form.encoded(), &[]).await.status, 403);
        // Nor does having a request of her own help them.
        s.authorize(&ada, &s.client.ask()).await;
        assert_eq!(ada.post(&link, &form.encoded(), &[]).await.status, 403);
        assert!(s.grants().await.is_empty());
        s.finish().await;
    }

    async fn nobody_agrees_who_has_not_signed_in(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let begun = s.authorize(&browser, &s.client.ask()).await;
        let sign_in = begun.location.unwrap();
        let page = browser.get(&sign_in).await;
        let consent = sign_in.as_str().replace("/sign-in/", "/consent/");
        let form = Form::new(&[("csrf", page.hidden("csrf")), ("decision", "allow")]);
        let refused = browser.post(&consent, &form.encoded(), &[]).await;
        assert!(refused.location.is_none_or(|it| it.host_str() != Some("acme.example")));
        assert!(s.grants().await.is_empty());
        s.finish().await;
    }

    async fn a_request_that_nobody_decides_lapses(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        s.b.clock.advance(s.b.config.issuer.request_lifetime);
        assert_eq!(s.decide(&browser, &asked, "allow").await.status, 404);
        assert_eq!(browser.get(&asked.url).await.status, 404);
        assert!(s.grants().await.is_empty());
        s.finish().await;
    }

    async fn a_request_is_decided_once(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        let pressed = join_all((0..5).map(|_| s.decide(&browser, &asked, "allow"))).await;
        let codes = pressed.iter().filter(|page| page.location_query("code").is_some());
        assert_eq!((codes.count(), s.grants().await.len()), (1, 1));
        s.finish().await;
    }

    async fn an_address_that_was_taken_away_gets_no_code(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        let client = pb::Client { id: s.client.id.clone(), redirect_uris: vec!["https://acme.example/other".to_owned()], ..Default::default() };
        let paths = vec!["redirect_uris".to_owned()];
        let request = pb::UpdateClientRequest { client: Some(client), update_mask: Some(prost_types::FieldMask { paths }) };
        s.b.admin.registry.clone().update_client(request).await.unwrap();
        stays(&s.decide(&browser, &asked, "allow").await, "invalid_request");
        assert!(s.grants().await.is_empty());
        s.finish().await;
    }

    async fn nobody_begins_requests_without_end(engine: Engine) {
        let s = Stage::new(engine).await;
        let browser = Browser::new();
        let nobodys = s.client.ask().with("client_id", "nobody");
        for _ in 0..300 {
            stays(&s.authorize(&browser, &nobodys).await, "invalid_client");
        }
        let page = s.authorize(&browser, &s.client.ask()).await;
        assert_eq!(page.status, 429, "{}", page.body);
        assert_eq!(page.header("retry-after"), Some("1"));
        assert_headers(&page);
        s.b.clock.advance(SECOND);
        assert_eq!(s.authorize(&browser, &s.client.ask()).await.status, 303);
        s.finish().await;
    }
}
