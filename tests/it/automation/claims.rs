//! Claims: which jobs, for whom, and how long a worker waits for some.

use super::*;

fn waiting(max_jobs: i32) -> pb::ClaimJobsRequest {
    pb::ClaimJobsRequest {
        wait: span(MINUTE),
        ..ask(max_jobs)
    }
}

/// While what it answers lives, nobody takes a job.
async fn held_up(f: &Farm) -> Box<dyn std::any::Any> {
    if let Some(schema) = &f.b.ground.schema {
        let client = schema.connect().await;
        let lock = "BEGIN; LOCK TABLE automation_jobs IN EXCLUSIVE MODE";
        client.batch_execute(lock).await.unwrap();
        return Box::new(client);
    }
    use diesel::Connection as _;
    use diesel::connection::SimpleConnection as _;
    let file = f.b.database_file();
    let mut conn = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    conn.batch_execute("PRAGMA busy_timeout = 30000; BEGIN IMMEDIATE")
        .unwrap();
    Box::new(conn)
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

    async fn a_worker_is_given_its_kind_though_many_of_another_wait(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("many", jobs("a", 500)).await;
        let first = f.create(pb::NewJob { priority: -1, ..job("b") }).await;
        assert_eq!(ids(&f.claims(ask_for("b")).await), [first.id]);
        f.assert_idle(&f.claims(ask_for("b")).await);
        let mut more = f.jobs();
        let waits = tokio::spawn(async move { more.claim_jobs(pb::ClaimJobsRequest { wait: span(MINUTE), ..ask_for("b") }).await });
        let second = f.create(pb::NewJob { priority: -1, ..job("b") }).await;
        let claimed = soon("the job", waits).await.unwrap().unwrap().into_inner().jobs;
        assert_eq!(ids(&claimed), [second.id]);
        f.finish().await;
    }

    async fn an_answer_is_no_larger_than_clients_take(engine: Engine) {
        let f = Farm::new(engine).await;
        // Two bytes each as JSON, eleven on the wire: 7 MB in all.
        let payload = data(json!({ "numbers": vec![1; 32_000] }));
        let large = pb::NewJob { payload: Some(payload), ..job("large") };
        let mut made = Vec::new();
        for _ in 0..20 {
            made.push(f.create(large.clone()).await.id);
        }
        let mut got = Vec::new();
        while got.len() < made.len() {
            let claimed = f.claims(ask(100)).await;
            assert!((2..20).contains(&claimed.len()), "{}", claimed.len());
            assert!(claimed.iter().all(|it| job_of(it).attempt == 1));
            got.extend(ids(&claimed));
        }
        assert_eq!(got, made);
        f.finish().await;
    }

    async fn workers_who_come_together_share_what_there_is(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("some", jobs("connect", 9)).await;
        let hold = held_up(&f).await;
        let workers = (0..7).map(|number| {
            let mut jobs = f.jobs();
            let request = pb::ClaimJobsRequest { worker: format!("worker {number}"), ..ask(2) };
            tokio::spawn(async move { jobs.claim_jobs(request).await.unwrap().into_inner().jobs })
        });
        let workers = Vec::from_iter(workers);
        tokio::time::sleep(SECOND / 5).await;
        drop(hold);
        let mut taken = BTreeSet::new();
        for (number, worker) in workers.into_iter().enumerate() {
            for claimed in worker.await.unwrap() {
                assert_eq!(job_of(&claimed).worker, format!("worker {number}"));
                assert!(taken.insert(job_of(&claimed).id.clone()));
            }
        }
        assert_eq!(taken.len(), 9);
        // Five were given some, those who stood in line meanwhile in one transaction.
        let one = f.b.ground.word("CAST(lease_until AS TEXT)", "CAST(xmin AS TEXT)");
        let all = format!("SELECT DISTINCT {one} AS line FROM automation_jobs WHERE state = 'running'");
        let transactions = f.b.ground.lines(&all).await;
        assert!(transactions.len() < 5, "{transactions:?}");
        f.finish().await;
    }

    async fn what_a_worker_was_given_that_has_gone_is_handed_back(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("connect")).await;
        let hold = held_up(&f).await;
        let mut request = tonic::Request::new(pb::ClaimJobsRequest { worker: "gone".to_owned(), ..ask(1) });
        request.set_timeout(SECOND);
        f.jobs().claim_jobs(request).await.unwrap_err();
        // By then the server knows, too.
        f.list(pb::ListJobsRequest::default()).await;
        drop(hold);
        f.history(|event| event.worker == "gone").await;
        let claimed = f.next().await;
        assert_eq!((job_of(&claimed).worker.as_str(), job_of(&claimed).attempt), ("worker-1", 1));
        let told = f.history(|event| event.worker == "worker-1").await;
        assert_eq!(types(&told), [Told::Pending, Told::Running, Told::Pending, Told::Running]);
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
async fn jobs_whose_profile_is_in_use_hide_no_others() {
    let f = Farm::new(Engine::Postgres).await;
    let mut asked = Vec::new();
    for number in 0..10 {
        let name = format!("browser-{number}");
        f.try_profile(profile(&name, "")).await.unwrap();
        let of_profile = pb::NewJob {
            profile: name,
            ..job("of a profile")
        };
        asked.extend(vec![of_profile; 5]);
    }
    f.batch("many", asked).await;
    f.create(pb::NewJob {
        priority: -1,
        ..job("of none")
    })
    .await;
    // Somebody is about to use all of them.
    let client = f.b.ground.schema.as_ref().unwrap().connect().await;
    let lock = "BEGIN; SELECT id FROM automation_profiles FOR UPDATE";
    client.batch_execute(lock).await.unwrap();
    assert_eq!(kinds(&f.claims(ask(1)).await), ["of none"]);
    client.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(kinds(&f.claims(ask(100)).await), ["of a profile"; 10]);
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_waits_at_one_server_gets_what_another_is_asked_for() {
    let f = Farm::new(Engine::Postgres).await;
    let other = f.replica("b").await;
    for _ in 0..5 {
        let mut more = other.jobs();
        let waits = tokio::spawn(async move { more.claim_jobs(waiting(1)).await });
        let began = std::time::Instant::now();
        let made = f.create(job("connect")).await;
        let claimed = soon("the job", waits)
            .await
            .unwrap()
            .unwrap()
            .into_inner()
            .jobs;
        assert_eq!(ids(&claimed), [made.id]);
        // Woken: a look of its own comes after four seconds.
        assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
        // Each server knows what the other did.
        assert_eq!(
            f.complete(&claimed[0]).await.unwrap().state(),
            State::Completed
        );
    }
    other.finish().await;
    f.finish().await;
}
