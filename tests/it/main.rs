//! The integration tests: one binary, both engines. Run them with `make test`, which brings up the
//! PostgreSQL that they need.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    missing_docs,
    reason = "a test that fails says so"
)]

mod fixture;

mod authorizations;
mod callbacks;
mod callers;
mod cancellation;
mod catalogue;
mod cli;
mod events;
mod imports;
mod input;
mod migrations;
mod parity;
mod races;
mod recovery;
mod refresh;
mod registry;
mod telemetry;
mod tidy;
mod tokens;
mod web;
