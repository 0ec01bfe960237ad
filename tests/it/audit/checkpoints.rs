//! Signed checkpoints: made, kept elsewhere, forged.

use tokenbroker::crypto::KEY_BYTES;
use tokenbroker::pb;
use tonic::Code;
use zeroize::Zeroizing;

use super::*;

fn another_key() -> Keyring {
    let key = Zeroizing::new([9; KEY_BYTES]);
    Keyring::new("k9", [("k9".to_owned(), key)]).unwrap()
}

on_both_engines! {
    async fn a_forged_checkpoint_is_found(engine: Engine) {
        let (b, beside) = written(engine).await;
        beside.write(&b, &["ten"]).await;
        let forger = Beside::with(&b, another_key(), &b.config).await;
        let forged = forger.trail.checkpoint(true).await.unwrap().unwrap();
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Checkpoint, forged.position)]);
        // Nor does it help to hand it in.
        let outcome = beside.verify(Some(&forged.note)).await;
        assert!(found(&outcome).iter().all(|f| *f == (Fault::Checkpoint, forged.position)));
        b.finish().await;
    }

    async fn an_altered_checkpoint_is_found(engine: Engine) {
        let (b, beside) = written(engine).await;
        let newest = beside.trail.checkpoints(0, 100).await.unwrap().pop().unwrap().0;
        let head = "(SELECT hash FROM audit_events WHERE position = 1)";
        let sql = format!(
            "UPDATE audit_checkpoints SET hash = {head} WHERE position = {}",
            newest.position
        );
        b.ground.execute(&sql).await;
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Checkpoint, newest.position)]);
        let altered = newest.note.replacen(&format!("\n{}\n", newest.position), "\n1\n", 1);
        let outcome = beside.verify(Some(&altered)).await;
        assert!(outcome.findings.iter().any(|f| f.description.contains("given")), "{outcome:?}");
        b.finish().await;
    }

    async fn a_key_that_left_the_keyring_still_verifies(engine: Engine) {
        let (b, beside) = written(engine).await;
        let (_, former) = beside.trail.checkpoints(0, 1).await.unwrap().pop().unwrap();
        let later = Beside::with(&b, another_key(), &b.config).await;
        assert!(found(&later.verify(None).await).iter().all(|(f, _)| *f == Fault::Checkpoint));
        let mut config = b.config.clone();
        config.audit.former_keys = vec![former];
        let later = Beside::with(&b, another_key(), &config).await;
        assert_eq!(later.verify(None).await.findings, []);
        b.finish().await;
    }

    async fn checkpoints_are_listed_with_their_key_and_can_be_handed_in(engine: Engine) {
        let b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        beside.write(&b, &["one"]).await;
        beside.trail.checkpoint(true).await.unwrap().unwrap();
        let mut admin = b.admin.administration.clone();
        let request = pb::ListAuditCheckpointsRequest::default();
        let listed = admin.list_audit_checkpoints(request).await.unwrap().into_inner();
        let checkpoint = listed.checkpoints.last().unwrap().clone();
        assert!(checkpoint.note.starts_with(&format!("tokenbroker/audit\n{}\n", checkpoint.position)));
        assert!(checkpoint.verifier_key.starts_with("tokenbroker/audit+"));
        let request = pb::VerifyAuditLogRequest { checkpoint: checkpoint.note };
        let answer = admin.verify_audit_log(request).await.unwrap().into_inner();
        assert!(answer.intact, "{answer:?}");
        assert!(answer.checkpoints_checked >= 1);
        for checkpoint in ["nothing".to_owned(), "x".repeat(5_000)] {
            let request = pb::VerifyAuditLogRequest { checkpoint };
            let status = admin.verify_audit_log(request).await.unwrap_err();
            assert_eq!(status.code(), Code::InvalidArgument);
            assert_eq!(violations(&status), ["checkpoint"]);
        }
        b.finish().await;
    }

    async fn a_checkpoint_of_a_time_to_come_puts_nothing_off(engine: Engine) {
        let (b, beside) = written(engine).await;
        beside.write(&b, &["ten"]).await;
        assert!(beside.trail.checkpoint(false).await.unwrap().is_none(), "one was signed lately");
        let to_come = b.ground.word("4000000000000000", "now() + interval '80 years'");
        b.ground.execute(&format!("UPDATE audit_checkpoints SET created_at = {to_come}")).await;
        assert!(beside.trail.checkpoint(false).await.unwrap().is_some());
        b.finish().await;
    }

    async fn an_orderly_end_leaves_a_checkpoint_of_everything(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let beside = Beside::of(&b).await;
        let entry = Entry::new(Action::AppUpdated, someone("default")).on("thing", "last");
        beside.record(&b, &entry).await;
        b.stop().await;
        let newest = beside.trail.checkpoints(0, 100).await.unwrap().pop().unwrap().0;
        let outcome = beside.verify(None).await;
        assert_eq!((outcome.last_position, outcome.last_hash), (newest.position, newest.hash));
        b.finish().await;
    }
}
