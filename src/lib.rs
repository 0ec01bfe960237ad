//! tokenbroker keeps users' OAuth connections sealed and their access tokens fresh.
//!
//! Modules in reading order: what it is made of, what it does, how it is reached.

pub mod clock;
pub mod config;
pub mod error;
pub mod freshness;
pub mod model;
pub mod pb;
pub mod tasks;
pub mod telemetry;

pub mod crypto;
pub mod oauth;
pub mod store;

pub mod access;
pub mod automation;
pub mod broker;
pub mod issuer;
pub mod maintenance;
pub mod registry;

pub mod grpc;
pub mod web;

pub mod workers;

pub mod server;

pub mod app;
pub mod bootstrap;
pub mod cli;

pub use error::Error;
