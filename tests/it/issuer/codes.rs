//! Codes: for one client, once, for a minute.

use super::*;

on_both_engines! {
    async fn a_code_that_many_send_at_once_is_redeemed_once(engine: Engine) {
        let s = Stage::new(engine).await;
        let form = s.client.redeem(&s.code().await);
        let answers = join_all((0..20).map(|_| s.token(&form))).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!(won.len(), 1);
        for answer in lost {
            answer.refused(400, "invalid_grant");
        }
        // Who was first is not known: nobody keeps anything.
        let tokens = won[0].tokens();
        assert!(!s.is_active(&tokens.access).await && !s.is_active(&tokens.refresh).await);
        assert_eq!(s.ends().await, ["code_replayed"]);
        s.finish().await;
    }

    async fn a_replayed_code_ends_all_that_came_of_it(engine: Engine) {
        let s = Stage::new(engine).await;
        let form = s.client.redeem(&s.code().await);
        let first = s.token(&form).await.tokens();
        let second = s.refresh(&first.refresh).await.tokens();
        assert!(s.is_active(&second.access).await);
        s.token(&form).await.refused(400, "invalid_grant");
        for token in [&first.access, &second.access, &second.refresh] {
            assert!(!s.is_active(token).await);
        }
        s.refresh(&second.refresh).await.refused(400, "invalid_grant");
        assert_eq!(s.ends().await, ["code_replayed"]);
        assert_eq!(recorded(&s.b, &["issuer.grant_revoked", "code_replayed", &s.client.id]).await, 1);
        s.finish().await;
    }

    async fn a_thief_who_lacks_something_neither_uses_a_code_nor_ends_anything(engine: Engine) {
        let s = Stage::new(engine).await;
        let other = register(&s.b, acme()).await;
        let code = s.code().await;
        let right = s.client.redeem(&code);
        let wrong = [
            right.clone().with("code_verifier", &"x".repeat(43)),
            right.clone().without("code_verifier"),
            right.clone().with("redirect_uri", "https://evil.example/callback"),
            right.clone().without("redirect_uri"),
            other.redeem(&code),
        ];
        let unproved = right.clone().with("client_secret", &other.secret);
        for form in &wrong {
            s.token(form).await.refused(400, "invalid_grant");
        }
        s.token(&unproved).await.refused(400, "invalid_client");
        let tokens = s.token(&right).await.tokens();
        for form in &wrong {
            s.token(form).await.refused(400, "invalid_grant");
        }
        s.token(&unproved).await.refused(400, "invalid_client");
        assert!(s.is_active(&tokens.access).await && s.is_active(&tokens.refresh).await);
        assert_eq!(s.ends().await, [""]);
        s.finish().await;
    }

    async fn a_code_is_good_for_a_minute(engine: Engine) {
        let s = Stage::new(engine).await;
        let (first, second) = (s.code().await, s.code().await);
        assert_eq!((first.len(), &first[..4]), (53, "tbo_"));
        s.b.clock.advance(59 * SECOND);
        s.token(&s.client.redeem(&first)).await.tokens();
        s.b.clock.advance(SECOND);
        s.token(&s.client.redeem(&second)).await.refused(400, "invalid_grant");
        s.finish().await;
    }

    async fn a_spent_code_is_known_again_for_long(engine: Engine) {
        let s = Stage::new(engine).await;
        let form = s.client.redeem(&s.code().await);
        let tokens = s.token(&form).await.tokens();
        s.b.clock.advance(20 * HOUR);
        s.token(&form).await.refused(400, "invalid_grant");
        s.refresh(&tokens.refresh).await.refused(400, "invalid_grant");
        assert_eq!(s.ends().await, ["code_replayed"]);
        s.finish().await;
    }

    async fn codes_that_nobody_gave_are_refused(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let guess = format!("tbo_{}", "A".repeat(49));
        for code in ["x", &guess, &tokens.refresh, &tokens.access] {
            s.token(&s.client.redeem(code)).await.refused(400, "invalid_grant");
        }
        s.token(&s.client.redeem("")).await.refused(400, "invalid_request");
        assert!(s.is_active(&tokens.access).await);
        s.finish().await;
    }

    async fn a_code_that_was_asked_for_without_a_challenge_takes_no_verifier(engine: Engine) {
        let s = Stage::of(engine, pb::Client { require_pkce: Some(false), ..acme() }).await;
        let plain = s.client.ask().without("code_challenge").without("code_challenge_method");
        let code = s.code_for(&plain).await;
        s.token(&s.client.redeem(&code)).await.refused(400, "invalid_grant");
        s.token(&s.client.redeem(&code).without("code_verifier")).await.tokens();
        s.finish().await;
    }

    async fn a_verifier_of_another_form_is_refused(engine: Engine) {
        let s = Stage::new(engine).await;
        for verifier in ["v".repeat(42), "v".repeat(129), "v ".repeat(30)] {
            let code = s.code_for(&s.client.ask().with("code_challenge", &challenge(&verifier))).await;
            let form = s.client.redeem(&code).with("code_verifier", &verifier);
            s.token(&form).await.refused(400, "invalid_grant");
        }
        s.finish().await;
    }

    async fn an_address_that_was_not_sent_need_not_be_named(engine: Engine) {
        let s = Stage::new(engine).await;
        let ask = s.client.ask().without("redirect_uri");
        let code = s.code_for(&ask).await;
        s.token(&s.client.redeem(&code).with("redirect_uri", "https://evil.example/")).await.refused(400, "invalid_grant");
        s.token(&s.client.redeem(&code).without("redirect_uri")).await.tokens();
        let code = s.code_for(&ask).await;
        s.token(&s.client.redeem(&code)).await.tokens();
        s.finish().await;
    }

    async fn a_public_client_redeems_with_its_verifier_alone(engine: Engine) {
        let s = Stage::of(engine, public()).await;
        let code = s.code().await;
        s.token(&s.client.redeem(&code).with("code_verifier", &"x".repeat(43))).await.refused(400, "invalid_grant");
        let tokens = s.token(&s.client.redeem(&code)).await.tokens();
        assert!(tokens.access.starts_with("tba_") && tokens.refresh.starts_with("tbf_"));
        s.refresh(&tokens.refresh).await.tokens();
        s.finish().await;
    }

    async fn codes_and_tokens_also_go_over_grpc(engine: Engine) {
        use pb::exchange_token_request::Grant;
        let s = Stage::new(engine).await;
        let mut server = s.b.admin.authorization_server.clone();
        let grant = pb::AuthorizationCodeGrant { code: s.code().await, redirect_uri: s.client.redirect_uri.clone(), code_verifier: VERIFIER.to_owned() };
        let request = pb::ExchangeTokenRequest { credentials: s.client.credentials(), grant: Some(Grant::AuthorizationCode(grant)), client_ip: "203.0.113.7".to_owned(), client_user_agent: "Zapier".to_owned(), ..Default::default() };
        let tokens = server.exchange_token(request.clone()).await.unwrap().into_inner();
        leaks::Secrets::register_as("access token", &tokens.access_token);
        leaks::Secrets::register_as("refresh token", &tokens.refresh_token);
        assert_eq!((&*tokens.token_type, tokens.scopes.join(" ")), ("Bearer", "openid read".to_owned()));
        let issued = s.issued().await;
        assert!(issued.len() == 2 && issued.iter().all(|it| it.ip == "203.0.113.7" && it.user_agent == "Zapier"));
        let replayed = server.exchange_token(request).await;
        assert_refused(replayed, Code::FailedPrecondition, "OAUTH_ERROR");
        assert!(!s.is_active(&tokens.access_token).await);
        s.finish().await;
    }
}
