//! What a signed-in user may see and end: what is theirs.

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::Code;

use super::{by_password, create, person, revoke, sessions_of, signed_in, user_with, whoami};
use crate::fixture::provider::Account;
use crate::fixture::*;
use crate::on_both_engines;

on_both_engines! {
    async fn a_signed_in_user_sees_and_revokes_only_their_own_connections(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("ada"));
        let own = b.connect(&app, "ada").await;
        b.provider.sign_in_as(Account::named("adam"));
        let others = b.connect(&app, "adam").await;
        let (_, session) = signed_in(&b).await;
        let mut ada = b.caller_with(&session.token).broker;
        let listed = ada.list_connections(pb::ListConnectionsRequest::default()).await;
        let listed = listed.unwrap().into_inner().connections;
        assert_eq!(listed.iter().map(|it| &it.id).collect::<Vec<_>>(), [&own.id]);
        let revoke = |id: &str| pb::RevokeConnectionRequest {
            connection_id: id.to_owned(),
            ..Default::default()
        };
        let refused = ada.revoke_connection(revoke(&others.id)).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        ada.revoke_connection(revoke(&own.id)).await.unwrap();
        let request = pb::GetAccessTokenRequest {
            connection_id: others.id.clone(),
            ..Default::default()
        };
        let refused = b.caller_with(&session.token).get_token(request).await;
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        b.token(&others.id).await.unwrap();
        b.finish().await;
    }

    async fn sessions_of_others_are_nobodys_business(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, session) = signed_in(&b).await;
        let eve = person(&b, "eve@example.com").await;
        let theirs = eve.sign_in(&b).await;
        let caller = b.caller_with(&theirs.token);
        let unknown = tokenbroker::model::IdKind::Session.new_id();
        for id in [&session.session.id, &unknown] {
            let refused = revoke(&caller, id).await;
            assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        }
        for user_id in [&ada.user.id, &tokenbroker::model::IdKind::User.new_id()] {
            let request = pb::ListSessionsRequest { user_id: user_id.clone(), ..Default::default() };
            let refused = caller.administration.clone().list_sessions(request).await;
            assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
            let request = pb::RevokeAllSessionsRequest { user_id: user_id.clone(), ..Default::default() };
            let refused = caller.administration.clone().revoke_all_sessions(request).await;
            assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
        }
        assert_eq!(revoke(&b.admin, &unknown).await.unwrap_err().code(), Code::NotFound);
        let elsewhere = b.caller_in("other", tokenbroker::model::Role::Admin, Default::default()).await;
        let refused = revoke(&elsewhere, &session.session.id).await;
        assert_eq!(refused.unwrap_err().code(), Code::NotFound);
        assert_eq!(violations(&revoke(&b.admin, "current").await.unwrap_err()), ["session_id"]);
        whoami(&b, &session.token).await.unwrap();
        b.finish().await;
    }

    async fn all_sessions_end_but_the_one_that_asks(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, first) = signed_in(&b).await;
        let second = ada.sign_in(&b).await;
        for token in [&first.token, &second.token] {
            whoami(&b, token).await.unwrap();
        }
        let revoke_all = |keep_current| pb::RevokeAllSessionsRequest {
            user_id: "me".to_owned(),
            keep_current,
        };
        let mut client = b.caller_with(&second.token).administration;
        let ended = client.revoke_all_sessions(revoke_all(true)).await.unwrap().into_inner();
        assert_eq!(ended.revoked_sessions, 1);
        let refused = whoami(&b, &first.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        whoami(&b, &second.token).await.unwrap();
        let ended = client.revoke_all_sessions(revoke_all(false)).await.unwrap().into_inner();
        assert_eq!(ended.revoked_sessions, 1);
        assert!(whoami(&b, &second.token).await.is_err());
        b.finish().await;
    }

    async fn sessions_come_in_pages_newest_first(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, first) = signed_in(&b).await;
        let second = ada.sign_in(&b).await;
        let mut request = pb::ListSessionsRequest {
            user_id: ada.user.id.clone(),
            page_size: 1,
            ..Default::default()
        };
        let mut client = b.admin.administration.clone();
        let page = client.list_sessions(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.sessions[0].id, second.session.id);
        request.page_token = page.next_page_token;
        let page = client.list_sessions(request).await.unwrap().into_inner();
        assert_eq!((&page.sessions[0].id, page.next_page_token.as_str()), (&first.session.id, ""));
        assert_eq!(sessions_of(&b.admin, &ada.user.id, false).await.len(), 2);
        b.finish().await;
    }

    async fn an_admin_of_some_owners_signs_nobody_out_who_may_do_more(engine: Engine) {
        let b = Broker::start(engine).await;
        let password = "an uncommon phrase of words";
        let chief = user_with(&b, "acme-1@example.com", pb::Role::Admin, password).await;
        user_with(&b, "acme-2@example.com", pb::Role::User, password).await;
        let session = create(&b, by_password("acme-1@example.com", password)).await.unwrap();
        let theirs = create(&b, by_password("acme-2@example.com", password)).await.unwrap();
        let held = Constraints { owners: vec!["acme-*".to_owned()], ..Default::default() };
        let branch = b.caller(Role::Admin, held).await;
        let refused = revoke(&branch, &session.session.id).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let request = pb::RevokeAllSessionsRequest { user_id: chief.id, ..Default::default() };
        let refused = branch.administration.clone().revoke_all_sessions(request).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        whoami(&b, &session.token).await.unwrap();
        revoke(&branch, &theirs.session.id).await.unwrap();
        b.finish().await;
    }
}
