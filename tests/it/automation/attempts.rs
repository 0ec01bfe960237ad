//! Attempts: how many, how far apart, and which do not count.

use super::*;

/// How long from now a job is to wait, in microseconds.
fn pause(f: &Farm, job: &pb::Job) -> i64 {
    micros(job.run_time) - f.b.clock.now().micros()
}

on_both_engines! {
    async fn the_waits_between_attempts_double_up_to_the_longest(engine: Engine) {
        let f = Farm::with(engine, |config| {
            config.automation.backoff_initial = MINUTE;
            config.automation.backoff_max = 3 * MINUTE;
        }).await;
        let made = f.create(pb::NewJob { max_attempts: 5, ..job("connect") }).await;
        for (attempt, minutes) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
            let claimed = f.next().await;
            let failed = f.fail(&claimed, false).await.unwrap();
            assert_eq!((failed.state(), failed.attempt), (State::Retryable, attempt));
            assert_eq!((failed.failure_reason.as_str(), failed.failure_message.as_str()), ("NO_SUCH_PAGE", "the page was not there"));
            let wait = minutes * 60_000_000;
            assert!((wait * 9 / 10 - 1..=wait * 11 / 10 + 1).contains(&pause(&f, &failed)), "{attempt}: {}", pause(&f, &failed));
            f.b.clock.advance(Duration::from_micros(pause(&f, &failed).unsigned_abs()));
        }
        let failed = f.fail(&f.next().await, false).await.unwrap();
        assert_eq!((failed.state(), failed.attempt), (State::Failed, 5));
        assert_eq!(f.dead_letters().await, [f.job(&made.id).await]);
        f.finish().await;
    }

    async fn the_waits_of_many_jobs_differ(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("many", jobs("connect", 20)).await;
        let mut waits = BTreeSet::new();
        for claimed in f.claims(ask(20)).await {
            waits.insert(pause(&f, &f.fail(&claimed, false).await.unwrap()));
        }
        assert!(waits.len() > 10, "{waits:?}");
        f.finish().await;
    }

    async fn a_worker_may_say_how_long_to_wait_or_that_it_is_of_no_use(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claim().await;
        let request = pb::FailJobRequest {
            job_id: made.id.clone(),
            lease_token: claimed.lease_token,
            reason: "RATE_LIMITED".to_owned(),
            retry_delay: span(DAY),
            ..Default::default()
        };
        let failed = f.fail_with(request).await.unwrap();
        assert_eq!((failed.state(), pause(&f, &failed)), (State::Retryable, 24 * 3_600 * 1_000_000));
        f.b.clock.advance(DAY);
        let failed = f.fail(&f.next().await, true).await.unwrap();
        assert_eq!((failed.state(), failed.attempt), (State::Failed, 2));
        f.finish().await;
    }

    async fn a_job_handed_back_for_later_spends_no_attempt(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(pb::NewJob { max_attempts: 1, ..job("connect") }).await;
        for _ in 0..3 {
            let claimed = f.next().await;
            assert_eq!(job_of(&claimed).attempt, 1);
            let snoozed = f.snooze(&claimed, Some(HOUR)).await.unwrap();
            assert_eq!((snoozed.state(), snoozed.attempt), (State::Snoozed, 0));
            assert_eq!(pause(&f, &snoozed), 3_600_000_000);
            f.assert_idle(&f.claims(ask(1)).await);
            f.b.clock.advance(HOUR);
        }
        // A worker that stops hands back at once.
        let claimed = f.next().await;
        let back = f.snooze(&claimed, None).await.unwrap();
        assert_eq!((back.state(), back.attempt), (State::Pending, 0));
        assert_refused(f.complete(&claimed).await, REFUSED, "LEASE_LOST");
        let last = f.claim().await;
        assert_eq!((&job_of(&last).id, job_of(&last).attempt), (&made.id, 1));
        f.complete(&last).await.unwrap();
        f.finish().await;
    }

    async fn what_was_reached_is_there_for_the_next_attempt(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("connect")).await;
        let claimed = f.claim().await;
        let reached = pb::ReportProgressRequest { checkpoint: Some(data(json!({ "page": 3 }))), step: Some("consent".to_owned()), ..Default::default() };
        f.report(&claimed, reached).await.unwrap();
        f.fail(&claimed, false).await.unwrap();
        f.b.clock.advance(HOUR);
        let progress = job_of(&f.next().await).progress.clone().unwrap();
        assert_eq!((progress.step.as_str(), progress.checkpoint), ("consent", Some(data(json!({ "page": 3 })))));
        f.finish().await;
    }
}
