//! Apps: registered, named, changed, deleted, declared.

mod declared;
mod providers;

use prost::Message as _;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::fixture::leaks::{self, Secrets};
use crate::fixture::*;
use crate::on_both_engines;

/// An app of a provider that nobody has to call.
fn github(client_id: &str) -> pb::App {
    pb::App {
        provider: "github".to_owned(),
        client_id: client_id.to_owned(),
        ..Default::default()
    }
}

async fn create(caller: &Caller, app: pb::App) -> Result<pb::App, Status> {
    create_once(caller, app, "").await
}

async fn create_once(caller: &Caller, app: pb::App, request_id: &str) -> Result<pb::App, Status> {
    let request = pb::CreateAppRequest {
        app: Some(app),
        client_secret: String::new(),
        request_id: request_id.to_owned(),
    };
    let answer = caller.registry.clone().create_app(request).await?;
    Ok(answer.into_inner().app.unwrap())
}

async fn get(caller: &Caller, name: &str) -> Result<pb::App, Status> {
    let request = pb::GetAppRequest {
        app: name.to_owned(),
    };
    let answer = caller.registry.clone().get_app(request).await?;
    Ok(answer.into_inner().app.unwrap())
}

async fn update(caller: &Caller, app: pb::App, paths: &[&str]) -> Result<pb::App, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = pb::UpdateAppRequest {
        app: Some(app),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let answer = caller.registry.clone().update_app(request).await?;
    Ok(answer.into_inner().app.unwrap())
}

async fn delete(caller: &Caller, app: &str, etag: &str) -> Result<(), Status> {
    let request = pb::DeleteAppRequest {
        app: app.to_owned(),
        etag: etag.to_owned(),
    };
    caller.registry.clone().delete_app(request).await.map(drop)
}

async fn list(
    caller: &Caller,
    request: pb::ListAppsRequest,
) -> Result<pb::ListAppsResponse, Status> {
    Ok(caller
        .registry
        .clone()
        .list_apps(request)
        .await?
        .into_inner())
}

async fn apps(caller: &Caller) -> Vec<pb::App> {
    list(caller, pb::ListAppsRequest::default())
        .await
        .unwrap()
        .apps
}

on_both_engines! {
    async fn an_app_answers_to_its_id_client_id_and_external_key(engine: Engine) {
        let b = Broker::start(engine).await;
        let made = create(&b.admin, pb::App {
            external_key: "branch-7".to_owned(),
            display_name: "Seven".to_owned(),
            default_scopes: vec!["repo".to_owned()],
            allowed_return_urls: vec!["https://acme.example/done".to_owned()],
            redirect_uris: vec!["com.acme.app:/callback".to_owned()],
            workspace_email: "ops@acme.example".to_owned(),
            workspace_name: "Acme".to_owned(),
            ..github("client-7")
        }).await.unwrap();
        assert_eq!(made.state(), pb::AppState::Active);
        assert_eq!(made.callback_url, format!("{}callback/{}", b.config.web.public_url, made.id));
        for name in [&made.id, &made.client_id, &made.external_key] {
            assert_eq!(get(&b.admin, name).await.unwrap(), made);
        }
        assert_refused(get(&b.admin, "branch-8").await, Code::NotFound, "APP_NOT_FOUND");
        assert_eq!(apps(&b.admin).await, [made]);
        b.finish().await;
    }

    async fn a_name_means_one_app(engine: Engine) {
        let b = Broker::start(engine).await;
        let one = create(&b.admin, pb::App { external_key: "key-1".to_owned(), ..github("client-1") }).await.unwrap();
        let two = create(&b.admin, pb::App { external_key: "key-2".to_owned(), ..github("client-2") }).await.unwrap();
        for (client_id, external_key) in [
            ("client-1", ""), ("client-3", "key-1"), ("key-1", ""), ("client-3", "client-1"),
        ] {
            let app = pb::App { external_key: external_key.to_owned(), ..github(client_id) };
            let refused = create(&b.admin, app).await.unwrap_err();
            assert_eq!((refused.code(), reason(&refused).as_str()), (Code::AlreadyExists, "ALREADY_EXISTS"));
            let taken = if external_key.is_empty() { client_id } else { external_key };
            assert_eq!(refused.get_details_error_info().unwrap().metadata["name"], taken);
            let changed = pb::App { id: two.id.clone(), client_id: client_id.to_owned(), external_key: external_key.to_owned(), ..Default::default() };
            assert_refused(update(&b.admin, changed, &["client_id", "external_key"]).await, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        // Nor is an app's id a name to be taken.
        let posing = create(&b.admin, github(&one.id)).await.unwrap_err();
        assert_eq!(violations(&posing), ["app.client_id"]);
        assert_eq!(apps(&b.admin).await, [one, two]);
        b.finish().await;
    }

    async fn of_many_who_take_a_name_at_once_one_gets_it(engine: Engine) {
        let b = Broker::start(engine).await;
        let racing = (0..8).map(|_| {
            let admin = b.admin.clone();
            tokio::spawn(async move { create(&admin, github("contested")).await })
        });
        let mut made = 0;
        for outcome in racing.collect::<Vec<_>>() {
            match outcome.await.unwrap() {
                Ok(_) => made += 1,
                Err(status) => assert_eq!(reason(&status), "ALREADY_EXISTS", "{status:?}"),
            }
        }
        assert_eq!(made, 1);
        assert_eq!(apps(&b.admin).await.len(), 1);
        b.finish().await;
    }

    async fn another_tenant_may_have_the_same_names(engine: Engine) {
        let b = Broker::start(engine).await;
        let other = b.caller_in("elsewhere", Role::Admin, Constraints::default()).await;
        let here = create(&b.admin, github("client")).await.unwrap();
        let there = create(&other, github("client")).await.unwrap();
        assert_ne!(here.id, there.id);
        assert_eq!(get(&b.admin, "client").await.unwrap().id, here.id);
        assert_eq!(get(&other, "client").await.unwrap().id, there.id);
        b.finish().await;
    }

    async fn pages_show_every_app_once_in_order(engine: Engine) {
        let b = Broker::start(engine).await;
        let mut made = Vec::new();
        for number in 0..5 {
            let mut app = github(&format!("client-{number}"));
            if number % 2 == 1 {
                app.provider = "x".to_owned();
            }
            made.push(create(&b.admin, app).await.unwrap().id);
        }
        let mut seen = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListAppsRequest { page_size: 2, page_token: page_token.clone(), ..Default::default() };
            let page = list(&b.admin, request).await.unwrap();
            assert!(page.apps.len() <= 2);
            seen.extend(page.apps.into_iter().map(|app| app.id));
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        assert_eq!(seen, made);
        // An alias names its provider too.
        for provider in ["x", "twitter"] {
            let request = pb::ListAppsRequest { provider: provider.to_owned(), ..Default::default() };
            let found: Vec<_> = list(&b.admin, request).await.unwrap().apps.into_iter().map(|app| app.id).collect();
            assert_eq!(found, [made[1].clone(), made[3].clone()], "{provider}");
        }
        let other = pb::ListAppsRequest { provider: "github".to_owned(), page_token, ..Default::default() };
        assert_eq!(violations(&list(&b.admin, other).await.unwrap_err()), ["page_token"]);
        b.finish().await;
    }

    async fn an_etag_notices_a_change_in_between(engine: Engine) {
        let b = Broker::start(engine).await;
        let first = create(&b.admin, github("client")).await.unwrap();
        let named = |etag: &str, name: &str| pb::App {
            id: first.id.clone(),
            etag: etag.to_owned(),
            display_name: name.to_owned(),
            ..Default::default()
        };
        let second = update(&b.admin, named(&first.etag, "Two"), &[]).await.unwrap();
        assert_ne!(second.etag, first.etag);
        assert_refused(update(&b.admin, named(&first.etag, "Three"), &[]).await, Code::Aborted, "ETAG_MISMATCH");
        assert_refused(delete(&b.admin, &first.id, &first.etag).await, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(violations(&update(&b.admin, named("nonsense", "Three"), &[]).await.unwrap_err()), ["app.etag"]);
        assert_eq!(get(&b.admin, &first.id).await.unwrap(), second);
        // A change that changes nothing keeps the etag; without one, none is asked for.
        assert_eq!(update(&b.admin, named(&second.etag, "Two"), &[]).await.unwrap(), second);
        let third = update(&b.admin, named("", "Three"), &[]).await.unwrap();
        delete(&b.admin, &first.id, &third.etag).await.unwrap();
        assert_refused(get(&b.admin, &first.id).await, Code::NotFound, "APP_NOT_FOUND");
        b.finish().await;
    }

    async fn a_mask_says_what_changes(engine: Engine) {
        let b = Broker::start(engine).await;
        let before = create(&b.admin, pb::App {
            external_key: "branch-7".to_owned(),
            display_name: "Seven".to_owned(),
            ..github("client")
        }).await.unwrap();
        let wanted = pb::App {
            id: before.id.clone(),
            display_name: "Eight".to_owned(),
            workspace_name: "Acme".to_owned(),
            ..Default::default()
        };
        let after = update(&b.admin, wanted.clone(), &["external_key", "workspace_name"]).await.unwrap();
        assert_eq!((after.external_key.as_str(), after.workspace_name.as_str()), ("", "Acme"));
        assert_eq!((after.display_name.as_str(), after.client_id.as_str()), ("Seven", "client"));
        assert_refused(get(&b.admin, "branch-7").await, Code::NotFound, "APP_NOT_FOUND");
        // An app that was read can be sent back as a whole; what is output only is not looked at.
        let whole = pb::App { display_name: "Nine".to_owned(), etag: String::new(), ..after.clone() };
        assert_eq!(update(&b.admin, whole, &[]).await.unwrap().display_name, "Nine");
        for path in ["provider", "id", "callback_url", "nothing"] {
            assert_eq!(violations(&update(&b.admin, wanted.clone(), &[path]).await.unwrap_err()), ["update_mask"]);
        }
        let required = update(&b.admin, wanted, &["client_id"]).await.unwrap_err();
        assert_eq!(violations(&required), ["app.client_id"]);
        b.finish().await;
    }

    async fn an_app_fits_its_provider(engine: Engine) {
        let b = Broker::start(engine).await;
        let unknown = pb::App { provider: "nobody".to_owned(), ..github("client") };
        assert_refused(create(&b.admin, unknown).await, Code::NotFound, "PROVIDER_NOT_FOUND");
        assert_eq!(violations(&create(&b.admin, github("")).await.unwrap_err()), ["app.client_id"]);
        let variables = [("tenant", "a/../b"), ("nothing", "x")];
        let microsoft = pb::App {
            provider: "azure".to_owned(),
            variables: variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..github("client")
        };
        let mut faults = violations(&create(&b.admin, microsoft).await.unwrap_err());
        faults.sort();
        assert_eq!(faults, ["app.variables[nothing]", "app.variables[tenant]"]);
        let request = pb::CreateAppRequest {
            app: Some(pb::App { provider: "motion".to_owned(), external_key: "motion".to_owned(), ..Default::default() }),
            client_secret: "a-secret-of-no-use".to_owned(),
            ..Default::default()
        };
        let keys_only = b.admin.registry.clone().create_app(request).await.unwrap_err();
        assert_eq!(violations(&keys_only), ["client_secret"]);
        assert!(apps(&b.admin).await.is_empty());
        b.finish().await;
    }

    async fn an_app_with_connections_stays(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        assert_refused(delete(&b.admin, &c.app_id, "").await, Code::FailedPrecondition, "APP_IN_USE");
        b.token(&c.id).await.unwrap();
        let request = pb::DeleteConnectionRequest { connection_id: c.id.clone(), ..Default::default() };
        b.admin.broker.clone().delete_connection(request).await.unwrap();
        delete(&b.admin, &c.app_id, "").await.unwrap();
        assert_refused(get(&b.admin, &c.app_id).await, Code::NotFound, "APP_NOT_FOUND");
        b.finish().await;
    }

    async fn a_retried_create_makes_nothing_twice(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = Uuid::now_v7().to_string();
        let app = pb::App {
            provider: "azure".to_owned(),
            variables: [("tenant".to_owned(), "common".to_owned())].into(),
            ..github("client")
        };
        let first = create_once(&b.admin, app.clone(), &id).await.unwrap();
        assert_eq!(create_once(&b.admin, app.clone(), &id).await.unwrap(), first);
        let other = create_once(&b.admin, github("another"), &id).await.unwrap_err();
        assert_eq!(violations(&other), ["request_id"]);
        // The same id is another tenant's own, and no id is no retry.
        let elsewhere = b.caller_in("elsewhere", Role::Admin, Constraints::default()).await;
        assert_ne!(create_once(&elsewhere, app.clone(), &id).await.unwrap().id, first.id);
        assert_refused(create(&b.admin, app).await, Code::AlreadyExists, "ALREADY_EXISTS");
        assert_eq!(apps(&b.admin).await, [first]);
        b.finish().await;
    }

    async fn a_failed_create_can_be_tried_again(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = Uuid::now_v7().to_string();
        let taken = create(&b.admin, github("client")).await.unwrap();
        for _ in 0..2 {
            assert_refused(create_once(&b.admin, github("client"), &id).await, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        delete(&b.admin, &taken.id, "").await.unwrap();
        create_once(&b.admin, github("client"), &id).await.unwrap();
        b.finish().await;
    }

    async fn retries_at_once_all_get_the_same_answer(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = Uuid::now_v7().to_string();
        let racing = (0..8).map(|_| {
            let (admin, id) = (b.admin.clone(), id.clone());
            tokio::spawn(async move { create_once(&admin, github("client"), &id).await.unwrap() })
        });
        let mut answers = Vec::new();
        for answer in racing.collect::<Vec<_>>() {
            answers.push(answer.await.unwrap());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]));
        assert_eq!(apps(&b.admin).await.len(), 1);
        b.finish().await;
    }

    async fn no_answer_has_a_secret(engine: Engine) {
        let b = Broker::start(engine).await;
        let (first, second) = ("first-secret-of-the-app", "second-secret-of-the-app");
        Secrets::register(first);
        Secrets::register(second);
        let mut registry = b.admin.registry.clone();
        let request = pb::CreateAppRequest {
            app: Some(github("client")),
            client_secret: first.to_owned(),
            ..Default::default()
        };
        let made = registry.create_app(request).await.unwrap().into_inner().app.unwrap();
        assert!(made.has_client_secret && made.previous_secret_expire_time.is_none());
        let request = pb::RotateAppSecretRequest {
            app: "client".to_owned(),
            client_secret: second.to_owned(),
            overlap: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        };
        let rotated = registry.rotate_app_secret(request).await.unwrap().into_inner().app.unwrap();
        let end = rotated.previous_secret_expire_time.unwrap();
        let now = b.clock.now().plus(std::time::Duration::from_secs(60));
        assert_eq!(Some(end), Some(tokenbroker::grpc::convert::timestamp(now)));
        let mut shown = made.encode_to_vec();
        for app in apps(&b.admin).await.iter().chain([&rotated]) {
            shown.extend(app.encode_to_vec());
        }
        assert_eq!(leaks::scan(&shown), Vec::<String>::new());
        b.finish().await;
    }

    async fn both_secrets_are_tried_while_a_rotation_lasts(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let rotate = |secret: String| {
            let request = pb::RotateAppSecretRequest { app: c.app_id.clone(), client_secret: secret, overlap: None };
            let mut registry = b.admin.registry.clone();
            async move { registry.rotate_app_secret(request).await.unwrap() }
        };
        // We are told first, the provider later.
        let next = "the-next-client-secret";
        rotate(next.to_owned()).await;
        let hour = std::time::Duration::from_secs(3_600);
        b.clock.advance(hour);
        b.token(&c.id).await.unwrap();
        b.provider.set_client_secret(next, false);
        b.clock.advance(hour);
        b.token(&c.id).await.unwrap();
        assert_eq!(b.provider.successful_refreshes(), 2);
        // Once the overlap is over, the old one is not sent any more.
        let last = "the-last-client-secret";
        rotate(last.to_owned()).await;
        b.clock.advance(24 * hour);
        assert_refused(b.token(&c.id).await, Code::FailedPrecondition, "APP_MISCONFIGURED");
        assert!(!get(&b.admin, &c.app_id).await.unwrap().misconfiguration.is_empty());
        rotate(next.to_owned()).await;
        b.token(&c.id).await.unwrap();
        b.finish().await;
    }
}
