//! `[cache]`: the memory cache of opened access tokens.

use std::time::Duration;

use super::reader::Reader;
use super::{MINUTE, SECOND};

/// The memory cache of opened access tokens.
#[derive(Clone, Debug)]
pub struct Cache {
    /// The most entries.
    pub capacity: u64,
    /// How long entries are served while nothing was heard from the database: the bound within
    /// which a revocation on another replica takes effect here.
    pub max_staleness: Duration,
}

impl Cache {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            capacity: reader.integer("cache.capacity", 1..=10_000_000),
            max_staleness: reader.duration("cache.max_staleness", SECOND..=5 * MINUTE),
        }
    }
}
