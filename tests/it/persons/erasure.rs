//! What an erasure meets: those who may do more than the caller, what is under way, a database that
//! fails in its middle, and what is written of the person in other places than their own rows.

use super::*;
use crate::callbacks::{asked, connections, consent};
use crate::fixture::browser::Browser;
use crate::fixture::leaks::Secrets;
use crate::fixture::provider::{Fault, Target};
use crate::sessions::{by_password, create, user_with};

const OWNER: &str = "owner-1";

fn owner() -> erase::Person {
    erase::Person::Owner(OWNER.to_owned())
}

/// Rows of the trail that hold an address, by a condition.
async fn addresses(b: &Broker, condition: &str) -> Vec<String> {
    let query = format!("SELECT ip AS line FROM audit_events WHERE ip <> '' AND {condition}");
    b.ground.lines(&query).await
}

/// Makes every deletion of a user fail, as a database does that runs full.
async fn break_users(b: &Broker) {
    let sql = b.ground.word(
        "CREATE TRIGGER not_now BEFORE DELETE ON users BEGIN SELECT RAISE(ABORT, 'not now'); END",
        "CREATE FUNCTION not_now() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN RAISE EXCEPTION 'not now'; END $$;
         CREATE TRIGGER not_now BEFORE DELETE ON users EXECUTE FUNCTION not_now()",
    );
    b.ground.execute(sql).await;
}

async fn mend_users(b: &Broker) {
    let sql = b
        .ground
        .word("DROP TRIGGER not_now", "DROP TRIGGER not_now ON users");
    b.ground.execute(sql).await;
}

async fn intact(b: &Broker) {
    let mut administration = b.admin.administration.clone();
    let request = pb::VerifyAuditLogRequest::default();
    let verified = administration.verify_audit_log(request).await;
    let verified = verified.unwrap().into_inner();
    assert!(verified.intact, "{:?}", verified.findings);
}

/// Erases the owner while an authorisation of theirs waits for its tokens.
async fn erase_during_callback(b: &Broker, app: &pb::App) {
    let started = b.start_authorization(asked(app)).await.unwrap();
    let browser = Browser::new();
    let callback = consent(b, &browser, &started.connect_url).await;
    let exchanges = b.provider.arrived(Target::Exchange);
    let gate = b.provider.hold_finished_answers();
    let page = tokio::spawn(async move { browser.get(callback).await });
    b.provider.wait_for(Target::Exchange, exchanges + 1).await;
    erased(&b.admin, owner(), false).await.unwrap();
    gate.release();
    assert!(!page.await.unwrap().status.is_redirection());
}

/// A sign-in by a code.
fn by_code(authorization_id: &str, code: &str) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest {
        credentials: Some(pb::create_session_request::Credentials::Provider(
            pb::ProviderCredentials {
                authorization_id: authorization_id.to_owned(),
                code: code.to_owned(),
            },
        )),
        client_ip: "198.51.100.23".to_owned(),
        ..Default::default()
    }
}

/// Goes through a provider to sign in, from an address of their own: what that proves.
async fn prove(b: &Broker, app: &pb::App) -> pb::CreateSessionRequest {
    let mut administration = b.admin.administration.clone();
    let request = pb::StartSignInRequest {
        app: app.id.clone(),
        return_url: RETURN_URL.to_owned(),
        login_hint: "ada.hint@example.org".to_owned(),
    };
    let begun = administration
        .start_sign_in(request)
        .await
        .unwrap()
        .into_inner();
    Secrets::register_as("ticket", begun.sign_in_url.rsplit('/').next().unwrap());
    let returned = b.consent(&begun.sign_in_url).await;
    Secrets::register_as("sign-in code", &returned["code"]);
    by_code(&returned["authorization_id"], &returned["code"])
}

/// Signs somebody in so.
async fn sign_in(b: &Broker, app: &pb::App) -> pb::CreateSessionRequest {
    let proof = prove(b, app).await;
    let mut administration = b.admin.administration.clone();
    let made = administration.create_session(proof.clone()).await.unwrap();
    let made = made.into_inner();
    Secrets::register_as("session token", &made.session_token);
    Secrets::register_as("session refresh token", &made.refresh_token);
    proof
}

on_both_engines! {
    async fn a_lesser_admin_neither_takes_nor_gives_a_chief_admin(engine: Engine) {
        let b = Broker::start(engine).await;
        let chief = user_with(&b, "chief@example.com", pb::Role::Admin, "").await;
        let held = Constraints { owners: vec!["chief".to_owned(), "bob".to_owned()], ..Constraints::default() };
        let lesser = b.caller(Role::Admin, held).await;
        let by_owner = || erase::Person::Owner("chief".to_owned());
        for person in [erase::Person::UserId(chief.id.clone()), by_owner()] {
            let refused = erased(&lesser, person, false).await;
            assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        }
        let refused = exported(&lesser, export::Person::UserId(chief.id.clone())).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let bob = user_with(&b, "bob@example.com", pb::Role::User, "").await;
        assert!(erased(&lesser, erase::Person::UserId(bob.id), false).await.unwrap().user);
        assert!(erased(&b.admin, by_owner(), false).await.unwrap().user);
        b.finish().await;
    }

    async fn a_link_that_is_open_leads_nowhere_afterwards(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let started = b.start_authorization(asked(&app)).await.unwrap();
        let browser = Browser::new();
        let callback = consent(&b, &browser, &started.connect_url).await;
        erased(&b.admin, owner(), false).await.unwrap();
        assert!(!browser.get(&callback).await.status.is_redirection());
        assert!(!browser.get(&started.connect_url).await.status.is_redirection());
        assert!(connections(&b).await.is_empty());
        assert_eq!(b.provider.exchanges(), 0);
        b.finish().await;
    }

    async fn tokens_that_are_no_connections_yet_are_revoked(engine: Engine) {
        let mut b = Broker::start_with(engine, |config| {
            config.grpc.drain_timeout = std::time::Duration::from_millis(200);
        }).await;
        let app = b.app().await;
        let started = b.start_authorization(asked(&app)).await.unwrap();
        let browser = Browser::new();
        let callback = consent(&b, &browser, &started.connect_url).await;
        b.provider.fail_next(Target::Userinfo, Fault::HangForever);
        let hanging = tokio::spawn(async move { browser.get(callback).await });
        b.provider.wait_for(Target::Userinfo, 1).await;
        b.stop().await;
        hanging.abort();
        let b = b.replica("a", |_| {}).await;
        let state = "SELECT state AS line FROM authorizations";
        assert_eq!(b.ground.lines(state).await, ["exchanged"]);
        let done = erased(&b.admin, owner(), false).await.unwrap();
        assert_eq!((done.connections, done.unrevoked_at_provider), (0, 0));
        assert!(b.provider.live_access_tokens().is_empty());
        assert!(b.ground.lines(state).await.is_empty());
        b.finish().await;
    }

    async fn tokens_that_come_after_the_erasure_are_revoked(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        erase_during_callback(&b, &app).await;
        assert!(b.provider.live_access_tokens().is_empty());
        b.finish().await;
    }

    async fn tokens_that_come_after_the_erasure_end_nobody_elses_consent(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let theirs = b.connect(&app, "owner-2").await;
        let token = b.token(&theirs.id).await.unwrap().access_token;
        erase_during_callback(&b, &app).await;
        assert_eq!(b.provider.revocations(), 0);
        assert!(b.provider.is_access_token_valid(&token));
        b.finish().await;
    }

    async fn tokens_that_wait_for_a_confirmation_are_revoked(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        b.connect(&app, OWNER).await;
        let again = b.authorize(&app, OWNER).await;
        let returned = b.consent(&again.connect_url).await;
        Secrets::register_as("confirmation code", &returned["confirmation_code"]);
        let done = erased(&b.admin, owner(), false).await.unwrap();
        assert_eq!((done.connections, done.unrevoked_at_provider), (1, 0));
        assert!(b.provider.live_access_tokens().is_empty());
        b.finish().await;
    }

    async fn an_erasure_that_broke_off_is_finished_by_the_next(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, connection) = ada(&b).await;
        break_users(&b).await;
        let broken = erased(&b.admin, erase::Person::UserId(id.clone()), false).await;
        assert!(matches!(broken.unwrap_err().code(), Code::Internal | Code::Unavailable));
        assert_refused(b.token(&connection.id).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        let refused = create(&b, by_password(EMAIL, PASSWORD)).await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        mend_users(&b).await;
        let done = erased(&b.admin, erase::Person::UserId(id), false).await.unwrap();
        assert_eq!((done.connections, done.sessions, done.user), (0, 1, true));
        let left = everything(&b).await;
        assert!(!left.contains(EMAIL) && !left.contains("203.0.113.7"), "{left}");
        b.finish().await;
    }

    async fn a_sign_in_through_a_provider_leaves_no_trace(engine: Engine) {
        let b = Broker::start(engine).await;
        let ada = user_with(&b, "ada@example.com", pb::Role::User, "").await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("ada"));
        b.connect(&app, "ada").await;
        let proof = sign_in(&b, &app).await;
        let mut administration = b.admin.administration.clone();
        administration.create_session(proof).await.unwrap_err();
        let document = exported(&b.admin, export::Person::UserId(ada.id.clone())).await.unwrap();
        assert_eq!(document["sign_ins"][0]["login_hint"], "ada.hint@example.org");
        erased(&b.admin, erase::Person::UserId(ada.id), false).await.unwrap();
        let left = everything(&b).await;
        for trace in ["ada.hint@example.org", "198.51.100.23"] {
            assert!(!left.contains(trace), "{trace} is left in {left}");
        }
        assert!(addresses(&b, "actor_kind = 'browser'").await.is_empty());
        intact(&b).await;
        b.finish().await;
    }

    async fn a_sign_in_that_was_turned_away_leaves_no_address(engine: Engine) {
        let b = Broker::start(engine).await;
        let ada = user_with(&b, "ada@example.com", pb::Role::Admin, "").await;
        let app = b.app().await;
        b.provider.sign_in_as(Account::named("ada"));
        b.connect(&app, "ada").await;
        let proof = prove(&b, &app).await;
        b.admin.administration.clone().create_session(proof).await.unwrap_err();
        assert_eq!(addresses(&b, "reason = 'ROLE_NOT_ALLOWED'").await, ["198.51.100.23"]);
        erased(&b.admin, erase::Person::UserId(ada.id), false).await.unwrap();
        assert!(!everything(&b).await.contains("198.51.100.23"));
        intact(&b).await;
        b.finish().await;
    }

    async fn a_strangers_sign_in_by_the_id_of_an_authorization_is_not_its_owners(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        b.connect(&app, OWNER).await;
        let ids = b.ground.lines("SELECT id AS line FROM authorizations").await;
        let request = by_code(&ids[0], "a-code-that-is-none");
        b.admin.administration.clone().create_session(request).await.unwrap_err();
        erased(&b.admin, owner(), false).await.unwrap();
        assert_eq!(addresses(&b, "reason = 'SIGN_IN_UNKNOWN'").await, ["198.51.100.23"]);
        intact(&b).await;
        b.finish().await;
    }

    async fn what_an_operator_did_to_the_person_stays_theirs(engine: Engine) {
        let b = Broker::start(engine).await;
        let ada = user_with(&b, "ada@example.com", pb::Role::User, "").await;
        let phrase = "an uncommon phrase of the day";
        Secrets::register_as("password", phrase);
        let operator = user_with(&b, "operator@example.com", pb::Role::Admin, phrase).await;
        let session = create(&b, by_password("operator@example.com", phrase)).await.unwrap();
        let request = pb::DeactivateUserRequest { user_id: ada.id.clone(), ..Default::default() };
        b.caller_with(&session.token).administration.deactivate_user(request).await.unwrap();
        let theirs = format!("actor_id = '{}' AND resource_id = '{}'", operator.id, ada.id);
        assert_eq!(addresses(&b, &theirs).await, ["127.0.0.1"]);
        erased(&b.admin, erase::Person::UserId(ada.id), false).await.unwrap();
        assert_eq!(addresses(&b, &theirs).await, ["127.0.0.1"]);
        b.finish().await;
    }

    async fn what_is_counted_in_memory_brings_no_address_back(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let connection = b.connected().await;
        let reader = "an uncommon phrase of the night";
        Secrets::register_as("password", reader);
        let user = user_with(&b, "reader@example.com", pb::Role::Consumer, reader).await;
        let session = create(&b, by_password("reader@example.com", reader)).await.unwrap();
        let request = pb::GetAccessTokenRequest { connection_id: connection.id, ..Default::default() };
        b.caller_with(&session.token).get_token(request).await.unwrap();
        erased(&b.admin, erase::Person::UserId(user.id.clone()), false).await.unwrap();
        b.stop().await;
        let read = format!("SELECT ip AS line FROM audit_events WHERE action = 'token.read' AND actor_id = '{}'", user.id);
        assert_eq!(b.ground.lines(&read).await, [""]);
        assert!(addresses(&b, &format!("actor_id = '{}'", user.id)).await.is_empty());
        b.finish().await;
    }

    async fn a_deleted_user_is_exported_and_erased(engine: Engine) {
        let b = Broker::start(engine).await;
        let user = user_with(&b, "gone@example.com", pb::Role::User, "").await;
        let request = pb::DeleteUserRequest { user_id: user.id.clone(), ..Default::default() };
        b.admin.administration.clone().delete_user(request).await.unwrap();
        let document = exported(&b.admin, export::Person::UserId(user.id.clone())).await.unwrap();
        assert_eq!(document["user"]["email"], "gone@example.com");
        assert!(document["user"]["delete_time"].is_string());
        assert!(erased(&b.admin, erase::Person::UserId(user.id), false).await.unwrap().user);
        assert!(!everything(&b).await.contains("gone@example.com"));
        b.finish().await;
    }
}
