//! Requests that clients push before a browser comes with them (RFC 9126).

use super::*;

/// A request as the client pushes it.
fn pushable(s: &Stage) -> Form {
    s.client.ask().with("client_secret", &s.client.secret)
}

async fn pushed(s: &Stage) -> String {
    let answer = s.post("oauth2/par", &pushable(s)).await;
    assert_eq!(answer.status, 201, "{}", answer.json);
    answer.text("request_uri")
}

/// What the browser brings of it.
fn brought(client: &Client, request_uri: &str) -> Form {
    Form::new(&[("client_id", &client.id), ("request_uri", request_uri)])
}

on_both_engines! {
    async fn a_request_uri_is_good_once_for_a_minute(engine: Engine) {
        let s = Stage::new(engine).await;
        let uri = pushed(&s).await;
        assert!(uri.starts_with("urn:ietf:params:oauth:request_uri:tbp_"));
        let code = s.code_for(&brought(&s.client, &uri)).await;
        s.token(&s.client.redeem(&code)).await.tokens();
        stays(&opened(&s, &brought(&s.client, &uri)).await, "invalid_request_uri");
        let late = pushed(&s).await;
        s.b.clock.advance(60 * SECOND);
        stays(&opened(&s, &brought(&s.client, &late)).await, "invalid_request_uri");
        assert_eq!(recorded(&s.b, &["issuer.request_pushed", &s.client.id]).await, 2);
        s.finish().await;
    }

    async fn two_browsers_at_once_get_one_request(engine: Engine) {
        let s = Stage::new(engine).await;
        let request = brought(&s.client, &pushed(&s).await);
        let pages = join_all((0..5).map(|_| opened(&s, &request))).await;
        assert_eq!(pages.iter().filter(|page| page.status == 303).count(), 1);
        s.finish().await;
    }

    async fn another_client_neither_uses_a_pushed_request_nor_uses_it_up(engine: Engine) {
        let s = Stage::new(engine).await;
        let other = register(&s.b, own()).await;
        let uri = pushed(&s).await;
        stays(&opened(&s, &brought(&other, &uri)).await, "invalid_request_uri");
        assert_eq!(opened(&s, &brought(&s.client, &uri)).await.status, 303);
        s.finish().await;
    }

    async fn what_the_browser_brings_beside_it_changes_nothing(engine: Engine) {
        let s = Stage::new(engine).await;
        let request = brought(&s.client, &pushed(&s).await)
            .with("redirect_uri", "https://evil.example/callback").with("scope", "openid read write")
            .with("state", "forged").with("code_challenge", &challenge(&"x".repeat(43)));
        let back = s.agreed(&request).await;
        assert_eq!(back.location_query("state").as_deref(), Some(STATE));
        assert!(back.location.as_ref().unwrap().as_str().starts_with(REDIRECT_URI));
        let code = back.location_query("code").unwrap();
        assert_eq!(s.token(&s.client.redeem(&code)).await.text("scope"), "openid read");
        s.finish().await;
    }

    async fn a_client_that_pushes_its_requests_makes_no_others(engine: Engine) {
        let s = Stage::of(engine, pb::Client { require_pushed_authorization_requests: true, ..acme() }).await;
        stays(&opened(&s, &s.client.ask()).await, "invalid_request");
        let uri = pushed(&s).await;
        assert_eq!(opened(&s, &brought(&s.client, &uri)).await.status, 303);
        s.finish().await;
    }

    async fn what_nobody_may_ask_for_can_not_be_pushed(engine: Engine) {
        let s = Stage::new(engine).await;
        let good = pushable(&s);
        for (form, error) in [
            (good.clone().with("redirect_uri", "https://evil.example/"), "invalid_request"),
            (good.clone().with("scope", "admin"), "invalid_scope"),
            (good.clone().with("response_type", "token"), "unsupported_response_type"),
            (good.clone().without("code_challenge"), "invalid_request"),
            (good.clone().with("prompt", "none"), "login_required"),
            (good.clone().with("request", "x.y.z"), "request_not_supported"),
            (good.clone().with("request_uri", "urn:ietf:params:oauth:request_uri:x"), "invalid_request"),
            (good.clone().and("state", "twice"), "invalid_request"),
            (good.clone().with("client_secret", "hush-hush-hush"), "invalid_client"),
            (good.without("client_secret"), "invalid_client"),
        ] {
            s.post("oauth2/par", &form).await.refused(400, error);
        }
        s.finish().await;
    }

    async fn a_request_uri_of_somebody_else_is_not_fetched(engine: Engine) {
        let s = Stage::of(engine, own()).await;
        let guess = format!("urn:ietf:params:oauth:request_uri:tbp_{}", "A".repeat(49));
        for uri in [&*s.b.provider.base_url(), "https://evil.example/request.jwt", "urn:ietf:params:oauth:request_uri:x", &guess] {
            stays(&opened(&s, &brought(&s.client, uri)).await, "invalid_request_uri");
        }
        s.finish().await;
    }

    async fn a_proof_binds_the_code_of_a_pushed_request(engine: Engine) {
        let s = Stage::new(engine).await;
        let holder = proofs::Holder::new();
        let par = json!({ "htu": format!("{ISSUER}/oauth2/par") });
        let answer = s.post_with("oauth2/par", &pushable(&s), &[("dpop", &holder.proof_with(&s, &par))]).await;
        let form = s.client.redeem(&s.code_for(&brought(&s.client, &answer.text("request_uri"))).await);
        s.token(&form).await.refused(400, "invalid_grant");
        s.token_with(&form, &holder.proof(&s)).await.tokens();
        s.finish().await;
    }

    async fn public_clients_do_not_push_without_end(engine: Engine) {
        let s = Stage::of(engine, public()).await;
        let unfit = pushable(&s).with("scope", "admin");
        for _ in 0..60 {
            s.post("oauth2/par", &unfit).await.refused(400, "invalid_scope");
        }
        for (path, form) in [("oauth2/par", pushable(&s)), ("oauth2/device_authorization", s.client.form(&[]))] {
            let answer = s.post(path, &form).await;
            answer.refused(429, "temporarily_unavailable");
            assert_eq!(answer.header("retry-after"), "1");
        }
        // Others do: who proves who it is, and who is elsewhere, as a gateway says.
        let known = register(&s.b, acme()).await;
        let form = known.ask().with("client_secret", &known.secret);
        assert_eq!(s.post("oauth2/par", &form).await.status, 201);
        let device = pb::StartDeviceAuthorizationRequest { credentials: s.client.credentials(), client_ip: "192.0.2.7".to_owned(), ..Default::default() };
        let started = s.b.admin.authorization_server.clone().start_device_authorization(device).await.unwrap().into_inner();
        leaks::Secrets::register_as("device code", &started.device_code);
        s.b.clock.advance(SECOND);
        pushed(&s).await;
        s.finish().await;
    }
}
