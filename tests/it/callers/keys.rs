//! API keys while they live and when they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret as _;
use tokenbroker::access::ApiKeys;
use tokenbroker::access::api_keys::NewApiKey;
use tokenbroker::access::bearer::BearerSecret;
use tokenbroker::bootstrap;
use tokenbroker::freshness::Freshness;
use tokenbroker::model::{Constraints, Role, Timestamp};
use tokenbroker::pb;
use tonic::{Code, Status};

use crate::fixture::leaks::Secrets;
use crate::fixture::*;
use crate::on_both_engines;

/// A bound on staleness that a test can wait for.
const STALENESS: Duration = Duration::from_secs(1);

/// The text of a key, which no log may have from here on.
pub fn text(secret: &BearerSecret) -> String {
    let text = secret.text().expose_secret().to_owned();
    Secrets::register_as("API key", &text);
    text
}

/// A key of an admin, with its id.
pub async fn make(b: &Broker, expires_at: Option<Timestamp>) -> (String, String) {
    let new = NewApiKey {
        tenant: "default".to_owned(),
        name: "made by a test".to_owned(),
        role: Role::Admin,
        constraints: Constraints::default(),
        rate_limit: None,
        created_by: "test".to_owned(),
        expires_at,
    };
    let (key, secret) = b.running().keys().create(new).await.unwrap();
    (key.id, text(&secret))
}

/// What `tokenbroker api-key` works with: the same database, and no server.
async fn command_line(b: &Broker) -> ApiKeys {
    let store = bootstrap::open(&b.config.database).await.unwrap();
    let freshness = Arc::new(Freshness::new(b.config.cache.max_staleness));
    ApiKeys::new(store, b.clock.clone(), freshness)
}

async fn list(caller: &Caller) -> Result<(), Status> {
    let mut registry = caller.registry.clone();
    registry
        .list_apps(pb::ListAppsRequest::default())
        .await
        .map(drop)
}

/// That the caller, whose key has just been revoked, is refused within a bound.
async fn refused_within(bound: Duration, caller: &Caller) {
    within("the key stops working", Instant::now(), bound, || async {
        list(caller).await.is_err()
    })
    .await;
    assert_refused(
        list(caller).await,
        Code::Unauthenticated,
        "CREDENTIALS_REVOKED",
    );
}

on_both_engines! {
    async fn a_revoked_key_stops_at_once_where_it_is_revoked(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, key) = make(&b, None).await;
        let caller = b.caller_with(&key);
        list(&caller).await.unwrap();
        b.running().keys().revoke(&id).await.unwrap();
        assert_refused(list(&caller).await, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        let again = b.running().keys().revoke(&id).await.unwrap_err();
        assert!(matches!(again, tokenbroker::Error::NotFound(..)), "{again:?}");
        b.finish().await;
    }

    async fn the_command_lines_revocation_is_heard(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, key) = make(&b, None).await;
        let caller = b.caller_with(&key);
        list(&caller).await.unwrap();
        command_line(&b).await.revoke(&id).await.unwrap();
        refused_within(b.config.cache.max_staleness, &caller).await;
        b.finish().await;
    }

    async fn a_revocation_that_nobody_tells_takes_effect_within_the_bound(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.cache.max_staleness = STALENESS;
            // The history is never looked at by itself.
            config.events.poll_interval = Duration::from_secs(3_600);
        }).await;
        let (id, key) = make(&b, None).await;
        let caller = b.caller_with(&key);
        list(&caller).await.unwrap();
        command_line(&b).await.revoke(&id).await.unwrap();
        refused_within(STALENESS, &caller).await;
        b.finish().await;
    }

    async fn a_key_ends_by_the_clock(engine: Engine) {
        let b = Broker::start(engine).await;
        let end = b.clock.now().plus(Duration::from_secs(60));
        let (_, key) = make(&b, Some(end)).await;
        let caller = b.caller_with(&key);
        b.clock.advance(Duration::from_secs(59));
        list(&caller).await.unwrap();
        b.clock.advance(Duration::from_secs(1));
        assert_refused(list(&caller).await, Code::Unauthenticated, "CREDENTIALS_EXPIRED");
        b.finish().await;
    }

    async fn a_stream_ends_with_its_key(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.events.heartbeat_interval = Duration::from_millis(100);
        }).await;
        let (id, revoked) = make(&b, None).await;
        let (_, expired) = make(&b, Some(b.clock.now().plus(Duration::from_secs(60)))).await;
        let mut streams = Vec::new();
        for (key, why) in [(revoked, "CREDENTIALS_REVOKED"), (expired, "CREDENTIALS_EXPIRED")] {
            let mut broker = b.caller_with(&key).broker;
            let request = pb::WatchTokenEventsRequest::default();
            let mut stream = broker.watch_token_events(request).await.unwrap().into_inner();
            stream.message().await.unwrap().unwrap();
            streams.push((stream, why));
        }
        b.running().keys().revoke(&id).await.unwrap();
        b.clock.advance(Duration::from_secs(60));
        for (mut stream, why) in streams {
            let status = soon("the stream's end", async {
                loop {
                    if let Err(status) = stream.message().await.map(Option::unwrap) {
                        return status;
                    }
                }
            }).await;
            assert_eq!((status.code(), reason(&status).as_str()), (Code::Unauthenticated, why));
        }
        b.finish().await;
    }

    async fn the_last_use_is_stored(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let (id, key) = make(&b, None).await;
        let (unused, _) = make(&b, None).await;
        list(&b.caller_with(&key)).await.unwrap();
        b.clock.advance(Duration::from_secs(7));
        list(&b.caller_with(&key)).await.unwrap();
        let now = b.clock.now();
        b.stop().await;
        let keys = command_line(&b).await.list(Some("default")).await.unwrap();
        let used = |id: &str| keys.iter().find(|key| key.id == id).unwrap().last_used_at;
        assert_eq!(used(&id), Some(now));
        assert_eq!(used(&unused), None);
        b.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_stops_on_every_replica() {
    let a = Broker::start(Engine::Postgres).await;
    let b = a.replica("b", |_| {}).await;
    let (id, key) = make(&a, None).await;
    let (here, there) = (a.caller_with(&key), b.caller_with(&key));
    list(&here).await.unwrap();
    list(&there).await.unwrap();
    a.running().keys().revoke(&id).await.unwrap();
    assert_refused(
        list(&here).await,
        Code::Unauthenticated,
        "CREDENTIALS_REVOKED",
    );
    refused_within(a.config.cache.max_staleness, &there).await;
    b.finish().await;
    a.finish().await;
}
