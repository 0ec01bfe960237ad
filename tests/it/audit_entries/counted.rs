//! What is counted rather than told one by one: tokens handed out, callers turned away.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokenbroker::access::audit::reads::{Counted, Read, Subject};
use tokenbroker::access::audit::{Reads, Refusals};
use tokenbroker::access::bearer::{BearerSecret, Prefix};
use tokenbroker::access::limits::Limiter;
use tokenbroker::access::{Credential, Origin, Principal};
use tokenbroker::config::TokenReads;
use tokenbroker::model::Timestamp;

use super::*;
use crate::fixture::leaks::Secrets;

/// Per actor: all that the entries of this action count.
async fn counts(ground: &Ground, action: &str) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for it in told(ground).await {
        if it.action == action {
            let count: u64 = it.detail("count").parse().unwrap();
            *counts.entry(it.actor.1).or_default() += count;
        }
    }
    counts
}

/// Reads a connection's token so often, from several tasks.
async fn read(caller: &Caller, connection_id: &str, tasks: usize, each: usize) {
    let request = pb::GetAccessTokenRequest {
        connection_id: connection_id.to_owned(),
        ..Default::default()
    };
    let tasks = (0..tasks).map(|_| {
        let (caller, request) = (caller.clone(), request.clone());
        tokio::spawn(async move {
            for _ in 0..each {
                caller.get_token(request.clone()).await.unwrap();
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

/// One read of somebody.
fn counted(now: Timestamp) -> Counted {
    let caller = Principal {
        id: "key_1".to_owned(),
        name: String::new(),
        tenant: "default".to_owned(),
        role: Role::Consumer,
        constraints: Constraints::default(),
        credential: Credential::ApiKey { hash: [0; 32] },
        expires_at: None,
        limiter: Arc::new(Limiter::unlimited()),
    };
    let subject = Subject {
        tenant: "default".to_owned(),
        connection_id: "conn_1".to_owned(),
        app_id: "app_1".to_owned(),
        provider: "fake".to_owned(),
        owner: OWNER.to_owned(),
    };
    Counted {
        subject: Arc::new(subject),
        read: Read::first(&Arc::new(caller), None, now),
    }
}

on_both_engines! {
    async fn reads_are_counted_exactly_by_caller(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let connection = b.connected().await;
        let (one_key, one) = known(&b, Role::Consumer).await;
        let (other_key, other) = known(&b, Role::Consumer).await;
        let (first, second) = (b.caller_with(&one_key), b.caller_with(&other_key));
        tokio::join!(
            read(&first, &connection.id, 4, 150),
            read(&second, &connection.id, 4, 100),
        );
        b.stop().await;
        let counts = counts(&b.ground, "token.read").await;
        assert_eq!(counts, HashMap::from([(one.clone(), 600), (other, 400)]));
        let entries = told_by(&b.ground, &one).await;
        let [it] = entries.as_slice() else { panic!("{entries:#?}") };
        assert_eq!(it.resource, ("connection".to_owned(), connection.id));
        assert_eq!(it.ip, "127.0.0.1");
        b.finish().await;
    }

    async fn reads_are_told_when_their_minute_is_over(engine: Engine) {
        let b = Broker::start(engine).await;
        let connection = b.connected().await;
        let (key, id) = known(&b, Role::Consumer).await;
        read(&b.caller_with(&key), &connection.id, 1, 3).await;
        assert_eq!(told_by(&b.ground, &id).await, []);
        b.clock.advance(Duration::from_secs(60));
        eventually("the minute's reads are told", || async {
            counts(&b.ground, "token.read").await.get(&id) == Some(&3)
        })
        .await;
        b.finish().await;
    }

    async fn reads_wait_for_a_trail_that_can_not_be_written(engine: Engine) {
        let b = Broker::start(engine).await;
        let reads = Reads::new(b.ground.store().await, b.clock.clone(), TokenReads::Aggregated);
        b.ground.execute("ALTER TABLE audit_events RENAME TO away").await;
        for _ in 0..3 {
            reads.flush(vec![counted(b.clock.now())]).await.unwrap_err();
        }
        b.ground.execute("ALTER TABLE away RENAME TO audit_events").await;
        reads.flush(Vec::new()).await.unwrap();
        reads.flush(Vec::new()).await.unwrap();
        assert_eq!(counts(&b.ground, "token.read").await["key_1"], 3);
        b.finish().await;
    }

    async fn no_token_is_handed_out_untold(engine: Engine) {
        let each = |config: &mut tokenbroker::config::Config| {
            config.audit.token_reads = TokenReads::Each;
        };
        let b = Broker::start_with(engine, each).await;
        let connection = b.connected().await;
        let (key, id) = known(&b, Role::Consumer).await;
        let caller = b.caller_with(&key);
        read(&caller, &connection.id, 1, 2).await;
        assert_eq!(told_by(&b.ground, &id).await.len(), 2);
        b.ground.execute("ALTER TABLE audit_events RENAME TO away").await;
        let request = pb::GetAccessTokenRequest {
            connection_id: connection.id.clone(),
            ..Default::default()
        };
        let refused = caller.get_token(request.clone()).await;
        b.ground.execute("ALTER TABLE away RENAME TO audit_events").await;
        assert_refused(refused, Code::Unavailable, "UNAVAILABLE");
        caller.get_token(request).await.unwrap();
        b.finish().await;
    }

    async fn refused_callers_are_counted_by_the_minute(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let unknown = BearerSecret::generate(Prefix::ApiKey);
        let unknown = unknown.text().expose_secret();
        Secrets::register_as("unknown API key", unknown);
        for _ in 0..5 {
            let list = pb::ListAppsRequest::default();
            let caller = b.caller_with(unknown);
            caller.registry.clone().list_apps(list).await.unwrap_err();
        }
        b.stop().await;
        let mut all = told(&b.ground).await;
        all.retain(|it| it.action == "caller.refused");
        let [it] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!((&*it.reason, it.detail("count")), ("CREDENTIALS_INVALID", "5"));
        assert_eq!((&*it.ip, it.detail("credentials")), ("127.0.0.1", "api_key"));
        assert_eq!(it.detail("fingerprints").len(), 32);
        assert!(!it.success && it.actor.0 == "anonymous");
        b.finish().await;
    }

    async fn refusals_wait_for_a_trail_that_can_not_be_written(engine: Engine) {
        let b = Broker::start(engine).await;
        let keyring = tokenbroker::bootstrap::keyring(&b.config).unwrap();
        let refusals = Refusals::new(b.ground.store().await, b.clock.clone(), keyring);
        b.ground.execute("ALTER TABLE audit_events RENAME TO away").await;
        // Of one network of IPv6: one customer's.
        for last in ["1", "2", "ffff:1"] {
            let ip = format!("2001:db8::{last}").parse().unwrap();
            let origin = Origin { ip: Some(ip), ..Origin::default() };
            refusals.browser("TEST", &origin);
            refusals.browser("TEST", &origin);
            refusals.flush(true).await.unwrap_err();
        }
        b.ground.execute("ALTER TABLE away RENAME TO audit_events").await;
        refusals.flush(true).await.unwrap();
        refusals.flush(true).await.unwrap();
        let mut all = told(&b.ground).await;
        all.retain(|it| it.reason == "TEST");
        let counts: Vec<_> = all.iter().map(|it| (&*it.ip, it.detail("count"))).collect();
        assert_eq!(counts, [("2001:db8::", "2"), ("2001:db8::", "4")]);
        b.finish().await;
    }

    async fn denied_callers_are_counted_by_permission_and_rpc(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let (key, id) = known(&b, Role::Auditor).await;
        let caller = b.caller_with(&key);
        for _ in 0..4 {
            let list = pb::ListAppsRequest::default();
            let denied = caller.registry.clone().list_apps(list).await;
            assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
        }
        b.stop().await;
        let all = told_by(&b.ground, &id).await;
        let [it] = all.as_slice() else { panic!("{all:#?}") };
        assert_eq!((&*it.action, it.detail("count")), ("caller.denied", "4"));
        assert_eq!(it.detail("permission"), "registry.read");
        assert!(it.detail("rpc").ends_with("/ListApps"));
        b.finish().await;
    }

    async fn what_a_caller_is_held_to_is_counted_too(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let connection = b.connected().await;
        let held = Constraints { owners: vec!["another".to_owned()], ..Default::default() };
        let caller = b.caller(Role::Consumer, held).await;
        let request = pb::GetConnectionRequest { connection_id: connection.id };
        let denied = caller.broker.clone().get_connection(request).await;
        assert_eq!(denied.unwrap_err().code(), Code::PermissionDenied);
        b.stop().await;
        assert_eq!(counts(&b.ground, "caller.denied").await.into_values().sum::<u64>(), 1);
        b.finish().await;
    }

    async fn what_a_batch_is_denied_is_counted_by_its_parts(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let connection = b.connected().await;
        let held = Constraints { owners: vec!["another".to_owned()], ..Default::default() };
        let caller = b.caller(Role::Consumer, held).await;
        let request = pb::GetAccessTokenRequest {
            connection_id: connection.id,
            ..Default::default()
        };
        let requests = vec![request; 3];
        let batch = pb::BatchGetAccessTokensRequest { requests };
        caller.broker.clone().batch_get_access_tokens(batch).await.unwrap();
        b.stop().await;
        assert_eq!(counts(&b.ground, "caller.denied").await.into_values().sum::<u64>(), 3);
        let mut all = told(&b.ground).await;
        all.retain(|it| it.action == "caller.denied");
        assert!(all[0].detail("rpc").ends_with("/BatchGetAccessTokens"));
        b.finish().await;
    }
}
