//! What people gave: they see it and take it back; clients that act for themselves; what is written
//! down, and what is cleaned up.

use super::*;
use crate::fixture::scene::administration::sign_in;

async fn listed(caller: &Caller, user_id: &str) -> Vec<pb::Grant> {
    let request = pb::ListGrantsRequest {
        user_id: user_id.to_owned(),
        ..Default::default()
    };
    let mut server = caller.authorization_server.clone();
    let found = server.list_grants(request).await.unwrap();
    found.into_inner().grants
}

fn revocation(grant_id: &str) -> pb::RevokeGrantRequest {
    pb::RevokeGrantRequest {
        grant_id: grant_id.to_owned(),
        ..Default::default()
    }
}

/// Somebody's own session.
async fn session(s: &Stage, person: &Person) -> Caller {
    let session = sign_in(&s.b, &person.email, &person.password).await;
    s.b.caller_with(&session.session_token)
}

on_both_engines! {
    async fn a_person_sees_what_they_gave_and_takes_it_back(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let ada = session(&s, &s.person).await;
        let grants = listed(&ada, "").await;
        assert_eq!(grants, listed(&ada, "me").await);
        let [grant] = &grants[..] else { panic!("{grants:?}") };
        assert_eq!((&grant.client_id, &*grant.client_name, &grant.user_id), (&s.client.id, "Acme", &s.person.id));
        assert_eq!((grant.scopes.join(" "), &*grant.ip), ("openid read".to_owned(), "127.0.0.1"));
        assert!(s.is_active(&tokens.access).await);
        let revoked = ada.authorization_server.clone().revoke_grant(revocation(&grant.id)).await;
        assert_eq!(revoked.unwrap().into_inner().grant.unwrap().revoke_reason, "revoked_by_user");
        assert!(!s.is_active(&tokens.access).await && !s.is_active(&tokens.refresh).await);
        s.refresh(&tokens.refresh).await.refused(400, "invalid_grant");
        assert!(listed(&ada, "me").await.is_empty());
        ada.authorization_server.clone().revoke_grant(revocation(&grant.id)).await.unwrap();
        assert_eq!(recorded(&s.b, &["issuer.grant_revoked", &grant.id]).await, 1);
        s.finish().await;
    }

    async fn nobody_sees_or_takes_what_somebody_else_gave(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let grant_id = s.grants().await[0].id.clone();
        let eve = session(&s, &person(&s.b, "eve@example.com").await).await;
        assert!(listed(&eve, "").await.is_empty());
        let mut server = eve.authorization_server.clone();
        let theirs = pb::ListGrantsRequest { user_id: s.person.id.clone(), ..Default::default() };
        assert_refused(server.list_grants(theirs).await, Code::PermissionDenied, "PERMISSION_DENIED");
        for id in [&grant_id, &tokenbroker::model::IdKind::IssuedGrant.new_id()] {
            let refused = server.revoke_grant(revocation(id)).await;
            assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        let abroad = s.b.caller_in("elsewhere", tokenbroker::model::Role::Admin, Default::default()).await;
        let refused = abroad.authorization_server.clone().revoke_grant(revocation(&grant_id)).await;
        assert_refused(refused, Code::NotFound, "GRANT_NOT_FOUND");
        assert!(s.is_active(&tokens.access).await);
        s.finish().await;
    }

    async fn what_a_person_gave_ends_with_them(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        assert!(s.is_active(&tokens.access).await);
        let request = pb::DeleteUserRequest { user_id: s.person.id.clone(), ..Default::default() };
        s.b.admin.administration.clone().delete_user(request).await.unwrap();
        s.refresh(&tokens.refresh).await.refused(400, "invalid_grant");
        dies(&s, &tokens.access).await;
        assert_eq!(s.ends().await, ["user_deleted"]);
        s.finish().await;
    }

    async fn a_client_that_acts_for_itself_has_no_person(engine: Engine) {
        let s = Stage::new(engine).await;
        let answer = s.token(&s.client.form(&[("grant_type", "client_credentials")])).await;
        let tokens = answer.tokens();
        assert_eq!((answer.text("scope"), &*tokens.refresh, &*tokens.id), ("read write".to_owned(), "", ""));
        for (scope, error) in [("openid", "invalid_scope"), ("read email", "invalid_scope"), ("admin", "invalid_scope"), ("a\"b", "invalid_scope")] {
            s.token(&s.client.for_itself().with("scope", scope)).await.refused(400, error);
        }
        s.token(&s.client.for_itself().with("resource", "https://evil.example")).await.refused(400, "invalid_target");
        assert_eq!(s.introspect(&tokens.access).await.grant_id, "");
        assert!(s.grants().await.is_empty());
        let app = register(&s.b, public()).await;
        s.token(&app.for_itself()).await.refused(400, "unauthorized_client");
        s.finish().await;
    }

    async fn every_step_of_a_consent_is_told_to_the_trail(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let next = s.refresh(&tokens.refresh).await.tokens();
        s.token(&s.client.redeem("tbo_x")).await.refused(400, "invalid_grant");
        s.revoke(&next.access).await;
        let grant_id = s.grants().await[0].id.clone();
        for (words, times) in [
            (["issuer.signed_in", &s.person.id], 1), (["issuer.consent_given", &grant_id], 1), (["issuer.tokens_issued", &grant_id], 1),
            (["issuer.tokens_refreshed", &grant_id], 1), (["issuer.token_refused", "invalid_grant"], 1), (["issuer.token_revoked", &grant_id], 1),
        ] {
            assert_eq!(recorded(&s.b, &words).await, times, "{}", words[0]);
        }
        s.finish().await;
    }

    async fn what_is_over_is_cleaned_up(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.token_with(&s.client.redeem(&s.code().await), &proofs::Holder::new().proof(&s)).await.tokens();
        s.token_with(&s.client.renew(&tokens.refresh), &proofs::Holder::new().proof(&s)).await.tokens();
        s.token(&s.client.for_itself()).await.tokens();
        s.post("oauth2/device_authorization", &s.client.form(&[])).await;
        s.post("oauth2/par", &s.client.ask().with("client_secret", &s.client.secret)).await;
        s.b.clock.advance(400 * DAY);
        for table in ["authorization_requests", "authorization_codes", "issued_grants", "issued_tokens", "device_authorizations", "spent_proofs"] {
            let count = format!("SELECT CAST(count(*) AS text) AS line FROM {table}");
            eventually(table, || async { s.b.ground.lines(&count).await == ["0"] }).await;
        }
        s.finish().await;
    }
}
