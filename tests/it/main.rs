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

mod audit;
mod audit_entries;
mod authorizations;
mod automation;
mod callbacks;
mod callers;
mod cancellation;
mod catalogue;
mod cli;
mod clients;
mod connections;
mod events;
mod imports;
mod input;
mod issuer;
mod jwt;
mod limits;
mod migrations;
mod oauth2_crate;
mod parity;
mod persons;
mod races;
mod recovery;
mod refresh;
mod registry;
mod sessions;
mod sign_in;
mod telemetry;
mod tidy;
mod tls;
mod tokens;
mod users;
mod web;
