//! Retention: what is finished goes after its time, and a batch goes as a whole.

use super::*;

async fn start(engine: Engine) -> Farm {
    Farm::with(engine, |config| {
        config.retention.sweep_interval = Duration::from_millis(50);
        config.retention.jobs = DAY;
        config.retention.dead_letters = 3 * DAY;
    })
    .await
}

async fn is_gone(f: &Farm, id: &str) -> bool {
    let request = pb::GetJobRequest {
        job_id: id.to_owned(),
    };
    matches!(f.jobs().get_job(request).await, Err(status) if status.code() == Code::NotFound)
}

on_both_engines! {
    async fn finished_jobs_go_before_dead_letters(engine: Engine) {
        let f = start(engine).await;
        let done = f.create(job("done")).await;
        f.complete(&f.claim().await).await.unwrap();
        let dead = f.create(job("dead")).await;
        f.fail(&f.claim().await, true).await.unwrap();
        let off = f.create(job("off")).await;
        f.cancel(&off.id).await.unwrap();
        let waits = f.create(job("waits")).await;
        f.b.clock.advance(DAY + MINUTE);
        for id in [&done.id, &off.id] {
            eventually("what is finished goes", || async { is_gone(&f, id).await }).await;
        }
        assert!(!is_gone(&f, &dead.id).await);
        f.b.clock.advance(2 * DAY);
        eventually("a dead letter goes", || async { is_gone(&f, &dead.id).await }).await;
        assert!(!is_gone(&f, &waits.id).await);
        f.finish().await;
    }

    async fn a_batch_goes_as_a_whole(engine: Engine) {
        let f = start(engine).await;
        f.batch("done", jobs("connect", 2)).await;
        f.batch("dead", jobs("connect", 2)).await;
        f.batch("open", jobs("open", 2)).await;
        for (number, claimed) in f.claims(pb::ClaimJobsRequest { kinds: vec!["connect".to_owned()], ..ask(10) }).await.into_iter().enumerate() {
            if job_of(&claimed).batch_id == "dead" && number < 3 {
                f.fail(&claimed, true).await.unwrap();
            } else {
                f.complete(&claimed).await.unwrap();
            }
        }
        f.complete(&f.claims(ask_for("open")).await[0]).await.unwrap();
        f.batch_finishes("done").await;
        f.batch_finishes("dead").await;
        f.b.clock.advance(DAY + MINUTE);
        eventually("what is finished goes", || async { f.is_batch_gone("done").await }).await;
        assert_eq!(f.batch_now("dead").await.counts.unwrap().total, 2);
        f.b.clock.advance(2 * DAY);
        eventually("what failed goes", || async { f.is_batch_gone("dead").await }).await;
        let open = f.batch_now("open").await.counts.unwrap();
        assert_eq!((open.total, open.completed), (2, 1));
        f.finish().await;
    }
}
