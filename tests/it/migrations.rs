//! Migrations: under way at once, halfway, rolled back, changed, and newer than the binary.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokenbroker::bootstrap::StartError;
use tokenbroker::clock::Clock;
use tokenbroker::pb;
use tokenbroker::store::migrate::{self, Error, State};
use tonic::Code;

use crate::fixture::*;
use crate::on_both_engines;

/// The names of migrations that the database says are applied.
async fn recorded(ground: &Ground) -> Vec<String> {
    ground
        .lines("SELECT name AS line FROM schema_migrations ORDER BY name")
        .await
}

/// The names of tables and views.
async fn tables(ground: &Ground) -> BTreeSet<String> {
    let sql = ground.word(
        "SELECT name AS line FROM sqlite_master WHERE type IN ('table', 'view')",
        "SELECT relname::text AS line FROM pg_class
         WHERE relkind IN ('r', 'v') AND relnamespace = current_schema()::regnamespace",
    );
    ground.lines(sql).await.into_iter().collect()
}

/// Why `serve` does not start on this ground; `None` when it does.
async fn refusal(ground: &Ground) -> Option<StartError> {
    match start(ground.config("a"), Clock::manual(now())).await {
        Ok(running) => {
            running.stop().await;
            None
        }
        Err(error) => Some(error),
    }
}

async fn migrated(engine: Engine) -> Arc<Ground> {
    let ground = Ground::new(engine).await;
    migrate::up(&ground.store().await).await.unwrap();
    ground
}

/// As a later version would have left it behind.
async fn with_a_newer_migration(engine: Engine, oldest_compatible: &str) -> Arc<Ground> {
    let ground = migrated(engine).await;
    let now = ground.word("0", "now()");
    let row = format!("('9999_later', 'x', '{oldest_compatible}', {now})");
    ground
        .execute(&format!("INSERT INTO schema_migrations VALUES {row}"))
        .await;
    ground
}

/// How many migrations there are from this one on.
async fn steps_to(ground: &Ground, name: &str) -> usize {
    let from = |applied: &&String| applied.as_str() >= name;
    recorded(ground).await.iter().filter(from).count()
}

/// Stops the server, rolls back the migrations down to this one and applies them again, and starts it
/// anew.
async fn rolled_back_and_forth(mut b: Broker, name: &str) -> Broker {
    b.stop().await;
    let store = b.ground.store().await;
    let steps = steps_to(&b.ground, name).await;
    let down = migrate::down(&store, steps).await.unwrap();
    assert_eq!(down.last().map(String::as_str), Some(name));
    let mut up = migrate::up(&store).await.unwrap();
    up.reverse();
    assert_eq!(up, down);
    drop(store);
    let (ground, config) = (Arc::clone(&b.ground), b.config.clone());
    Broker::on(ground, config, b.clock.clone(), b.provider.clone()).await
}

on_both_engines! {
    async fn connections_survive_the_events_and_the_view(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let before = b.token(&c.id).await.unwrap();
        eventually("the events are numbered", || async { b.events().await.len() >= 2 }).await;
        let b = rolled_back_and_forth(b, "0004_events").await;
        assert_eq!(b.token(&c.id).await.unwrap().access_token, before.access_token);
        assert_eq!(b.connection(&c.id).await.owner, c.owner);
        assert!(b.events().await.iter().all(|event| event.connection_id != c.id));
        b.finish().await;
    }

    async fn apps_survive_the_connections(engine: Engine) {
        let b = Broker::start(engine).await;
        let c = b.connected().await;
        let b = rolled_back_and_forth(b, "0003_connections").await;
        let app = b.admin.registry.clone()
            .get_app(pb::GetAppRequest { app: c.app_id.clone() })
            .await.unwrap().into_inner().app.unwrap();
        assert_eq!(app.id, c.app_id);
        assert_refused(b.token(&c.id).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        let again = b.connect(&app, "owner-1").await;
        b.token(&again.id).await.unwrap();
        b.finish().await;
    }

    async fn a_cursor_of_a_history_that_is_gone_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        b.connected().await;
        let cursor = first_cursor(&b).await.unwrap();
        let b = rolled_back_and_forth(b, "0004_events").await;
        let request = pb::WatchTokenEventsRequest { cursor, ..Default::default() };
        let refused = match b.admin.broker.clone().watch_token_events(request).await {
            Ok(stream) => stream.into_inner().message().await.map(|_| ()),
            Err(status) => Err(status),
        };
        assert_eq!(refused.unwrap_err().code(), Code::OutOfRange);
        b.finish().await;
    }

    async fn each_can_be_taken_back_by_itself(engine: Engine) {
        let ground = migrated(engine).await;
        let store = ground.store().await;
        for steps in 1..=recorded(&ground).await.len() {
            let mut down = migrate::down(&store, steps).await.unwrap();
            down.reverse();
            assert_eq!(migrate::up(&store).await.unwrap(), down);
        }
    }

    async fn of_migrators_at_once_one_does_the_work(engine: Engine) {
        let ground = Ground::new(engine).await;
        let mut stores = Vec::new();
        for _ in 0..4 {
            stores.push(ground.store().await);
        }
        let runs = stores.iter().map(migrate::up);
        let mut applied = Vec::new();
        for run in futures_util::future::join_all(runs).await {
            applied.extend(run.unwrap());
        }
        applied.sort();
        assert_eq!(applied, recorded(&ground).await);
        assert!(applied.len() >= 5, "{applied:?}");
        assert!(refusal(&ground).await.is_none());
    }

    async fn a_changed_migration_is_refused(engine: Engine) {
        let ground = migrated(engine).await;
        ground.execute("UPDATE schema_migrations SET checksum = 'x' WHERE name = '0002_registry'").await;
        let store = ground.store().await;
        let refused = migrate::up(&store).await.unwrap_err();
        assert!(matches!(&refused, Error::Drifted(name) if name == "0002_registry"), "{refused}");
        let drifted = migrate::status(&store).await.unwrap();
        let drifted: Vec<_> = drifted.iter().filter(|s| s.state == State::Drifted).collect();
        assert_eq!(drifted.len(), 1, "{drifted:?}");
        let refused = refusal(&ground).await.unwrap();
        assert!(matches!(refused, StartError::Schema(Error::Drifted(_))), "{refused}");
        assert!(refused.to_string().contains("0002_registry"), "{refused}");
    }

    async fn a_newer_schema_that_admits_this_version_is_served(engine: Engine) {
        let ground = with_a_newer_migration(engine, "0003_connections").await;
        let refused = refusal(&ground).await;
        assert!(refused.is_none(), "{refused:?}");
        let store = ground.store().await;
        assert_eq!(migrate::up(&store).await.unwrap(), Vec::<String>::new());
        let newest = migrate::status(&store).await.unwrap().pop().unwrap();
        assert_eq!(newest.state, State::Newer { compatible: true });
        // What it does not know it does not roll back.
        let refused = migrate::down(&store, 1).await.unwrap_err();
        assert!(matches!(&refused, Error::Unknown(name) if name == "9999_later"), "{refused}");
        assert_eq!(recorded(&ground).await.pop().unwrap(), "9999_later");
    }

    async fn a_newer_schema_that_does_not_admit_it_is_refused(engine: Engine) {
        let ground = with_a_newer_migration(engine, "9998_sooner").await;
        let refused = refusal(&ground).await.unwrap();
        assert!(matches!(refused, StartError::Schema(Error::TooNew(_))), "{refused}");
        assert!(refused.to_string().contains("run a newer version"), "{refused}");
    }

    async fn a_failing_migration_leaves_nothing_half_done(engine: Engine) {
        let ground = Ground::new(engine).await;
        let store = ground.store().await;
        // In the way of the second migration, behind the first table that it makes.
        ground.execute("CREATE TABLE apps (x text)").await;
        let refused = migrate::up(&store).await.unwrap_err();
        assert!(refused.to_string().contains("0002_registry"), "{refused}");
        assert!(refused.to_string().contains("apps"), "{refused}");
        let left = tables(&ground).await;
        assert!(!left.contains("providers"), "{left:?}");
        match engine {
            Engine::Sqlite => assert_eq!(left, BTreeSet::from(["apps".to_owned()])),
            Engine::Postgres => assert_eq!(recorded(&ground).await, ["0001_callers"]),
        }
        // With the cause gone the same store goes on where it stopped.
        ground.execute("DROP TABLE apps").await;
        migrate::up(&store).await.unwrap();
        migrate::check(&store).await.unwrap();
    }
}

/// The cursor of the first event.
async fn first_cursor(b: &Broker) -> Option<String> {
    let request = pb::WatchTokenEventsRequest {
        cursor: "START".to_owned(),
        ..Default::default()
    };
    let mut stream = b
        .admin
        .broker
        .clone()
        .watch_token_events(request)
        .await
        .unwrap()
        .into_inner();
    while let Some(response) = stream.message().await.unwrap() {
        if response.event.is_some() {
            return Some(response.cursor);
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_is_never_migrated_by_serve() {
    let ground = Ground::new(Engine::Postgres).await;
    let refused = refusal(&ground).await.unwrap();
    assert!(
        matches!(refused, StartError::Schema(Error::Pending(..))),
        "{refused}"
    );
    let told = refused.to_string();
    assert!(told.contains("tokenbroker migrate up"), "{told}");
    assert_eq!(tables(&ground).await, BTreeSet::new());

    migrate::up(&ground.store().await).await.unwrap();
    ground
        .execute("DELETE FROM schema_migrations WHERE name >= '0005'")
        .await;
    let told = refusal(&ground).await.unwrap().to_string();
    assert!(told.contains("0005_views"), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_is_migrated_by_serve() {
    let ground = Ground::new(Engine::Sqlite).await;
    assert!(refusal(&ground).await.is_none());
    let before = recorded(&ground).await;
    assert!(before.len() >= 5, "{before:?}");
    let store = ground.store().await;
    migrate::down(&store, 2).await.unwrap();
    drop(store);
    assert!(refusal(&ground).await.is_none());
    assert_eq!(recorded(&ground).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_keeps_no_row_whose_parent_is_gone() {
    let ground = migrated(Engine::Sqlite).await;
    let store = ground.store().await;
    let steps = steps_to(&ground, "0005_views").await;
    migrate::down(&store, steps).await.unwrap();
    ground
        .execute(
            "PRAGMA foreign_keys = OFF;
             INSERT INTO connection_usage VALUES ('conn_none', 'default', 0, 0, '');",
        )
        .await;
    let refused = migrate::up(&store).await.unwrap_err();
    assert!(matches!(refused, Error::Orphans(1)), "{refused}");
    assert!(!tables(&ground).await.contains("oauth_connections"));
    ground.execute("DELETE FROM connection_usage").await;
    assert_eq!(
        migrate::up(&store).await.unwrap(),
        [
            "0005_views",
            "0006_audit",
            "0007_oauth_clients",
            "0008_issuer",
            "0009_automation",
            "0010_automation_indexes",
            "0011_event_indexes"
        ]
    );
}
