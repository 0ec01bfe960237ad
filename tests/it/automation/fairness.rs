//! Fairness: a large batch does not hold up a small one, nor a single job.

use super::*;

/// Claims and finishes one by one: the kinds, in order.
async fn order(f: &Farm, count: usize) -> Vec<String> {
    let mut order = Vec::new();
    for _ in 0..count {
        let claimed = f.claim().await;
        order.push(job_of(&claimed).kind.clone());
        f.complete(&claimed).await.unwrap();
    }
    order
}

/// How many of a kind are among the first.
fn among(order: &[String], first: usize, kind: &str) -> usize {
    order.iter().take(first).filter(|it| *it == kind).count()
}

on_both_engines! {
    async fn batches_take_turns(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("large", jobs("large", 200)).await;
        f.batch("small", jobs("small", 5)).await;
        let first = order(&f, 20).await;
        assert_eq!(among(&first, 20, "small"), 5, "{first:?}");
        assert!(among(&first, 4, "small") >= 1, "{first:?}");
        f.finish().await;
    }

    async fn a_batch_that_comes_while_another_is_under_way_begins_at_once(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("first", jobs("first", 100)).await;
        order(&f, 40).await;
        f.batch("second", jobs("second", 100)).await;
        f.create(job("single")).await;
        let next = order(&f, 30).await;
        let second = among(&next, 30, "second");
        assert!((10..=20).contains(&second), "{second} of {next:?}");
        assert_eq!(among(&next, 6, "single"), 1, "{next:?}");
        f.finish().await;
    }

    async fn scheduled_batches_take_turns_when_their_time_comes(engine: Engine) {
        let f = Farm::new(engine).await;
        let at = time(f.b.clock.now().plus(HOUR));
        let later = |kind: &str, count| jobs(kind, count).into_iter().map(|it| pb::NewJob { run_time: at, ..it }).collect::<Vec<_>>();
        f.batch("large", later("large", 50)).await;
        f.batch("small", later("small", 5)).await;
        f.b.clock.advance(HOUR);
        eventually("all wait", || async {
            let counts = [f.batch_now("large").await, f.batch_now("small").await].map(|batch| batch.counts.unwrap().scheduled);
            counts == [0, 0]
        }).await;
        let first = order(&f, 20).await;
        assert_eq!(among(&first, 20, "small"), 5, "{first:?}");
        f.finish().await;
    }

    async fn what_is_tried_again_does_not_go_to_the_end(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("again")).await;
        f.batch("large", jobs("large", 50)).await;
        let claimed = f.claim().await;
        assert_eq!(job_of(&claimed).kind, "again");
        f.snooze(&claimed, None).await.unwrap();
        let next = order(&f, 5).await;
        assert_eq!(among(&next, 5, "again"), 1, "{next:?}");
        f.finish().await;
    }
}
