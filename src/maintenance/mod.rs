//! Keeping the database in order: what grows is pruned.

mod retention;

pub use retention::{Retention, Swept};
