//! Every provider of the catalogue, driven against a fake that behaves as its entry says. A
//! failure names the entries that it concerns.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use tokenbroker::model::ConnectionKind;
use tokenbroker::model::provider::{Pkce, Provider, Rotation};
use tokenbroker::pb;
use tokenbroker::pb::import_connection_request::Credentials;
use tokenbroker::registry::Catalogue;
use tonic::Code;

use crate::fixture::leaks::Secrets;
use crate::fixture::provider::{Account, AnswerFormat, FakeProvider, Target};
use crate::fixture::*;
use crate::on_both_engines;

/// Providers whose access tokens do not end, and come without a refresh token.
const LASTING: [&str; 4] = ["github", "netlify", "stripe", "vercel-integration"];

/// Scopes without which their providers give no refresh token.
const OFFLINE: [&str; 3] = ["offline_access", "offline.access", "refresh_token"];

/// An entry, and scopes to ask for besides its defaults.
struct Case {
    name: String,
    entry: Provider,
    scopes: Vec<String>,
}

/// A case that is connected.
struct Driven {
    case: Case,
    fake: FakeProvider,
    connection: pb::Connection,
    token: pb::AccessToken,
    lifetime: Option<Duration>,
}

fn of_kind(oauth2: bool) -> impl Iterator<Item = Provider> {
    let all = Catalogue::embedded().unwrap().iter().cloned();
    all.filter(move |entry| (entry.kind == ConnectionKind::Oauth2) == oauth2)
}

fn cases() -> Vec<Case> {
    let case = |entry: Provider, more: &[&str]| {
        let mut scopes = entry.default_scopes.clone();
        let known = |scope: &String| entry.default_scopes.contains(scope);
        let named = entry.named_scopes.iter().find(|(_, scope)| !known(scope));
        scopes.extend(named.map(|(name, _)| name.clone()));
        scopes.extend(more.iter().map(|&scope| scope.to_owned()));
        let name = format!("fake-{}", entry.id);
        Case {
            name,
            entry,
            scopes,
        }
    };
    let mut cases: Vec<Case> = of_kind(true)
        .map(|entry| match entry.id.as_str() {
            "slack" => case(entry, &["chat:write", "user:users:read"]),
            _ if entry.default_scopes.is_empty() => case(entry, &["read", "write"]),
            _ => case(entry, &[]),
        })
        .collect();
    // With scopes of the user's alone, Slack answers the token in another place.
    let slack = Catalogue::embedded().unwrap().get("slack").unwrap().clone();
    let mut user = case(slack, &["user:users:read"]);
    user.name.push_str("-user");
    cases.push(user);
    cases
}

/// What a definition can't say of its provider.
async fn fake_of(b: &Broker, entry: &Provider) -> (FakeProvider, Account) {
    let fake = FakeProvider::behaving_as(entry).await;
    fake.use_clock(b.clock.clone());
    let mut account = Account::named("ada");
    fake.configure(|it| {
        let offline = |scope: &&String| OFFLINE.contains(&scope.as_str());
        it.refresh_token_scope = entry.default_scopes.iter().find(offline).cloned();
        it.scope_as_array = entry.id == "twitch";
        if LASTING.contains(&entry.id.as_str()) {
            it.issues_refresh_tokens = false;
            it.access_lifetime = None;
        }
        if entry.id.starts_with("github") {
            it.answer_format = AnswerFormat::FormUnlessAsked;
            it.numeric_account_ids = true;
            account.id = "583231".to_owned();
        }
    });
    fake.sign_in_as(account.clone());
    (fake, account)
}

/// Runs a step for all at once and names those that panic.
async fn each<C, T>(
    step: &str,
    cases: impl IntoIterator<Item = (String, C)>,
    run: impl AsyncFn(C) -> T,
) -> Vec<T> {
    let run = &run;
    let all = cases.into_iter().map(|(name, case)| async move {
        let outcome = AssertUnwindSafe(run(case)).catch_unwind().await;
        outcome.map_err(|_| name)
    });
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for outcome in join_all(all).await {
        match outcome {
            Ok(value) => done.push(value),
            Err(name) => failed.push(name),
        }
    }
    assert!(failed.is_empty(), "failed to {step}: {failed:?}");
    done
}

async fn connect(b: &Broker, case: Case) -> Driven {
    let (fake, account) = fake_of(b, &case.entry).await;
    let app = b.app_of(&fake, &case.name).await;
    let owner = format!("owner of {}", case.name);
    let started = b
        .start_authorization(pb::StartAuthorizationRequest {
            app: app.id,
            owner: owner.clone(),
            return_url: RETURN_URL.to_owned(),
            scopes: case.scopes.clone(),
            refresh_policy: pb::RefreshPolicy::OnDemand.into(),
            ..Default::default()
        })
        .await
        .unwrap();
    let scopes = started.authorization.unwrap().scopes;
    let returned = b.consent(&started.connect_url).await;
    assert_eq!(returned["outcome"], "success", "{returned:?}");
    let connection = b.confirm(&returned, &owner).await.unwrap();
    assert_asked(&case.entry, &fake, &scopes);
    assert_identity(&case.entry, &connection, &account);
    assert_eq!(connection.scopes, scopes);
    assert!(connection.missing_scopes.is_empty(), "{connection:?}");
    let token = b.token(&connection.id).await.unwrap();
    assert!(fake.is_access_token_valid(&token.access_token));
    assert_eq!(token.scopes, scopes);
    let mut lifetime = None;
    fake.configure(|it| lifetime = it.access_lifetime);
    let ends = |life: Duration| b.clock.now().plus(life).micros() / 1_000_000;
    let end = token.expire_time.map(|end| end.seconds);
    assert_eq!(end, lifetime.map(ends));
    Driven {
        case,
        fake,
        connection,
        token,
        lifetime,
    }
}

/// The scopes went out as the provider wants them, and PKCE unless it refuses that.
fn assert_asked(entry: &Provider, fake: &FakeProvider, scopes: &[String]) {
    let asked = fake.last_authorize_request().unwrap();
    let prefix = entry
        .additional_scopes
        .as_ref()
        .map(|it| it.prefix.as_str());
    let (theirs, main): (Vec<&str>, Vec<&str>) = scopes
        .iter()
        .map(String::as_str)
        .partition(|scope| prefix.is_some_and(|prefix| scope.starts_with(prefix)));
    let joined = |scopes: Vec<&str>| {
        (!scopes.is_empty()).then(|| scopes.join(entry.scope_separator.as_str()))
    };
    assert_eq!(asked.param("scope"), joined(main).as_deref());
    if let Some(additional) = &entry.additional_scopes {
        let bare = theirs.iter().map(|scope| &scope[additional.prefix.len()..]);
        let sent = asked.param(&additional.parameter);
        assert_eq!(sent, joined(bare.collect()).as_deref());
    }
    assert_eq!(
        asked.param("code_challenge").is_some(),
        entry.pkce != Pkce::Off
    );
    assert_eq!(asked.param("nonce").is_some(), entry.sends_nonce);
}

/// The account is read from where the entry says; what the fake has no field for is made up from
/// its name.
fn assert_identity(entry: &Provider, connection: &pb::Connection, account: &Account) {
    let metadata = connection.metadata.clone().unwrap_or_default().fields;
    let told = entry.token_response.metadata.keys();
    for name in told.chain(&entry.callback_metadata) {
        assert!(metadata.contains_key(name), "no {name} in {metadata:?}");
    }
    let Some(userinfo) = &entry.userinfo else {
        return assert_eq!(connection.account_id, "");
    };
    for name in userinfo.metadata.keys() {
        assert!(metadata.contains_key(name), "no {name} in {metadata:?}");
    }
    for (name, field) in [
        ("team_id", &connection.team_id),
        ("provider_tenant_id", &connection.provider_tenant_id),
    ] {
        let told = metadata.contains_key(name).then(|| format!("meta-{name}"));
        assert_eq!(*field, told.unwrap_or_default());
    }
    let first = |path: &str| path.split('|').next().unwrap_or_default().to_owned();
    let spot = |path: &Option<String>| path.as_deref().map(first);
    let (id, email) = (first(&userinfo.account_id), spot(&userinfo.email));
    let name = match spot(&userinfo.display_name) {
        None => "",
        Some(path) if path == id => &account.id,
        Some(path) if Some(&path) == email.as_ref() => &account.email,
        Some(_) => &account.name,
    };
    assert_eq!(connection.account_id, account.id);
    assert_eq!(connection.display_name, name);
    let told = |path: &Option<String>, value: &str| path.as_ref().map_or("", |_| value).to_owned();
    assert_eq!(connection.email, told(&userinfo.email, &account.email));
    assert_eq!(
        connection.avatar_url,
        told(&userinfo.avatar, &account.avatar)
    );
}

/// What is at its end is refreshed; what has none is not.
async fn outlive(b: &Broker, driven: &Driven) {
    let Driven {
        fake, connection, ..
    } = driven;
    let token = b.token(&connection.id).await.unwrap();
    assert!(fake.is_access_token_valid(&token.access_token));
    assert_eq!(fake.reuse_detected(), 0);
    if driven.lifetime.is_none() {
        assert_eq!(token.access_token, driven.token.access_token);
        return assert_eq!(fake.arrived(Target::Refresh), 0);
    }
    assert_ne!(token.access_token, driven.token.access_token);
    assert_eq!(fake.successful_refreshes(), 1);
    assert_eq!(token.scopes, driven.token.scopes);
    let attempt = b.attempts(&connection.id).await.remove(0);
    let rotated = !attempt.new_refresh_token_fingerprint.is_empty();
    assert_eq!(rotated, driven.case.entry.rotation != Rotation::Never);
}

async fn revoke(b: &Broker, driven: &Driven) {
    let Driven {
        fake, connection, ..
    } = driven;
    let request = pb::RevokeConnectionRequest {
        connection_id: connection.id.clone(),
        ..Default::default()
    };
    let revoked = b
        .admin
        .broker
        .clone()
        .revoke_connection(request)
        .await
        .unwrap()
        .into_inner();
    let outcome = revoked.provider_revocation();
    if driven.case.entry.revocation.is_some() {
        assert_eq!(outcome, pb::ProviderRevocation::Done);
        assert!(fake.successful_revocations() > 0);
        assert_eq!(
            (fake.live_grants(), fake.live_access_tokens().len()),
            (0, 0)
        );
    } else {
        assert_eq!(outcome, pb::ProviderRevocation::Unsupported);
        assert_eq!(fake.revocations(), 0);
    }
    let is_served = async || b.token(&connection.id).await.is_ok();
    eventually("nothing more is served", || async { !is_served().await }).await;
    let refused = b.token(&connection.id).await;
    assert_refused(refused, Code::FailedPrecondition, "CONNECTION_REVOKED");
}

async fn import(
    b: &Broker,
    app: &pb::App,
    credentials: Credentials,
) -> (pb::Connection, pb::AccessToken) {
    let request = pb::ImportConnectionRequest {
        app: app.id.clone(),
        owner: "owner-1".to_owned(),
        credentials: Some(credentials),
        ..Default::default()
    };
    let imported = b
        .admin
        .broker
        .clone()
        .import_connection(request)
        .await
        .unwrap();
    let connection = imported.into_inner().connection.unwrap();
    let token = b.token(&connection.id).await.unwrap();
    let refresh = pb::RefreshAccessTokenRequest {
        connection_id: connection.id.clone(),
        ..Default::default()
    };
    let refused = b.admin.broker.clone().refresh_access_token(refresh).await;
    assert_refused(refused, Code::FailedPrecondition, "NOT_REFRESHABLE");
    (connection, token)
}

on_both_engines! {
    async fn every_provider_connects_serves_refreshes_and_revokes(engine: Engine) {
        let b = Broker::start(engine).await;
        let cases = cases();
        let count = cases.len();
        let named = cases.into_iter().map(|case| (case.name.clone(), case));
        let all = each("connect", named, async |case| connect(&b, case).await).await;
        assert_eq!(all.len(), count);
        let began = b.clock.now();
        let mut ends: Vec<_> = all.iter().map(|driven| driven.lifetime).collect();
        ends.sort();
        ends.dedup();
        for end in ends {
            let left = end.unwrap_or_default().saturating_sub(b.clock.now().since(began));
            b.clock.advance(left);
            let due = || {
                let due = all.iter().filter(|driven| driven.lifetime == end);
                due.map(|driven| (driven.case.name.clone(), driven))
            };
            each("outlive a token", due(), async |driven| outlive(&b, driven).await).await;
            each("revoke", due(), async |driven| revoke(&b, driven).await).await;
        }
        b.finish().await;
    }

    async fn keys_and_oauth1_tokens_are_imported_and_served_as_they_are(engine: Engine) {
        let b = Broker::start(engine).await;
        for entry in of_kind(false) {
            let fake = FakeProvider::behaving_as(&entry).await;
            fake.make_client_public();
            fake.sign_in_as(Account::named("ada"));
            let app = b.app_of(&fake, &format!("fake-{}", entry.id)).await;
            let id = entry.id.as_str();
            if entry.kind == ConnectionKind::ApiKey {
                let key = fake.issue_api_key();
                let imported = pb::ImportedApiKey { api_key: key.clone() };
                let (connection, token) = import(&b, &app, Credentials::ApiKey(imported)).await;
                assert_eq!(connection.kind(), pb::ConnectionKind::ApiKey, "{id}");
                assert_eq!(connection.account_id, "acct-ada", "{id}");
                assert_eq!(token.token_type, entry.token_header.name, "{id}");
                assert_eq!(token.access_token, key, "{id}");
                assert!(token.expire_time.is_none(), "{id}");
            } else {
                let (text, secret) = ("oauth1-token-of-ada", "oauth1-secret-of-ada");
                Secrets::register(text);
                Secrets::register(secret);
                let imported = pb::ImportedOAuth1 {
                    token: text.to_owned(),
                    token_secret: secret.to_owned(),
                };
                let (connection, token) = import(&b, &app, Credentials::Oauth1(imported)).await;
                assert_eq!(connection.kind(), pb::ConnectionKind::Oauth1, "{id}");
                assert_eq!(token.token_type, "OAuth", "{id}");
                assert_eq!((token.access_token.as_str(), token.token_secret.as_str()), (text, secret));
            }
        }
        b.finish().await;
    }
}
