//! Refresh tokens: each once, lost answers again for a moment, and thieves.

use super::*;

/// The same pair of tokens.
#[track_caller]
fn same(answer: &Answer, tokens: &Tokens) {
    let again = answer.tokens();
    assert_eq!(
        (&again.access, &again.refresh),
        (&tokens.access, &tokens.refresh)
    );
}

/// Refreshes on and on, until that is refused: all that it was given.
async fn on_and_on(s: &Stage, mut held: Tokens) -> Vec<Tokens> {
    let mut given = Vec::new();
    for _ in 0..1_000 {
        let answer = s.refresh(&held.refresh).await;
        if answer.status != 200 {
            answer.refused(400, "invalid_grant");
            return given;
        }
        held = answer.tokens();
        given.push(held.clone());
    }
    panic!("the revocation never came");
}

on_both_engines! {
    async fn a_refresh_gives_another_pair(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let answer = s.refresh(&first.refresh).await;
        let second = answer.tokens();
        assert_ne!((&first.access, &first.refresh), (&second.access, &second.refresh));
        assert_eq!((answer.text("token_type"), answer.text("scope")), ("Bearer".to_owned(), "openid read".to_owned()));
        assert_eq!((answer.header("cache-control"), &answer.json["expires_in"]), ("no-store", &json!(3_600)));
        assert!(!s.is_active(&first.refresh).await && s.is_active(&second.refresh).await);
        assert_eq!(recorded(&s.b, &["issuer.tokens_refreshed", &s.client.id]).await, 1);
        s.finish().await;
    }

    async fn a_stolen_refresh_token_ends_all_that_came_of_the_consent(engine: Engine) {
        for client in [acme(), public()] {
            let s = Stage::of(engine, client).await;
            let first = s.tokens().await;
            let second = s.refresh(&first.refresh).await.tokens();
            let third = s.refresh(&second.refresh).await.tokens();
            assert!(s.is_active(&third.access).await);
            s.refresh(&first.refresh).await.refused(400, "invalid_grant");
            for token in [&first.access, &second.access, &third.access, &third.refresh] {
                assert!(!s.is_active(token).await);
            }
            s.refresh(&third.refresh).await.refused(400, "invalid_grant");
            assert_eq!(s.ends().await, ["refresh_token_reused"]);
            assert_eq!(recorded(&s.b, &["issuer.grant_revoked", "refresh_token_reused"]).await, 1);
            s.finish().await;
        }
    }

    async fn a_lost_answer_is_given_again(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let second = s.refresh(&first.refresh).await.tokens();
        s.b.clock.advance(9 * SECOND);
        let again = s.refresh(&first.refresh).await;
        same(&again, &second);
        assert_eq!(again.json["expires_in"], json!(3_591));
        assert_eq!(s.issued().await.len(), 4);
        s.refresh(&second.refresh).await.tokens();
        s.finish().await;
    }

    async fn the_grace_is_never_extended(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let second = s.refresh(&first.refresh).await.tokens();
        s.b.clock.advance(6 * SECOND);
        same(&s.refresh(&first.refresh).await, &second);
        s.b.clock.advance(4 * SECOND);
        s.refresh(&first.refresh).await.refused(400, "invalid_grant");
        s.refresh(&second.refresh).await.refused(400, "invalid_grant");
        assert_eq!(s.ends().await, ["refresh_token_reused"]);
        s.finish().await;
    }

    async fn the_grace_is_counted(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let second = s.refresh(&first.refresh).await.tokens();
        for _ in 0..s.b.config.issuer.refresh_grace_uses {
            same(&s.refresh(&first.refresh).await, &second);
        }
        s.refresh(&first.refresh).await.refused(400, "invalid_grant");
        assert!(!s.is_active(&second.access).await);
        assert_eq!(s.ends().await, ["refresh_token_reused"]);
        s.finish().await;
    }

    async fn there_is_no_grace_once_the_answer_was_used(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let second = s.refresh(&first.refresh).await.tokens();
        let third = s.refresh(&second.refresh).await.tokens();
        s.refresh(&first.refresh).await.refused(400, "invalid_grant");
        assert!(!s.is_active(&third.access).await);
        s.finish().await;
    }

    async fn refreshes_at_once_get_one_successor(engine: Engine) {
        let s = Stage::with(engine, acme(), |config| config.issuer.refresh_grace_uses = 100).await;
        let mut held = s.tokens().await;
        for _ in 0..3 {
            let answers = join_all((0..10).map(|_| s.refresh(&held.refresh))).await;
            held = answers[0].tokens();
            for answer in &answers {
                same(answer, &held);
            }
        }
        assert!(s.is_active(&held.access).await);
        assert_eq!(s.ends().await, [""]);
        s.finish().await;
    }

    async fn without_a_grace_two_refreshes_at_once_end_all(engine: Engine) {
        let s = Stage::with(engine, acme(), |config| config.issuer.refresh_grace = Duration::ZERO).await;
        let first = s.tokens().await;
        let answers = join_all((0..10).map(|_| s.refresh(&first.refresh))).await;
        let won: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
        assert_eq!(won.len(), 1);
        let tokens = won[0].tokens();
        assert!(!s.is_active(&tokens.access).await && !s.is_active(&tokens.refresh).await);
        assert_eq!(s.ends().await, ["refresh_token_reused"]);
        s.finish().await;
    }

    async fn no_token_outlives_a_revocation_however_many_refresh(engine: Engine) {
        let s = Stage::new(engine).await;
        for _ in 0..5 {
            let first = s.tokens().await;
            let grant_id = s.introspect(&first.access).await.grant_id;
            let (mut given, ()) = join(on_and_on(&s, first.clone()), s.revoke_grant(&grant_id)).await;
            given.push(first);
            for tokens in given {
                assert!(!s.is_active(&tokens.access).await && !s.is_active(&tokens.refresh).await);
            }
        }
        s.finish().await;
    }

    async fn no_token_outlives_the_clients_own_revocation(engine: Engine) {
        let s = Stage::new(engine).await;
        for _ in 0..5 {
            let first = s.tokens().await;
            let (mut given, revoked) = join(on_and_on(&s, first.clone()), s.revoke(&first.refresh)).await;
            assert_eq!(revoked.status, 200);
            given.push(first);
            for tokens in given {
                assert!(!s.is_active(&tokens.access).await && !s.is_active(&tokens.refresh).await);
            }
        }
        s.finish().await;
    }

    async fn another_clients_refresh_token_is_refused_and_stays_good(engine: Engine) {
        let s = Stage::new(engine).await;
        let other = register(&s.b, acme()).await;
        let tokens = s.tokens().await;
        let spent = s.refresh(&tokens.refresh).await.tokens();
        s.b.clock.advance(HOUR);
        for token in [&tokens.refresh, &spent.refresh] {
            s.token(&other.renew(token)).await.refused(400, "invalid_grant");
        }
        for token in ["x", &format!("tbf_{}", "A".repeat(49)), &spent.access] {
            s.refresh(token).await.refused(400, "invalid_grant");
        }
        s.refresh(&spent.refresh).await.tokens();
        s.finish().await;
    }

    async fn a_refresh_token_that_nobody_uses_ends(engine: Engine) {
        let s = Stage::of(engine, pb::Client { refresh_token_lifetime: Some(tokenbroker::grpc::convert::duration(HOUR)), ..acme() }).await;
        let first = s.tokens().await;
        s.b.clock.advance(HOUR - SECOND);
        let second = s.refresh(&first.refresh).await.tokens();
        s.b.clock.advance(HOUR - SECOND);
        let third = s.refresh(&second.refresh).await.tokens();
        s.b.clock.advance(HOUR);
        s.refresh(&third.refresh).await.refused(400, "invalid_grant");
        s.finish().await;
    }

    async fn what_is_kept_alive_by_refreshing_ends_with_the_consent(engine: Engine) {
        let s = Stage::with(engine, acme(), |config| config.issuer.grant_max_age = 40 * DAY).await;
        let first = s.tokens().await;
        s.b.clock.advance(20 * DAY);
        let second = s.refresh(&first.refresh).await.tokens();
        s.b.clock.advance(20 * DAY - HOUR / 2);
        let answer = s.refresh(&second.refresh).await;
        assert_eq!(answer.json["expires_in"], json!(1_800));
        s.b.clock.advance(HOUR / 2);
        s.refresh(&answer.tokens().refresh).await.refused(400, "invalid_grant");
        assert!(!s.is_active(&answer.tokens().access).await);
        s.finish().await;
    }

    async fn scopes_are_narrowed_and_never_widened(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let wider = s.client.renew(&first.refresh).with("scope", "read write");
        s.token(&wider).await.refused(400, "invalid_scope");
        let answer = s.token(&s.client.renew(&first.refresh).with("scope", "read")).await;
        assert_eq!(answer.text("scope"), "read");
        assert_eq!(s.introspect(&answer.tokens().access).await.scopes, ["read"]);
        let whole = s.refresh(&answer.tokens().refresh).await;
        assert_eq!(whole.text("scope"), "openid read");
        s.finish().await;
    }

    async fn a_token_is_for_the_resources_that_were_granted(engine: Engine) {
        let (one, two) = ("https://one.example/", "https://two.example/");
        let known = vec![one.to_owned(), two.to_owned()];
        let s = Stage::with(engine, acme(), |config| config.issuer.resources = known).await;
        let code = s.code_for(&s.client.ask().with("resource", one)).await;
        let elsewhere = s.client.redeem(&code).with("resource", two);
        s.token(&elsewhere).await.refused(400, "invalid_target");
        let tokens = s.token(&s.client.redeem(&code)).await.tokens();
        assert_eq!(s.introspect(&tokens.access).await.audiences, [one]);
        let elsewhere = s.client.renew(&tokens.refresh).with("resource", two);
        s.token(&elsewhere).await.refused(400, "invalid_target");
        let again = s.token(&s.client.renew(&tokens.refresh).with("resource", one)).await.tokens();
        assert_eq!(s.introspect(&again.access).await.audiences, [one]);
        s.finish().await;
    }

    async fn a_scope_that_was_taken_from_the_client_is_not_given_again(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        let client = pb::Client { id: s.client.id.clone(), allowed_scopes: vec!["openid".to_owned()], ..Default::default() };
        let paths = vec!["allowed_scopes".to_owned()];
        let request = pb::UpdateClientRequest { client: Some(client), update_mask: Some(prost_types::FieldMask { paths }) };
        s.b.admin.registry.clone().update_client(request).await.unwrap();
        assert_eq!(s.refresh(&first.refresh).await.text("scope"), "openid");
        s.finish().await;
    }

    async fn a_client_without_refresh_tokens_gets_none(engine: Engine) {
        let s = Stage::of(engine, pb::Client { grant_types: vec![pb::ClientGrantType::AuthorizationCode.into()], ..acme() }).await;
        let tokens = s.tokens().await;
        assert_eq!(tokens.refresh, "");
        s.refresh(&format!("tbf_{}", "A".repeat(49))).await.refused(400, "unauthorized_client");
        s.finish().await;
    }
}
