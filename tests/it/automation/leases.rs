//! Leases: who has a job, until when, and what becomes of one whose worker was lost.

use super::*;

/// What is left of a lease, as it is told.
fn left(duration: Option<prost_types::Duration>) -> Duration {
    duration.unwrap().try_into().unwrap()
}

on_both_engines! {
    async fn a_heartbeat_and_progress_renew_a_lease(engine: Engine) {
        // Nobody rescues the job meanwhile.
        let f = Farm::with(engine, |config| config.automation.scan_interval = 5 * MINUTE).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claims(pb::ClaimJobsRequest { lease: span(10 * MINUTE), ..ask(1) }).await.remove(0);
        assert_eq!(claimed.lease_duration, span(10 * MINUTE));
        let first = micros(claimed.lease_expire_time);
        f.lapse(&made.id).await;
        let beat = f.beat(&claimed).await.unwrap();
        assert!(micros(beat.lease_expire_time) >= first);
        assert!(!beat.cancel && (HOUR - MINUTE..=HOUR).contains(&left(beat.lease_duration)), "{beat:?}");
        f.lapse(&made.id).await;
        let told = f.report(&claimed, pb::ReportProgressRequest::default()).await.unwrap();
        assert!(micros(told.lease_expire_time) >= micros(beat.lease_expire_time));
        assert_eq!(f.job(&made.id).await.lease_expire_time, told.lease_expire_time);
        // Called off: not any more.
        f.cancel(&made.id).await.unwrap();
        let beat = f.beat(&claimed).await.unwrap();
        assert_eq!((beat.cancel, left(beat.lease_duration)), (true, Duration::ZERO));
        assert_eq!(f.job(&made.id).await.lease_expire_time, told.lease_expire_time);
        f.finish().await;
    }

    async fn a_heartbeat_tells_what_is_left_of_a_longer_lease(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.lease = MINUTE).await;
        f.create(job("connect")).await;
        let claimed = f.claims(pb::ClaimJobsRequest { lease: span(HOUR), ..ask(1) }).await.remove(0);
        let beat = f.beat(&claimed).await.unwrap();
        assert_eq!(beat.lease_expire_time, claimed.lease_expire_time);
        assert!((HOUR - 10 * MINUTE..=HOUR).contains(&left(beat.lease_duration)), "{beat:?}");
        f.finish().await;
    }

    async fn a_lost_workers_job_goes_to_another(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        let lost = f.claim().await;
        f.lapse(&made.id).await;
        let rescued = f.becomes(&made.id, State::Retryable).await;
        assert_eq!((rescued.failure_reason.as_str(), rescued.attempt), ("LEASE_LAPSED", 1));
        for answer in [f.beat(&lost).await.map(drop), f.complete(&lost).await.map(drop), f.fail(&lost, false).await.map(drop), f.snooze(&lost, None).await.map(drop)] {
            assert_refused(answer, REFUSED, "LEASE_LOST");
        }
        f.b.clock.advance(HOUR);
        let claimed = f.next().await;
        assert_eq!((&job_of(&claimed).id, job_of(&claimed).attempt), (&made.id, 2));
        assert!(claimed.lease_token > lost.lease_token);
        // The first worker wakes up.
        assert_refused(f.complete(&lost).await, REFUSED, "LEASE_LOST");
        assert_eq!(f.complete(&claimed).await.unwrap().state(), State::Completed);
        assert_refused(f.complete(&lost).await, REFUSED, "LEASE_LOST");
        f.finish().await;
    }

    async fn a_short_lease_ends_by_itself(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(pb::NewJob { max_attempts: 1, ..job("connect") }).await;
        let lost = f.claims(pb::ClaimJobsRequest { lease: span(3 * SECOND), ..ask(1) }).await.remove(0);
        let failed = f.becomes(&made.id, State::Failed).await;
        assert_eq!((failed.failure_reason.as_str(), failed.attempt), ("LEASE_LAPSED", 1));
        assert_refused(f.beat(&lost).await, REFUSED, "LEASE_LOST");
        assert_eq!(f.dead_letters().await, [failed]);
        f.finish().await;
    }

    async fn a_worker_that_is_late_has_its_job_while_nobody_else_does(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.scan_interval = 5 * MINUTE).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claim().await;
        f.lapse(&made.id).await;
        f.beat(&claimed).await.unwrap();
        f.lapse(&made.id).await;
        assert_eq!(f.complete(&claimed).await.unwrap().state(), State::Completed);
        f.finish().await;
    }

    async fn a_lost_workers_job_that_was_called_off_ends(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        f.claim().await;
        f.cancel(&made.id).await.unwrap();
        f.lapse(&made.id).await;
        f.becomes(&made.id, State::Cancelled).await;
        f.finish().await;
    }

    async fn a_lost_workers_profile_is_free_again(engine: Engine) {
        let f = Farm::new(engine).await;
        f.try_profile(profile("browser-1", "")).await.unwrap();
        let of = pb::NewJob { profile: "browser-1".to_owned(), ..job("connect") };
        let first = f.create(of.clone()).await;
        let second = f.create(of).await;
        assert_eq!(ids(&f.claims(ask(2)).await), std::slice::from_ref(&first.id));
        f.lapse(&first.id).await;
        assert_eq!(job_of(&f.next().await).id, second.id);
        f.finish().await;
    }
}
