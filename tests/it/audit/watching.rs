//! Watching the trail: each entry once, in order, for as long as the caller may.

use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb;
use tonic::{Code, Status, Streaming};

use super::*;

type Watching = Streaming<pb::WatchAuditEventsResponse>;

async fn watch(caller: &Caller, after: Option<i64>) -> Result<Watching, Status> {
    let request = pb::WatchAuditEventsRequest {
        after_position: after,
        action: "app.*".to_owned(),
    };
    let mut client = caller.administration.clone();
    Ok(client.watch_audit_events(request).await?.into_inner())
}

/// The next entry's thing and place; heartbeats are passed over.
async fn next(stream: &mut Watching) -> Result<(String, i64), Status> {
    let waiting = async {
        loop {
            let response = stream.message().await?.expect("the stream goes on");
            if let Some(event) = response.event {
                assert_eq!(event.position, response.position);
                return Ok((event.resource_id, response.position));
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .expect("an entry comes")
}

on_both_engines! {
    async fn a_watch_replays_follows_and_resumes(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one", "two", "three"]).await;
        let mut stream = watch(&b.admin, Some(0)).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().0, "one");
        let (thing, position) = next(&mut stream).await.unwrap();
        assert_eq!(thing, "two");
        drop(stream);
        let mut stream = watch(&b.admin, Some(position)).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().0, "three");
        beside.write(&b, &["four"]).await;
        assert_eq!(next(&mut stream).await.unwrap().0, "four");
        // From now on only.
        let mut stream = watch(&b.admin, None).await.unwrap();
        stream.message().await.unwrap().unwrap();
        beside.write(&b, &["five"]).await;
        assert_eq!(next(&mut stream).await.unwrap().0, "five");
        b.finish().await;
    }

    async fn a_watch_sees_its_own_tenant_only(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        let theirs = Entry::new(Action::AppUpdated, someone("other")).on("thing", "theirs");
        beside.record(&b, &theirs).await;
        beside.write(&b, &["one"]).await;
        let mut stream = watch(&b.admin, Some(0)).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().0, "one");
        b.finish().await;
    }

    async fn a_place_that_is_not_there_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        let beyond = watch(&b.admin, Some(1_000_000)).await.unwrap_err();
        assert_eq!(beyond.code(), Code::OutOfRange);
        let negative = watch(&b.admin, Some(-1)).await.unwrap_err();
        assert_eq!(violations(&negative), ["after_position"]);
        b.finish().await;
    }

    async fn what_retention_took_is_not_passed_over(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one", "two", "three"]).await;
        let mut stream = watch(&b.admin, Some(0)).await.unwrap();
        assert_eq!(next(&mut stream).await.unwrap().0, "one");
        // Behind wherever the watcher is.
        b.ground.execute("UPDATE audit_head SET trimmed = position + 1000").await;
        let ended = async {
            loop {
                if let Err(status) = next(&mut stream).await {
                    return status;
                }
            }
        };
        assert_eq!(ended.await.code(), Code::OutOfRange);
        let gone = watch(&b.admin, Some(1)).await.unwrap_err();
        assert_eq!(gone.code(), Code::OutOfRange);
        b.finish().await;
    }

    async fn a_revoked_key_stops_watching(engine: Engine) {
        let b = Broker::start(engine).await;
        let auditor = b.caller(Role::Auditor, Constraints::default()).await;
        let mut stream = watch(&auditor, None).await.unwrap();
        stream.message().await.unwrap().unwrap();
        let now = b.ground.word("1", "now()");
        let sql = format!("UPDATE api_keys SET revoked_at = {now} WHERE role = 'auditor'");
        b.ground.execute(&sql).await;
        let ended = tokio::time::timeout(PATIENCE, next(&mut stream));
        let status = ended.await.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated);
        b.finish().await;
    }

    async fn a_server_that_stops_ends_the_watch(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let mut stream = watch(&b.admin, None).await.unwrap();
        stream.message().await.unwrap().unwrap();
        let stopping = async { b.stop().await };
        let (ended, ()) = tokio::join!(next(&mut stream), stopping);
        assert_eq!(ended.unwrap_err().code(), Code::Unavailable);
        b.finish().await;
    }
}
