//! Links of batches and of attempts: each is good for as long as its job may come to its end, and no
//! longer.

use super::batches::linked;
use super::*;
use crate::fixture::browser::Browser;
use pb::AuthorizationState::{Expired, Pending};

/// Where an authorisation stands.
async fn state(f: &Farm, authorization_id: String) -> pb::AuthorizationState {
    let request = pb::GetAuthorizationRequest { authorization_id };
    let mut broker = f.b.admin.broker.clone();
    let found = broker.get_authorization(request).await.unwrap();
    found.into_inner().authorization.unwrap().state()
}

/// Where all authorisations stand, those that still wait for consent first.
async fn states(f: &Farm) -> Vec<pb::AuthorizationState> {
    let sql = "SELECT id AS line FROM authorizations";
    let mut states = Vec::new();
    for authorization_id in f.b.ground.lines(sql).await {
        states.push(state(f, authorization_id).await);
    }
    states.sort_unstable();
    states
}

/// That so many authorisations wait for consent, each of them a job's, and that all others were called
/// off.
async fn assert_live(f: &Farm, live: usize) {
    let states = states(f).await;
    let (waiting, ended) = states.split_at(live);
    assert!(waiting.iter().all(|it| *it == Pending), "{states:?}");
    assert!(ended.iter().all(|it| *it == Expired), "{states:?}");
    let jobs = f.list(pb::ListJobsRequest::default()).await.into_iter();
    let with_link = jobs.filter(|job| !job.authorization_id.is_empty());
    let ids: BTreeSet<_> = with_link.map(|job| job.authorization_id).collect();
    assert_eq!(ids.len(), live);
    for id in ids {
        assert_eq!(state(f, id).await, Pending);
    }
}

on_both_engines! {
    async fn a_batch_that_is_refused_calls_its_links_off(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        let nobodys = tokenbroker::model::IdKind::Account.new_id();
        // With a link it is refused before the batch is made, without one when it is.
        let lost = pb::NewJob { account_id: nobodys, ..asked.clone() };
        let bare = pb::NewJob { authorization: None, ..lost.clone() };
        for (last, called_off) in [(lost, 2), (bare, 4)] {
            let refused = f.try_batch("bad", vec![asked.clone(), asked.clone(), last]).await;
            assert_refused(refused, Code::NotFound, "ACCOUNT_NOT_FOUND");
            assert_eq!(states(&f).await, vec![Expired; called_off]);
        }
        assert!(f.list(pb::ListJobsRequest::default()).await.is_empty());
        f.batch("bad", vec![asked]).await;
        assert_live(&f, 1).await;
        f.finish().await;
    }

    async fn a_batch_whose_id_another_has_leaves_no_link(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        f.batch("taken", jobs("connect", 1)).await;
        let refused = f.try_batch("taken", vec![asked.clone(); 2]).await;
        assert_refused(refused, Code::AlreadyExists, "ALREADY_EXISTS");
        assert!(states(&f).await.is_empty());
        // Neither does one of two that are under way at once.
        let (two, three) = tokio::join!(f.try_batch("race", vec![asked.clone(); 2]), f.try_batch("race", vec![asked; 3]));
        let (live, refused) = if two.is_ok() { (2, three) } else { (3, two) };
        assert_refused(refused, Code::AlreadyExists, "ALREADY_EXISTS");
        assert_live(&f, live).await;
        f.finish().await;
    }

    async fn a_job_that_is_left_out_leaves_no_link(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        let keyed = |key: &str| pb::NewJob { unique_key: key.to_owned(), ..asked.clone() };
        f.create(pb::NewJob { authorization: None, ..keyed("taken") }).await;
        let made = f.batch("keys", vec![keyed("taken"), keyed("free"), keyed("free")]).await;
        assert_eq!((made.counts.unwrap().total, made.skipped_count), (1, 2));
        assert_live(&f, 1).await;
        f.finish().await;
    }

    async fn batches_that_race_for_keys_leave_no_link(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        let keyed = |key: &str| pb::NewJob { unique_key: key.to_owned(), ..asked.clone() };
        let four = ["a", "b", "c", "d"].map(keyed).to_vec();
        let (one, two) = tokio::join!(f.batch("one", four.clone()), f.batch("two", four));
        assert_eq!(one.counts.unwrap().total + two.counts.unwrap().total, 4);
        assert_eq!(one.skipped_count + two.skipped_count, 4);
        assert_live(&f, 4).await;
        f.finish().await;
    }

    async fn the_same_batch_again_has_the_same_links(engine: Engine) {
        let f = Farm::new(engine).await;
        let two = vec![linked(&f).await; 2];
        let made = f.batch("mine", two.clone()).await;
        assert_eq!(f.batch("mine", two.clone()).await, made);
        assert_eq!(states(&f).await, [Pending; 2]);
        // What is asked for twice at once is made once.
        let (one, other) = tokio::join!(f.batch("race", two.clone()), f.batch("race", two));
        assert_eq!(one, other);
        assert_live(&f, 4).await;
        f.finish().await;
    }

    async fn a_batch_that_is_called_off_calls_its_links_off(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("off", vec![linked(&f).await; 3]).await;
        let claimed = f.claims(ask(2)).await;
        f.snooze(&claimed[0], None).await.unwrap();
        let request = pb::CancelBatchRequest { batch_id: "off".to_owned() };
        f.jobs().cancel_batch(request).await.unwrap();
        assert_eq!(states(&f).await, [Pending, Expired, Expired]);
        assert_eq!(Browser::new().get(&claimed[0].connect_url).await.status, 410);
        // Who is at one may still come to its end.
        let page = Browser::new().follow_all(&claimed[1].connect_url).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let counts = f.batch_finishes("off").await.counts.unwrap();
        assert_eq!((counts.completed, counts.cancelled), (1, 2));
        f.finish().await;
    }

    async fn a_link_that_was_opened_is_good_for_the_next_attempt(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.try_create(linked(&f).await).await.unwrap();
        let job = made.job.unwrap();
        for (attempt, lapses) in [(1, false), (2, true)] {
            let claimed = f.next().await;
            assert_eq!((job_of(&claimed).attempt, &claimed.connect_url), (attempt, &made.connect_url));
            let page = Browser::new().get(&claimed.connect_url).await;
            assert!(page.location_query("state").is_some(), "{} {}", page.status, page.body);
            if lapses {
                f.lapse(&job.id).await;
            } else {
                f.fail(&claimed, false).await.unwrap();
            }
            f.becomes(&job.id, State::Retryable).await;
            f.b.clock.advance(10 * MINUTE);
        }
        let claimed = f.next().await;
        assert_eq!(claimed.connect_url, made.connect_url);
        Browser::new().follow_all(&claimed.connect_url).await;
        assert_eq!(f.becomes(&job.id, State::Completed).await.attempt, 3);
        f.finish().await;
    }

    async fn links_of_batches_and_of_jobs_begun_again_need_their_own_permission(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        let job = f.create(asked.clone()).await;
        f.cancel(&job.id).await.unwrap();
        let batch = || tokio_stream::iter([pb::CreateBatchRequest { jobs: vec![asked.clone()], ..Default::default() }]);
        let again = || pb::RetryJobRequest { job_id: job.id.clone() };
        let mut plain = f.b.caller(Role::Consumer, Constraints::default()).await.automation;
        let of_batch = plain.create_batch(batch()).await.map(drop).unwrap_err();
        let of_retry = plain.retry_job(again()).await.map(drop).unwrap_err();
        for refused in [of_batch, of_retry] {
            let info = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
            assert_eq!((refused.code(), info.metadata["permission"].as_str()), (Code::PermissionDenied, "authorizations.link_only"));
        }
        assert_eq!(f.list(pb::ListJobsRequest::default()).await, [f.job(&job.id).await]);
        assert_eq!(states(&f).await, [Expired]);
        let widened = Constraints { link_only: true, ..Default::default() };
        let mut widened = f.b.caller(Role::Consumer, widened).await.automation;
        widened.create_batch(batch()).await.unwrap();
        let retried = widened.retry_job(again()).await.unwrap().into_inner();
        leaks::Secrets::register_as("ticket of a job", retried.connect_url.rsplit('/').next().unwrap());
        assert_live(&f, 2).await;
        f.finish().await;
    }
}
