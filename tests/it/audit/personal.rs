//! Addresses and programs: erased with their person, and not otherwise.

use super::retention::{DAY, brief};
use super::*;

async fn erase(b: &Broker, beside: &Beside, action: Action, ids: &[&str]) -> usize {
    let mut tx = beside.store.begin().await.unwrap();
    let who = Who::system("test", "default");
    let entry = Entry::new(action, who).on("user", "user_1");
    let told = audit::record(&mut tx, &entry, b.clock.now()).await.unwrap();
    let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
    let erased = Trail::erase_personal(&mut tx, "default", &ids, &told)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    erased
}

on_both_engines! {
    async fn erased_personal_data_stays_verifiable(engine: Engine) {
        let (b, beside) = written(engine).await;
        let erased = erase(&b, &beside, Action::PersonErased, &["user_1"]).await;
        // What they did; the one that tells of it is its author's.
        assert_eq!(erased, 9);
        assert_eq!(beside.verify(None).await.findings, []);
        let left = "SELECT id AS line FROM audit_events
                    WHERE actor_id = 'user_1' AND (ip <> '' OR user_agent <> '' OR salt IS NOT NULL)";
        assert!(b.ground.lines(left).await.is_empty());
        b.finish().await;
    }

    async fn personal_data_taken_away_without_an_erasure_is_found(engine: Engine) {
        let (b, beside) = written(engine).await;
        for erased_by in ["NULL", "'aud_nobody'", "id"] {
            let sql = format!(
                "UPDATE audit_events SET ip = '', user_agent = '', salt = NULL, erased_by = {erased_by}
                 WHERE resource_id = 'five'"
            );
            b.ground.execute(&sql).await;
            let outcome = beside.verify(None).await;
            assert_eq!(found(&outcome), [(Fault::Changed, place(&b, "five").await)], "{erased_by}");
        }
        b.finish().await;
    }

    async fn the_erasure_of_somebody_else_excuses_nothing(engine: Engine) {
        let (b, beside) = written(engine).await;
        let who = Who::system("test", "default");
        let other = Entry::new(Action::PersonErased, who).on("user", "user_2").detail("owner", "x");
        let other = beside.record(&b, &other).await;
        let sql = format!(
            "UPDATE audit_events SET ip = '', user_agent = '', salt = NULL, erased_by = '{other}'
             WHERE resource_id = 'five'"
        );
        b.ground.execute(&sql).await;
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Changed, place(&b, "five").await)]);
        assert!(outcome.findings[0].description.contains("somebody else"), "{outcome:?}");
        b.finish().await;
    }

    async fn a_sign_in_of_which_retention_left_the_end_may_be_erased_unless_it_was_anothers(engine: Engine) {
        let (b, _) = written(engine).await;
        let beside = brief(&b).await;
        let origin = Origin { ip: Some("192.0.2.7".parse().unwrap()), ..Origin::default() };
        let made = |user, id| {
            let entry = Entry::new(Action::SessionCreated, Who::user(user, "default", &origin));
            entry.on("session", "ses_1").detail("authorization_id", id)
        };
        let tried = |id| {
            let entry = Entry::new(Action::SessionCreated, Who::anonymous("default", &origin));
            entry.on("authorization", id).failed("CODE_SPENT")
        };
        beside.record(&b, &made("user_1", "auth_1")).await;
        beside.trail.chain().await.unwrap();
        beside.trail.checkpoint(true).await.unwrap().unwrap();
        b.clock.advance(4 * DAY);
        for entry in [tried("auth_1"), made("user_2", "auth_2"), tried("auth_2")] {
            beside.record(&b, &entry).await;
        }
        beside.trail.chain().await.unwrap();
        assert!(beside.trail.trim(100).await.unwrap() > 0);
        let ids = ["user_1", "auth_1", "auth_2"];
        assert_eq!(erase(&b, &beside, Action::PersonErased, &ids).await, 2);
        let outcome = beside.verify(None).await;
        assert_eq!(found(&outcome), [(Fault::Changed, place(&b, "auth_2").await)]);
        b.finish().await;
    }

    async fn another_entry_does_not_pass_for_an_erasure(engine: Engine) {
        let (b, beside) = written(engine).await;
        erase(&b, &beside, Action::AppUpdated, &["user_1"]).await;
        let outcome = beside.verify(None).await;
        assert!(found(&outcome).contains(&(Fault::Changed, place(&b, "five").await)));
        b.finish().await;
    }

    async fn a_changed_address_is_named(engine: Engine) {
        let (b, beside) = written(engine).await;
        for change in ["ip = '192.0.2.8'", "user_agent = 'other/2'", "erased_by = 'aud_1'"] {
            let sql = format!("UPDATE audit_events SET {change} WHERE resource_id = 'five'");
            b.ground.execute(&sql).await;
            let outcome = beside.verify(None).await;
            assert_eq!(found(&outcome), [(Fault::Changed, place(&b, "five").await)], "{change}");
        }
        b.finish().await;
    }
}
