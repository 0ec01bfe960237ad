//! Who may ask about a token, and what is said.

use std::time::Instant;

use super::*;
use tokenbroker::model::{Constraints, Role};

on_both_engines! {
    async fn of_a_token_that_is_not_good_nothing_is_said(engine: Engine) {
        let s = Stage::new(engine).await;
        let other = register(&s.b, acme()).await;
        let theirs = s.token(&other.for_itself()).await.tokens();
        let revoked = s.token(&s.client.for_itself()).await.tokens();
        s.revoke(&revoked.access).await;
        let first = s.tokens().await;
        s.refresh(&first.refresh).await.tokens();
        let code = s.code().await;
        let guess = format!("tba_{}", "A".repeat(49));
        for token in ["x", "a.b.c", &guess, &theirs.access, &revoked.access, &first.refresh, &first.id, &code, &s.client.secret] {
            let answer = s.inspect(token).await;
            assert_eq!((answer.status, answer.json), (200, json!({ "active": false })));
        }
        let grpc = s.introspect(&revoked.access).await;
        assert_eq!(grpc, pb::IntrospectTokenResponse::default());
        s.finish().await;
    }

    async fn of_a_good_token_it_is_said_whose_it_is(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens_for("openid email read").await;
        let now = proofs::seconds(&s);
        let answer = s.inspect(&tokens.access).await;
        assert_eq!(answer.header("cache-control"), "no-store");
        let said = s.introspect(&tokens.access).await;
        let expected = json!({
            "active": true, "client_id": s.client.id, "token_type": "Bearer", "sub": s.person.id, "iss": ISSUER,
            "jti": said.token_id, "iat": now, "exp": now + 3_600, "scope": "openid email read", "username": EMAIL,
        });
        assert_eq!(answer.json, expected);
        assert_eq!((&said.subject, &said.username, &said.issuer), (&s.person.id, &EMAIL.to_owned(), &ISSUER.to_owned()));
        assert_eq!(said.grant_id, s.grants().await[0].id);
        let refresh = s.inspect(&tokens.refresh).await;
        assert_eq!((refresh.text("token_type"), refresh.text("sub")), ("refresh_token".to_owned(), s.person.id.clone()));
        let own = s.token(&s.client.for_itself()).await.tokens();
        assert_eq!(s.inspect(&own.access).await.text("sub"), s.client.id);
        s.finish().await;
    }

    async fn nobody_asks_who_has_not_proved_who_they_are(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let app = register(&s.b, public()).await;
        let forms = [
            Form::new(&[("token", &tokens.access)]),
            Form::new(&[("token", &tokens.access), ("client_id", &s.client.id)]),
            s.client.form(&[("token", &tokens.access)]).with("client_secret", "hush-hush-hush"),
            app.form(&[("token", &tokens.access)]),
        ];
        for form in forms {
            let answer = s.post("oauth2/introspect", &form).await;
            answer.refused(401, "invalid_client");
            assert!(answer.header("www-authenticate").starts_with("Basic "));
        }
        s.post("oauth2/introspect", &s.client.form(&[])).await.refused(400, "invalid_request");
        s.finish().await;
    }

    async fn a_resource_server_of_the_tenants_own_sees_all_its_tokens(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let server = register(&s.b, own()).await;
        let form = server.form(&[("token", &tokens.access)]);
        assert_eq!(s.post("oauth2/introspect", &form).await.text("client_id"), s.client.id);
        let abroad = s.b.caller_in("elsewhere", Role::Admin, Constraints::default()).await;
        let request = pb::IntrospectTokenRequest { token: tokens.access.clone() };
        let said = abroad.authorization_server.clone().introspect_token(request).await.unwrap().into_inner();
        assert_eq!(said, pb::IntrospectTokenResponse::default());
        s.finish().await;
    }

    async fn an_expired_token_is_challenged_and_none_is_taken_from_a_query(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        assert_eq!(s.user_info(&tokens.access).await.json, json!({ "sub": s.person.id }));
        for path in ["oauth2/userinfo", &format!("oauth2/userinfo?access_token={}", tokens.access)] {
            let answer = s.get(path, &[]).await;
            assert_eq!((answer.status, answer.header("www-authenticate")), (401, "Bearer"));
            let dpop = answer.headers.get_all("www-authenticate").iter().nth(1).unwrap();
            assert!(dpop.to_str().unwrap().starts_with("DPoP algs=\"ES256 "));
        }
        let form = Form::new(&[("access_token", &tokens.access)]);
        assert_eq!(s.post("oauth2/userinfo", &form).await.status, 401);
        s.b.clock.advance(HOUR);
        assert!(!s.is_active(&tokens.access).await);
        let over = s.user_info(&tokens.access).await;
        over.refused(401, "invalid_token");
        assert!(over.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""));
        s.finish().await;
    }

    async fn a_token_says_of_its_person_what_was_agreed_to(engine: Engine) {
        let s = Stage::new(engine).await;
        let some = s.tokens_for("openid email").await;
        assert_eq!(s.user_info(&some.access).await.json, json!({ "sub": s.person.id, "email": EMAIL, "email_verified": false }));
        let request = pb::GetUserInfoRequest { access_token: some.access.clone(), dpop: None };
        let info = s.b.admin.authorization_server.clone().get_user_info(request).await.unwrap().into_inner();
        assert_eq!((info.subject, info.email, info.name), (s.person.id.clone(), EMAIL.to_owned(), String::new()));
        let none = s.tokens_for("read").await;
        let answer = s.user_info(&none.access).await;
        answer.refused(403, "insufficient_scope");
        assert!(answer.header("www-authenticate").contains("scope=\"openid\""));
        let own = s.token(&s.client.for_itself()).await.tokens();
        s.user_info(&own.access).await.refused(403, "insufficient_scope");
        for other in [&some.refresh, &some.id] {
            s.user_info(other).await.refused(401, "invalid_token");
        }
        s.finish().await;
    }

    async fn looks_at_a_token_are_counted(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.token(&s.client.for_itself()).await.tokens();
        for _ in 0..3 {
            assert!(s.is_active(&tokens.access).await);
        }
        eventually("it is stored", || async { s.issued().await[0].use_count == 3 }).await;
        assert!(s.issued().await[0].last_use_time.is_some());
        s.finish().await;
    }
}

/// Whatever ends a token, the other replica hears of it within the bound that is stated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_seen_by_the_other_replica_within_the_bound() {
    let a = Stage::new(Engine::Postgres).await;
    let b = a.replica("b").await;
    let bound = a.b.config.cache.max_staleness;
    for way in 0..4 {
        let tokens = a.tokens().await;
        for s in [&a, &b] {
            assert!(s.is_active(&tokens.access).await, "{way}");
        }
        match way {
            0 => drop(a.revoke(&tokens.access).await),
            1 => drop(a.revoke(&tokens.refresh).await),
            2 => {
                let grant_id = a.introspect(&tokens.access).await.grant_id;
                a.revoke_grant(&grant_id).await;
            }
            _ => suspend(&a).await,
        }
        let since = Instant::now();
        within("the other replica knows", since, bound, || async {
            !b.is_active(&tokens.access).await
        })
        .await;
        dies(&a, &tokens.access).await;
    }
    b.finish().await;
    a.finish().await;
}
