//! A tenant's own providers: by definition, by discovery, and what protects them.

use serde_json::{Value, json};
use tokenbroker::grpc::convert::{from_structure, structure};
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::{create as create_app, delete as delete_app, github};
use crate::fixture::provider::Account;
use crate::fixture::scene::definition;
use crate::fixture::*;
use crate::on_both_engines;

fn defined(id: &str, fields: &Value) -> pb::CreateProviderRequest {
    pb::CreateProviderRequest {
        provider_id: id.to_owned(),
        definition: Some(structure(fields.as_object().unwrap())),
        ..Default::default()
    }
}

fn discovered(id: &str, issuer: &str) -> pb::CreateProviderRequest {
    pb::CreateProviderRequest {
        provider_id: id.to_owned(),
        issuer: issuer.to_owned(),
        ..Default::default()
    }
}

fn endpoints(base: &str) -> Value {
    json!({
        "display_name": "Acme",
        "authorization_endpoint": format!("{base}/authorize"),
        "token_endpoint": format!("{base}/token"),
    })
}

async fn create(
    caller: &Caller,
    request: pb::CreateProviderRequest,
) -> Result<pb::Provider, Status> {
    let answer = caller.registry.clone().create_provider(request).await?;
    Ok(answer.into_inner().provider.unwrap())
}

async fn get(caller: &Caller, id: &str) -> Result<pb::Provider, Status> {
    let request = pb::GetProviderRequest {
        provider_id: id.to_owned(),
    };
    let answer = caller.registry.clone().get_provider(request).await?;
    Ok(answer.into_inner().provider.unwrap())
}

async fn update(
    caller: &Caller,
    id: &str,
    fields: prost_types::Struct,
    etag: &str,
) -> Result<pb::Provider, Status> {
    let request = pb::UpdateProviderRequest {
        provider_id: id.to_owned(),
        definition: Some(fields),
        etag: etag.to_owned(),
    };
    let answer = caller.registry.clone().update_provider(request).await?;
    Ok(answer.into_inner().provider.unwrap())
}

async fn delete(caller: &Caller, id: &str, etag: &str) -> Result<(), Status> {
    let request = pb::DeleteProviderRequest {
        provider_id: id.to_owned(),
        etag: etag.to_owned(),
    };
    caller
        .registry
        .clone()
        .delete_provider(request)
        .await
        .map(drop)
}

/// The ids of all providers, a page at a time.
async fn ids(caller: &Caller) -> Vec<String> {
    let mut ids = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListProvidersRequest {
            page_size: 7,
            page_token,
        };
        let page = caller
            .registry
            .clone()
            .list_providers(request)
            .await
            .unwrap()
            .into_inner();
        ids.extend(page.providers.into_iter().map(|provider| provider.id));
        if page.next_page_token.is_empty() {
            return ids;
        }
        page_token = page.next_page_token;
    }
}

fn field<'a>(provider: &'a pb::Provider, name: &str) -> Option<&'a str> {
    match provider
        .definition
        .as_ref()?
        .fields
        .get(name)?
        .kind
        .as_ref()?
    {
        prost_types::value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

on_both_engines! {
    async fn the_catalogue_is_listed_with_the_tenants_own(engine: Engine) {
        let b = Broker::start(engine).await;
        let catalogue = ids(&b.admin).await;
        for id in [
            "google", "github", "microsoft", "azure", "aws", "gcp", "vercel", "netlify", "cloudflare", "zapier",
            "x", "slack", "gitlab", "atlassian", "notion", "salesforce", "hubspot", "dropbox", "discord",
            "linkedin", "motion",
        ] {
            let provider = get(&b.admin, id).await.unwrap();
            assert!(provider.builtin && provider.etag.is_empty(), "{id}");
        }
        assert_eq!(get(&b.admin, "twitter").await.unwrap().id, "x");
        create(&b.admin, defined("acme", &endpoints("https://acme.example"))).await.unwrap();
        let mut all = catalogue.clone();
        all.push("acme".to_owned());
        all.sort();
        assert_eq!(ids(&b.admin).await, all);
        let elsewhere = b.caller_in("elsewhere", Role::Admin, Constraints::default()).await;
        assert_eq!(ids(&elsewhere).await, catalogue);
        b.finish().await;
    }

    async fn a_definition_can_be_read_and_sent_back(engine: Engine) {
        let b = Broker::start(engine).await;
        let made = create(&b.admin, defined("acme", &endpoints("https://acme.example"))).await.unwrap();
        assert!(!made.builtin && made.create_time.is_some());
        assert_eq!((made.display_name.as_str(), made.kind()), ("Acme", pb::ConnectionKind::Oauth2));
        assert_eq!(get(&b.admin, "acme").await.unwrap(), made);
        let whole = made.definition.clone().unwrap();
        assert_eq!(update(&b.admin, "acme", whole, &made.etag).await.unwrap(), made);
        let changed = update(&b.admin, "acme", definition("Acme 2"), &made.etag).await.unwrap();
        assert_eq!(changed.display_name, "Acme 2");
        assert_refused(update(&b.admin, "acme", definition("Acme 3"), &made.etag).await, Code::Aborted, "ETAG_MISMATCH");
        assert_refused(delete(&b.admin, "acme", &made.etag).await, Code::Aborted, "ETAG_MISMATCH");
        // What the catalogue has works as a template of one's own.
        let github = get(&b.admin, "github").await.unwrap().definition.unwrap();
        let mut copy = from_structure(github);
        copy.remove("id");
        copy.remove("aliases");
        create(&b.admin, defined("github-enterprise", &Value::Object(copy))).await.unwrap();
        delete(&b.admin, "acme", &changed.etag).await.unwrap();
        assert_refused(get(&b.admin, "acme").await, Code::NotFound, "PROVIDER_NOT_FOUND");
        b.finish().await;
    }

    async fn every_fault_of_a_definition_is_named(engine: Engine) {
        let b = Broker::start(engine).await;
        let misshapen = json!({ "display_name": 7, "pkce": "plain", "unknown": true, "refresh_margin": "soon" });
        let mut faults = violations(&create(&b.admin, defined("acme", &misshapen)).await.unwrap_err());
        faults.sort();
        assert_eq!(faults, [
            "definition.display_name", "definition.pkce", "definition.refresh_margin", "definition.unknown",
        ]);
        let unsound = json!({
            "display_name": "",
            "authorization_endpoint": "https://acme.example/{tenant}",
            "token_endpoint": "http://acme.example/token",
            "http_timeout": "2h",
            "token_headers": { "host": "elsewhere.example" },
            "userinfo": { "endpoint": "https://acme.example/me", "account_id": "" },
        });
        let mut faults = violations(&create(&b.admin, defined("acme", &unsound)).await.unwrap_err());
        faults.sort();
        assert_eq!(faults, [
            "definition.authorization_endpoint", "definition.display_name", "definition.http_timeout",
            "definition.token_endpoint", "definition.token_headers.host", "definition.userinfo.account_id",
        ]);
        let neither = pb::CreateProviderRequest { provider_id: "Acme Inc.".to_owned(), ..Default::default() };
        assert_eq!(violations(&create(&b.admin, neither).await.unwrap_err()), ["provider_id", "definition"]);
        assert_refused(get(&b.admin, "acme").await, Code::NotFound, "PROVIDER_NOT_FOUND");
        b.finish().await;
    }

    async fn an_issuer_tells_its_endpoints(engine: Engine) {
        let b = Broker::start(engine).await;
        let base = b.provider.base_url();
        let request = pb::CreateProviderRequest {
            definition: Some(structure(json!({ "display_name": "Discovered" }).as_object().unwrap())),
            ..discovered("acme", &base)
        };
        let made = create(&b.admin, request).await.unwrap();
        assert_eq!(made.display_name, "Discovered");
        assert_eq!(field(&made, "issuer"), Some(base.as_str()));
        assert_eq!(field(&made, "token_endpoint"), Some(format!("{base}/token").as_str()));
        // And what was discovered works.
        let request = pb::CreateAppRequest {
            app: Some(pb::App {
                provider: "acme".to_owned(),
                client_id: b.provider.client_id(),
                allowed_return_urls: vec![RETURN_URL.to_owned()],
                ..Default::default()
            }),
            client_secret: b.provider.client_secret(),
            ..Default::default()
        };
        let app = b.admin.registry.clone().create_app(request).await.unwrap().into_inner().app.unwrap();
        b.provider.register_redirect_uri(&app.callback_url);
        b.provider.sign_in_as(Account::named("ada"));
        let c = b.connect(&app, "owner-1").await;
        assert!(b.provider.is_access_token_valid(&b.token(&c.id).await.unwrap().access_token));
        b.finish().await;
    }

    async fn an_issuer_that_is_another_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        let base = b.provider.base_url();
        // The metadata found there names 127.0.0.1 as issuer; and below a path there is none.
        for issuer in [base.replace("127.0.0.1", "localhost"), format!("{base}/tenant"), format!("{base}/?x=1")] {
            let refused = create(&b.admin, discovered("acme", &issuer)).await.unwrap_err();
            assert_eq!(refused.code(), Code::InvalidArgument, "{issuer}: {refused:?}");
            assert_eq!(violations(&refused), ["issuer"], "{issuer}");
        }
        b.provider.go_down().await;
        let down = create(&b.admin, discovered("acme", &base)).await.unwrap_err();
        assert_eq!((down.code(), reason(&down).as_str()), (Code::Unavailable, "PROVIDER_UNAVAILABLE"));
        assert!(down.get_details_retry_info().unwrap().retry_delay.is_some());
        assert_refused(get(&b.admin, "acme").await, Code::NotFound, "PROVIDER_NOT_FOUND");
        b.finish().await;
    }

    async fn the_catalogues_providers_are_not_for_changing(engine: Engine) {
        let b = Broker::start(engine).await;
        for id in ["github", "twitter"] {
            let request = defined(id, &endpoints("https://evil.example"));
            assert_refused(create(&b.admin, request).await, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        for id in ["github", "x", "twitter"] {
            assert_refused(update(&b.admin, id, definition("Evil"), "").await, Code::FailedPrecondition, "PROVIDER_BUILTIN");
            assert_refused(delete(&b.admin, id, "").await, Code::FailedPrecondition, "PROVIDER_BUILTIN");
        }
        // Nor can another provider pose as one by an alias.
        let mut posing = endpoints("https://evil.example");
        posing["aliases"] = json!(["github"]);
        assert_eq!(violations(&create(&b.admin, defined("acme", &posing)).await.unwrap_err()), ["definition.aliases"]);
        create(&b.admin, defined("acme", &endpoints("https://acme.example"))).await.unwrap();
        let again = create(&b.admin, defined("acme", &endpoints("https://acme.example"))).await;
        assert_refused(again, Code::AlreadyExists, "ALREADY_EXISTS");
        b.finish().await;
    }

    async fn a_provider_with_apps_stays(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        assert_refused(delete(&b.admin, "fake", "").await, Code::FailedPrecondition, "PROVIDER_IN_USE");
        let kind = structure(json!({ "display_name": "Fake", "kind": "api_key" }).as_object().unwrap());
        assert_refused(update(&b.admin, "fake", kind, "").await, Code::FailedPrecondition, "PROVIDER_IN_USE");
        delete_app(&b.admin, &app.id, "").await.unwrap();
        delete(&b.admin, "fake", "").await.unwrap();
        b.finish().await;
    }

    async fn the_servers_own_network_is_out_of_reach(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.providers.allow_private_networks = false).await;
        for host in ["10.0.0.1", "192.168.1.1", "169.254.169.254", "127.0.0.1", "[::1]", "[fd00::1]", "[::ffff:10.0.0.1]", "localhost"] {
            let base = format!("https://{host}");
            let refused = create(&b.admin, defined("acme", &endpoints(&base))).await.unwrap_err();
            assert_eq!(violations(&refused), ["definition.authorization_endpoint", "definition.token_endpoint"], "{host}");
            let refused = create(&b.admin, discovered("acme", &base)).await.unwrap_err();
            assert_eq!((refused.code(), violations(&refused)), (Code::InvalidArgument, vec!["issuer".to_owned()]), "{host}");
        }
        let issuer = discovered("acme", &b.provider.base_url());
        assert_eq!(violations(&create(&b.admin, issuer).await.unwrap_err()), ["issuer"]);
        // Nor do an app's variables lead there.
        let mut template = endpoints("https://acme.example");
        template["token_endpoint"] = json!("https://{host}/token");
        template["variables"] = json!({ "host": { "pattern": "host" } });
        create(&b.admin, defined("acme", &template)).await.unwrap();
        let app = |host: &str| pb::App {
            provider: "acme".to_owned(),
            variables: [("host".to_owned(), host.to_owned())].into(),
            ..github("client")
        };
        for host in ["169.254.169.254", "localhost", "10.1.2.3"] {
            let faults = violations(&create_app(&b.admin, app(host)).await.unwrap_err());
            assert!(!faults.is_empty() && faults.iter().all(|it| it.starts_with("app.variables")), "{host}: {faults:?}");
        }
        create_app(&b.admin, app("id.acme.example")).await.unwrap();
        assert!(b.provider.requests().is_empty());
        b.finish().await;
    }

    async fn only_admins_say_where_secrets_go(engine: Engine) {
        let b = Broker::start(engine).await;
        create(&b.admin, defined("acme", &endpoints("https://acme.example"))).await.unwrap();
        for role in [Role::Operator, Role::Consumer] {
            let caller = b.caller(role, Constraints::default()).await;
            let evil = defined("evil", &endpoints("https://evil.example"));
            assert_refused(create(&caller, evil).await, Code::PermissionDenied, "PERMISSION_DENIED");
            assert_refused(update(&caller, "acme", definition("Evil"), "").await, Code::PermissionDenied, "PERMISSION_DENIED");
            assert_refused(delete(&caller, "acme", "").await, Code::PermissionDenied, "PERMISSION_DENIED");
            assert_eq!(get(&caller, "acme").await.unwrap().display_name, "Acme");
        }
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        create_app(&operator, pb::App { provider: "acme".to_owned(), ..github("client") }).await.unwrap();
        b.finish().await;
    }

    async fn a_retried_provider_is_made_once(engine: Engine) {
        let b = Broker::start(engine).await;
        let request = pb::CreateProviderRequest {
            request_id: Uuid::now_v7().to_string(),
            ..defined("acme", &endpoints("https://acme.example"))
        };
        let first = create(&b.admin, request.clone()).await.unwrap();
        for _ in 0..5 {
            // Maps are decoded in any order; the request is the same.
            assert_eq!(create(&b.admin, request.clone()).await.unwrap(), first);
        }
        let other = pb::CreateProviderRequest { definition: Some(definition("Other")), ..request };
        assert_eq!(violations(&create(&b.admin, other).await.unwrap_err()), ["request_id"]);
        b.finish().await;
    }
}
