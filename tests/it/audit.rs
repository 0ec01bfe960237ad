//! The audit trail: what was written can be read by who may, and can't be changed unnoticed.

mod checkpoints;
mod command;
mod personal;
mod reading;
mod retention;
mod tampering;
mod watching;

use std::collections::BTreeSet;

use tokenbroker::access::Origin;
use tokenbroker::access::audit::{self, Action, Entry, Fault, Trail, Verification, Who};
use tokenbroker::config::Config;
use tokenbroker::crypto::Keyring;
use tokenbroker::store::Store;
use tokio_util::sync::CancellationToken;

use crate::fixture::*;
use crate::on_both_engines;

/// The trail of a test's database, beside its server.
struct Beside {
    trail: Trail,
    store: Store,
}

impl Beside {
    async fn of(b: &Broker) -> Self {
        let keyring = tokenbroker::bootstrap::keyring(&b.config).unwrap();
        Self::with(b, keyring, &b.config).await
    }

    async fn with(b: &Broker, keyring: Keyring, config: &Config) -> Self {
        let store = b.ground.store().await;
        let stop = CancellationToken::new();
        let trail = Trail::new(store.clone(), keyring, b.clock.clone(), config, stop);
        Self { trail, store }
    }

    /// Writes an entry on each of these things, and gives them their places.
    async fn write(&self, b: &Broker, things: &[&str]) {
        for thing in things {
            let entry = Entry::new(Action::AppUpdated, someone("default")).on("thing", thing);
            self.record(b, &entry).await;
        }
        self.trail.chain().await.unwrap();
    }

    async fn record(&self, b: &Broker, entry: &Entry) -> String {
        let mut tx = self.store.begin().await.unwrap();
        let id = audit::record(&mut tx, entry, b.clock.now()).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    async fn verify(&self, external: Option<&str>) -> Verification {
        let stop = CancellationToken::new();
        self.trail.verify(external, &stop).await.unwrap()
    }
}

/// Somebody with an address and a program.
fn someone(tenant: &str) -> Who {
    let origin = Origin {
        ip: Some("192.0.2.7".parse().unwrap()),
        user_agent: "test/1".to_owned(),
        trace_id: String::new(),
    };
    Who::user("user_1", tenant, &origin)
}

/// A trail with entries on `one` to `nine`, a checkpoint behind `three` and one at the end; nobody
/// writes to it any more.
async fn written(engine: Engine) -> (Broker, Beside) {
    let mut b = Broker::start(engine).await;
    let beside = Beside::of(&b).await;
    beside.write(&b, &["one", "two", "three"]).await;
    beside.trail.checkpoint(true).await.unwrap().unwrap();
    let rest = ["four", "five", "six", "seven", "eight", "nine"];
    beside.write(&b, &rest).await;
    b.stop().await;
    let outcome = beside.verify(None).await;
    assert_eq!(outcome.findings, [], "{outcome:?}");
    assert!(outcome.checkpoints_checked >= 2, "{outcome:?}");
    (b, beside)
}

/// The place of the entry on a thing.
async fn place(b: &Broker, thing: &str) -> i64 {
    let query = format!(
        "SELECT CAST(position AS text) AS line FROM audit_events WHERE resource_id = '{thing}'"
    );
    b.ground.lines(&query).await[0].parse().unwrap()
}

/// The id of the entry on a thing.
async fn id(b: &Broker, thing: &str) -> String {
    let query = format!("SELECT id AS line FROM audit_events WHERE resource_id = '{thing}'");
    b.ground.lines(&query).await.remove(0)
}

/// What was found, where.
fn found(outcome: &Verification) -> Vec<(Fault, i64)> {
    let findings = outcome.findings.iter();
    findings
        .map(|finding| (finding.fault, finding.position))
        .collect()
}

on_both_engines! {
    async fn two_replicas_chain_one_log(engine: Engine) {
        let b = Broker::start(engine).await;
        let (one, other) = (Beside::of(&b).await, Beside::of(&b).await);
        let things: Vec<String> = (0..40).map(|n| format!("thing-{n}")).collect();
        let writing = |beside: &'static str, things: Vec<String>| {
            let b = &b;
            let beside = if beside == "one" { &one } else { &other };
            async move {
                for thing in &things {
                    beside.write(b, &[thing]).await;
                }
            }
        };
        let (left, right) = things.split_at(20);
        tokio::join!(writing("one", left.to_vec()), writing("other", right.to_vec()));
        let outcome = one.verify(None).await;
        assert_eq!(outcome.findings, []);
        assert_eq!(outcome.events_checked, outcome.last_position);
        let places = "SELECT CAST(count(DISTINCT position) AS text) AS line FROM audit_events
                      WHERE resource_kind = 'thing'";
        assert_eq!(b.ground.lines(places).await, ["40"]);
        b.finish().await;
    }
}

on_both_engines! {
    async fn an_entry_that_is_written_again_is_there_once(engine: Engine) {
        let (b, beside) = written(engine).await;
        let before = beside.verify(None).await;
        let entry = beside.trail.any_tenant_after(0, 1).await.unwrap().remove(0);
        let mut tx = beside.store.begin().await.unwrap();
        tokenbroker::store::audit::insert(&mut tx, &entry.event).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(beside.verify(None).await, before);
        b.finish().await;
    }

    async fn whatever_is_behind_a_chunk_that_fails_is_kept(engine: Engine) {
        let b = Broker::start(engine).await;
        let store = b.ground.store().await;
        let all: Vec<u32> = (0..1_200).collect();
        let write = async |_: &mut tokenbroker::store::Tx, chunk: &[u32]| {
            if chunk.contains(&600) {
                return Err(tokenbroker::Error::internal("no"));
            }
            Ok(())
        };
        let (done, outcome) = tokenbroker::store::write_in_chunks(&store, &all, write).await;
        assert!((1..=600).contains(&done) && outcome.is_err(), "{done}");
        b.finish().await;
    }
}

/// Every action is explained, and nothing is that is none.
#[test]
fn the_catalogue_is_documented() {
    let text = include_str!("../../docs/audit.md");
    let (catalogue, _) = text.split_once("\n## What is counted").unwrap();
    let documented: BTreeSet<&str> = catalogue
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` |"))
        .map(|(name, _)| name)
        .collect();
    let actions: BTreeSet<&str> = Action::ALL.iter().map(|action| action.as_str()).collect();
    assert_eq!(documented, actions);
}
