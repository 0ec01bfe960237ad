//! Callers known by JWTs of trusted issuers: who is taken, who is not, and what happens when keys
//! come and go.

mod forged;
pub mod issuer;
mod rotation;

use serde_json::{Value, json};
use tokenbroker::config::JwtKeySource;
use tokenbroker::model::Role;
use tokenbroker::pb;
use tonic::{Code, Status};

use crate::fixture::*;
use crate::on_both_engines;
use issuer::{Issuer, Key, rule};

/// A server that trusts an issuer with one key.
struct Trust {
    b: Broker,
    issuer: Issuer,
    key: Key,
}

impl Trust {
    async fn of(engine: Engine) -> Self {
        Self::in_key(engine, Key::ec("k1")).await
    }

    async fn in_key(engine: Engine, key: Key) -> Self {
        let issuer = Issuer::start(&[&key]).await;
        let trusted = issuer.trusted();
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        Self { b, issuer, key }
    }

    /// The claims of a token that is good now.
    fn claims(&self) -> Value {
        self.issuer.claims("team-1", self.b.clock.now())
    }

    /// The same with other values; null takes one away.
    fn claims_with(&self, change: Value) -> Value {
        let mut claims = self.claims();
        for (name, value) in change.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    /// A token that is good now.
    fn token(&self) -> String {
        self.key.token(&self.claims())
    }

    /// What a call with this token comes to.
    async fn call(&self, token: &str) -> Result<(), Status> {
        call(&self.b, token).await
    }
}

async fn call(b: &Broker, token: &str) -> Result<(), Status> {
    let mut registry = b.caller_with(token).registry;
    let answer = registry.list_apps(pb::ListAppsRequest::default()).await;
    answer.map(drop)
}

const INVALID: &str = "CREDENTIALS_INVALID";

on_both_engines! {
    async fn a_good_token_may_what_its_rule_gives(engine: Engine) {
        let key = Key::ed("k1");
        let issuer = Issuer::start(&[&key]).await;
        let mut trusted = issuer.trusted();
        trusted.rules[0].granted.constraints.owners = vec!["owner-1".to_owned()];
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        let mine = b.connected().await;
        let caller = b.caller_with(&key.token(&issuer.claims("team-1", b.clock.now())));
        let wanted = |id: &str| pb::GetAccessTokenRequest { connection_id: id.to_owned(), ..Default::default() };
        caller.get_token(wanted(&mine.id)).await.unwrap();
        caller.get_token(wanted(&mine.id)).await.unwrap();
        assert_eq!(issuer.fetches(), 1);
        let hidden = caller.get_token(wanted("conn_01h455vb4pex5vsknk084sn02q")).await;
        assert_refused(hidden, Code::PermissionDenied, "PERMISSION_DENIED");
        let provider = caller.registry.clone().create_provider(pb::CreateProviderRequest::default()).await;
        assert_refused(provider, Code::PermissionDenied, "PERMISSION_DENIED");
        b.finish().await;
    }

    async fn every_configured_algorithm_is_taken(engine: Engine) {
        let keys = [Key::rsa("r"), Key::ec("c"), Key::ed("d")];
        let issuer = Issuer::start(&keys.each_ref()).await;
        let trusted = issuer.trusted();
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        let claims = issuer.claims("team-1", b.clock.now());
        for key in &keys {
            call(&b, &key.token(&claims)).await.unwrap();
        }
        let [rsa, ..] = &keys;
        call(&b, &rsa.token_with(json!({ "alg": "PS256" }), &claims)).await.unwrap();
        call(&b, &rsa.token_with(json!({ "typ": "at+jwt" }), &claims)).await.unwrap();
        call(&b, &rsa.token_with(json!({ "typ": null }), &claims)).await.unwrap();
        assert_refused(call(&b, &rsa.token_with(json!({ "typ": "logout+jwt" }), &claims)).await, Code::Unauthenticated, INVALID);
        b.finish().await;
    }

    async fn a_token_ends_with_its_leeway(engine: Engine) {
        let t = Trust::of(engine).await;
        let token = t.token();
        t.call(&token).await.unwrap();
        t.b.clock.advance(std::time::Duration::from_secs(3_600 + 29));
        t.call(&token).await.unwrap();
        t.b.clock.advance(std::time::Duration::from_secs(2));
        assert_refused(t.call(&token).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        t.b.finish().await;
    }

    async fn a_kubernetes_service_account_is_known_by_subject_and_namespace(engine: Engine) {
        let key = Key::rsa("Ak1ck4N0A8j3sE2Yp5v0");
        let issuer = Issuer::start(&[&key]).await;
        let mut trusted = issuer.trusted();
        trusted.rules = vec![
            rule("system:serviceaccount:prod:billing", &[("kubernetes.io.namespace", "prod")], Role::Consumer),
            rule("system:serviceaccount:ops:*", &[("kubernetes.io.serviceaccount.name", "deployer")], Role::Operator),
        ];
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        let token = |namespace: &str, name: &str, told: &str| {
            let mut claims = issuer.claims(&format!("system:serviceaccount:{namespace}:{name}"), b.clock.now());
            claims["jti"] = json!("f3a2c1b0-0000-4000-8000-0123456789ab");
            claims["kubernetes.io"] = json!({
                "namespace": told,
                "node": { "name": "node-1", "uid": "6e4a2f60-0000-4000-8000-000000000000" },
                "pod": { "name": format!("{name}-7d9f"), "uid": "0b1c2d3e-0000-4000-8000-000000000000" },
                "serviceaccount": { "name": name, "uid": "9a8b7c6d-0000-4000-8000-000000000000" },
                "warnafter": 1_900_000_000,
            });
            key.token_with(json!({ "typ": null }), &claims)
        };
        call(&b, &token("prod", "billing", "prod")).await.unwrap();
        call(&b, &token("ops", "deployer", "ops")).await.unwrap();
        for stranger in [token("prod", "billing", "dev"), token("prod", "other", "prod"), token("ops", "reader", "ops")] {
            assert_refused(call(&b, &stranger).await, Code::Unauthenticated, "CREDENTIALS_NOT_MAPPED");
        }
        b.finish().await;
    }

    async fn the_first_rule_that_matches_counts(engine: Engine) {
        let key = Key::ec("k1");
        let issuer = Issuer::start(&[&key]).await;
        let mut trusted = issuer.trusted();
        trusted.rules = vec![rule("team-1", &[], Role::Auditor), rule("team-*", &[("groups", "brokers")], Role::Consumer)];
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        let token = |subject: &str| {
            let mut claims = issuer.claims(subject, b.clock.now());
            claims["groups"] = json!(["staff", "brokers"]);
            key.token(&claims)
        };
        assert_refused(call(&b, &token("team-1")).await, Code::PermissionDenied, "PERMISSION_DENIED");
        call(&b, &token("team-2")).await.unwrap();
        assert_refused(call(&b, &token("other")).await, Code::Unauthenticated, "CREDENTIALS_NOT_MAPPED");
        b.finish().await;
    }

    async fn keys_come_from_discovery_or_a_file(engine: Engine) {
        let key = Key::ec("k1");
        let issuer = Issuer::start(&[&key]).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keys.json");
        std::fs::write(&file, json!({ "keys": [key.jwk()] }).to_string()).unwrap();
        let sources = [JwtKeySource::Discovery(issuer.url.parse().unwrap()), JwtKeySource::File(file)];
        for keys in sources {
            let mut trusted = issuer.trusted();
            trusted.keys = keys;
            let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
            call(&b, &key.token(&issuer.claims("team-1", b.clock.now()))).await.unwrap();
            b.finish().await;
        }
        assert_eq!(issuer.fetches(), 1);
    }

    async fn the_token_for_the_key_server_is_read_anew_and_sent(engine: Engine) {
        let key = Key::ec("k1");
        let issuer = Issuer::start(&[&key]).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "first-projected-token\n").unwrap();
        let mut trusted = issuer.trusted();
        trusted.bearer_token_file = Some(file.clone());
        let b = Broker::start_with(engine, |config| config.access.jwt = vec![trusted]).await;
        call(&b, &key.token(&issuer.claims("team-1", b.clock.now()))).await.unwrap();
        assert_eq!(issuer.bearer().unwrap(), "Bearer first-projected-token");
        std::fs::write(&file, "second-projected-token\n").unwrap();
        b.clock.advance(std::time::Duration::from_secs(3_600));
        call(&b, &key.token(&issuer.claims("team-1", b.clock.now()))).await.unwrap();
        assert_eq!(issuer.bearer().unwrap(), "Bearer second-projected-token");
        b.finish().await;
    }

    async fn a_stream_ends_with_its_token(engine: Engine) {
        let key = Key::ec("k1");
        let issuer = Issuer::start(&[&key]).await;
        let trusted = issuer.trusted();
        let b = Broker::start_with(engine, |config| {
            config.access.jwt = vec![trusted];
            config.events.heartbeat_interval = std::time::Duration::from_millis(100);
        })
        .await;
        let token = key.token(&issuer.claims("team-1", b.clock.now()));
        let request = pb::WatchTokenEventsRequest::default();
        let mut broker = b.caller_with(&token).broker;
        let mut stream = broker.watch_token_events(request).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        b.clock.advance(std::time::Duration::from_secs(3_600 + 31));
        let ended = async {
            loop {
                if let Err(status) = stream.message().await.map(Option::unwrap) {
                    break status;
                }
            }
        };
        let status = tokio::time::timeout(std::time::Duration::from_secs(20), ended).await.expect("the stream ends");
        assert_refused(Err::<(), _>(status), Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        b.finish().await;
    }
}
