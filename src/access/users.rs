//! Users: people who sign in.

use crate::clock::Clock;
use crate::crypto::Keyring;
use crate::store::Store;

/// The users of this database.
pub struct Users {
    store: Store,
    keyring: Keyring,
    clock: Clock,
}

impl Users {
    /// On a store.
    pub fn new(store: Store, keyring: Keyring, clock: Clock) -> Self {
        Self {
            store,
            keyring,
            clock,
        }
    }
}
