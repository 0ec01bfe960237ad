//! What is held about a person: exported whole and without secrets, erased, and then nowhere.

mod command_line;
mod erasure;

use serde_json::Value;
use tokenbroker::grpc::convert::from_structure;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tokenbroker::pb::{erase_person_request as erase, export_person_request as export};
use tonic::{Code, Status};

use crate::fixture::provider::Account;
use crate::fixture::*;
use crate::on_both_engines;

const EMAIL: &str = "ada.lovelace@example.org";
const PASSWORD: &str = "an-engine-of-difference-1843";

/// Ada: a user who signed in once, with preferences and a connection of hers.
async fn ada(b: &Broker) -> (String, pb::Connection) {
    leaks::Secrets::register_as("password", PASSWORD);
    let mut administration = b.admin.administration.clone();
    let user = administration
        .create_user(pb::CreateUserRequest {
            email: EMAIL.to_owned(),
            display_name: "Ada Lovelace".to_owned(),
            password: PASSWORD.to_owned(),
            owner: "owner-1".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
        .user
        .unwrap();
    administration
        .create_session(tonic::Request::new(pb::CreateSessionRequest {
            credentials: Some(pb::create_session_request::Credentials::Password(
                pb::PasswordCredentials {
                    email: EMAIL.to_owned(),
                    password: PASSWORD.to_owned(),
                },
            )),
            client_ip: "203.0.113.7".to_owned(),
            client_user_agent: "Analytical/1.0".to_owned(),
            ..Default::default()
        }))
        .await
        .map(|answer| {
            let answer = answer.into_inner();
            leaks::Secrets::register_as("session token", &answer.session_token);
            leaks::Secrets::register_as("refresh token of a session", &answer.refresh_token);
        })
        .unwrap();
    b.provider.sign_in_as(Account::named("ada"));
    let app = b.app().await;
    let connection = b.connect(&app, "owner-1").await;
    (user.id, connection)
}

async fn exported(caller: &Caller, person: export::Person) -> Result<Value, Status> {
    let request = pb::ExportPersonRequest {
        person: Some(person),
    };
    let answer = caller.administration.clone().export_person(request).await?;
    let document = answer.into_inner().document.unwrap();
    Ok(Value::Object(from_structure(document)))
}

async fn erased(
    caller: &Caller,
    person: erase::Person,
    validate_only: bool,
) -> Result<pb::ErasePersonResponse, Status> {
    let request = pb::ErasePersonRequest {
        person: Some(person),
        validate_only,
    };
    let answer = caller.administration.clone().erase_person(request).await?;
    Ok(answer.into_inner())
}

/// Everything in the database, as one text.
async fn everything(b: &Broker) -> String {
    let rows = tables::rows(b).await;
    rows.into_values().flatten().collect::<Vec<_>>().join("\n")
}

on_both_engines! {
    async fn an_export_has_everything_but_secrets(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, connection) = ada(&b).await;
        let token = b.token(&connection.id).await.unwrap().access_token;
        let document = exported(&b.admin, export::Person::UserId(id.clone())).await.unwrap();
        assert_eq!(document["user"]["email"], EMAIL);
        assert_eq!(document["sessions"][0]["client_ip"], "203.0.113.7");
        assert_eq!(document["connections"][0]["id"], connection.id.as_str());
        assert_eq!(document["authorizations"].as_array().unwrap().len(), 1);
        assert!(!document["audit_events"].as_array().unwrap().is_empty());
        let text = document.to_string();
        assert!(!text.contains(&token) && !text.contains("argon2id"), "{text}");
        let by_owner = exported(&b.admin, export::Person::Owner("owner-1".to_owned())).await.unwrap();
        assert_eq!(by_owner["user"], document["user"]);
        b.finish().await;
    }

    async fn an_erased_person_is_nowhere_and_the_trail_still_verifies(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, connection) = ada(&b).await;
        let token = b.token(&connection.id).await.unwrap().access_token;
        let counted = erased(&b.admin, erase::Person::UserId(id.clone()), true).await.unwrap();
        assert_eq!((counted.connections, counted.sessions, counted.user), (1, 1, true));
        assert!(everything(&b).await.contains(EMAIL), "only counted");
        let done = erased(&b.admin, erase::Person::UserId(id.clone()), false).await.unwrap();
        assert_eq!((done.connections, done.unrevoked_at_provider, done.sessions, done.user), (1, 0, 1, true));
        assert!(done.log_rows > 0);
        assert!(!b.provider.is_access_token_valid(&token), "revoked at the provider too");
        let left = everything(&b).await;
        for trace in [EMAIL, "Lovelace", "203.0.113.7", "Analytical/1.0", "argon2id"] {
            assert!(!left.contains(trace), "{trace} is left");
        }
        assert!(left.contains(&id), "the trail keeps the id");
        let verified = b.admin.administration.clone().verify_audit_log(pb::VerifyAuditLogRequest::default()).await.unwrap().into_inner();
        assert!(verified.intact, "{:?}", verified.findings);
        let gone = erased(&b.admin, erase::Person::UserId(id), false).await;
        assert_refused(gone, Code::NotFound, "USER_NOT_FOUND");
        b.finish().await;
    }

    async fn an_owner_without_a_user_can_be_erased_and_again(engine: Engine) {
        let b = Broker::start(engine).await;
        let connection = b.connected().await;
        let owner = erase::Person::Owner("owner-1".to_owned());
        let done = erased(&b.admin, owner.clone(), false).await.unwrap();
        assert_eq!((done.connections, done.user), (1, false));
        assert_refused(b.token(&connection.id).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        let again = erased(&b.admin, owner, false).await.unwrap();
        assert_eq!(again.connections, 0);
        b.finish().await;
    }

    async fn what_is_the_providers_to_revoke_is_told(engine: Engine) {
        let b = Broker::start(engine).await;
        b.connected().await;
        b.provider.fail_always(provider::Target::Revoke, provider::Fault::Status(500));
        let done = erased(&b.admin, erase::Person::Owner("owner-1".to_owned()), false).await.unwrap();
        assert_eq!((done.connections, done.unrevoked_at_provider), (1, 1));
        b.finish().await;
    }

    async fn only_who_may_all_of_a_person_may_take_or_give_it(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, _) = ada(&b).await;
        let other = b.caller_in("other", Role::Admin, Constraints::default()).await;
        assert_refused(exported(&other, export::Person::UserId(id.clone())).await, Code::NotFound, "USER_NOT_FOUND");
        let elsewhere = Constraints { owners: vec!["owner-2".to_owned()], ..Constraints::default() };
        let partly = Constraints { providers: vec!["fake".to_owned()], ..Constraints::default() };
        for constraints in [elsewhere, partly] {
            let caller = b.caller(Role::Admin, constraints).await;
            assert_refused(exported(&caller, export::Person::UserId(id.clone())).await, Code::PermissionDenied, "PERMISSION_DENIED");
            assert_refused(erased(&caller, erase::Person::Owner("owner-1".to_owned()), false).await, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        assert_refused(exported(&operator, export::Person::UserId(id)).await, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn the_view_has_the_users_address(engine: Engine) {
        let b = Broker::start(engine).await;
        let (_, connection) = ada(&b).await;
        let query = format!("SELECT user_email AS line FROM oauth_connections WHERE id = '{}'", connection.id);
        assert_eq!(b.ground.lines(&query).await, [EMAIL]);
        b.finish().await;
    }
}
