//! `tokenbroker person`, beside a server that runs.

use std::process::Output;

use super::*;
use crate::fixture::process::command;

async fn run(b: &Broker, args: &[&str]) -> Output {
    let mut command = command(&b.config);
    command.arg("person").args(args);
    let ran = tokio::task::spawn_blocking(move || command.output());
    ran.await.unwrap().unwrap()
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", told(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

on_both_engines! {
    async fn a_person_is_exported_counted_and_erased(engine: Engine) {
        let b = Broker::start(engine).await;
        let (id, connection) = ada(&b).await;
        let token = b.token(&connection.id).await.unwrap().access_token;
        let document = json(&run(&b, &["export", "--user", &id]).await);
        assert_eq!(document["user"]["email"], EMAIL);
        assert_eq!(document["connections"][0]["id"], connection.id.as_str());

        let counted = run(&b, &["erase", "--user", &id, "--json"]).await;
        assert!(told(&counted).contains("--yes"), "{}", told(&counted));
        let counted = json(&counted);
        assert_eq!((&counted["erased"], &counted["connections"], &counted["sessions"]), (&false.into(), &1.into(), &1.into()));
        assert!(everything(&b).await.contains(EMAIL) && b.provider.is_access_token_valid(&token));

        let done = json(&run(&b, &["erase", "--user", &id, "--yes", "--json"]).await);
        assert_eq!((&done["erased"], &done["connections"], &done["unrevoked_at_provider"]), (&true.into(), &1.into(), &0.into()));
        assert!(!everything(&b).await.contains(EMAIL) && !b.provider.is_access_token_valid(&token));
        let again = run(&b, &["erase", "--user", &id, "--yes"]).await;
        assert_eq!(again.status.code(), Some(1), "{}", told(&again));
        b.finish().await;
    }

    async fn an_owner_is_erased_and_one_of_the_two_is_asked_for(engine: Engine) {
        let b = Broker::start(engine).await;
        b.connected().await;
        let done = run(&b, &["erase", "--owner", "owner-1", "--yes"]).await;
        assert!(String::from_utf8_lossy(&done.stdout).starts_with("Erased 1 connections"), "{}", told(&done));
        for args in [&["erase"][..], &["erase", "--owner", "", "--yes"], &["export", "--user", "user_1", "--owner", "owner-1"]] {
            assert_eq!(run(&b, args).await.status.code(), Some(2));
        }
        b.finish().await;
    }
}
