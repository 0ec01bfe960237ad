//! Whoever can write the database changes the trail: it is found, and named.

use tokenbroker::pb;

use super::*;

/// Makes the entry on a thing the last, as far as head and checkpoints tell.
async fn cut_behind(b: &Broker, thing: &str) {
    let last = place(b, thing).await;
    let sql = format!(
        "DELETE FROM audit_events WHERE position > {last};
         UPDATE audit_head SET position = {last},
             hash = (SELECT hash FROM audit_events WHERE position = {last})"
    );
    b.ground.execute(&sql).await;
}

on_both_engines! {
    async fn a_changed_row_is_named(engine: Engine) {
        let (b, beside) = written(engine).await;
        for change in [
            "reason = 'another'",
            "tenant = 'another'",
            "actor_kind = 'nobody'",
            "details = '{\"a\":1}'",
            "personal_hash = hash",
        ] {
            let sql = format!("UPDATE audit_events SET {change} WHERE resource_id = 'five'");
            b.ground.execute(&sql).await;
            let outcome = beside.verify(None).await;
            assert_eq!(found(&outcome), [(Fault::Changed, place(&b, "five").await)], "{change}");
            assert_eq!(outcome.findings[0].event_id, id(&b, "five").await);
        }
        b.finish().await;
    }

    async fn a_removed_row_is_named(engine: Engine) {
        let (b, beside) = written(engine).await;
        let gone = place(&b, "five").await;
        b.ground.execute("DELETE FROM audit_events WHERE resource_id = 'five'").await;
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Removed, gone)]);
        assert!(outcome.findings[0].description.contains(&format!("place {gone}")));
        b.finish().await;
    }

    async fn reordered_rows_are_named(engine: Engine) {
        let (b, beside) = written(engine).await;
        let (four, eight) = (place(&b, "four").await, place(&b, "eight").await);
        let sql = format!(
            "UPDATE audit_events SET position = -1 WHERE position = {four};
             UPDATE audit_events SET position = {four} WHERE position = {eight};
             UPDATE audit_events SET position = {eight} WHERE position = -1"
        );
        b.ground.execute(&sql).await;
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Reordered, four), (Fault::Reordered, eight)]);
        assert_eq!(outcome.findings[0].event_id, id(&b, "eight").await);
        b.finish().await;
    }

    async fn a_truncated_tail_is_found_by_a_checkpoint(engine: Engine) {
        let (b, beside) = written(engine).await;
        cut_behind(&b, "six").await;
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Truncated, place(&b, "six").await)]);
        b.finish().await;
    }

    async fn a_truncated_tail_is_found_by_the_head(engine: Engine) {
        let (b, beside) = written(engine).await;
        let last = place(&b, "six").await;
        let sql = format!(
            "DELETE FROM audit_checkpoints WHERE position > {last};
             DELETE FROM audit_events WHERE position > {last}"
        );
        b.ground.execute(&sql).await;
        assert_eq!(found(&beside.verify(None).await), [(Fault::Truncated, last)]);
        b.finish().await;
    }

    async fn a_truncated_tail_with_its_checkpoints_is_found_by_an_exported_one(engine: Engine) {
        let (b, beside) = written(engine).await;
        let kept = beside.trail.checkpoints(0, 100).await.unwrap().pop().unwrap().0;
        cut_behind(&b, "six").await;
        let last = place(&b, "six").await;
        let sql = format!("DELETE FROM audit_checkpoints WHERE position > {last}");
        b.ground.execute(&sql).await;
        // What the database says agrees with itself: only what is kept elsewhere knows better.
        assert_eq!(beside.verify(None).await.findings, []);
        let outcome = beside.verify(Some(&kept.note)).await;
        assert_eq!(found(&outcome), [(Fault::Truncated, last)]);
        b.finish().await;
    }

    async fn a_rewritten_chain_is_found_by_the_checkpoints(engine: Engine) {
        let (b, beside) = written(engine).await;
        let (three, five) = (place(&b, "three").await, place(&b, "five").await);
        let before = five - 1;
        let sql = format!(
            "UPDATE audit_events SET reason = 'another' WHERE resource_id = 'five';
             UPDATE audit_head SET position = {before},
                 hash = (SELECT hash FROM audit_events WHERE position = {before});
             UPDATE audit_events SET hash = NULL, position = NULL WHERE position >= {five}"
        );
        b.ground.execute(&sql).await;
        // The chain is whole again, as only its owner could make it.
        beside.trail.chain().await.unwrap();
        let outcome = beside.verify(None).await;
        let [finding] = &outcome.findings[..] else { panic!("{outcome:?}") };
        assert_eq!(finding.fault, Fault::Checkpoint);
        assert!(finding.description.contains(&format!("behind place {three}")), "{finding:?}");
        b.finish().await;
    }

    async fn an_unchained_row_is_found_when_it_should_have_its_place(engine: Engine) {
        let (b, beside) = written(engine).await;
        // The next place is taken: nothing can be chained.
        b.ground.execute("UPDATE audit_head SET position = position - 1").await;
        let entry = Entry::new(Action::AppUpdated, someone("default")).on("thing", "late");
        let late = beside.record(&b, &entry).await;
        let outcome = beside.verify(None).await;
        assert!(!found(&outcome).contains(&(Fault::Unchained, 0)), "{outcome:?}");
        b.clock.advance(std::time::Duration::from_secs(120));
        let outcome = beside.verify(None).await;
        let unchained = outcome.findings.iter().find(|f| f.fault == Fault::Unchained).unwrap();
        assert_eq!(unchained.event_id, late);
        assert!(outcome.findings.iter().any(|f| f.fault == Fault::Changed), "{outcome:?}");
        b.finish().await;
    }

    async fn an_auditor_is_told_over_the_wire(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one", "two", "three"]).await;
        b.ground.execute("UPDATE audit_events SET reason = 'x' WHERE resource_id = 'two'").await;
        let request = pb::VerifyAuditLogRequest::default();
        let answer = b.admin.administration.clone().verify_audit_log(request).await;
        let answer = answer.unwrap().into_inner();
        let [finding] = &answer.findings[..] else { panic!("{answer:?}") };
        assert_eq!(finding.fault(), pb::AuditFault::Changed);
        assert_eq!(finding.event_id, id(&b, "two").await);
        assert!(!answer.intact && answer.last_position >= finding.position);
        b.finish().await;
    }
}
