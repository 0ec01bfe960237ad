//! Revocation by clients (RFC 7009).

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, SqliteConnection};

use super::*;

on_both_engines! {
    async fn a_refresh_token_takes_all_its_tokens_along(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let second = s.refresh(&first.refresh).await.tokens();
        assert!(s.is_active(&second.access).await);
        let answer = s.revoke(&second.refresh).await;
        assert_eq!((answer.status, answer.header("cache-control")), (200, "no-store"));
        for token in [&first.access, &second.access, &second.refresh] {
            assert!(!s.is_active(token).await);
        }
        s.refresh(&second.refresh).await.refused(400, "invalid_grant");
        s.user_info(&second.access).await.refused(401, "invalid_token");
        assert_eq!(s.ends().await, ["revoked_by_client"]);
        assert_eq!(recorded(&s.b, &["issuer.grant_revoked", "revoked_by_client"]).await, 1);
        s.finish().await;
    }

    async fn a_spent_refresh_token_ends_its_consent_too(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let second = s.refresh(&first.refresh).await.tokens();
        assert_eq!(s.revoke(&first.refresh).await.status, 200);
        assert!(!s.is_active(&second.access).await);
        s.finish().await;
    }

    async fn an_access_token_ends_alone(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        assert!(s.is_active(&tokens.access).await);
        for _ in 0..2 {
            assert_eq!(s.revoke(&tokens.access).await.status, 200);
            assert!(!s.is_active(&tokens.access).await);
        }
        s.refresh(&tokens.refresh).await.tokens();
        assert_eq!(s.ends().await, [""]);
        assert_eq!(recorded(&s.b, &["issuer.token_revoked", "revoked_by_client"]).await, 1);
        s.finish().await;
    }

    async fn nobody_ends_what_another_client_has_or_learns_whether_there_is_any(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let other = register(&s.b, acme()).await;
        let guess = format!("tbf_{}", "A".repeat(49));
        for token in [&*tokens.access, &tokens.refresh, &guess, "x", "a.b.c"] {
            let answer = s.post("oauth2/revoke", &other.form(&[("token", token)])).await;
            assert_eq!((answer.status, &answer.json), (200, &Value::Null));
        }
        assert!(s.is_active(&tokens.access).await && s.is_active(&tokens.refresh).await);
        s.finish().await;
    }

    async fn nobody_revokes_who_has_not_proved_who_they_are(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let own = s.client.form(&[("token", &tokens.refresh)]);
        for form in [own.clone().without("client_secret"), own.clone().with("client_secret", "hush-hush-hush")] {
            s.post("oauth2/revoke", &form).await.refused(400, "invalid_client");
        }
        s.post("oauth2/revoke", &own.without("token")).await.refused(400, "invalid_request");
        assert!(s.is_active(&tokens.refresh).await);
        s.finish().await;
    }

    async fn a_public_client_revokes_its_own(engine: Engine) {
        let s = Stage::of(engine, public()).await;
        let tokens = s.tokens().await;
        let hint = s.client.form(&[("token", &tokens.refresh), ("token_type_hint", "access_token")]);
        assert_eq!(s.post("oauth2/revoke", &hint).await.status, 200);
        assert!(!s.is_active(&tokens.access).await);
        s.finish().await;
    }

    async fn it_also_goes_over_grpc(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let request = pb::RevokeTokenRequest { credentials: s.client.credentials(), token: tokens.refresh.clone(), client_ip: "192.0.2.7".to_owned(), ..Default::default() };
        s.b.admin.authorization_server.clone().revoke_token(request.clone()).await.unwrap();
        assert!(!s.is_active(&tokens.access).await);
        assert_eq!(recorded(&s.b, &["issuer.grant_revoked", "192.0.2.7"]).await, 1);
        let nowhere = pb::RevokeTokenRequest { client_ip: "here".to_owned(), ..request.clone() };
        let refused = s.b.admin.authorization_server.clone().revoke_token(nowhere).await;
        assert_eq!(violations(&refused.unwrap_err()), ["client_ip"]);
        let wrong = pb::ClientCredentials { client_secret: "hush-hush-hush".to_owned(), ..s.client.credentials().unwrap() };
        let request = pb::RevokeTokenRequest { credentials: Some(wrong), ..request };
        let refused = s.b.admin.authorization_server.clone().revoke_token(request).await;
        assert_refused(refused, Code::Unauthenticated, "OAUTH_ERROR");
        s.finish().await;
    }
}

/// Nobody is told that a token is gone while it may still be good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_could_not_be_stored_is_not_confirmed() {
    let s = Stage::with(Engine::Sqlite, acme(), |config| {
        config.database.busy_timeout = Duration::from_millis(50);
    })
    .await;
    let tokens = s.tokens().await;
    let file = s.b.ground.file();
    let mut other = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    other
        .batch_execute("PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE")
        .unwrap();
    let answer = s.revoke(&tokens.refresh).await;
    answer.refused(503, "temporarily_unavailable");
    assert_ne!(answer.header("retry-after"), "");
    other.batch_execute("ROLLBACK").unwrap();
    assert!(s.is_active(&tokens.access).await);
    assert_eq!(s.revoke(&tokens.refresh).await.status, 200);
    assert!(!s.is_active(&tokens.access).await);
    s.finish().await;
}
