//! Apps that the configuration declares.

use std::collections::BTreeMap;
use std::sync::Arc;

use secrecy::SecretString;
use tokenbroker::config::{Config, DeclaredApp};
use tokenbroker::pb;

use super::{apps, create, get, github};
use crate::fixture::leaks::Secrets;
use crate::fixture::*;
use crate::on_both_engines;

fn declared(client_id: &str) -> DeclaredApp {
    DeclaredApp {
        tenant: "default".to_owned(),
        provider: "github".to_owned(),
        client_id: client_id.to_owned(),
        client_secret: None,
        external_key: None,
        display_name: None,
        scopes: Vec::new(),
        allowed_return_urls: Vec::new(),
        variables: BTreeMap::new(),
    }
}

fn secret(text: &str) -> Option<SecretString> {
    Secrets::register(text);
    Some(text.to_owned().into())
}

/// The next start on the same ground, with other declarations.
async fn next(mut b: Broker, change: impl FnOnce(&mut Config)) -> Broker {
    b.stop().await;
    let mut config = b.ground.config("a");
    // The same callback URLs.
    config.web.public_url = b.config.web.public_url.clone();
    change(&mut config);
    Broker::on(
        Arc::clone(&b.ground),
        config,
        b.clock.clone(),
        b.provider.clone(),
    )
    .await
}

on_both_engines! {
    async fn what_is_declared_appears_and_follows_the_declaration(engine: Engine) {
        let first = DeclaredApp {
            external_key: Some("branch-7".to_owned()),
            display_name: Some("Seven".to_owned()),
            scopes: vec!["repo".to_owned()],
            client_secret: secret("the-declared-client-secret"),
            ..declared("client")
        };
        let again = first.clone();
        let b = Broker::start_with(engine, |config| config.apps = vec![first]).await;
        let before = get(&b.admin, "branch-7").await.unwrap();
        assert_eq!((before.client_id.as_str(), before.display_name.as_str()), ("client", "Seven"));
        assert!(before.has_client_secret);
        let b = next(b, |config| config.apps = vec![again]).await;
        assert_eq!(apps(&b.admin).await, std::slice::from_ref(&before));
        let changed = DeclaredApp {
            display_name: Some("Eight".to_owned()),
            client_secret: secret("the-next-declared-secret"),
            ..declared("client")
        };
        let b = next(b, |config| config.apps = vec![changed, declared("another")]).await;
        let after = get(&b.admin, "client").await.unwrap();
        assert_eq!((&after.id, after.display_name.as_str()), (&before.id, "Eight"));
        // What the declaration does not name is left alone.
        assert_eq!((after.external_key.as_str(), after.default_scopes.as_slice()), ("branch-7", ["repo".to_owned()].as_slice()));
        assert!(after.previous_secret_expire_time.is_some());
        assert_eq!(apps(&b.admin).await.len(), 2);
        // And so is an app that is declared no longer.
        let b = next(b, |_| {}).await;
        assert_eq!(apps(&b.admin).await.len(), 2);
        b.finish().await;
    }

    async fn a_declaration_that_can_not_be_followed_stops_the_start(engine: Engine) {
        let b = Broker::start(engine).await;
        create(&b.admin, pb::App { external_key: "taken".to_owned(), ..github("client") }).await.unwrap();
        let faulty = [
            DeclaredApp { provider: "nobody".to_owned(), ..declared("another") },
            DeclaredApp { provider: "gitlab".to_owned(), ..declared("client") },
            DeclaredApp { external_key: Some("client".to_owned()), ..declared("another") },
            declared("taken"),
        ];
        let mut b = b;
        b.stop().await;
        for app in faulty {
            let what = format!("{app:?}");
            let mut config = b.ground.config("a");
            config.apps = vec![app];
            let outcome = tokenbroker::app::start(config, b.clock.clone()).await;
            assert!(outcome.is_err(), "{what}");
        }
        let b = next(b, |_| {}).await;
        assert_eq!(apps(&b.admin).await.len(), 1);
        b.finish().await;
    }

    async fn a_secret_rotated_by_call_is_not_taken_back_by_the_next_start(engine: Engine) {
        let old = "the-declared-client-secret";
        let app = DeclaredApp { client_secret: secret(old), ..declared("client") };
        let again = app.clone();
        let b = Broker::start_with(engine, |config| config.apps = vec![app]).await;
        Secrets::register("rotated-by-a-call");
        let request = pb::RotateAppSecretRequest {
            app: "client".to_owned(),
            client_secret: "rotated-by-a-call".to_owned(),
            overlap: None,
        };
        let rotated = b.admin.registry.clone().rotate_app_secret(request).await.unwrap().into_inner().app.unwrap();
        let b = next(b, |config| config.apps = vec![again]).await;
        assert_eq!(get(&b.admin, "client").await.unwrap(), rotated);
        b.finish().await;
    }
}
