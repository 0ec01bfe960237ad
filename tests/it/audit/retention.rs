//! Retention, and deletion that claims to be it.

use std::time::Duration;

use super::*;

pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The trail, kept for three days.
pub(super) async fn brief(b: &Broker) -> Beside {
    let mut config = b.config.clone();
    config.audit.retention = Some(3 * DAY);
    let keyring = tokenbroker::bootstrap::keyring(&config).unwrap();
    Beside::with(b, keyring, &config).await
}

/// A trail whose entries up to `nine` are older than what retention keeps.
async fn aged(engine: Engine) -> (Broker, Beside) {
    let (b, _) = written(engine).await;
    let beside = brief(&b).await;
    b.clock.advance(2 * DAY);
    beside.write(&b, &["ten", "eleven"]).await;
    beside.trail.checkpoint(true).await.unwrap().unwrap();
    b.clock.advance(2 * DAY);
    (b, beside)
}

on_both_engines! {
    async fn retention_keeps_the_chain_verifiable(engine: Engine) {
        let (b, beside) = aged(engine).await;
        let before = beside.verify(None).await;
        let first = beside.trail.checkpoints(0, 1).await.unwrap().pop().unwrap().0;
        let trimmed = beside.trail.trim(2).await.unwrap();
        assert!(trimmed > 0);
        let outcome = beside.verify(None).await;
        assert_eq!(outcome.findings, []);
        assert_eq!(i64::try_from(trimmed).unwrap(), outcome.first_position - 1);
        // The younger ones are there, and one more that tells of it.
        assert_eq!(outcome.first_position, place(&b, "ten").await);
        assert_eq!(outcome.last_position, before.last_position + 1);
        // What was kept elsewhere of what has left can't be compared, and that is said.
        let stop = CancellationToken::new();
        let gone = beside.trail.verify(Some(&first.note), &stop).await;
        assert!(matches!(gone, Err(tokenbroker::Error::OutOfRange(_))), "{gone:?}");
        // Nothing more is old enough.
        assert_eq!(beside.trail.trim(2).await.unwrap(), 0);
        b.finish().await;
    }

    async fn a_removed_beginning_does_not_pass_for_retention(engine: Engine) {
        let (b, beside) = aged(engine).await;
        let anchor = place(&b, "ten").await - 1;
        let delete = format!("DELETE FROM audit_events WHERE position <= {anchor}");
        b.ground.execute(&delete).await;
        assert_eq!(found(&beside.verify(None).await), [(Fault::Removed, 1)]);
        // A signed checkpoint is there; the signed entry of retention is not.
        b.ground.execute(&format!("UPDATE audit_head SET trimmed = {anchor}")).await;
        assert_eq!(found(&beside.verify(None).await), [(Fault::Removed, anchor)]);
        // Nor does an entry that only says so.
        let note = beside.trail.checkpoints(0, 100).await.unwrap().pop().unwrap().0.note;
        let claim = Entry::new(Action::AuditTrimmed, Who::system("retention", ""))
            .detail("through_position", anchor)
            .detail("note", note);
        beside.record(&b, &claim).await;
        assert_eq!(found(&beside.verify(None).await), [(Fault::Removed, anchor)]);
        b.finish().await;
    }

    async fn a_backdated_checkpoint_takes_nothing_along(engine: Engine) {
        let (b, beside) = aged(engine).await;
        let long_ago = b.ground.word("0", "to_timestamp(0)");
        b.ground.execute(&format!("UPDATE audit_checkpoints SET created_at = {long_ago}")).await;
        assert!(beside.trail.trim(100).await.unwrap() > 0);
        let outcome = beside.verify(None).await;
        assert_eq!(outcome.findings, []);
        assert_eq!(outcome.first_position, place(&b, "ten").await);
        // Nor do entries that somebody made older: the signature covers when they were written.
        let sql = format!("UPDATE audit_events SET occurred_at = {long_ago}");
        b.ground.execute(&sql).await;
        assert!(beside.trail.trim(100).await.is_err());
        assert_eq!(beside.verify(None).await.first_position, outcome.first_position);
        b.finish().await;
    }

    async fn evidence_is_not_trimmed(engine: Engine) {
        let (b, beside) = aged(engine).await;
        let anchor = place(&b, "ten").await - 1;
        let sql = format!(
            "UPDATE audit_events SET hash = personal_hash WHERE position = {anchor}"
        );
        b.ground.execute(&sql).await;
        assert!(beside.trail.trim(100).await.is_err());
        let outcome = beside.verify(None).await;
        assert_eq!(outcome.first_position, 1);
        assert!(!outcome.findings.is_empty());
        b.finish().await;
    }
}
