//! Credentials that were obtained elsewhere. `catalogue` imports keys and OAuth 1.0a tokens.

use std::time::Duration;

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tokenbroker::pb::import_connection_request::Credentials;
use tonic::{Code, Status};

use crate::callbacks::connections;
use crate::fixture::provider::{Account, Issued};
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3600);

fn oauth2(b: &Broker, issued: &Issued) -> Credentials {
    let end = b.clock.now().plus(HOUR).micros() / 1_000_000;
    Credentials::Oauth2(pb::ImportedOAuth2 {
        access_token: issued.access_token.clone(),
        refresh_token: issued.refresh_token.clone().unwrap_or_default(),
        expire_time: Some(prost_types::Timestamp {
            seconds: end,
            nanos: 0,
        }),
        scopes: issued.consent.scopes.clone(),
        ..Default::default()
    })
}

fn of(app: &pb::App, owner: &str, credentials: Credentials) -> pb::ImportConnectionRequest {
    pb::ImportConnectionRequest {
        app: app.id.clone(),
        owner: owner.to_owned(),
        credentials: Some(credentials),
        ..Default::default()
    }
}

async fn import(
    by: &Caller,
    request: pb::ImportConnectionRequest,
) -> Result<pb::Connection, Status> {
    let imported = by.broker.clone().import_connection(request).await?;
    Ok(imported.into_inner().connection.unwrap())
}

on_both_engines! {
    async fn imported_tokens_are_served_and_refreshed(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let issued = b.provider.issue_tokens(&["read"]);
        let c = import(&b.admin, of(&app, "owner-1", oauth2(&b, &issued))).await.unwrap();
        assert_eq!((c.state(), c.kind()), (pb::ConnectionState::Active, pb::ConnectionKind::Oauth2));
        assert_eq!((c.account_id.as_str(), c.display_name.as_str()), ("acct-ada", "ada Example"));
        assert_eq!(c.scopes, ["read"]);
        assert_eq!(b.token(&c.id).await.unwrap().access_token, issued.access_token);
        b.clock.advance(HOUR);
        let fresh = b.token(&c.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&fresh.access_token));
        assert_eq!((b.provider.refreshes(), b.provider.reuse_detected()), (1, 0));
        b.finish().await;
    }

    async fn a_lone_refresh_token_brings_an_access_token(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let lone = Credentials::Oauth2(pb::ImportedOAuth2 {
            refresh_token: b.provider.issue_tokens(&["read"]).refresh_token.unwrap(),
            ..Default::default()
        });
        let c = import(&b.admin, of(&app, "owner-1", lone)).await.unwrap();
        let token = b.token(&c.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        b.finish().await;
    }

    async fn credentials_of_another_kind_are_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let key = Credentials::ApiKey(pb::ImportedApiKey { api_key: b.provider.issue_api_key() });
        let issued = b.provider.issue_tokens(&["read"]);
        let oauth1 = Credentials::Oauth1(pb::ImportedOAuth1 {
            token: issued.access_token.clone(),
            token_secret: issued.access_token.clone(),
        });
        let empty = Credentials::Oauth2(pb::ImportedOAuth2::default());
        for (credentials, field) in [(key, "credentials"), (oauth1, "credentials"), (empty, "oauth2")] {
            let refused = import(&b.admin, of(&app, "owner-1", credentials)).await.unwrap_err();
            assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec![field.to_owned()]));
        }
        assert!(connections(&b).await.is_empty());
        let consumer = b.caller(Role::Consumer, Constraints::default()).await;
        let refused = import(&consumer, of(&app, "owner-1", oauth2(&b, &issued))).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn importing_an_account_again_replaces_its_tokens(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let first = b.provider.issue_tokens(&["read"]);
        let c = import(&b.admin, of(&app, "owner-1", oauth2(&b, &first))).await.unwrap();
        b.token(&c.id).await.unwrap();
        let second = b.provider.issue_tokens(&["read", "write"]);
        let again = import(&b.admin, of(&app, "owner-1", oauth2(&b, &second))).await.unwrap();
        assert_eq!((&again.id, again.scopes.len()), (&c.id, 2));
        eventually("the new token is served", || async {
            b.token(&c.id).await.unwrap().access_token == second.access_token
        }).await;
        assert_eq!(connections(&b).await.len(), 1);
        // And consent renews what was imported.
        assert_eq!(b.connect(&app, "owner-1").await.id, c.id);
        b.finish().await;
    }

    async fn one_refresh_token_is_one_grant_and_one_refresh(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let issued = b.provider.issue_tokens(&["read"]);
        let one = import(&b.admin, of(&app, "owner-1", oauth2(&b, &issued))).await.unwrap();
        let two = import(&b.admin, of(&app, "owner-2", oauth2(&b, &issued))).await.unwrap();
        assert_ne!(one.id, two.id);
        assert_eq!(one.grant_id, two.grant_id);
        b.clock.advance(HOUR);
        let tokens = tokio::join!(b.token(&one.id), b.token(&two.id));
        assert_eq!(tokens.0.unwrap().access_token, tokens.1.unwrap().access_token);
        assert_eq!((b.provider.refreshes(), b.provider.reuse_detected()), (1, 0));
        let revoke = pb::DeleteConnectionRequest { connection_id: one.id, ..Default::default() };
        let left = b.admin.broker.clone().delete_connection(revoke).await.unwrap().into_inner();
        assert_eq!(left.provider_revocation(), pb::ProviderRevocation::Skipped);
        let token = b.token(&two.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        b.finish().await;
    }

    async fn a_retried_import_makes_nothing_twice(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("grace"));
        let issued = b.provider.issue_tokens(&["read"]);
        let request = pb::ImportConnectionRequest {
            request_id: "0192f0c1-7d2b-7c3a-9e4f-5a6b7c8d9e10".to_owned(),
            labels: ["a", "b", "c"].map(|name| (name.to_owned(), "x".to_owned())).into(),
            ..of(&app, "owner-1", oauth2(&b, &issued))
        };
        let first = import(&b.admin, request.clone()).await.unwrap();
        for _ in 0..3 {
            let again = import(&b.admin, request.clone()).await.unwrap();
            assert_eq!((again.id, again.etag), (first.id.clone(), first.etag.clone()));
        }
        let other = pb::ImportConnectionRequest { owner: "owner-2".to_owned(), ..request };
        let refused = import(&b.admin, other).await.unwrap_err();
        assert_eq!(violations(&refused), ["request_id"]);
        b.finish().await;
    }
}
