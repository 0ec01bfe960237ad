//! Claims: which jobs, for whom, and how long a worker waits for some.

use super::*;

fn waiting(max_jobs: i32) -> pb::ClaimJobsRequest {
    pb::ClaimJobsRequest {
        wait: span(MINUTE),
        ..ask(max_jobs)
    }
}

/// An account of its own at a provider, and a job of it.
async fn job_at(f: &Farm, provider: &str, username: &str) -> pb::Job {
    let account = pb::Account {
        provider: provider.to_owned(),
        username: username.to_owned(),
        ..Default::default()
    };
    let account_id = f.try_account(account).await.unwrap().id;
    f.create(pb::NewJob {
        account_id,
        ..job(provider)
    })
    .await
}

on_both_engines! {
    async fn what_is_urgent_goes_first_and_then_what_is_older(engine: Engine) {
        let f = Farm::new(engine).await;
        for (kind, priority) in [("low", -5), ("plain", 0), ("urgent", 9), ("plain too", 0), ("urgent too", 9)] {
            f.create(pb::NewJob { priority, ..job(kind) }).await;
        }
        let claimed = f.claims(ask(3)).await;
        assert_eq!(kinds(&claimed), ["urgent", "urgent too", "plain"]);
        assert_eq!(kinds(&f.claims(ask(10)).await), ["plain too", "low"]);
        f.finish().await;
    }

    async fn a_worker_is_given_the_kinds_that_it_asks_for(engine: Engine) {
        let f = Farm::new(engine).await;
        for kind in ["connect", "refresh", "check"] {
            f.create(job(kind)).await;
        }
        let two = pb::ClaimJobsRequest { kinds: vec!["check".to_owned(), "refresh".to_owned()], ..ask(10) };
        assert_eq!(kinds(&f.claims(two.clone()).await), ["refresh", "check"]);
        f.assert_idle(&f.claims(two).await);
        f.assert_idle(&f.claims(ask_for("nothing")).await);
        assert_eq!(kinds(&f.claims(ask(10)).await), ["connect"]);
        f.finish().await;
    }

    async fn a_worker_is_given_what_may_run_where_it_is(engine: Engine) {
        use pb::ExecutionMode::{Cloud, Local, Unspecified};
        let f = Farm::new(engine).await;
        for (kind, mode) in [("anywhere", Unspecified), ("cloud", Cloud), ("local", Local), ("cloud too", Cloud)] {
            f.create(pb::NewJob { execution_mode: mode.into(), ..job(kind) }).await;
        }
        let at = |mode: pb::ExecutionMode, most| pb::ClaimJobsRequest { execution_mode: mode.into(), ..ask(most) };
        assert_eq!(kinds(&f.claims(at(Local, 10)).await), ["anywhere", "local"]);
        assert_eq!(kinds(&f.claims(at(Cloud, 1)).await), ["cloud"]);
        f.assert_idle(&f.claims(at(Local, 10)).await);
        assert_eq!(kinds(&f.claims(at(Unspecified, 10)).await), ["cloud too"]);
        f.finish().await;
    }

    async fn a_provider_has_no_more_running_jobs_than_it_may(engine: Engine) {
        let f = Farm::with(engine, |config| {
            config.automation.max_running_per_provider = 2;
            config.automation.provider_limits.insert("github".to_owned(), 1);
        }).await;
        for number in 0..4 {
            job_at(&f, "github", &format!("hub-{number}")).await;
            job_at(&f, "google", &format!("gle-{number}")).await;
        }
        f.create(job("of no provider")).await;
        let claimed = f.claims(ask(10)).await;
        let mut got = kinds(&claimed);
        got.sort_unstable();
        assert_eq!(got, ["github", "google", "google", "of no provider"]);
        f.assert_idle(&f.claims(ask(10)).await);
        let hub = claimed.iter().find(|it| job_of(it).kind == "github").unwrap();
        f.fail(hub, true).await.unwrap();
        assert_eq!(kinds(&f.claims(ask(10)).await), ["github"]);
        f.finish().await;
    }

    async fn many_workers_at_once_keep_to_a_providers_limit(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.max_running_per_provider = 3).await;
        for number in 0..12 {
            job_at(&f, "github", &format!("hub-{number}")).await;
        }
        let claims = (0..6).map(|_| f.claims(ask(2)));
        let claimed = futures_util::future::join_all(claims).await.concat();
        assert!(claimed.len() <= 3, "{}", claimed.len());
        // Those who met each other may have left some: who comes now gets them.
        let more = f.claims(ask(10)).await;
        assert_eq!(claimed.len() + more.len(), 3);
        f.finish().await;
    }

    async fn no_job_is_handed_out_twice(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("many", jobs("connect", 60)).await;
        let worker = || async {
            let mut got = Vec::new();
            loop {
                let claimed = f.claims(ask(7)).await;
                if claimed.is_empty() {
                    return got;
                }
                got.extend(ids(&claimed));
            }
        };
        let workers = (0..4).map(|_| worker());
        let mut got = futures_util::future::join_all(workers).await.concat();
        got.extend(ids(&f.claims(ask(100)).await));
        let different: BTreeSet<_> = got.iter().collect();
        assert_eq!((got.len(), different.len()), (60, 60));
        f.finish().await;
    }

    async fn a_worker_that_waits_gets_the_job_that_comes(engine: Engine) {
        let f = Farm::new(engine).await;
        let mut more = f.jobs();
        let waits = tokio::spawn(async move { more.claim_jobs(waiting(5)).await });
        let made = f.create(job("connect")).await;
        let claimed = soon("the job", waits).await.unwrap().unwrap().into_inner().jobs;
        assert_eq!(ids(&claimed), [made.id]);
        f.finish().await;
    }

    async fn a_worker_that_waits_gets_what_becomes_due(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(pb::NewJob { run_time: time(f.b.clock.now().plus(HOUR)), ..job("later") }).await;
        let mut more = f.jobs();
        let waits = tokio::spawn(async move { more.claim_jobs(waiting(1)).await });
        f.b.clock.advance(HOUR);
        let claimed = soon("the job", waits).await.unwrap().unwrap().into_inner().jobs;
        assert_eq!(ids(&claimed), [made.id]);
        f.finish().await;
    }

    async fn of_workers_that_wait_each_gets_one(engine: Engine) {
        let f = Farm::new(engine).await;
        let workers: Vec<_> = (0..4).map(|_| {
            let mut more = f.jobs();
            tokio::spawn(async move { more.claim_jobs(waiting(1)).await })
        }).collect();
        let made = f.batch("four", jobs("connect", 4)).await;
        let mut got = BTreeSet::new();
        for worker in workers {
            let claimed = soon("a job", worker).await.unwrap().unwrap().into_inner().jobs;
            got.extend(ids(&claimed));
        }
        assert_eq!((made.counts.unwrap().total, got.len()), (4, 4));
        f.finish().await;
    }

    async fn a_wait_that_is_over_ends_with_nothing(engine: Engine) {
        let f = Farm::new(engine).await;
        let brief = pb::ClaimJobsRequest { wait: span(Duration::from_millis(50)), ..ask(1) };
        f.assert_idle(&f.claims(brief).await);
        // The caller's own deadline is not outwaited.
        let mut request = tonic::Request::new(waiting(1));
        request.set_timeout(2 * SECOND);
        let answer = f.jobs().claim_jobs(request).await.unwrap();
        f.assert_idle(&answer.into_inner().jobs);
        f.finish().await;
    }

    async fn a_server_that_stops_lets_waiting_workers_go(engine: Engine) {
        let mut f = Farm::new(engine).await;
        let mut more = f.jobs();
        let began = std::time::Instant::now();
        let waits = tokio::spawn(async move { more.claim_jobs(waiting(1)).await });
        // It has arrived: somebody is connected for it.
        f.claims(ask(1)).await;
        f.b.stop().await;
        if let Ok(answer) = waits.await.unwrap() {
            f.assert_idle(&answer.into_inner().jobs);
        }
        assert!(began.elapsed() < MINUTE);
        f.finish().await;
    }

    async fn jobs_of_another_tenant_are_not_handed_out(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("connect")).await;
        let acme = f.b.caller_in("acme", Role::Worker, Constraints::default()).await;
        let claimed = acme.automation.clone().claim_jobs(ask(10)).await.unwrap();
        f.assert_idle(&claimed.into_inner().jobs);
        let own = f.b.caller(Role::Worker, Constraints::default()).await;
        let claimed = own.automation.clone().claim_jobs(ask(10)).await.unwrap();
        assert_eq!(claimed.into_inner().jobs.len(), 1);
        f.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_waits_at_one_server_gets_what_another_is_asked_for() {
    let f = Farm::new(Engine::Postgres).await;
    let other = f.replica("b").await;
    for _ in 0..5 {
        let mut more = other.jobs();
        let waits = tokio::spawn(async move { more.claim_jobs(waiting(1)).await });
        let made = f.create(job("connect")).await;
        let claimed = soon("the job", waits)
            .await
            .unwrap()
            .unwrap()
            .into_inner()
            .jobs;
        assert_eq!(ids(&claimed), [made.id]);
        // Each server knows what the other did.
        assert_eq!(
            f.complete(&claimed[0]).await.unwrap().state(),
            State::Completed
        );
    }
    other.finish().await;
    f.finish().await;
}
