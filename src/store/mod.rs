//! Persistence: diesel lives here and nowhere else. Functions take a connection or a transaction
//! and give back plain data of the model. Secrets pass as sealed envelopes only.

pub mod accounts;
pub mod api_keys;
pub mod apps;
pub mod audit;
pub mod authorizations;
pub mod automation;
mod chunks;
pub mod clients;
pub mod columns;
pub mod connections;
mod error;
pub mod events;
pub mod grants;
pub mod idempotency;
pub mod issuer;
mod locks;
pub mod migrate;
pub mod persons;
pub mod pool;
pub mod postgres;
pub mod preferences;
pub mod providers;
pub mod records;
pub mod schema;
pub mod sessions;
pub mod sign_in_failures;
mod statement;
pub mod users;

pub use chunks::write_in_chunks;
pub use error::Error;
pub(crate) use pool::transact;
pub use pool::{Conn, Engine, Options, Store, Tx};

/// A value of a column, or the defect that it can't be one of the model.
fn unreadable_if_none<T>(value: Option<T>, column: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::unreadable(format!("{column} holds a value that is not known")))
}
