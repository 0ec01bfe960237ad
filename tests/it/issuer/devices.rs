//! Devices without a browser (RFC 8628), and those who talk others into typing a code.

use super::*;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A device begins.
async fn begun(s: &Stage) -> Answer {
    let form = s.client.form(&[("scope", "openid read")]);
    let answer = s.post("oauth2/device_authorization", &form).await;
    assert_eq!(answer.status, 200, "{}", answer.json);
    answer
}

/// The device asks.
async fn poll(s: &Stage, client: &Client, device: &Answer) -> Answer {
    let code = device.text("device_code");
    let form = client.form(&[("grant_type", GRANT), ("device_code", &code)]);
    s.token(&form).await
}

/// Types a code: what comes of it.
async fn typed(s: &Stage, browser: &Browser, code: &str) -> Page {
    let page = browser.get(s.page("device")).await;
    let form = Form::new(&[("csrf", page.hidden("csrf")), ("user_code", code)]);
    browser.post(s.page("device"), &form.encoded(), &[]).await
}

/// Types a device's code, signs in and decides.
async fn decided(s: &Stage, device: &Answer, decision: &str) -> Page {
    let browser = Browser::new();
    let next = typed(s, &browser, &device.text("user_code")).await;
    let signed_in = s.sign_in(&browser, &next).await;
    let asked = browser.get(signed_in.location.unwrap()).await;
    assert!(asked.body.contains("This connects a device"));
    s.decide(&browser, &asked, decision).await
}

on_both_engines! {
    async fn a_device_gets_its_tokens_once_its_person_agrees(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        assert_eq!(device.text("verification_uri"), s.page("device"));
        assert_eq!((&device.json["expires_in"], &device.json["interval"]), (&json!(900), &json!(5)));
        poll(&s, &s.client, &device).await.refused(400, "authorization_pending");
        let done = decided(&s, &device, "allow").await;
        assert!(done.status == 200 && done.body.contains("Your device is connected"), "{}", done.body);
        assert_headers(&done);
        s.b.clock.advance(5 * SECOND);
        let tokens = poll(&s, &s.client, &device).await.tokens();
        assert_eq!(s.introspect(&tokens.access).await.subject, s.person.id);
        assert_ne!(tokens.id, "");
        s.refresh(&tokens.refresh).await.tokens();
        s.finish().await;
    }

    async fn a_device_that_asks_too_often_is_slowed_down(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        poll(&s, &s.client, &device).await.refused(400, "authorization_pending");
        s.b.clock.advance(4 * SECOND);
        poll(&s, &s.client, &device).await.refused(400, "slow_down");
        s.b.clock.advance(9 * SECOND);
        poll(&s, &s.client, &device).await.refused(400, "slow_down");
        s.b.clock.advance(15 * SECOND);
        poll(&s, &s.client, &device).await.refused(400, "authorization_pending");
        s.finish().await;
    }

    async fn a_device_is_told_of_a_no(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        let done = decided(&s, &device, "deny").await;
        assert!(done.body.contains("The device was not connected"), "{}", done.body);
        poll(&s, &s.client, &device).await.refused(400, "access_denied");
        assert!(s.grants().await.is_empty());
        s.finish().await;
    }

    async fn a_devices_codes_end_after_a_quarter_of_an_hour(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        s.b.clock.advance(15 * 60 * SECOND);
        poll(&s, &s.client, &device).await.refused(400, "expired_token");
        assert_eq!(typed(&s, &Browser::new(), &device.text("user_code")).await.status, 400);
        s.finish().await;
    }

    async fn a_device_code_that_is_sent_twice_ends_all_that_came_of_it(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        decided(&s, &device, "allow").await;
        let answers = join_all((0..10).map(|_| poll(&s, &s.client, &device))).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1);
        assert!(!s.is_active(&won[0].tokens().access).await);
        poll(&s, &s.client, &device).await.refused(400, "invalid_grant");
        assert_eq!(s.ends().await, ["device_code_replayed"]);
        s.finish().await;
    }

    async fn another_client_gets_nothing_for_a_devices_code(engine: Engine) {
        let s = Stage::new(engine).await;
        let other = register(&s.b, acme()).await;
        let device = begun(&s).await;
        decided(&s, &device, "allow").await;
        poll(&s, &other, &device).await.refused(400, "invalid_grant");
        let tokens = poll(&s, &s.client, &device).await.tokens();
        poll(&s, &other, &device).await.refused(400, "invalid_grant");
        assert!(s.is_active(&tokens.access).await);
        s.finish().await;
    }

    async fn guessed_codes_have_to_wait(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        let browser = Browser::new();
        for guess in ["BCDF-GHJK", "x", "", "BCDFGHJKL"].iter().cycle().take(20) {
            let page = typed(&s, &browser, guess).await;
            assert_eq!(page.status, 400, "{guess}");
            assert!(page.body.contains("This code is not known"));
        }
        let right = typed(&s, &browser, &device.text("user_code")).await;
        assert_eq!(right.status, 429);
        assert!(right.header("retry-after").is_some());
        s.b.clock.advance(60 * SECOND);
        assert_eq!(typed(&s, &browser, &device.text("user_code")).await.status, 303);
        s.finish().await;
    }

    async fn whoever_follows_a_link_has_agreed_to_nothing(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        let page = Browser::new().get(device.text("verification_uri_complete")).await;
        assert!(page.body.contains(&device.text("user_code")) && page.body.contains("Go on only if you began this yourself"));
        assert_headers(&page);
        // Nor can another site type the code in their name.
        let browser = Browser::new();
        let page = browser.get(s.page("device")).await;
        let form = Form::new(&[("csrf", page.hidden("csrf")), ("user_code", &device.text("user_code"))]);
        for (form, headers) in [
            (form.clone().without("csrf"), [("origin", "null")]),
            (form.clone().with("csrf", &"0".repeat(64)), [("origin", "null")]),
            (form, [("origin", "https://evil.example")]),
        ] {
            assert_eq!(browser.post(s.page("device"), &form.encoded(), &headers).await.status, 403);
        }
        poll(&s, &s.client, &device).await.refused(400, "authorization_pending");
        s.finish().await;
    }

    async fn a_code_is_read_however_it_is_typed_and_once(engine: Engine) {
        let s = Stage::new(engine).await;
        let device = begun(&s).await;
        let sloppy = format!(" {} ", device.text("user_code").to_lowercase().replace('-', " "));
        assert_eq!(typed(&s, &Browser::new(), &sloppy).await.status, 303);
        decided(&s, &device, "allow").await;
        assert_eq!(typed(&s, &Browser::new(), &device.text("user_code")).await.status, 400);
        s.finish().await;
    }

    async fn a_client_without_device_codes_begins_none(engine: Engine) {
        let s = Stage::of(engine, pb::Client { grant_types: vec![pb::ClientGrantType::ClientCredentials.into()], response_types: Vec::new(), redirect_uris: Vec::new(), ..acme() }).await;
        let form = s.client.form(&[("scope", "read")]);
        s.post("oauth2/device_authorization", &form).await.refused(400, "unauthorized_client");
        let other = register(&s.b, acme()).await;
        let form = other.form(&[("scope", "admin")]);
        s.post("oauth2/device_authorization", &form).await.refused(400, "invalid_scope");
        s.finish().await;
    }

    async fn a_public_device_also_goes_over_grpc(engine: Engine) {
        use pb::exchange_token_request::Grant;
        let s = Stage::of(engine, public()).await;
        let mut server = s.b.admin.authorization_server.clone();
        let request = pb::StartDeviceAuthorizationRequest { credentials: s.client.credentials(), scopes: vec!["read".to_owned()], ..Default::default() };
        let device = server.start_device_authorization(request).await.unwrap().into_inner();
        leaks::Secrets::register_as("device code", &device.device_code);
        let grant = pb::DeviceCodeGrant { device_code: device.device_code };
        let request = pb::ExchangeTokenRequest { credentials: s.client.credentials(), grant: Some(Grant::DeviceCode(grant)), ..Default::default() };
        let pending = server.exchange_token(request).await;
        assert_refused(pending, Code::FailedPrecondition, "OAUTH_ERROR");
        s.finish().await;
    }
}
