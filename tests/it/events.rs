//! The stream of token events: nothing skipped, nothing twice, in order.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::join_all;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Streaming};

use crate::fixture::provider::Account;
use crate::fixture::*;
use crate::on_both_engines;

async fn watch(
    caller: &Caller,
    request: pb::WatchTokenEventsRequest,
) -> Result<Streaming<pb::WatchTokenEventsResponse>, tonic::Status> {
    let answer = caller.broker.clone().watch_token_events(request).await?;
    Ok(answer.into_inner())
}

fn from(cursor: &str) -> pb::WatchTokenEventsRequest {
    pb::WatchTokenEventsRequest {
        cursor: cursor.to_owned(),
        ..Default::default()
    }
}

/// The next event, with its cursor; heartbeats are passed over.
async fn next(
    stream: &mut Streaming<pb::WatchTokenEventsResponse>,
) -> Result<(String, pb::TokenEvent), tonic::Status> {
    let waiting = async {
        loop {
            let response = stream.message().await?.expect("the stream goes on");
            if let Some(event) = response.event {
                return Ok((response.cursor, event));
            }
        }
    };
    soon("the next event", waiting).await
}

/// Imports a connection with one label: the cheapest thing that makes an event.
async fn import(b: &Broker, app: &pb::App, owner: &str) -> pb::Connection {
    let issued = b.provider.issue_tokens(&["read"]);
    b.admin
        .broker
        .clone()
        .import_connection(pb::ImportConnectionRequest {
            app: app.id.clone(),
            owner: owner.to_owned(),
            account_id: format!("account-of-{}", owner.chars().take(200).collect::<String>()),
            credentials: Some(pb::import_connection_request::Credentials::Oauth2(
                pb::ImportedOAuth2 {
                    access_token: issued.access_token,
                    refresh_token: issued.refresh_token.unwrap_or_default(),
                    ..Default::default()
                },
            )),
            ..Default::default()
        })
        .await
        .unwrap()
        .into_inner()
        .connection
        .unwrap()
}

/// Changes a label: one event.
async fn touch(b: &Broker, connection_id: &str, value: usize) {
    let request = pb::UpdateConnectionRequest {
        connection: Some(pb::Connection {
            id: connection_id.to_owned(),
            labels: HashMap::from([("n".to_owned(), value.to_string())]),
            ..Default::default()
        }),
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["labels".to_owned()],
        }),
    };
    b.admin
        .broker
        .clone()
        .update_connection(request)
        .await
        .unwrap();
}

on_both_engines! {
    async fn a_watcher_sees_a_connections_life_in_order(engine: Engine) {
        let b = Broker::start(engine).await;
        let mut stream = watch(&b.admin, from("")).await.unwrap();
        let c = b.connected().await;
        b.clock.advance(Duration::from_secs(3600));
        let token = b.token(&c.id).await.unwrap();
        b.admin.broker.clone().delete_connection(pb::DeleteConnectionRequest {
            connection_id: c.id.clone(),
            ..Default::default()
        }).await.unwrap();
        use pb::TokenEventType::{Activated, Created, Deleted, Refreshed};
        for kind in [Created, Activated, Refreshed, Deleted] {
            let (_, event) = next(&mut stream).await.unwrap();
            assert_eq!((event.r#type(), &event.connection_id), (kind, &c.id));
            assert!(event.token.is_none());
        }
        drop(token);
        b.finish().await;
    }

    async fn a_stream_resumes_where_it_stopped(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let mut stream = watch(&b.admin, from("")).await.unwrap();
        let c = import(&b, &app, "owner-1").await;
        let (cursor, created) = next(&mut stream).await.unwrap();
        assert_eq!(created.r#type(), pb::TokenEventType::Created);
        drop(stream);
        for n in 0..3 {
            touch(&b, &c.id, n).await;
        }
        let mut stream = watch(&b.admin, from(&cursor)).await.unwrap();
        for _ in 0..3 {
            assert_eq!(next(&mut stream).await.unwrap().1.r#type(), pb::TokenEventType::Updated);
        }
        let mut all = watch(&b.admin, from("START")).await.unwrap();
        assert_eq!(next(&mut all).await.unwrap().1.id, created.id);
        b.finish().await;
    }

    async fn filters_choose_what_is_seen(engine: Engine) {
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let request = pb::WatchTokenEventsRequest {
            apps: vec![app.external_key.clone()],
            owners: vec!["wanted".to_owned()],
            types: vec![pb::TokenEventType::Updated.into()],
            ..Default::default()
        };
        let mut stream = watch(&b.admin, request).await.unwrap();
        let other = import(&b, &app, "other").await;
        touch(&b, &other.id, 1).await;
        let wanted = import(&b, &app, "wanted").await;
        touch(&b, &wanted.id, 1).await;
        let (_, event) = next(&mut stream).await.unwrap();
        assert_eq!((event.r#type(), event.connection_id), (pb::TokenEventType::Updated, wanted.id));
        b.finish().await;
    }

    async fn tokens_come_along_only_for_those_who_ask_and_may(engine: Engine) {
        let b = Broker::start(engine).await;
        let with_tokens = pb::WatchTokenEventsRequest { include_access_tokens: true, ..Default::default() };
        let operator = b.caller(Role::Operator, Constraints::default()).await;
        assert_refused(watch(&operator, with_tokens.clone()).await.map(drop), Code::PermissionDenied, "PERMISSION_DENIED");
        let mut stream = watch(&b.admin, with_tokens).await.unwrap();
        let app = b.app().await;
        let returned = b.consent(&b.authorize(&app, "owner-1").await.connect_url).await;
        let (_, created) = next(&mut stream).await.unwrap();
        assert!(created.token.is_none(), "a pending connection has no token to give");
        let c = b.confirm(&returned, "owner-1").await.unwrap();
        let (_, activated) = next(&mut stream).await.unwrap();
        let token = activated.token.unwrap();
        assert_eq!(token.access_token, b.token(&c.id).await.unwrap().access_token);
        b.clock.advance(Duration::from_secs(3600));
        b.token(&c.id).await.unwrap();
        let (_, refreshed) = next(&mut stream).await.unwrap();
        assert!(b.provider.is_access_token_valid(&refreshed.token.unwrap().access_token));
        b.finish().await;
    }

    async fn a_cursor_that_is_none_or_of_another_history_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        let other = Broker::start(engine).await;
        let mut elsewhere = watch(&other.admin, from("")).await.unwrap();
        let foreign = elsewhere.message().await.unwrap().unwrap().cursor;
        assert_refused(watch(&b.admin, from("nonsense!")).await.map(drop), Code::InvalidArgument, "INVALID_ARGUMENT");
        assert_refused(watch(&b.admin, from(&foreign)).await.map(drop), Code::OutOfRange, "CURSOR_OUT_OF_RANGE");
        drop(elsewhere);
        other.finish().await;
        b.finish().await;
    }

    async fn a_stream_ends_when_its_key_is_revoked(engine: Engine) {
        let b = Broker::start(engine).await;
        let key = b.key(Role::Consumer, Constraints::default()).await;
        let mut stream = watch(&b.caller_with(&key), from("")).await.unwrap();
        stream.message().await.unwrap().unwrap();
        let keys = b.running().keys();
        let id = keys.list(None).await.unwrap().last().unwrap().id.clone();
        keys.revoke(&id).await.unwrap();
        let ended = soon("the stream's end", async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        }).await;
        assert_refused(ended, Code::Unauthenticated, "CREDENTIALS_REVOKED");
        b.finish().await;
    }

    async fn heartbeats_carry_the_cursor(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.events.heartbeat_interval = Duration::from_millis(100);
        }).await;
        let app = b.app().await;
        let mut stream = watch(&b.admin, pb::WatchTokenEventsRequest {
            owners: vec!["nobody".to_owned()],
            ..Default::default()
        }).await.unwrap();
        let mut all = watch(&b.admin, from("")).await.unwrap();
        let c = import(&b, &app, "owner-1").await;
        // The app and the keys made events as well, which nobody is shown: the cursor passes them first.
        let (passed, _) = next(&mut all).await.unwrap();
        let beat = soon("the cursor passes what was filtered out", async {
            loop {
                let beat = stream.message().await.unwrap().unwrap().cursor;
                if beat == passed { return beat; }
            }
        }).await;
        touch(&b, &c.id, 1).await;
        let mut resumed = watch(&b.admin, from(&beat)).await.unwrap();
        assert_eq!(next(&mut resumed).await.unwrap().1.r#type(), pb::TokenEventType::Updated);
        b.finish().await;
    }

    async fn a_watcher_of_another_tenant_sees_nothing(engine: Engine) {
        let b = Broker::start_with(engine, |config| {
            config.events.heartbeat_interval = Duration::from_millis(100);
        }).await;
        let stranger = b.caller_in("elsewhere", Role::Admin, Constraints::default()).await;
        let mut stream = watch(&stranger, from("START")).await.unwrap();
        b.connected().await;
        for _ in 0..5 {
            assert!(stream.message().await.unwrap().unwrap().event.is_none());
        }
        b.finish().await;
    }

    async fn a_slow_watcher_is_told_to_resume(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.events.watcher_buffer = 2).await;
        let key = b.key(Role::Admin, Constraints::default()).await;
        let app = b.app().await;
        // A long name makes events of a kilobyte each.
        let c = import(&b, &app, &"\u{1d11e}".repeat(250)).await;
        let sluggish = caller_with_window(b.grpc_address(), &key, 65_535);
        let mut stream = watch(&sluggish, from("")).await.unwrap();
        stream.message().await.unwrap().unwrap();
        // More than the windows and buffers on the way hold, while nobody reads.
        for n in 0..400 {
            touch(&b, &c.id, n).await;
        }
        eventually("all is numbered", || async { b.events().await.len() == 401 }).await;
        // And more than the buffer before them. One by one: what is numbered at once has one place there.
        let mut brisk = watch(&b.admin, from("")).await.unwrap();
        brisk.message().await.unwrap().unwrap();
        for n in 0..4 {
            touch(&b, &c.id, n).await;
            next(&mut brisk).await.unwrap();
        }
        let ended = soon("the stream's end", async {
            loop {
                match stream.message().await {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        }).await;
        assert_refused(ended, Code::Aborted, "WATCHER_TOO_SLOW");
        b.finish().await;
    }

    async fn a_reconnecting_watcher_sees_every_event_once_and_in_order(engine: Engine) {
        const WRITERS: usize = 8;
        const EACH: usize = 40;
        let b = Broker::start(engine).await;
        let app = b.app().await;
        let mut connections = Vec::new();
        for n in 0..WRITERS {
            connections.push(import(&b, &app, &format!("owner-{n}")).await.id);
        }
        let last = Arc::new(OnceLock::new());
        let watching = {
            let (admin, last) = (b.admin.clone(), Arc::clone(&last));
            tokio::spawn(async move { watch_restlessly(&admin, &last).await })
        };
        let slow = b.ground.schema.as_ref().map(|schema| {
            // Writers that hold their transaction open: their numbers are drawn early, their rows
            // are seen late.
            (0..4).map(|n| held_open(schema.name.clone(), connections[n].clone())).collect::<Vec<_>>()
        });
        let slow = async { match slow { Some(all) => join_all(all).await.into_iter().sum(), None => 0 } };
        let writing = join_all(connections.iter().map(|id| async {
            for n in 0..EACH {
                touch(&b, id, n).await;
            }
        }));
        let (held, _): (usize, _) = tokio::join!(slow, writing);
        eventually("all are numbered", || async { numbered(&b).await >= WRITERS * (EACH + 1) + held }).await;
        let expected = all_events(&b).await;
        last.set(expected.last().unwrap().clone()).unwrap();
        let seen = soon("all that was written", watching).await.unwrap();
        assert_eq!(seen.len(), expected.len());
        assert_eq!(seen, expected, "the order in which it was numbered, each once");
        let mut last: HashMap<&str, usize> = HashMap::new();
        for (connection, _) in &seen {
            *last.entry(connection).or_default() += 1;
        }
        assert!(last.values().all(|count| *count > EACH));
        b.finish().await;
    }
}

/// Every event as the list has it: connection and id.
async fn all_events(b: &Broker) -> Vec<(String, String)> {
    let mut all = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = b
            .admin
            .broker
            .clone()
            .list_token_events(pb::ListTokenEventsRequest {
                page_size: 100,
                page_token,
                ..Default::default()
            })
            .await
            .unwrap()
            .into_inner();
        all.extend(
            page.events
                .into_iter()
                .map(|event| (event.connection_id, event.id)),
        );
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return all;
        }
    }
}

async fn numbered(b: &Broker) -> usize {
    all_events(b).await.len()
}

/// Watches from the start and hangs up at random, resuming from the last cursor, until it has seen
/// what it is told is the last, and nothing more comes.
async fn watch_restlessly(
    admin: &Caller,
    last: &OnceLock<(String, String)>,
) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    let mut cursor = "START".to_owned();
    loop {
        let finishing = last.get().is_some_and(|last| seen.contains(last));
        let mut stream = watch(admin, from(&cursor)).await.unwrap();
        let mut quota = fastrand::usize(1..40);
        let mut came = false;
        while quota > 0 {
            let waiting = tokio::time::timeout(Duration::from_millis(300), stream.message());
            let Ok(response) = waiting.await else { break };
            let response = response.unwrap().unwrap();
            cursor = response.cursor;
            if let Some(event) = response.event {
                seen.push((event.connection_id, event.id));
                came = true;
                quota -= 1;
            }
        }
        if finishing && !came {
            return seen;
        }
    }
}

/// Appends events by hand in transactions that stay open for a while, holding the connection's row
/// as the service does.
async fn held_open(schema: String, connection_id: String) -> usize {
    let mut count = 0;
    let client = postgres::connect().await;
    client
        .batch_execute(&format!("SET search_path = {schema}"))
        .await
        .unwrap();
    for _ in 0..5 {
        client
            .batch_execute(&format!(
                "BEGIN;
                 UPDATE connections SET id = id WHERE id = '{connection_id}';
                 INSERT INTO events (tenant, type, subject, connection_id, app_id, grant_id, owner, provider, generation, reason, created_at)
                 SELECT tenant, 'updated', id, id, app_id, grant_id, owner, provider, 1, 'held', now() FROM connections WHERE id = '{connection_id}'"
            ))
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        client.batch_execute("COMMIT").await.unwrap();
        count += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_server_reach_the_watchers_of_another() {
    let a = Broker::start(Engine::Postgres).await;
    let b = a.replica("b", |_| {}).await;
    let app = a.app().await;
    let mut stream = watch(&b.admin, from("")).await.unwrap();
    stream.message().await.unwrap().unwrap();
    a.provider.sign_in_as(Account::named("ada"));
    let c = a.connect(&app, "owner-1").await;
    let (_, event) = next(&mut stream).await.unwrap();
    assert_eq!(event.connection_id, c.id);
    b.finish().await;
    a.finish().await;
}
