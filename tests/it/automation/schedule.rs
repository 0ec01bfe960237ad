//! When: not before a job's time, and not behind its deadline. The clock is moved by hand.

use super::*;

on_both_engines! {
    async fn a_job_waits_for_its_time(engine: Engine) {
        let f = Farm::new(engine).await;
        let at = f.b.clock.now().plus(HOUR);
        let made = f.create(pb::NewJob { run_time: time(at), ..job("later") }).await;
        assert_eq!((made.state(), micros(made.run_time)), (State::Scheduled, at.micros()));
        f.b.clock.advance(HOUR - SECOND);
        // Another one's time has come, and been seen to.
        let now = f.create(pb::NewJob { run_time: time(f.b.clock.now()), ..job("now") }).await;
        assert_eq!(now.state(), State::Pending);
        assert_eq!(kinds(&f.claims(ask(5)).await), ["now"]);
        assert_eq!(f.job(&made.id).await.state(), State::Scheduled);
        f.b.clock.advance(SECOND);
        f.becomes(&made.id, State::Pending).await;
        assert_eq!(ids(&f.claims(ask(5)).await), [made.id]);
        f.finish().await;
    }

    async fn all_jobs_whose_time_has_come_are_seen_to_in_one_round(engine: Engine) {
        // By one job a step, and a few steps a round, it would take longer than anybody waits here.
        let f = Farm::with(engine, |config| {
            config.automation.batch = 1;
            config.automation.scan_interval = 3 * SECOND;
        }).await;
        let run_time = time(f.b.clock.now().plus(HOUR));
        f.batch("later", vec![pb::NewJob { run_time, ..job("later") }; 120]).await;
        f.b.clock.advance(HOUR);
        eventually("all wait for a worker", || async { f.batch_now("later").await.counts.unwrap().pending == 120 }).await;
        f.finish().await;
    }

    async fn a_job_whose_deadline_is_over_is_given_up(engine: Engine) {
        let f = Farm::new(engine).await;
        let deadline = time(f.b.clock.now().plus(HOUR));
        let waits = f.create(pb::NewJob { deadline, ..job("waits") }).await;
        let later = pb::NewJob { run_time: time(f.b.clock.now().plus(HOUR - SECOND)), deadline, ..job("later") };
        let later = f.create(later).await;
        f.b.clock.advance(HOUR);
        for id in [&waits.id, &later.id] {
            let failed = f.becomes(id, State::Failed).await;
            assert_eq!(failed.failure_reason, "DEADLINE_EXCEEDED");
            assert!(failed.finish_time.is_some());
        }
        f.assert_idle(&f.claims(ask(5)).await);
        let late = pb::NewJob { deadline, ..job("late") };
        let refused = f.try_create(late).await.map(drop).unwrap_err();
        assert_eq!(violations(&refused), ["job.deadline"], "{refused:?}");
        let (run_time, deadline) = (time(f.b.clock.now().plus(HOUR)), time(f.b.clock.now().plus(HOUR)));
        let never = pb::NewJob { run_time, deadline, ..job("never") };
        let refused = f.try_create(never.clone()).await.map(drop).unwrap_err();
        assert_eq!(violations(&refused), ["job.deadline"], "{refused:?}");
        let refused = f.try_batch("never", vec![job("connect"), never]).await.map(drop).unwrap_err();
        assert_eq!(violations(&refused), ["jobs[1].deadline"], "{refused:?}");
        f.finish().await;
    }

    async fn a_worker_is_told_that_the_deadline_is_over(engine: Engine) {
        let f = Farm::new(engine).await;
        let deadline = time(f.b.clock.now().plus(HOUR));
        for _ in 0..2 {
            f.create(pb::NewJob { deadline, ..job("connect") }).await;
        }
        let claimed = f.claims(ask(2)).await;
        f.b.clock.advance(HOUR);
        assert!(f.beat(&claimed[0]).await.unwrap().cancel);
        let failed = f.fail(&claimed[0], false).await.unwrap();
        assert_eq!((failed.state(), failed.failure_reason.as_str()), (State::Failed, "DEADLINE_EXCEEDED"));
        // What is done is done.
        assert_eq!(f.complete(&claimed[1]).await.unwrap().state(), State::Completed);
        f.finish().await;
    }

    async fn a_job_begun_again_has_no_deadline_that_is_over(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(pb::NewJob { deadline: time(f.b.clock.now().plus(HOUR)), ..job("connect") }).await;
        f.b.clock.advance(HOUR);
        f.becomes(&made.id, State::Failed).await;
        f.retry(&made.id).await.unwrap();
        let claimed = f.claim().await;
        assert!(!f.beat(&claimed).await.unwrap().cancel);
        assert_eq!(f.complete(&claimed).await.unwrap().state(), State::Completed);
        f.finish().await;
    }
}
