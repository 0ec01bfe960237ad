//! Batches: all of it or nothing, counted exactly, finished once.

use super::*;
use crate::fixture::browser::Browser;

/// A job that is to have a connection of its account authorised.
pub(super) async fn linked(f: &Farm) -> pb::NewJob {
    let app = f.b.app().await;
    f.b.provider.sign_in_as(Account::named("ada"));
    pb::NewJob {
        account_id: f.account(&app, "ada").await.id,
        authorization: Some(pb::JobAuthorization::default()),
        ..job("connect")
    }
}

/// Claims as many jobs as failed before, each with another link, and completes them by their callbacks.
pub(super) async fn assert_new_links(f: &Farm, before: &[pb::ClaimedJob]) {
    let old: Vec<_> = before.iter().map(|it| &it.connect_url).collect();
    let again = f.claims(ask(10)).await;
    assert_eq!(again.len(), before.len());
    for claimed in again {
        assert!(!claimed.connect_url.is_empty());
        assert!(!old.contains(&&claimed.connect_url));
        Browser::new().follow_all(&claimed.connect_url).await;
        f.becomes(&job_of(&claimed).id, State::Completed).await;
    }
}

fn counts(batch: &pb::Batch) -> pb::JobCounts {
    batch.counts.unwrap()
}

async fn cancel(f: &Farm, id: &str) -> pb::Batch {
    let request = pb::CancelBatchRequest {
        batch_id: id.to_owned(),
    };
    f.jobs()
        .cancel_batch(request)
        .await
        .unwrap()
        .into_inner()
        .batch
        .unwrap()
}

async fn retry(f: &Farm, id: &str) -> pb::RetryBatchResponse {
    let request = pb::RetryBatchRequest {
        batch_id: id.to_owned(),
    };
    f.jobs().retry_batch(request).await.unwrap().into_inner()
}

/// How often a batch was told to be finished, up to an event of the kind `last`.
async fn finished(f: &Farm, id: &str) -> usize {
    // What comes behind it shows that nothing else comes before.
    let mark = f.create(job("mark")).await;
    let events = f.history(|event| event.job_id == mark.id).await;
    f.cancel(&mark.id).await.unwrap();
    let of_it = events
        .iter()
        .filter(|event| event.batch_id == id && event.r#type() == Told::BatchFinished);
    of_it.count()
}

on_both_engines! {
    async fn a_batch_is_counted_by_where_its_jobs_stand(engine: Engine) {
        let f = Farm::new(engine).await;
        let later = pb::NewJob { run_time: time(f.b.clock.now().plus(DAY)), ..job("later") };
        let made = f.batch("mixed", [jobs("connect", 7), vec![later]].concat()).await;
        assert_eq!((counts(&made).total, counts(&made).pending, counts(&made).scheduled), (8, 7, 1));
        assert_eq!((made.percent, made.finish_time, made.created_by.is_empty()), (0, None, false));
        let claimed = f.claims(ask(6)).await;
        f.complete(&claimed[0]).await.unwrap();
        f.complete(&claimed[1]).await.unwrap();
        f.fail(&claimed[2], true).await.unwrap();
        f.fail(&claimed[3], false).await.unwrap();
        f.snooze(&claimed[4], Some(HOUR)).await.unwrap();
        let now = f.batch_now("mixed").await;
        let expected = pb::JobCounts { total: 8, scheduled: 1, pending: 1, running: 1, retryable: 1, snoozed: 1, completed: 2, failed: 1, cancelled: 0 };
        assert_eq!((counts(&now), now.percent, now.finish_time), (expected, 37, None));
        let listed = f.jobs().list_batches(pb::ListBatchesRequest::default()).await.unwrap().into_inner();
        assert_eq!(listed.batches, [now]);
        let waiting = vec![State::Scheduled.into(), State::Pending.into()];
        assert_eq!(f.list(pb::ListJobsRequest { states: waiting, ..Default::default() }).await.len(), 2);
        f.finish().await;
    }

    async fn batches_are_listed_a_hundred_at_a_time(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("b", jobs("connect", 1)).await;
        let many =
            "INSERT INTO automation_batches (tenant, id, display_name, created_by, fingerprint, skipped, created_at)
             WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 101)
             SELECT tenant, id || i, display_name, created_by, fingerprint, skipped, created_at
             FROM automation_batches, n";
        f.b.ground.execute(many).await;
        let mut request = pb::ListBatchesRequest { page_size: 1_000, ..Default::default() };
        let first = f.jobs().list_batches(request.clone()).await.unwrap().into_inner();
        request.page_token.clone_from(&first.next_page_token);
        let last = f.jobs().list_batches(request).await.unwrap().into_inner();
        assert_eq!((first.batches.len(), last.batches.len(), last.next_page_token.as_str()), (100, 2, ""));
        let all: BTreeSet<_> = first.batches.into_iter().chain(last.batches).map(|it| it.id).collect();
        assert_eq!(all.len(), 102);
        f.finish().await;
    }

    async fn a_batch_is_finished_once(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("three", jobs("connect", 3)).await;
        let claimed = f.claims(ask(3)).await;
        f.complete(&claimed[0]).await.unwrap();
        f.fail(&claimed[1], true).await.unwrap();
        f.complete(&claimed[2]).await.unwrap();
        let done = f.batch_finishes("three").await;
        assert_eq!((done.percent, micros(done.finish_time)), (100, f.b.clock.now().micros()));
        assert_eq!(finished(&f, "three").await, 1);
        assert_eq!(f.list(pb::ListJobsRequest { batch_id: "three".to_owned(), ..Default::default() }).await.len(), 3);
        f.finish().await;
    }

    async fn the_same_batch_again_answers_the_same(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.batch("mine", jobs("connect", 4)).await;
        assert_eq!(f.batch("mine", jobs("connect", 4)).await, made);
        // However it is cut into messages.
        let parts = vec![
            pb::CreateBatchRequest { batch_id: "mine".to_owned(), jobs: jobs("connect", 1), ..Default::default() },
            pb::CreateBatchRequest { jobs: jobs("connect", 3), ..Default::default() },
        ];
        assert_eq!(f.stream_batch(parts).await.unwrap(), made);
        assert_eq!(f.list(pb::ListJobsRequest::default()).await.len(), 4);
        for another in [jobs("connect", 5), jobs("refresh", 4)] {
            assert_refused(f.try_batch("mine", another).await, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        let acme = f.b.caller_in("acme", Role::Operator, Constraints::default()).await;
        let theirs = pb::CreateBatchRequest { batch_id: "mine".to_owned(), jobs: jobs("connect", 1), ..Default::default() };
        acme.automation.clone().create_batch(tokio_stream::iter([theirs])).await.unwrap();
        f.finish().await;
    }

    async fn a_batch_without_a_name_is_given_one(engine: Engine) {
        let f = Farm::new(engine).await;
        let one = f.batch("", jobs("connect", 1)).await;
        let two = f.batch("", jobs("connect", 1)).await;
        assert!(one.id.starts_with("batch_") && one.id != two.id, "{one:?}");
        f.finish().await;
    }

    async fn one_bad_job_spoils_the_batch(engine: Engine) {
        let f = Farm::new(engine).await;
        let lost = pb::NewJob { profile: "nowhere".to_owned(), ..job("connect") };
        let refused = f.try_batch("bad", [jobs("connect", 3), vec![lost]].concat()).await;
        assert_refused(refused, Code::NotFound, "PROFILE_NOT_FOUND");
        let refused = f.try_batch("bad", [jobs("connect", 3), jobs("", 1)].concat()).await.unwrap_err();
        assert_eq!(violations(&refused), ["jobs[3].kind"]);
        let named_twice = vec![pb::CreateBatchRequest { batch_id: "bad".to_owned(), jobs: jobs("connect", 1), ..Default::default() }; 2];
        assert_eq!(violations(&f.stream_batch(named_twice).await.unwrap_err()), ["batch_id"]);
        let gone = pb::GetBatchRequest { batch_id: "bad".to_owned() };
        assert_refused(f.jobs().get_batch(gone).await, Code::NotFound, "BATCH_NOT_FOUND");
        assert!(f.list(pb::ListJobsRequest::default()).await.is_empty());
        f.batch("bad", jobs("connect", 1)).await;
        f.finish().await;
    }

    async fn a_batch_is_called_off(engine: Engine) {
        let f = Farm::new(engine).await;
        let later = pb::NewJob { run_time: time(f.b.clock.now().plus(DAY)), ..job("later") };
        f.batch("off", [jobs("connect", 4), vec![later]].concat()).await;
        let claimed = f.claims(ask(2)).await;
        f.complete(&claimed[0]).await.unwrap();
        let now = cancel(&f, "off").await;
        assert_eq!((counts(&now).cancelled, counts(&now).running, counts(&now).completed), (3, 1, 1));
        assert_eq!(micros(now.cancel_time), f.b.clock.now().micros());
        cancel(&f, "off").await;
        assert!(f.beat(&claimed[1]).await.unwrap().cancel);
        f.fail(&claimed[1], false).await.unwrap();
        assert_eq!(counts(&f.batch_finishes("off").await).cancelled, 4);
        f.finish().await;
    }

    async fn the_failed_jobs_of_a_batch_are_begun_again(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("again", jobs("connect", 3)).await;
        for (claimed, fails) in f.claims(ask(3)).await.iter().zip([true, false, true]) {
            if fails {
                f.fail(claimed, true).await.unwrap();
            } else {
                f.complete(claimed).await.unwrap();
            }
        }
        f.batch_finishes("again").await;
        let retried = retry(&f, "again").await;
        let batch = retried.batch.unwrap();
        assert_eq!((retried.retried_count, counts(&batch).pending, batch.finish_time), (2, 2, None));
        assert_eq!(retry(&f, "again").await.retried_count, 0);
        for claimed in f.claims(ask(3)).await {
            f.complete(&claimed).await.unwrap();
        }
        assert_eq!(counts(&f.batch_finishes("again").await).completed, 3);
        // Each end is told of.
        assert_eq!(finished(&f, "again").await, 2);
        f.finish().await;
    }

    async fn failed_jobs_are_begun_again_with_new_links(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        f.batch("links", vec![asked.clone(), asked, job("plain")]).await;
        f.fail(&f.claims(ask_for("plain")).await[0], true).await.unwrap();
        let before = f.claims(ask(2)).await;
        for claimed in &before {
            f.fail(claimed, true).await.unwrap();
        }
        let plain = f.b.caller(Role::Consumer, Constraints::default()).await;
        let request = pb::RetryBatchRequest { batch_id: "links".to_owned() };
        let refused = plain.automation.clone().retry_batch(request).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        assert_eq!(counts(&f.batch_now("links").await).failed, 3);
        assert_eq!(retry(&f, "links").await.retried_count, 3);
        assert_eq!(retry(&f, "links").await.retried_count, 0);
        assert_eq!((f.told("job.retried").await.len(), f.told("batch.retried").await.len()), (2, 1));
        f.complete(&f.claims(ask_for("plain")).await[0]).await.unwrap();
        assert_new_links(&f, &before).await;
        assert_eq!(counts(&f.batch_finishes("links").await).completed, 3);
        f.finish().await;
    }

    async fn a_batch_and_who_deletes_its_profile_do_not_both_succeed(engine: Engine) {
        let f = Farm::new(engine).await;
        for round in 0..8 {
            let name = format!("browser-{round}");
            let made = f.try_profile(profile(&name, "")).await.unwrap();
            let of_it = pb::NewJob { profile: name.clone(), ..job("connect") };
            let delete = pb::DeleteProfileRequest { profile_id: made.id, ..Default::default() };
            let mut client = f.jobs();
            let (asked, deleted) = tokio::join!(f.try_batch(&name, vec![of_it; 200]), client.delete_profile(delete));
            assert_ne!(asked.is_ok(), deleted.is_ok(), "{asked:?} {deleted:?}");
        }
        f.finish().await;
    }

    async fn thousands_of_jobs_come_in_one_call(engine: Engine) {
        let f = Farm::new(engine).await;
        let mut messages: Vec<_> = (0..6).map(|_| pb::CreateBatchRequest { jobs: jobs("connect", 500), ..Default::default() }).collect();
        messages[0].batch_id = "thousands".to_owned();
        messages[0].display_name = "Spring".to_owned();
        let made = f.stream_batch(messages).await.unwrap();
        assert_eq!((counts(&made).total, counts(&made).pending, made.display_name.as_str()), (3_000, 3_000, "Spring"));
        assert_eq!(f.claims(ask(100)).await.len(), 100);
        assert_eq!(counts(&f.batch_now("thousands").await).running, 100);
        assert_eq!(counts(&cancel(&f, "thousands").await).cancelled, 2_900);
        f.finish().await;
    }

    async fn more_than_a_batch_holds_is_refused(engine: Engine) {
        let f = Farm::new(engine).await;
        let messages = (0..21).map(|number| pb::CreateBatchRequest {
            batch_id: if number == 0 { "too-many".to_owned() } else { String::new() },
            jobs: jobs("connect", 1_000),
            ..Default::default()
        }).collect();
        let refused = f.stream_batch(messages).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert_eq!(violations(&refused), ["jobs"]);
        let linked = pb::NewJob { authorization: Some(pb::JobAuthorization::default()), ..job("connect") };
        let refused = f.try_batch("too-many", vec![linked; 1_001]).await.unwrap_err();
        assert_eq!(violations(&refused), ["jobs"]);
        assert!(f.list(pb::ListJobsRequest::default()).await.is_empty());
        f.finish().await;
    }

    async fn a_batch_in_which_nothing_is_left_is_finished(engine: Engine) {
        let f = Farm::new(engine).await;
        let keyed = pb::NewJob { unique_key: "one".to_owned(), ..job("connect") };
        f.create(keyed.clone()).await;
        f.batch("empty", vec![keyed]).await;
        let done = f.batch_finishes("empty").await;
        assert_eq!((counts(&done).total, done.skipped_count), (0, 1));
        f.finish().await;
    }
}
