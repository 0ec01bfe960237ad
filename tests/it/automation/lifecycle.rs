//! From asked for to finished: every move that there is, and none besides.

use super::*;

fn page(step: &str, percent: i32) -> pb::ReportProgressRequest {
    pb::ReportProgressRequest {
        step: Some(step.to_owned()),
        percent: Some(percent),
        ..Default::default()
    }
}

/// Everything that only a job's own worker may say: refused.
async fn assert_lost(f: &Farm, claimed: &pb::ClaimedJob) {
    assert_refused(f.beat(claimed).await, REFUSED, "LEASE_LOST");
    assert_refused(
        f.report(claimed, page("late", 1)).await,
        REFUSED,
        "LEASE_LOST",
    );
    assert_refused(f.fail(claimed, false).await, REFUSED, "LEASE_LOST");
    assert_refused(f.snooze(claimed, None).await, REFUSED, "LEASE_LOST");
    assert_refused(f.credentials(claimed).await, REFUSED, "LEASE_LOST");
}

on_both_engines! {
    async fn a_job_is_asked_for_claimed_and_done(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = pb::NewJob { payload: Some(data(json!({ "site": "example", "tries": [1, 2] }))), ..job("connect") };
        let made = f.create(asked.clone()).await;
        assert!(made.id.starts_with("job_"), "{made:?}");
        assert_eq!((made.state(), made.attempt, made.payload.clone()), (State::Pending, 0, asked.payload));
        assert_eq!((made.max_attempts, made.worker.as_str(), made.lease_expire_time), (5, "", None));
        let claimed = f.claim().await;
        let running = job_of(&claimed);
        assert_eq!((running.state(), running.attempt, running.worker.as_str()), (State::Running, 1, "worker-1"));
        assert_eq!(running.lease_expire_time, claimed.lease_expire_time);
        assert!(claimed.lease_token > 0 && claimed.connect_url.is_empty());
        f.report(&claimed, page("login_form", 40)).await.unwrap();
        let more = pb::ReportProgressRequest { checkpoint: Some(data(json!({ "page": 2 }))), message: Some("on its way".to_owned()), ..Default::default() };
        f.report(&claimed, more).await.unwrap();
        let progress = f.job(&made.id).await.progress.unwrap();
        assert_eq!((progress.step.as_str(), progress.percent, progress.message.as_str()), ("login_form", 40, "on its way"));
        assert_eq!(progress.checkpoint, Some(data(json!({ "page": 2 }))));
        f.b.clock.advance(MINUTE);
        let result = Some(data(json!({ "ok": true })));
        let request = pb::CompleteJobRequest { job_id: made.id.clone(), lease_token: claimed.lease_token, result: result.clone(), ..Default::default() };
        let done = f.complete_with(request).await.unwrap();
        assert_eq!((done.state(), done.result.clone(), done.lease_expire_time), (State::Completed, result, None));
        assert_eq!(micros(done.finish_time), f.b.clock.now().micros());
        assert_eq!(f.job(&made.id).await, done);
        f.finish().await;
    }

    async fn a_token_can_not_be_guessed(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("many", jobs("connect", 20)).await;
        let tokens: BTreeSet<i64> = f.claims(ask(20)).await.iter().map(|it| it.lease_token).collect();
        assert_eq!(tokens.len(), 20);
        // Each is one of so many that all twenty are small, or one too large for JSON, by no accident.
        assert!(tokens.iter().all(|token| (1..=1 << 47).contains(token)), "{tokens:?}");
        assert!(tokens.iter().any(|token| *token > 1 << 40), "{tokens:?}");
        f.finish().await;
    }

    async fn what_is_finished_takes_no_further_move(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claim().await;
        let done = f.complete(&claimed).await.unwrap();
        // Completing twice is no error, and changes nothing.
        f.b.clock.advance(MINUTE);
        assert_eq!(f.complete(&claimed).await.unwrap(), done);
        let mut another = claimed.clone();
        another.lease_token += 1;
        assert_refused(f.complete(&another).await, REFUSED, "LEASE_LOST");
        assert_lost(&f, &claimed).await;
        assert_refused(f.cancel(&made.id).await, REFUSED, "JOB_STATE");
        assert_refused(f.retry(&made.id).await, REFUSED, "JOB_STATE");
        assert_eq!(f.job(&made.id).await, done);
        f.finish().await;
    }

    async fn what_waits_or_runs_is_not_begun_again(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        assert_refused(f.retry(&made.id).await, REFUSED, "JOB_STATE");
        f.claim().await;
        assert_refused(f.retry(&made.id).await, REFUSED, "JOB_STATE");
        f.finish().await;
    }

    async fn a_job_that_waits_is_called_off_at_once(engine: Engine) {
        let f = Farm::new(engine).await;
        let later = pb::NewJob { run_time: time(f.b.clock.now().plus(HOUR)), ..job("later") };
        for asked in [job("now"), later] {
            let made = f.create(asked).await;
            let called_off = f.cancel(&made.id).await.unwrap();
            assert_eq!(called_off.state(), State::Cancelled);
            assert!(called_off.finish_time.is_some());
            assert_eq!(f.cancel(&made.id).await.unwrap(), called_off);
            f.assert_idle(&f.claims(ask(1)).await);
        }
        f.finish().await;
    }

    async fn the_worker_of_a_job_that_is_called_off_is_told(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claim().await;
        assert!(!f.beat(&claimed).await.unwrap().cancel);
        let asked = f.cancel(&made.id).await.unwrap();
        assert_eq!((asked.state(), micros(asked.cancel_request_time)), (State::Running, f.b.clock.now().micros()));
        f.cancel(&made.id).await.unwrap();
        assert!(f.beat(&claimed).await.unwrap().cancel);
        assert!(f.report(&claimed, page("halfway", 50)).await.unwrap().cancel);
        let ended = f.fail(&claimed, false).await.unwrap();
        assert_eq!(ended.state(), State::Cancelled);
        assert_eq!(f.retry(&made.id).await.unwrap().job.unwrap().state(), State::Pending);
        f.finish().await;
    }

    async fn a_job_that_was_called_off_may_still_be_done(engine: Engine) {
        let f = Farm::new(engine).await;
        for _ in 0..2 {
            f.create(job("connect")).await;
        }
        let claimed = f.claims(ask(2)).await;
        for it in &claimed {
            f.cancel(&job_of(it).id).await.unwrap();
        }
        assert_eq!(f.complete(&claimed[0]).await.unwrap().state(), State::Completed);
        // Handing it back does not bring it back.
        assert_eq!(f.snooze(&claimed[1], None).await.unwrap().state(), State::Cancelled);
        f.finish().await;
    }

    async fn a_job_begun_again_has_all_its_attempts_and_its_progress(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(pb::NewJob { max_attempts: 1, ..job("connect") }).await;
        let claimed = f.claim().await;
        f.report(&claimed, page("login_form", 40)).await.unwrap();
        let failed = f.fail(&claimed, false).await.unwrap();
        assert_eq!((failed.state(), failed.failure_reason.as_str()), (State::Failed, "NO_SUCH_PAGE"));
        let again = f.retry(&made.id).await.unwrap().job.unwrap();
        assert_eq!((again.state(), again.attempt, again.finish_time), (State::Pending, 0, None));
        assert_eq!(again.progress.unwrap().step, "login_form");
        let reclaimed = f.claim().await;
        assert_eq!(job_of(&reclaimed).attempt, 1);
        assert!(reclaimed.lease_token > claimed.lease_token);
        assert_lost(&f, &claimed).await;
        f.complete(&reclaimed).await.unwrap();
        f.finish().await;
    }

    async fn an_unknown_job_is_not_found(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("connect")).await;
        let mut claimed = f.claim().await;
        let id = tokenbroker::model::IdKind::Job.new_id();
        claimed.job.as_mut().unwrap().id.clone_from(&id);
        assert_refused(f.beat(&claimed).await, Code::NotFound, "JOB_NOT_FOUND");
        assert_refused(f.complete(&claimed).await, Code::NotFound, "JOB_NOT_FOUND");
        assert_refused(f.credentials(&claimed).await, Code::NotFound, "JOB_NOT_FOUND");
        assert_refused(f.cancel(&id).await, Code::NotFound, "JOB_NOT_FOUND");
        assert_refused(f.retry(&id).await, Code::NotFound, "JOB_NOT_FOUND");
        f.finish().await;
    }

    async fn a_retried_request_asks_for_one_job(engine: Engine) {
        let f = Farm::new(engine).await;
        let request = pb::CreateJobRequest { job: Some(job("connect")), request_id: "0193c5a0-0000-7000-8000-000000000002".to_owned() };
        let made = f.jobs().create_job(request.clone()).await.unwrap().into_inner().job.unwrap();
        let again = f.jobs().create_job(request.clone()).await.unwrap().into_inner().job.unwrap();
        assert_eq!(again.id, made.id);
        assert_eq!(f.list(pb::ListJobsRequest::default()).await.len(), 1);
        let other = pb::CreateJobRequest { job: Some(job("other")), ..request };
        f.jobs().create_job(other).await.map(drop).unwrap_err();
        f.finish().await;
    }

    async fn jobs_are_listed_by_where_they_stand(engine: Engine) {
        let f = Farm::new(engine).await;
        for _ in 0..3 {
            f.create(job("connect")).await;
        }
        let other = f.create(job("other")).await;
        let claimed = f.claim().await;
        let running = pb::ListJobsRequest { states: vec![State::Running.into(), State::Failed.into()], ..Default::default() };
        let running = f.list(running).await;
        assert_eq!(running.iter().map(|it| &it.id).collect::<Vec<_>>(), [&job_of(&claimed).id]);
        let of_kind = f.list(pb::ListJobsRequest { kind: "other".to_owned(), ..Default::default() }).await;
        assert_eq!(of_kind.len(), 1);
        assert_eq!(of_kind[0].id, other.id);
        let two = pb::ListJobsRequest { page_size: 2, ..Default::default() };
        assert_eq!(f.list(two).await.len(), 2);
        f.finish().await;
    }
}
