//! The trail as a whole: chained, read, verified, trimmed.

use crate::clock::Clock;
use crate::crypto::Keyring;
use crate::store::Store;

/// The audit trail of this database.
pub struct Trail {
    store: Store,
    keyring: Keyring,
    clock: Clock,
}

impl Trail {
    /// On a store.
    pub fn new(store: Store, keyring: Keyring, clock: Clock) -> Self {
        Self {
            store,
            keyring,
            clock,
        }
    }
}
