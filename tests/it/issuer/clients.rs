//! Clients: how they prove who they are, and those that are shut out.

use super::*;
use tokenbroker::model::{Constraints, Role};
use tonic_types::StatusExt as _;

/// Which of OAuth's errors a refusal is.
fn oauth_error(refused: &tonic::Status) -> String {
    let info = refused.get_details_error_info().unwrap();
    info.metadata["error"].clone()
}

/// Asks for a token of its own by HTTP Basic.
async fn by_basic(s: &Stage, id: &str, secret: &str) -> Answer {
    let form = Form::new(&[("grant_type", "client_credentials"), ("scope", "read")]);
    let header = wire::basic(id, secret);
    s.post_with("oauth2/token", &form, &[("authorization", &header)])
        .await
}

/// Nothing of this is given to a client that is shut out.
async fn shut_out(s: &Stage, code: &str, refresh_token: &str) {
    for form in [
        s.client.for_itself(),
        s.client.redeem(code),
        s.client.renew(refresh_token),
    ] {
        s.token(&form).await.refused(400, "invalid_client");
    }
    let device = s.client.form(&[("scope", "read")]);
    let device = s.post("oauth2/device_authorization", &device).await;
    device.refused(400, "invalid_client");
    let pushed = s.client.ask().with("client_secret", &s.client.secret);
    s.post("oauth2/par", &pushed)
        .await
        .refused(400, "invalid_client");
    let asked = s.inspect(refresh_token).await;
    asked.refused(401, "invalid_client");
}

async fn reactivate(s: &Stage) {
    let request = pb::ReactivateClientRequest {
        client_id: s.client.id.clone(),
        ..Default::default()
    };
    let mut registry = s.b.admin.registry.clone();
    registry.reactivate_client(request).await.unwrap();
}

async fn rotate(s: &Stage) -> String {
    let request = pb::RotateClientSecretRequest {
        client_id: s.client.id.clone(),
        ..Default::default()
    };
    let mut registry = s.b.admin.registry.clone();
    let rotated = registry.rotate_client_secret(request).await.unwrap();
    let secret = rotated.into_inner().client_secret;
    leaks::Secrets::register_as("client secret", &secret);
    secret
}

on_both_engines! {
    async fn an_unknown_client_and_a_wrong_secret_look_alike(engine: Engine) {
        let s = Stage::of(engine, pb::Client { auth_method: pb::ClientAuthMethod::ClientSecretBasic.into(), ..acme() }).await;
        by_basic(&s, &s.client.id, &s.client.secret).await.tokens();
        let unknown = tokenbroker::model::IdKind::Client.new_id();
        let wrong = format!("tbc_{}", "A".repeat(49));
        let one = by_basic(&s, &s.client.id, &wrong).await;
        let other = by_basic(&s, &unknown, &s.client.secret).await;
        for answer in [&one, &other] {
            answer.refused(401, "invalid_client");
            assert!(answer.header("www-authenticate").starts_with("Basic "));
        }
        assert_eq!(one.json, other.json);
        assert_eq!(recorded(&s.b, &["client.authentication_failed", &s.client.id, "WRONG_SECRET"]).await, 1);
        s.finish().await;
    }

    async fn a_client_proves_itself_in_its_own_way_alone(engine: Engine) {
        let s = Stage::new(engine).await;
        by_basic(&s, &s.client.id, &s.client.secret).await.refused(401, "invalid_client");
        s.token(&s.client.for_itself().without("client_secret")).await.refused(400, "invalid_client");
        let other = register(&s.b, pb::Client { auth_method: pb::ClientAuthMethod::ClientSecretBasic.into(), ..acme() }).await;
        s.token(&other.for_itself()).await.refused(400, "invalid_client");
        by_basic(&s, &other.id, &other.secret).await.tokens();
        let header = wire::basic(&other.id, &other.secret);
        let both = s.post_with("oauth2/token", &other.for_itself(), &[("authorization", &header)]).await;
        both.refused(400, "invalid_request");
        let app = register(&s.b, public()).await;
        let code = s.code_for(&app.ask()).await;
        s.token(&app.redeem(&code).with("client_secret", &s.client.secret)).await.refused(400, "invalid_client");
        s.token(&app.redeem(&code)).await.tokens();
        s.finish().await;
    }

    async fn guessed_secrets_have_to_wait(engine: Engine) {
        let s = Stage::new(engine).await;
        let other = register(&s.b, acme()).await;
        let guess = s.client.for_itself().with("client_secret", &format!("tbc_{}", "A".repeat(49)));
        for _ in 0..30 {
            s.token(&guess).await.refused(400, "invalid_client");
        }
        // From here on not even the right one is looked at, from this address.
        for form in [&guess, &s.client.for_itself()] {
            let answer = s.token(form).await;
            answer.refused(429, "temporarily_unavailable");
            assert_ne!(answer.header("retry-after"), "");
        }
        s.token(&other.for_itself()).await.tokens();
        assert_eq!(recorded(&s.b, &["client.authentication_failed", &s.client.id]).await, 1);
        s.b.clock.advance(60 * SECOND);
        s.token(&s.client.for_itself()).await.tokens();
        s.finish().await;
    }

    async fn two_secrets_are_good_while_a_rotation_lasts_and_none_after_its_end(engine: Engine) {
        let s = Stage::new(engine).await;
        let old = s.client.for_itself();
        let new = s.client.for_itself().with("client_secret", &rotate(&s).await);
        s.token(&old).await.tokens();
        s.token(&new).await.tokens();
        s.b.clock.advance(DAY);
        s.token(&old).await.refused(400, "invalid_client");
        s.token(&new).await.tokens();
        s.b.clock.advance(365 * DAY);
        s.token(&new).await.refused(400, "invalid_client");
        s.finish().await;
    }

    async fn a_suspended_client_fails_everywhere(engine: Engine) {
        let mut s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let code = s.code().await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        assert_eq!(s.user_info(&tokens.access).await.status, 200);
        suspend(&s).await;
        shut_out(&s, &code, &tokens.refresh).await;
        stays(&opened(&s, &s.client.ask()).await, "unauthorized_client");
        stays(&s.decide(&browser, &asked, "allow").await, "unauthorized_client");
        dies(&s, &tokens.access).await;
        assert!(!s.is_active(&tokens.refresh).await);
        s.user_info(&tokens.access).await.refused(401, "invalid_token");
        // Neither another secret nor other settings let it in again.
        s.client.secret = rotate(&s).await;
        shut_out(&s, &code, &tokens.refresh).await;
        reactivate(&s).await;
        assert!(s.is_active(&tokens.access).await);
        s.refresh(&tokens.refresh).await.tokens();
        s.finish().await;
    }

    async fn a_revoked_client_fails_everywhere_for_good(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let own = s.token(&s.client.for_itself()).await.tokens();
        let code = s.code().await;
        let request = pb::RevokeClientRequest { client_id: s.client.id.clone(), reason: "abuse".to_owned() };
        s.b.admin.registry.clone().revoke_client(request).await.unwrap();
        shut_out(&s, &code, &tokens.refresh).await;
        stays(&opened(&s, &s.client.ask()).await, "unauthorized_client");
        for token in [&tokens.access, &tokens.refresh, &own.access] {
            dies(&s, token).await;
        }
        assert_eq!(s.ends().await, ["client_revoked", "client_revoked"]);
        s.finish().await;
    }

    async fn a_deleted_client_fails_everywhere(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let code = s.code().await;
        let request = pb::DeleteClientRequest { client_id: s.client.id.clone(), ..Default::default() };
        s.b.admin.registry.clone().delete_client(request).await.unwrap();
        shut_out(&s, &code, &tokens.refresh).await;
        stays(&opened(&s, &s.client.ask()).await, "invalid_client");
        dies(&s, &tokens.access).await;
        s.user_info(&tokens.access).await.refused(401, "invalid_token");
        s.finish().await;
    }

    async fn a_client_that_nobody_approved_gets_nothing(engine: Engine) {
        let mut s = Stage::new(engine).await;
        let request = pb::CreateClientRequest { client: Some(acme()), ..Default::default() };
        let made = s.b.admin.registry.clone().create_client(request).await.unwrap().into_inner();
        leaks::Secrets::register_as("client secret", &made.client_secret);
        s.client = Client { id: made.client.unwrap().id, secret: made.client_secret, ..s.client };
        stays(&opened(&s, &s.client.ask()).await, "unauthorized_client");
        s.token(&s.client.for_itself()).await.refused(400, "invalid_client");
        s.finish().await;
    }

    async fn a_person_who_is_switched_off_is_of_no_use_to_clients(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let code = s.code().await;
        let browser = Browser::new();
        let asked = s.asked(&browser, &s.client.ask()).await;
        assert!(s.is_active(&tokens.access).await);
        deactivate(&s).await;
        s.token(&s.client.redeem(&code)).await.refused(400, "invalid_grant");
        s.refresh(&tokens.refresh).await.refused(400, "invalid_grant");
        assert_eq!(s.decide(&browser, &asked, "allow").await.status, 403);
        let begun = opened(&s, &s.client.ask()).await;
        assert_eq!(begun.status, 303);
        let other = Browser::new();
        let begun = s.authorize(&other, &s.client.ask()).await;
        assert_eq!(s.sign_in(&other, &begun).await.status, 403);
        dies(&s, &tokens.access).await;
        s.user_info(&tokens.access).await.refused(401, "invalid_token");
        s.finish().await;
    }

    async fn a_client_has_no_more_tokens_an_hour_than_it_may(engine: Engine) {
        let s = Stage::of(engine, pb::Client { rate_limit_per_hour: 2, ..acme() }).await;
        for _ in 0..2 {
            s.token(&s.client.for_itself()).await.tokens();
        }
        let answer = s.token(&s.client.for_itself()).await;
        answer.refused(429, "temporarily_unavailable");
        assert_eq!(answer.header("retry-after"), "1800");
        let grant = pb::exchange_token_request::Grant::ClientCredentials(pb::ClientCredentialsGrant::default());
        let request = pb::ExchangeTokenRequest { credentials: s.client.credentials(), grant: Some(grant), ..Default::default() };
        let refused = s.b.admin.authorization_server.clone().exchange_token(request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::ResourceExhausted, "RATE_LIMITED"));
        assert_eq!(refused.get_details_retry_info().unwrap().retry_delay, Some(HOUR / 2));
        // Of another client nobody speaks.
        let other = register(&s.b, acme()).await;
        s.token(&other.for_itself()).await.tokens();
        s.b.clock.advance(HOUR / 2);
        s.token(&s.client.for_itself()).await.tokens();
        s.token(&s.client.for_itself()).await.refused(429, "temporarily_unavailable");
        s.finish().await;
    }

    async fn what_clients_had_is_counted(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        s.refresh(&tokens.refresh).await.tokens();
        s.token(&s.client.for_itself()).await.tokens();
        eventually("it is stored", || async {
            let request = pb::GetClientStatsRequest { client_id: s.client.id.clone() };
            let stats = s.b.admin.registry.clone().get_client_stats(request).await;
            let stats = stats.unwrap().into_inner().stats.unwrap();
            (stats.authorization_count, stats.token_count, stats.unique_user_count) == (1, 3, 1)
        })
        .await;
        s.finish().await;
    }

    async fn to_another_tenants_gateway_a_client_is_unknown(engine: Engine) {
        let s = Stage::new(engine).await;
        let tokens = s.tokens().await;
        let gateway = s.b.caller_in("elsewhere", Role::IssuerUi, Constraints::default()).await;
        let mut server = gateway.authorization_server.clone();
        let info = pb::GetUserInfoRequest { access_token: tokens.access.clone(), dpop: None };
        assert_eq!(oauth_error(&server.get_user_info(info).await.unwrap_err()), "invalid_token");
        let request = pb::RevokeTokenRequest { credentials: s.client.credentials(), token: tokens.refresh.clone(), ..Default::default() };
        assert_eq!(oauth_error(&server.revoke_token(request).await.unwrap_err()), "invalid_client");
        let request = pb::StartDeviceAuthorizationRequest { credentials: s.client.credentials(), ..Default::default() };
        assert_eq!(oauth_error(&server.start_device_authorization(request).await.unwrap_err()), "invalid_client");
        let grant = pb::exchange_token_request::Grant::ClientCredentials(pb::ClientCredentialsGrant::default());
        let request = pb::ExchangeTokenRequest { credentials: s.client.credentials(), grant: Some(grant), ..Default::default() };
        for _ in 0..28 {
            let refused = server.exchange_token(request.clone()).await.unwrap_err();
            assert_eq!(oauth_error(&refused), "invalid_client");
        }
        assert_refused(server.exchange_token(request).await, Code::ResourceExhausted, "RATE_LIMITED");
        // None of that was counted or written down against the client.
        s.token(&s.client.for_itself()).await.tokens();
        assert!(s.is_active(&tokens.access).await && s.is_active(&tokens.refresh).await);
        assert_eq!(recorded(&s.b, &["client.authentication_failed"]).await, 0);
        s.finish().await;
    }
}
