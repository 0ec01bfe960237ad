//! Bounds: what holds up nothing else, and how long what takes its time takes at most.

use std::time::Instant;

use super::*;

/// Thousands of jobs of another tenant, all more urgent than ours.
async fn crowd(f: &Farm, run_time: Option<prost_types::Timestamp>) {
    let theirs = pb::NewJob {
        run_time,
        priority: 1_000,
        ..job("theirs")
    };
    let message = pb::CreateBatchRequest {
        jobs: vec![theirs; 500],
        ..Default::default()
    };
    let acme = f.b.caller_in("acme", Role::Admin, Constraints::default());
    let mut acme = acme.await.automation;
    let made = acme.create_batch(tokio_stream::iter(vec![message; 6]));
    let made = made.await.unwrap().into_inner().batch.unwrap();
    assert_eq!(made.counts.unwrap().total, 3_000);
}

/// The external ids of the profiles of this mode.
async fn profiles_of(f: &Farm, mode: pb::ExecutionMode) -> Vec<String> {
    let request = pb::ListProfilesRequest {
        execution_mode: mode.into(),
        ..Default::default()
    };
    let listed = f.jobs().list_profiles(request).await.unwrap().into_inner();
    let profiles = listed.profiles.into_iter();
    profiles.map(|profile| profile.external_id).collect()
}

on_both_engines! {
    async fn a_job_whose_deadline_is_over_is_not_handed_out(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.scan_interval = 5 * MINUTE).await;
        let late = f.create(pb::NewJob { deadline: time(f.b.clock.now().plus(HOUR)), ..job("late") }).await;
        f.create(pb::NewJob { deadline: time(f.b.clock.now().plus(2 * HOUR)), ..job("in time") }).await;
        f.b.clock.advance(HOUR);
        assert_eq!(kinds(&f.claims(ask(1)).await), ["in time"]);
        f.assert_idle(&f.claims(ask(1)).await);
        // No scan has ended it.
        assert_eq!(f.job(&late.id).await.state(), State::Pending);
        f.finish().await;
    }

    async fn jobs_whose_profile_is_gone_hold_up_no_other(engine: Engine) {
        let f = Farm::new(engine).await;
        f.try_profile(profile("browser-1", "")).await.unwrap();
        let lost = pb::NewJob { profile: "browser-1".to_owned(), priority: 1, ..job("lost") };
        f.batch("lost", vec![lost; 20]).await;
        f.create(job("free")).await;
        f.b.ground.execute("DELETE FROM automation_profiles").await;
        assert_eq!(kinds(&f.claims(ask(1)).await), ["free"]);
        f.assert_idle(&f.claims(ask(1)).await);
        f.finish().await;
    }

    async fn a_batch_with_a_dead_letter_is_kept_for_the_longer_time(engine: Engine) {
        let f = Farm::with(engine, |config| {
            config.retention.sweep_interval = Duration::from_millis(50);
            config.retention.jobs = 3 * DAY;
            config.retention.dead_letters = DAY;
        })
        .await;
        f.batch("dead", jobs("connect", 2)).await;
        let claimed = f.claims(ask(2)).await;
        f.fail(&claimed[0], true).await.unwrap();
        f.complete(&claimed[1]).await.unwrap();
        f.batch_finishes("dead").await;
        // When the second is gone, a whole sweep has passed the batch by.
        for _ in 0..2 {
            f.create(job("single")).await;
            f.fail(&f.claim().await, true).await.unwrap();
            f.b.clock.advance(DAY + MINUTE);
            eventually("a dead letter goes", || async { f.dead_letters().await.len() == 1 }).await;
        }
        assert_eq!(f.batch_now("dead").await.counts.unwrap().total, 2);
        f.b.clock.advance(DAY);
        eventually("the batch goes", || async { f.is_batch_gone("dead").await }).await;
        f.finish().await;
    }

    async fn a_lost_workers_job_is_rescued_within_its_lease_and_a_scan(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        let lease = 3 * SECOND;
        let claimed = f.claims(pb::ClaimJobsRequest { lease: span(lease), ..ask(1) }).await;
        let since = Instant::now();
        assert_eq!(ids(&claimed), std::slice::from_ref(&made.id));
        let bound = lease + f.b.config.automation.scan_interval + 3 * SECOND;
        within("the job is taken from its worker", since, bound, || async { f.job(&made.id).await.state() == State::Retryable }).await;
        f.b.clock.advance(HOUR);
        let next = f.next().await;
        assert_eq!((&job_of(&next).id, job_of(&next).attempt), (&made.id, 2));
        f.finish().await;
    }

    async fn a_heartbeat_makes_no_lease_shorter(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.lease = MINUTE).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claims(pb::ClaimJobsRequest { lease: span(10 * MINUTE), ..ask(1) }).await.remove(0);
        let beat = f.beat(&claimed).await.unwrap();
        let told = f.report(&claimed, pb::ReportProgressRequest::default()).await.unwrap();
        let kept = f.job(&made.id).await;
        for until in [beat.lease_expire_time, told.lease_expire_time, kept.lease_expire_time] {
            assert!(micros(until) >= micros(claimed.lease_expire_time), "{until:?} {claimed:?}");
        }
        for left in [beat.lease_duration, told.lease_duration] {
            assert!(left.unwrap().seconds > 60);
        }
        f.finish().await;
    }

    async fn due_jobs_of_another_tenant_hold_up_none_of_ours(engine: Engine) {
        let f = Farm::new(engine).await;
        let run_time = time(f.b.clock.now().plus(HOUR));
        crowd(&f, run_time).await;
        f.create(pb::NewJob { run_time, ..job("ours") }).await;
        f.b.clock.advance(HOUR);
        let next = tokio::time::timeout(PATIENCE / 6, f.next()).await.unwrap();
        assert_eq!(job_of(&next).kind, "ours");
        f.finish().await;
    }

    async fn waiting_jobs_of_another_tenant_hold_up_none_of_ours(engine: Engine) {
        let f = Farm::new(engine).await;
        crowd(&f, None).await;
        f.create(job("ours")).await;
        assert_eq!(kinds(&f.claims(ask(1)).await), ["ours"]);
        f.assert_idle(&f.claims(ask(1)).await);
        f.finish().await;
    }

    async fn a_profiles_proxy_and_mode_are_told(engine: Engine) {
        use pb::ExecutionMode::{Cloud, Local, Unspecified};
        let f = Farm::new(engine).await;
        let proxied = pb::Profile { proxy_country: "DE".to_owned(), proxy_type: "residential".to_owned(), ..profile("cloud-1", "") };
        f.try_profile(proxied).await.unwrap();
        f.try_profile(pb::Profile { execution_mode: Local.into(), ..profile("local-1", "") }).await.unwrap();
        let found = f.profile_now("cloud-1").await;
        assert_eq!((found.proxy_country.as_str(), found.proxy_type.as_str()), ("DE", "residential"));
        f.create(pb::NewJob { profile: "cloud-1".to_owned(), ..job("connect") }).await;
        assert_eq!(f.claim().await.profile, Some(found));
        assert_eq!(profiles_of(&f, Cloud).await, ["cloud-1"]);
        assert_eq!(profiles_of(&f, Local).await, ["local-1"]);
        assert_eq!(profiles_of(&f, Unspecified).await, ["cloud-1", "local-1"]);
        f.finish().await;
    }
}

/// SQLite has one writer and locks no rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_somebody_has_locked_holds_up_no_claim() {
    let f = Farm::new(Engine::Postgres).await;
    let first = f.create(job("first")).await;
    f.create(job("second")).await;
    let mut other = f.b.ground.schema.as_ref().unwrap().connect().await;
    let held = other.transaction().await.unwrap();
    let lock = format!(
        "SELECT id FROM automation_jobs WHERE id = '{}' FOR UPDATE",
        first.id
    );
    held.batch_execute(&lock).await.unwrap();
    let claimed = tokio::time::timeout(2 * SECOND, f.claims(ask(1))).await;
    assert_eq!(kinds(&claimed.unwrap()), ["second"]);
    held.rollback().await.unwrap();
    assert_eq!(kinds(&f.claims(ask(1)).await), ["first"]);
    f.finish().await;
}
