//! After a crash: a server that is killed between the provider's answer and the commit.

use std::path::Path;
use std::time::Duration;

use tokenbroker::pb;
use tonic::Code;

use crate::fixture::process::Process;
use crate::fixture::provider::Rotation;
use crate::fixture::*;
use crate::on_both_engines;

/// Keeps everybody from committing, from outside.
enum Blockade {
    Sqlite(std::thread::JoinHandle<()>, std::sync::mpsc::Sender<()>),
    Postgres(tokio_postgres::Client),
}

impl Blockade {
    async fn raise(b: &Broker) -> Self {
        match &b.ground.schema {
            Some(schema) => {
                let client = schema.connect().await;
                client
                    .batch_execute("BEGIN; SELECT id FROM connections FOR UPDATE")
                    .await
                    .unwrap();
                Self::Postgres(client)
            }
            None => {
                use diesel::Connection as _;
                use diesel::connection::SimpleConnection as _;
                let file = b.database_file();
                let (release, released) = std::sync::mpsc::channel();
                let (begun, begin) = std::sync::mpsc::channel();
                let holding = std::thread::spawn(move || {
                    let mut conn =
                        diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
                    conn.batch_execute("PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE")
                        .unwrap();
                    begun.send(()).unwrap();
                    let _ = released.recv_timeout(2 * PATIENCE);
                    conn.batch_execute("ROLLBACK").unwrap();
                });
                begin.recv_timeout(PATIENCE).unwrap();
                Self::Sqlite(holding, release)
            }
        }
    }

    async fn lift(self) {
        match self {
            Self::Sqlite(holding, release) => {
                let _ = release.send(());
                holding.join().unwrap();
            }
            Self::Postgres(client) => client.batch_execute("ROLLBACK").await.unwrap(),
        }
    }
}

fn journal_entries(folder: &Path) -> usize {
    std::fs::read_dir(folder).map_or(0, |entries| {
        entries
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".sealed"))
            .count()
    })
}

/// A connection whose token is within its margin, a server that has the provider's answer in its
/// journal and can't commit it, and then is killed.
async fn killed_before_commit(engine: Engine) -> (Broker, pb::Connection) {
    let mut b = Broker::start(engine).await;
    b.provider.set_rotation(Rotation::STRICT);
    let c = b.connected().await;
    let key = b
        .key(tokenbroker::model::Role::Admin, Default::default())
        .await;
    b.stop().await;

    let victim = Process::start(&b.config, &[]).await;
    let caller = caller_at(victim.address, &key);
    // Its key and this connection are in memory now: nothing but the refresh will want to write.
    let request = pb::GetAccessTokenRequest {
        connection_id: c.id.clone(),
        ..Default::default()
    };
    caller.get_token(request).await.unwrap();
    let gate = b.provider.hold_finished_answers();
    let refreshing = {
        let (mut broker, id) = (caller.broker.clone(), c.id.clone());
        tokio::spawn(async move {
            let request = pb::RefreshAccessTokenRequest {
                connection_id: id,
                ..Default::default()
            };
            broker.refresh_access_token(request).await
        })
    };
    b.provider.wait_for_refreshes(1).await;
    let blockade = Blockade::raise(&b).await;
    gate.release();
    let folder = b.config.journal.dir.clone();
    eventually("the answer is in the journal", || async {
        journal_entries(&folder) == 1
    })
    .await;
    victim.kill();
    assert!(refreshing.await.unwrap().is_err());
    blockade.lift().await;
    // Nobody has to wait until the lease that it held has run out.
    b.ground
        .execute("UPDATE grants SET lease_until = attempt_started_at")
        .await;
    (b, c)
}

on_both_engines! {
    async fn a_killed_server_recovers_from_its_journal(engine: Engine) {
        let (b, c) = killed_before_commit(engine).await;
        let again = b.replica("a", |_| {}).await;
        let token = again.token(&c.id).await.unwrap();
        assert!(b.provider.is_access_token_valid(&token.access_token));
        assert_eq!(b.provider.refreshes(), 1);
        assert_eq!(journal_entries(&b.config.journal.dir), 0);
        assert_eq!(again.attempts(&c.id).await[0].trigger, "recovery");
        again.finish().await;
    }

    async fn another_server_never_replays_what_the_killed_one_spent(engine: Engine) {
        let (b, c) = killed_before_commit(engine).await;
        // It meets the lapsed lease with a journal of its own, which knows nothing.
        let other = b.replica("b", |_| {}).await;
        let refresh = || {
            let request = pb::RefreshAccessTokenRequest { connection_id: c.id.clone(), ..Default::default() };
            let mut broker = other.admin.broker.clone();
            async move { broker.refresh_access_token(request).await }
        };
        let held = other.token(&c.id).await.unwrap();
        assert_refused(refresh().await, Code::Unavailable, "PROVIDER_UNAVAILABLE");
        b.clock.advance(Duration::from_secs(3600 - 60));
        let served = other.token(&c.id).await.unwrap();
        assert_eq!(served.access_token, held.access_token);
        assert!(served.below_min_validity);
        assert_eq!(b.provider.refreshes(), 1);
        assert_eq!(b.provider.reuse_detected(), 0);
        if engine == Engine::Postgres {
            let again = b.replica("a", |_| {}).await;
            let token = again.token(&c.id).await.unwrap();
            eventually("the other server serves it too", || async {
                other.token(&c.id).await.unwrap().access_token == token.access_token
            }).await;
            b.clock.advance(Duration::from_secs(3600));
            again.token(&c.id).await.unwrap();
            assert_eq!(b.provider.reuse_detected(), 0);
            again.finish().await;
        }
        other.finish().await;
    }
}
