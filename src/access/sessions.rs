//! Sessions of users: made, refreshed, revoked, and recognised from memory.

use std::sync::Arc;

use super::Principal;
use crate::error::{Error, Unknown};

/// The sessions of this database.
#[derive(Default)]
pub struct Sessions {}

impl Sessions {
    /// Whom a session token stands for, if memory knows.
    pub fn recognise(&self, _text: &str) -> Option<Arc<Principal>> {
        None
    }

    /// Whom a session token stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or the store's.
    pub async fn authenticate(&self, _text: &str) -> Result<Arc<Principal>, Error> {
        Err(Error::Unauthenticated(Unknown::Invalid))
    }

    /// Judges a caller again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or the store's.
    pub async fn reauthenticate(&self, _hash: &[u8; 32]) -> Result<(), Error> {
        Err(Error::Unauthenticated(Unknown::Invalid))
    }

    /// Forgets the session, or the user's sessions, that ended.
    pub fn forget(&self, _subject: &str) {}

    /// Stores when sessions were last used.
    ///
    /// # Errors
    /// The store's.
    pub async fn flush_use(&self) -> Result<(), Error> {
        Ok(())
    }
}
