//! Sessions of users: signing in, staying signed in, signing out.

mod expiry;
mod fixation;
mod owned;
mod refresh;

use tokenbroker::pb;
use tokenbroker::pb::administration_client::AdministrationClient;
use tokenbroker::pb::create_session_request::Credentials;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::fixture::leaks::Secrets;
use crate::fixture::rpcs::channel;
use crate::fixture::*;
use crate::on_both_engines;

/// Their owner is the name before the `@`.
pub const EMAIL: &str = "ada@example.com";

/// A user with a password.
pub struct Person {
    pub user: pb::User,
    pub password: String,
}

/// A session, with its tokens.
#[derive(Clone, Debug)]
pub struct SignedIn {
    pub session: pb::Session,
    pub token: String,
    pub refresh: String,
}

impl SignedIn {
    pub fn of(session: Option<pb::Session>, token: String, refresh: String) -> Self {
        Secrets::register_as("session token", &token);
        Secrets::register_as("session refresh token", &refresh);
        Self {
            session: session.unwrap(),
            token,
            refresh,
        }
    }
}

/// The service, for whoever has no credentials.
pub fn anybody(b: &Broker) -> AdministrationClient<Channel> {
    AdministrationClient::new(channel(b.grpc_address()))
}

/// Makes a user of this role.
pub async fn user_with(b: &Broker, email: &str, role: pb::Role, password: &str) -> pb::User {
    let request = pb::CreateUserRequest {
        email: email.to_owned(),
        owner: email.split('@').next().unwrap().to_owned(),
        password: password.to_owned(),
        role: role.into(),
        ..Default::default()
    };
    let made = b.admin.administration.clone().create_user(request).await;
    made.unwrap().into_inner().user.unwrap()
}

/// Makes a user with a password.
pub async fn person(b: &Broker, email: &str) -> Person {
    let password = format!("an uncommon phrase {:016x}", fastrand::u64(..));
    Secrets::register_as("password", &password);
    Person {
        user: user_with(b, email, pb::Role::User, &password).await,
        password,
    }
}

/// The request of a sign-in by password.
pub fn by_password(email: &str, password: &str) -> pb::CreateSessionRequest {
    pb::CreateSessionRequest {
        credentials: Some(Credentials::Password(pb::PasswordCredentials {
            email: email.to_owned(),
            password: password.to_owned(),
        })),
        ..Default::default()
    }
}

pub async fn create(b: &Broker, request: pb::CreateSessionRequest) -> Result<SignedIn, Status> {
    let made = anybody(b).create_session(request).await?.into_inner();
    let (token, refresh) = (made.session_token, made.refresh_token);
    Ok(SignedIn::of(made.session, token, refresh))
}

impl Person {
    pub async fn sign_in(&self, b: &Broker) -> SignedIn {
        let request = by_password(&self.user.email, &self.password);
        create(b, request).await.unwrap()
    }
}

/// Makes a user, and signs them in.
pub async fn signed_in(b: &Broker) -> (Person, SignedIn) {
    let person = person(b, EMAIL).await;
    let session = person.sign_in(b).await;
    (person, session)
}

pub async fn refresh(
    b: &Broker,
    refresh_token: &str,
    request_id: &str,
) -> Result<SignedIn, Status> {
    let request = pb::RefreshSessionRequest {
        refresh_token: refresh_token.to_owned(),
        request_id: request_id.to_owned(),
    };
    let made = anybody(b).refresh_session(request).await?.into_inner();
    let (token, refresh) = (made.session_token, made.refresh_token);
    Ok(SignedIn::of(made.session, token, refresh))
}

/// Whom a token stands for.
pub async fn whoami(b: &Broker, token: &str) -> Result<pb::GetCallerResponse, Status> {
    let mut client = b.caller_with(token).administration;
    let answer = client.get_caller(pb::GetCallerRequest {}).await?;
    Ok(answer.into_inner())
}

pub async fn sessions_of(caller: &Caller, user_id: &str, ended: bool) -> Vec<pb::Session> {
    let request = pb::ListSessionsRequest {
        user_id: user_id.to_owned(),
        show_ended: ended,
        ..Default::default()
    };
    let found = caller.administration.clone().list_sessions(request).await;
    found.unwrap().into_inner().sessions
}

pub async fn revoke(caller: &Caller, session_id: &str) -> Result<(), Status> {
    let request = pb::RevokeSessionRequest {
        session_id: session_id.to_owned(),
    };
    let mut client = caller.administration.clone();
    client.revoke_session(request).await.map(drop)
}

/// How often the audit trail says this.
pub async fn recorded(b: &Broker, words: &[&str]) -> usize {
    let rows = tables::rows(b).await;
    let said = |row: &&String| words.iter().all(|word| row.contains(word));
    rows["audit_events"].iter().filter(said).count()
}

on_both_engines! {
    async fn a_user_signs_in_and_out(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, session) = signed_in(&b).await;
        assert!(session.token.starts_with("tbs_") && session.refresh.starts_with("tbr_"));
        let who = whoami(&b, &session.token).await.unwrap();
        assert_eq!((&who.caller_id, who.name.as_str()), (&ada.user.id, EMAIL));
        assert_eq!((who.role(), &who.session_id), (pb::Role::User, &session.session.id));
        assert_eq!(who.credential_kind(), pb::CredentialKind::Session);
        assert_eq!(who.constraints.unwrap().owners, ["ada"]);
        let caller = b.caller_with(&session.token);
        let listed = sessions_of(&caller, "me", false).await;
        assert!(listed.len() == 1 && listed[0].current, "{listed:?}");
        revoke(&caller, "current").await.unwrap();
        let gone = whoami(&b, &session.token).await;
        assert_refused(gone, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        let gone = refresh(&b, &session.refresh, "").await;
        assert_refused(gone, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        assert!(sessions_of(&b.admin, &ada.user.id, false).await.is_empty());
        let ended = sessions_of(&b.admin, &ada.user.id, true).await;
        assert_eq!(ended[0].revoke_reason, "signed_out");
        assert_eq!(recorded(&b, &["session.created", &session.session.id]).await, 1);
        assert_eq!(recorded(&b, &["session.revoked", "signed_out"]).await, 1);
        b.finish().await;
    }

    async fn a_sign_in_is_written_to_the_user(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, session) = signed_in(&b).await;
        let request = pb::GetUserRequest { user_id: ada.user.id, ..Default::default() };
        let found = b.admin.administration.clone().get_user(request).await.unwrap();
        let at = found.into_inner().user.unwrap().last_sign_in_time;
        assert!(at.is_some() && at == session.session.create_time);
        b.finish().await;
    }

    async fn a_wrong_password_and_an_unknown_user_look_alike(engine: Engine) {
        let b = Broker::start(engine).await;
        let ada = person(&b, EMAIL).await;
        for (email, password) in [(EMAIL, "another phrase"), ("eve@example.com", "another phrase")] {
            let refused = create(&b, by_password(email, password)).await;
            assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        }
        let elsewhere = pb::CreateSessionRequest {
            tenant: "other".to_owned(),
            ..by_password(EMAIL, &ada.password)
        };
        let refused = create(&b, elsewhere).await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        assert!(sessions_of(&b.admin, &ada.user.id, true).await.is_empty());
        b.finish().await;
    }

    async fn a_user_who_is_switched_off_is_signed_out(engine: Engine) {
        let b = Broker::start(engine).await;
        let (ada, session) = signed_in(&b).await;
        whoami(&b, &session.token).await.unwrap();
        let request = pb::DeactivateUserRequest {
            user_id: ada.user.id.clone(),
            ..Default::default()
        };
        b.admin.administration.clone().deactivate_user(request).await.unwrap();
        eventually("the session is refused", || async {
            whoami(&b, &session.token).await.is_err()
        })
        .await;
        let refused = whoami(&b, &session.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        let refused = refresh(&b, &session.refresh, "").await;
        assert_refused(refused, Code::Unauthenticated, "REFRESH_TOKEN_INVALID");
        let refused = create(&b, by_password(EMAIL, &ada.password)).await;
        assert_refused(refused, Code::Unauthenticated, "SIGN_IN_FAILED");
        b.finish().await;
    }

    async fn the_oldest_session_gives_way(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.sessions.max_per_user = 2).await;
        let (ada, first) = signed_in(&b).await;
        whoami(&b, &first.token).await.unwrap();
        let second = ada.sign_in(&b).await;
        let third = ada.sign_in(&b).await;
        let refused = whoami(&b, &first.token).await;
        assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        for kept in [second, third] {
            whoami(&b, &kept.token).await.unwrap();
        }
        let all = sessions_of(&b.admin, &ada.user.id, true).await;
        assert_eq!((all.len(), all[2].revoke_reason.as_str()), (3, "superseded"));
        b.finish().await;
    }

    async fn an_application_says_whose_browser_it_is_and_nobody_else_may(engine: Engine) {
        use tokenbroker::model::{Constraints, Role};
        let b = Broker::start(engine).await;
        let ada = person(&b, EMAIL).await;
        let request = pb::CreateSessionRequest {
            client_ip: "203.0.113.7".to_owned(),
            client_user_agent: "Netscape".to_owned(),
            ..by_password(EMAIL, &ada.password)
        };
        let ui = b.caller(Role::IssuerUi, Constraints::default()).await;
        let made = ui.administration.clone().create_session(request.clone()).await.unwrap();
        let made = made.into_inner();
        let made = SignedIn::of(made.session, made.session_token, made.refresh_token);
        assert_eq!(made.session.client_ip, "203.0.113.7");
        assert_eq!(made.session.client_user_agent, "Netscape");
        let consumer = b.caller(Role::Consumer, Constraints::default()).await;
        let elsewhere = b.caller_in("other", Role::IssuerUi, Constraints::default()).await;
        for caller in [consumer, elsewhere] {
            let refused = caller.administration.clone().create_session(request.clone()).await;
            assert_eq!(violations(&refused.unwrap_err()), ["client_ip", "client_user_agent"]);
        }
        let refused = create(&b, request).await.unwrap_err();
        assert_eq!(violations(&refused), ["client_ip", "client_user_agent"]);
        b.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_session_is_refused_on_both_replicas() {
    let a = Broker::start(Engine::Postgres).await;
    let b = a.replica("b", |_| {}).await;
    let (_, session) = signed_in(&a).await;
    whoami(&a, &session.token).await.unwrap();
    whoami(&b, &session.token).await.unwrap();
    revoke(&a.caller_with(&session.token), "current")
        .await
        .unwrap();
    let refused = whoami(&a, &session.token).await;
    assert_refused(refused, Code::Unauthenticated, "CREDENTIALS_REVOKED");
    eventually("the other replica refuses it too", || async {
        whoami(&b, &session.token).await.is_err()
    })
    .await;
    b.finish().await;
    a.finish().await;
}
