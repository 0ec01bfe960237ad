//! Keys that no two jobs have, over states that are chosen.

use super::*;

fn keyed(states: &[State]) -> pb::NewJob {
    pb::NewJob {
        unique_key: "ada at example".to_owned(),
        unique_states: states.iter().map(|state| i32::from(*state)).collect(),
        ..job("connect")
    }
}

async fn assert_taken(f: &Farm, holder: &str) {
    let refused = f.try_create(keyed(&[])).await.map(drop).unwrap_err();
    let info = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
    assert_eq!(
        (refused.code(), info.reason.as_str()),
        (Code::AlreadyExists, "ALREADY_EXISTS")
    );
    assert_eq!(info.metadata["name"], "ada at example", "{info:?}");
    assert!(refused.message().contains(holder), "{refused:?}");
}

on_both_engines! {
    async fn an_unfinished_job_holds_its_key(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(keyed(&[])).await;
        assert_eq!(made.unique_key, "ada at example");
        assert_taken(&f, &made.id).await;
        let claimed = f.claim().await;
        assert_taken(&f, &made.id).await;
        f.fail(&claimed, false).await.unwrap();
        assert_taken(&f, &made.id).await;
        f.b.clock.advance(HOUR);
        f.complete(&f.next().await).await.unwrap();
        f.create(keyed(&[])).await;
        f.finish().await;
    }

    async fn a_finished_job_holds_its_key_in_the_states_that_were_chosen(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(keyed(&[State::Completed, State::Failed])).await;
        f.cancel(&made.id).await.unwrap();
        let made = f.create(keyed(&[State::Completed])).await;
        f.fail(&f.claim().await, true).await.unwrap();
        assert_eq!(f.job(&made.id).await.state(), State::Failed);
        let made = f.create(keyed(&[State::Completed])).await;
        f.complete(&f.claim().await).await.unwrap();
        assert_taken(&f, &made.id).await;
        let not_finished = keyed(&[State::Pending]);
        let refused = f.try_create(not_finished).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        f.finish().await;
    }

    async fn a_key_is_one_tenants(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(keyed(&[])).await;
        let acme = f.b.caller_in("acme", Role::Admin, Constraints::default()).await;
        let request = pb::CreateJobRequest { job: Some(keyed(&[])), ..Default::default() };
        acme.automation.clone().create_job(request).await.unwrap();
        f.finish().await;
    }

    async fn a_job_is_not_begun_again_while_another_has_its_key(engine: Engine) {
        let f = Farm::new(engine).await;
        let first = f.create(keyed(&[])).await;
        f.fail(&f.claim().await, true).await.unwrap();
        let second = f.create(keyed(&[])).await;
        assert_refused(f.retry(&first.id).await, Code::AlreadyExists, "ALREADY_EXISTS");
        let redriven = f.jobs().redrive_dead_letters(pb::RedriveDeadLettersRequest::default()).await.unwrap();
        assert_eq!(redriven.into_inner().redriven_count, 0);
        assert_eq!(f.job(&first.id).await.state(), State::Failed);
        f.cancel(&second.id).await.unwrap();
        f.retry(&first.id).await.unwrap();
        f.finish().await;
    }

    async fn of_many_who_ask_at_once_one_gets_the_key(engine: Engine) {
        let f = Farm::new(engine).await;
        let asking = (0..8).map(|_| f.try_create(keyed(&[])));
        let answers = futures_util::future::join_all(asking).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        for answer in answers.into_iter().filter(Result::is_err) {
            assert_refused(answer, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        f.finish().await;
    }

    async fn a_batch_leaves_out_jobs_whose_key_another_has(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(keyed(&[])).await;
        let fresh = pb::NewJob { unique_key: "grace at example".to_owned(), ..job("connect") };
        let made = f.batch("keys", vec![keyed(&[]), fresh.clone(), fresh, job("connect")]).await;
        assert_eq!((made.counts.unwrap().total, made.skipped_count), (2, 2));
        f.finish().await;
    }
}
