//! The live view: nothing left out, nothing told twice, in order; resumable as token events are.

use super::*;

/// Does a job from claim to end: what is told of it is pending, running, completed.
async fn work(f: &Farm) {
    f.complete(&f.claim().await).await.unwrap();
}

on_both_engines! {
    async fn a_jobs_life_is_told_in_order(engine: Engine) {
        let f = Farm::new(engine).await;
        let mut watch = f.watch(watching("")).await.unwrap();
        let made = f.create(job("connect")).await;
        let claimed = f.claim().await;
        let progress = pb::ReportProgressRequest { step: Some("login_form".to_owned()), percent: Some(40), message: Some("signing in".to_owned()), ..Default::default() };
        f.report(&claimed, progress).await.unwrap();
        f.fail(&claimed, false).await.unwrap();
        f.b.clock.advance(HOUR);
        f.complete(&f.next().await).await.unwrap();
        let events = watch.until(|event| event.r#type() == Told::Completed).await;
        let expected = [Told::Pending, Told::Running, Told::Progressed, Told::Retryable, Told::Pending, Told::Running, Told::Completed];
        assert_eq!(types(&events), expected);
        assert!(events.iter().all(|event| event.job_id == made.id && event.event_time.is_some()));
        let attempts: Vec<_> = events.iter().map(|event| event.attempt).collect();
        assert_eq!(attempts, [0, 1, 1, 1, 1, 2, 2]);
        let told = &events[2];
        assert_eq!((told.step.as_str(), told.percent, told.message.as_str(), told.worker.as_str()), ("login_form", 40, "signing in", "worker-1"));
        assert_eq!(events[3].reason, "NO_SUCH_PAGE");
        assert_eq!((events[1].worker.as_str(), events[5].worker.as_str()), ("worker-1", "worker-1"));
        assert_eq!((events[4].step.as_str(), events[4].percent), ("login_form", 40));
        f.finish().await;
    }

    async fn a_watcher_resumes_without_loss_or_repetition(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("many", jobs("connect", 30)).await;
        let worker = async {
            for _ in 0..30 {
                work(&f).await;
            }
        };
        // Leaves after every seventh event, while the work goes on.
        let watcher = async {
            let (mut cursor, mut seen) = ("START".to_owned(), Vec::new());
            while seen.len() < 91 {
                let mut watch = f.watch(watching(&cursor)).await.unwrap();
                for _ in 0..7.min(91 - seen.len()) {
                    let (at, event) = watch.next().await;
                    cursor = at;
                    let kind = event.r#type();
                    seen.push((event.id, event.job_id, kind));
                }
            }
            seen
        };
        let ((), seen) = tokio::join!(worker, watcher);
        let different: BTreeSet<_> = seen.iter().map(|(id, ..)| id).collect();
        assert_eq!(different.len(), 91);
        assert_eq!(seen[90].2, Told::BatchFinished);
        for job in f.list(pb::ListJobsRequest { page_size: 100, ..Default::default() }).await {
            let of_it: Vec<_> = seen.iter().filter(|(_, id, _)| *id == job.id).map(|(.., kind)| *kind).collect();
            assert_eq!(of_it, [Told::Pending, Told::Running, Told::Completed], "{}", job.id);
        }
        f.finish().await;
    }

    async fn filters_choose_what_is_told(engine: Engine) {
        let f = Farm::new(engine).await;
        let one = f.create(job("connect")).await;
        f.create(job("connect")).await;
        f.batch("mine", jobs("connect", 1)).await;
        for _ in 0..3 {
            work(&f).await;
        }
        let of_one = pb::WatchJobsRequest { job_ids: vec![one.id.clone()], ..watching("START") };
        let events = f.watch(of_one).await.unwrap().until(|event| event.r#type() == Told::Completed).await;
        assert_eq!(types(&events), [Told::Pending, Told::Running, Told::Completed]);
        assert!(events.iter().all(|event| event.job_id == one.id));
        let of_batch = pb::WatchJobsRequest { batch_ids: vec!["mine".to_owned()], ..watching("START") };
        let events = f.watch(of_batch).await.unwrap().until(|event| event.r#type() == Told::BatchFinished).await;
        assert_eq!(types(&events), [Told::Pending, Told::Running, Told::Completed, Told::BatchFinished]);
        assert!(events[3].job_id.is_empty() && events.iter().all(|event| event.batch_id == "mine"));
        let of_type = pb::WatchJobsRequest { types: vec![Told::Completed.into()], ..watching("START") };
        let mut watch = f.watch(of_type).await.unwrap();
        for _ in 0..3 {
            assert_eq!(watch.next().await.1.r#type(), Told::Completed);
        }
        f.finish().await;
    }

    async fn a_heartbeat_moves_the_cursor(engine: Engine) {
        let f = Farm::new(engine).await;
        let mut watch = f.watch(watching("")).await.unwrap();
        let beat = loop {
            let response = soon("a heartbeat", watch.0.message()).await.unwrap().unwrap();
            if response.event.is_none() {
                break response.cursor;
            }
        };
        drop(watch);
        let made = f.create(job("connect")).await;
        let (_, event) = f.watch(watching(&beat)).await.unwrap().next().await;
        assert_eq!((event.r#type(), event.job_id), (Told::Pending, made.id));
        let refused = f.watch(watching("nonsense!")).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        f.finish().await;
    }

    async fn calling_off_is_told(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        let claimed = f.claim().await;
        f.cancel(&made.id).await.unwrap();
        f.fail(&claimed, false).await.unwrap();
        let events = f.history(|event| event.r#type() == Told::Cancelled).await;
        assert_eq!(types(&events), [Told::Pending, Told::Running, Told::CancelRequested, Told::Cancelled]);
        f.finish().await;
    }

    async fn another_tenant_hears_nothing(engine: Engine) {
        let f = Farm::new(engine).await;
        let acme = f.b.caller_in("acme", Role::Admin, Constraints::default()).await;
        let made = f.create(job("connect")).await;
        let asked = pb::WatchJobsRequest { job_ids: vec![made.id.clone()], ..watching("START") };
        let mut theirs = acme.automation.clone().watch_jobs(asked).await.unwrap().into_inner();
        let mut all = acme.automation.clone().watch_jobs(watching("START")).await.unwrap().into_inner();
        work(&f).await;
        let own = pb::CreateJobRequest { job: Some(job("theirs")), ..Default::default() };
        let own = acme.automation.clone().create_job(own).await.unwrap().into_inner().job.unwrap();
        let event = loop {
            let response = soon("their event", all.message()).await.unwrap().unwrap();
            if let Some(event) = response.event {
                break event;
            }
        };
        assert_eq!(event.job_id, own.id);
        // A heartbeat behind that says that there was nothing to tell.
        let response = soon("a heartbeat", theirs.message()).await.unwrap().unwrap();
        assert!(response.event.is_none(), "{response:?}");
        f.finish().await;
    }

    async fn token_events_and_job_events_are_apart(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("connect")).await;
        let c = f.b.connected().await;
        work(&f).await;
        let events = f.history(|event| event.r#type() == Told::Completed).await;
        assert_eq!(types(&events), [Told::Pending, Told::Running, Told::Completed]);
        eventually("the connection's events are there", || async { f.b.events().await.len() >= 2 }).await;
        assert!(f.b.events().await.iter().all(|event| event.connection_id == c.id));
        f.finish().await;
    }

    async fn a_lost_worker_is_told_of(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.create(job("connect")).await;
        f.claim().await;
        f.lapse(&made.id).await;
        let events = f.history(|event| event.r#type() == Told::Retryable).await;
        assert_eq!(types(&events), [Told::Pending, Told::Running, Told::Retryable]);
        assert_eq!(events[2].reason, "LEASE_LAPSED");
        f.finish().await;
    }
}
