//! What is needed no longer is forgotten in time, whoever else is at it and whatever else is in the way.

use super::*;

/// Waits until a query finds these lines.
async fn comes_to(s: &Stage, sql: &str, lines: &[&str]) {
    eventually(sql, || async { s.b.ground.lines(sql).await == lines }).await;
}

on_both_engines! {
    async fn what_a_refresh_token_was_exchanged_for_is_forgotten_after_its_grace(engine: Engine) {
        let s = Stage::new(engine).await;
        let first = s.tokens().await;
        s.refresh(&first.refresh).await.tokens();
        let sealed = "SELECT CAST(count(*) AS text) AS line FROM issued_tokens WHERE successor IS NOT NULL";
        assert_eq!(s.b.ground.lines(sealed).await, ["1"]);
        s.b.clock.advance(HOUR);
        comes_to(&s, sealed, &["0"]).await;
        s.refresh(&first.refresh).await.refused(400, "invalid_grant");
        assert_eq!(s.ends().await, ["refresh_token_reused"]);
        s.finish().await;
    }

    async fn a_device_that_nobody_accepted_is_forgotten_before_those_that_were(engine: Engine) {
        let s = Stage::new(engine).await;
        for _ in 0..2 {
            s.post("oauth2/device_authorization", &s.client.form(&[])).await;
        }
        let accept = "UPDATE device_authorizations SET state = 'accepted' WHERE id = (SELECT min(id) FROM device_authorizations)";
        s.b.ground.execute(accept).await;
        let states = "SELECT state AS line FROM device_authorizations";
        s.b.clock.advance(2 * HOUR);
        comes_to(&s, states, &["accepted"]).await;
        s.b.clock.advance(DAY);
        comes_to(&s, states, &[]).await;
        s.finish().await;
    }

    async fn a_table_that_can_not_be_swept_holds_up_no_other(engine: Engine) {
        let s = Stage::new(engine).await;
        s.tokens().await;
        s.b.ground.execute("ALTER TABLE spent_proofs RENAME TO hidden_proofs").await;
        s.b.clock.advance(400 * DAY);
        comes_to(&s, "SELECT id AS line FROM issued_grants", &[]).await;
        s.b.ground.execute("ALTER TABLE hidden_proofs RENAME TO spent_proofs").await;
        s.finish().await;
    }

    async fn more_than_a_batch_is_forgotten_at_once(engine: Engine) {
        let s = Stage::new(engine).await;
        let (hash, time) = match engine {
            Engine::Sqlite => ("CAST(i AS blob)", "0"),
            Engine::Postgres => ("convert_to(CAST(i AS text), 'UTF8')", "to_timestamp(0)"),
        };
        let fill = format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
             INSERT INTO spent_proofs (hash, expires_at) SELECT {hash}, {time} FROM n"
        );
        s.b.ground.execute(&fill).await;
        comes_to(&s, "SELECT CAST(count(*) AS text) AS line FROM spent_proofs", &["0"]).await;
        s.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_pass_by_what_another_has_locked() {
    let s = Stage::new(Engine::Postgres).await;
    let mut other = s.b.ground.schema.as_ref().unwrap().connect().await;
    let ends = s.b.clock.now().plus(DAY).micros() / 1_000_000;
    let insert = format!(
        "INSERT INTO spent_proofs (hash, expires_at)
         VALUES ('\\x01', to_timestamp({ends})), ('\\x02', to_timestamp({ends}))"
    );
    other.batch_execute(&insert).await.unwrap();
    let held = other.transaction().await.unwrap();
    let lock = "SELECT hash FROM spent_proofs WHERE hash = '\\x01' FOR UPDATE";
    held.batch_execute(lock).await.unwrap();
    s.b.clock.advance(2 * DAY);
    let left = "SELECT encode(hash, 'hex') AS line FROM spent_proofs";
    comes_to(&s, left, &["01"]).await;
    held.rollback().await.unwrap();
    comes_to(&s, left, &[]).await;
    s.finish().await;
}
