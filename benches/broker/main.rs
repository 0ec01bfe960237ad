//! The benchmark that `make bench` runs: the real `tokenbroker` binary, beside a bare tonic echo
//! and a small provider, each in a process of its own on loopback.
//!
//! This binary is the measuring process; started again with `BENCH_ROLE` it is the echo or the
//! provider. `QUICK=1` takes small numbers; `ONLY=section,…` takes some sections and writes
//! nothing. A full run writes `docs/benchmarks.md`.

#![allow(
    clippy::disallowed_methods,
    reason = "what measures has the system's clock, and goes around the pool it measures"
)]

mod authorization_server;
mod callers;
mod contestant;
mod credentials;
mod database;
mod echo;
mod events;
mod ground;
mod h2load;
mod issuer;
mod jobs;
mod machine;
mod passwords;
mod process;
mod provider;
mod refreshes;
mod report;
mod spread;
mod startup;
mod stored;
mod throughput;

use std::path::Path;
use std::time::Instant;

use report::Report;

/// The broker's own allocator: the echo must not be slower for lack of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whatever goes wrong ends the run: a figure from a run with errors is worth nothing.
type Fault = Box<dyn std::error::Error + Send + Sync>;
type Outcome<T> = Result<T, Fault>;

/// How much is measured.
#[derive(Clone, Copy)]
struct Scale {
    quick: bool,
}

impl Scale {
    fn of<T>(self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match std::env::var(process::ROLE).as_deref() {
        Ok("echo") => runtime.block_on(echo::serve()),
        Ok("provider") => runtime.block_on(provider::serve()),
        Ok(role) => Err(format!("there is no role {role}").into()),
        Err(_) => runtime.block_on(measure()),
    }
}

async fn measure() -> Outcome<()> {
    let scale = Scale {
        quick: std::env::var("QUICK").is_ok_and(|quick| quick == "1"),
    };
    let only = std::env::var("ONLY").unwrap_or_default();
    let wanted = |name: &str| only.is_empty() || only.split(',').any(|one| one == name);
    let began = Instant::now();
    database::make_durable().await?;
    let mut report = Report::new(scale, machine::describe().await?);
    if wanted("throughput") {
        report.add(throughput::measure(scale).await?);
    }
    if wanted("credentials") {
        report.add(credentials::measure(scale).await?);
    }
    if wanted("passwords") {
        report.add(passwords::measure(scale).await?);
    }
    if wanted("issuer") {
        report.add(authorization_server::introspections::measure(scale).await?);
        report.add(authorization_server::exchanges::measure(scale).await?);
    }
    if wanted("refreshes") {
        report.add(refreshes::measure(scale).await?);
    }
    if wanted("stored") {
        report.add(stored::measure(scale).await?);
    }
    if wanted("events") {
        report.add(events::measure(scale).await?);
    }
    if wanted("jobs") {
        report.add(jobs::rates::measure(scale).await?);
        report.add(jobs::waiting::measure(scale).await?);
        report.add(jobs::finished::measure(scale).await?);
    }
    if wanted("startup") {
        report.add(startup::measure(scale).await?);
    }
    let text = report.finish(began.elapsed());
    if only.is_empty() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let page = scale.of("docs/benchmarks.md", "target/benchmarks-quick.md");
        std::fs::write(root.join(page), text)?;
        eprintln!("written to {page}");
    }
    Ok(())
}
