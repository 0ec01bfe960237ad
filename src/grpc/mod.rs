//! The gRPC edge: what crosses the wire is judged and converted here, and only here. A handler
//! reads the request, asks the domain, and answers.

pub mod administration;
pub mod authorization_server;
mod authorizations;
pub mod automation_jobs;
pub mod caller;
pub mod client_registry;
mod clients;
mod connections;
pub mod convert;
mod events;
pub mod fields;
pub mod gate;
mod mask;
pub mod page;
mod records;
mod registry_convert;
pub mod status;
pub mod streams;
pub mod token_broker;
mod tokens;

pub use crate::tasks::Tasks;
