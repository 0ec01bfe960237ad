//! What is held about one person: exported, and erased.

use crate::clock::Clock;
use crate::store::Store;

/// What is held about persons.
pub struct Persons {
    store: Store,
    clock: Clock,
}

impl Persons {
    /// On a store.
    pub fn new(store: Store, clock: Clock) -> Self {
        Self { store, clock }
    }
}
