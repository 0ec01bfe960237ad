//! `tokenbroker audit`, as a script sees it.

use std::process::Output;

use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokenbroker::config::Engine as Database;

use super::*;

/// Runs the real binary on a test's ground.
async fn run(b: &Broker, args: &[&str]) -> Output {
    let (id, key) = &b.config.keys.inline[0];
    let entries = format!("[\"{id}:{}\"]", key.expose_secret());
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tokenbroker"));
    command
        .arg("audit")
        .args(args)
        .env("TOKENBROKER__DATA_DIR", &b.config.data_dir)
        .env("TOKENBROKER__KEYS__ENTRIES", entries);
    if let Database::Postgres { url, schema } = &b.config.database.engine {
        command
            .env("TOKENBROKER__DATABASE__URL", url.expose_secret())
            .env("TOKENBROKER__DATABASE__TLS", "disable")
            .env("TOKENBROKER__DATABASE__SCHEMA", schema.as_deref().unwrap());
    }
    let running = tokio::task::spawn_blocking(move || command.output());
    running.await.unwrap().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

on_both_engines! {
    async fn verify_tells_by_its_exit_code(engine: Engine) {
        let (b, beside) = written(engine).await;
        let intact = run(&b, &["verify"]).await;
        assert_eq!(intact.status.code(), Some(0), "{intact:?}");
        assert!(text(&intact).starts_with("intact: "), "{intact:?}");
        let kept = beside.trail.checkpoints(0, 100).await.unwrap().pop().unwrap().0;
        let file = b.ground.dir.path().join("checkpoint.txt");
        std::fs::write(&file, &kept.note).unwrap();
        let file = file.to_str().unwrap();
        let holds = run(&b, &["verify", "--checkpoint", file]).await;
        assert_eq!(holds.status.code(), Some(0), "{holds:?}");
        b.ground.execute("UPDATE audit_events SET reason = 'x' WHERE resource_id = 'five'").await;
        let changed = run(&b, &["verify", "--json"]).await;
        assert_eq!(changed.status.code(), Some(1), "{changed:?}");
        let told: Value = serde_json::from_str(&text(&changed)).unwrap();
        assert_eq!(told["intact"], false);
        assert_eq!(told["findings"][0]["fault"], "CHANGED");
        assert_eq!(told["findings"][0]["event_id"], id(&b, "five").await);
        std::fs::write(file, "nothing").unwrap();
        let unchecked = run(&b, &["verify", "--checkpoint", file]).await;
        assert_eq!(unchecked.status.code(), Some(2), "{unchecked:?}");
        b.finish().await;
    }

    async fn export_writes_every_entry_and_records_that(engine: Engine) {
        let (b, _) = written(engine).await;
        let exported = run(&b, &["export"]).await;
        assert_eq!(exported.status.code(), Some(0), "{exported:?}");
        let lines: Vec<Value> = text(&exported)
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let nine = lines.iter().find(|line| line["resource_id"] == "nine").unwrap();
        assert_eq!(nine["client_ip"], "192.0.2.7");
        assert_eq!(nine["hash"].as_str().unwrap().len(), 64);
        let after = nine["position"].to_string();
        let rest = run(&b, &["export", "--after", &after]).await;
        assert!(!text(&rest).contains("\"nine\""), "{rest:?}");
        assert!(text(&rest).contains("\"audit.read\""), "{rest:?}");
        b.finish().await;
    }

    async fn checkpoints_can_be_taken_elsewhere(engine: Engine) {
        let (b, _) = written(engine).await;
        let listed = run(&b, &["checkpoints", "--json"]).await;
        assert_eq!(listed.status.code(), Some(0), "{listed:?}");
        let told: Value = serde_json::from_str(&text(&listed)).unwrap();
        let newest = told["checkpoints"].as_array().unwrap().last().unwrap();
        assert!(newest["note"].as_str().unwrap().starts_with("tokenbroker/audit\n"));
        let last = run(&b, &["checkpoints", "--last", "1", "--json"]).await;
        let last: Value = serde_json::from_str(&text(&last)).unwrap();
        assert_eq!(last["checkpoints"], serde_json::json!([newest]));
        let table = run(&b, &["checkpoints"]).await;
        assert!(text(&table).contains(newest["verifier_key"].as_str().unwrap()));
        b.finish().await;
    }
}
