//! Many ask at once.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokenbroker::pb;
use tonic::Code;

use crate::fixture::provider::{Fault, Target};
use crate::fixture::*;
use crate::on_both_engines;

const HOUR: Duration = Duration::from_secs(3600);

/// So many tokens at once, from these servers in turn.
async fn ask_all(
    servers: &[&Broker],
    connection_id: &str,
    count: usize,
) -> Vec<Result<pb::AccessToken, tonic::Status>> {
    join_all((0..count).map(|i| servers[i % servers.len()].token(connection_id))).await
}

/// The token, for a caller that comes back when it is told to: another server may take its time.
async fn served(server: &Broker, connection_id: &str) -> Result<pb::AccessToken, tonic::Status> {
    let began = Instant::now();
    loop {
        match server.token(connection_id).await {
            Err(status)
                if reason(&status) == "PROVIDER_UNAVAILABLE" && began.elapsed() < PATIENCE =>
            {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            outcome => return outcome,
        }
    }
}

fn all_the_same(tokens: Vec<Result<pb::AccessToken, tonic::Status>>) -> String {
    let mut tokens: Vec<String> = tokens
        .into_iter()
        .map(|token| token.unwrap().access_token)
        .collect();
    tokens.sort();
    tokens.dedup();
    assert_eq!(tokens.len(), 1, "several tokens were served");
    tokens.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_through_two_servers_cause_one_refresh() {
    let a = Broker::start(Engine::Postgres).await;
    let b = a.replica("b", |_| {}).await;
    let c = a.connected().await;
    a.clock.advance(HOUR);
    let servers = [&a, &b];
    let asking = (0..1_000).map(|i| served(servers[i % 2], &c.id));
    let token = all_the_same(join_all(asking).await);
    assert!(a.provider.is_access_token_valid(&token));
    assert_eq!(a.provider.refreshes(), 1);
    assert_eq!(a.provider.reuse_detected(), 0);
    b.finish().await;
    a.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_of_one_server_on_sqlite_cause_one_refresh() {
    let a = Broker::start(Engine::Sqlite).await;
    let c = a.connected().await;
    a.clock.advance(HOUR);
    all_the_same(ask_all(&[&a], &c.id, 1_000).await);
    assert_eq!(a.provider.refreshes(), 1);
    a.finish().await;
}

on_both_engines! {
    async fn callers_wait_for_the_attempt_under_way(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let gate = b.provider.hold_token_answers();
        b.clock.advance(HOUR);
        let asking = async { all_the_same(ask_all(&[&b], &c.id, 50).await) };
        let releasing = async {
            b.provider.wait_for_refreshes(1).await;
            tokio::time::sleep(Duration::from_millis(200)).await;
            gate.release();
        };
        tokio::join!(asking, releasing);
        assert_eq!(b.provider.refreshes(), 1);
        b.finish().await;
    }

    async fn all_who_wait_share_one_failure(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        b.provider.fail_always(Target::Refresh, Fault::Status(503));
        b.clock.advance(HOUR);
        for outcome in ask_all(&[&b], &c.id, 200).await {
            assert_refused(outcome, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        }
        assert_eq!(b.provider.refreshes(), 1);
        b.finish().await;
    }

    async fn a_refresh_that_is_overtaken_by_a_revocation_leaves_nothing_alive(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let gate = b.provider.hold_finished_answers();
        b.clock.advance(HOUR);
        let asking = b.token(&c.id);
        let revoking = async {
            // Carried out, not only arrived: a refresh that comes after the revocation brings nothing.
            eventually("the refresh token is spent", || async { b.provider.successful_refreshes() == 1 }).await;
            let request = pb::RevokeConnectionRequest { connection_id: c.id.clone(), ..Default::default() };
            let mut broker = b.admin.broker.clone();
            let revoked = tokio::spawn(async move { broker.revoke_connection(request).await });
            eventually("revoked here", || async {
                b.connection(&c.id).await.state() == pb::ConnectionState::Revoked
            }).await;
            gate.release();
            revoked.await.unwrap().unwrap();
        };
        let (token, ()) = tokio::join!(asking, revoking);
        assert_refused(token, Code::FailedPrecondition, "CONNECTION_REVOKED");
        eventually("no token is alive at the provider", || async {
            b.provider.live_access_tokens().is_empty()
        }).await;
        b.finish().await;
    }

    async fn a_refresh_that_comes_after_a_revocation_is_told_of_it(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let gate = b.provider.hold_token_answers();
        b.clock.advance(HOUR);
        let asking = b.token(&c.id);
        let revoking = async {
            b.provider.wait_for_refreshes(1).await;
            let request = pb::RevokeConnectionRequest { connection_id: c.id.clone(), ..Default::default() };
            b.admin.broker.clone().revoke_connection(request).await.unwrap();
            gate.release();
        };
        let (token, ()) = tokio::join!(asking, revoking);
        assert_refused(token, Code::FailedPrecondition, "CONNECTION_REVOKED");
        assert_eq!((b.provider.refreshes(), b.provider.successful_refreshes()), (1, 0));
        b.finish().await;
    }

    async fn ahead_and_on_demand_do_not_refresh_twice(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        for round in 1..=5 {
            b.clock.advance(HOUR);
            all_the_same(ask_all(&[&b], &c.id, 20).await);
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(b.provider.refreshes(), round);
        }
        b.finish().await;
    }
}

#[tokio::test]
async fn who_comes_back_for_a_connection_waits_behind_who_waits_already() {
    let ground = Ground::new(Engine::Sqlite).await;
    let store = ground.store().await;
    let turns = std::sync::Mutex::new(Vec::new());
    let ask = async |who, rounds| {
        for _ in 0..rounds {
            let _the_only_writer = store.write().await.unwrap();
            turns.lock().unwrap().push(who);
        }
    };
    let held = store.write().await.unwrap();
    tokio::join!(ask("greedy", 3), ask("patient", 1), async { drop(held) });
    let turns = turns.into_inner().unwrap();
    assert_eq!(turns, ["greedy", "patient", "greedy", "greedy"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_is_heard_by_the_other_server_within_its_bound() {
    let a = Broker::start(Engine::Postgres).await;
    let b = a.replica("b", |_| {}).await;
    let c = a.connected().await;
    b.token(&c.id).await.unwrap();
    let request = pb::RevokeConnectionRequest {
        connection_id: c.id.clone(),
        ..Default::default()
    };
    a.admin
        .broker
        .clone()
        .revoke_connection(request)
        .await
        .unwrap();
    let bound = a.config.cache.max_staleness;
    within("the revocation is heard", Instant::now(), bound, || async {
        b.token(&c.id).await.is_err()
    })
    .await;
    assert_refused(
        b.token(&c.id).await,
        Code::FailedPrecondition,
        "CONNECTION_REVOKED",
    );
    b.finish().await;
    a.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hears_nothing_asks_the_database() {
    let a = Broker::start(Engine::Postgres).await;
    let c = a.connected().await;
    a.token(&c.id).await.unwrap();
    // The relay's counter is held: no round of the hub can end, so nothing counts as heard.
    let schema = a.ground.schema.as_ref().unwrap();
    let mut client = schema.connect().await;
    let held = client.transaction().await.unwrap();
    held.execute("UPDATE event_counter SET position = position", &[])
        .await
        .unwrap();
    held.execute(
        "INSERT INTO events (tenant, type, subject, owner, provider, generation, reason, created_at)
         VALUES ('other', 'updated', 'x', '', '', 0, '', now())",
        &[],
    )
    .await
    .unwrap();
    let other = schema.connect().await;
    other
        .execute(
            "INSERT INTO events (tenant, type, subject, owner, provider, generation, reason, created_at)
             VALUES ('other', 'updated', 'x', '', '', 0, '', now())",
            &[],
        )
        .await
        .unwrap();
    // Changed behind the server's back, as by a replica whose notifications do not arrive.
    other
        .execute("UPDATE connections SET state = 'revoked'", &[])
        .await
        .unwrap();
    tokio::time::sleep(a.config.cache.max_staleness + Duration::from_millis(200)).await;
    assert_refused(
        a.token(&c.id).await,
        Code::FailedPrecondition,
        "CONNECTION_REVOKED",
    );
    held.rollback().await.unwrap();
    a.finish().await;
}
