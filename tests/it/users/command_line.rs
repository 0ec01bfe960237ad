//! `tokenbroker user`, beside a server that runs.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokenbroker::config::Engine as Database;

use super::passwords::{assert_failed, sign_in};
use super::*;

/// Runs a command on the test's ground with this on standard input.
fn run(b: &Broker, args: &[&str], input: &str) -> Output {
    let (id, key) = &b.config.keys.inline[0];
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokenbroker"));
    command
        .arg("user")
        .args(args)
        .env("TOKENBROKER__DATA_DIR", &b.config.data_dir)
        .env(
            "TOKENBROKER__KEYS__ENTRIES",
            format!("[\"{id}:{}\"]", key.expose_secret()),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Database::Postgres { url, schema } = &b.config.database.engine {
        command
            .env("TOKENBROKER__DATABASE__URL", url.expose_secret())
            .env("TOKENBROKER__DATABASE__TLS", "disable")
            .env("TOKENBROKER__DATABASE__SCHEMA", schema.as_deref().unwrap());
    }
    let mut child = command.spawn().unwrap();
    // A command that asks for nothing may have ended.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// What a command prints that succeeds.
fn done(b: &Broker, args: &[&str], input: &str) -> String {
    let output = run(b, args, input);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {told}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

on_both_engines! {
    async fn the_command_line_makes_the_first_admin_and_recovers_them(engine: Engine) {
        let b = Broker::start(engine).await;
        let (first, second) = (phrase(), phrase());
        let id = done(&b, &["create", "--email", "Ada@example.com", "--role", "admin", "--name", "Ada"], &format!("{first}\r\nnot this"));
        assert_eq!(sign_in(&b, "ada@example.com", &first).await.unwrap().id, id);
        done(&b, &["set-password", "ada@example.com"], &format!("{second}\n"));
        assert_failed(sign_in(&b, "ada@example.com", &first).await);
        sign_in(&b, "ada@example.com", &second).await.unwrap();
        done(&b, &["set-password", &id, "--remove"], "");
        assert!(!get(&b.admin, &id).await.unwrap().has_password);
        done(&b, &["deactivate", &id, "--reason", "left"], "");
        assert_eq!(get(&b.admin, &id).await.unwrap().state(), pb::UserState::Inactive);
        done(&b, &["reactivate", &id], "");
        done(&b, &["delete", "ADA@example.com"], "");
        assert_refused(get(&b.admin, &id).await, Code::NotFound, "USER_NOT_FOUND");
        let who = "SELECT DISTINCT actor_kind AS line FROM audit_events WHERE action LIKE 'user.%'";
        assert_eq!(b.ground.lines(who).await, ["command_line"]);
        b.finish().await;
    }

    async fn users_are_listed_and_shown_as_json(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = done(&b, &["create", "--email", "ada@example.com", "--no-password", "--owner", "owner-1", "--allow-provider", "github"], "");
        done(&b, &["create", "--email", "bob@example.org", "--no-password"], "");
        let shown: Value = serde_json::from_str(&done(&b, &["show", "ada@example.com", "--json"], "")).unwrap();
        assert_eq!((&shown["id"], &shown["role"], &shown["owner"]), (&id.as_str().into(), &"user".into(), &"owner-1".into()));
        assert_eq!((&shown["has_password"], &shown["constraints"]["providers"][0]), (&false.into(), &"github".into()));
        let listed: Value = serde_json::from_str(&done(&b, &["list", "--json", "--query", "EXAMPLE.com"], "")).unwrap();
        assert_eq!(listed["users"].as_array().unwrap(), &[shown]);
        let table = done(&b, &["list", "--state", "active"], "");
        assert!(table.lines().count() == 3 && table.starts_with("ID"), "{table}");
        b.finish().await;
    }

    async fn the_command_line_refuses_what_the_service_refuses(engine: Engine) {
        let b = Broker::start(engine).await;
        create(&b.admin, named("ada@example.com")).await.unwrap();
        let good = phrase();
        for (args, input, code, word) in [
            (vec!["create", "--email", "eve@example.com"], "password1234\n", 2, "everybody tries first"),
            (vec!["create", "--email", "eve@example.com"], "\n", 2, "a password is needed"),
            (vec!["create", "--email", "nobody"], good.as_str(), 2, "an e-mail address is needed"),
            (vec!["create", "--email", "ADA@example.com"], good.as_str(), 1, "another user's"),
            (vec!["create", "--email", "eve@example.com", "--tenant", "no tenant"], good.as_str(), 2, "--tenant"),
            (vec!["show", "eve@example.com"], "", 1, "there is no user"),
            (vec!["show", "eve"], "", 2, "user list"),
        ] {
            let output = run(&b, &args, input);
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), told.contains(word)), (Some(code), true), "{args:?}: {told}");
            assert!(!told.contains(input.trim()) || input.trim().is_empty(), "{told}");
        }
        b.finish().await;
    }
}
