//! JWTs of trusted issuers, mapped to roles by the configuration.

use std::sync::Arc;

use super::Principal;
use crate::error::{Error, Unknown};

/// The issuers of the configuration.
#[derive(Default)]
pub struct Jwts {}

impl Jwts {
    /// Whom a JWT stands for, if memory knows.
    pub fn recognise(&self, _text: &str) -> Option<Arc<Principal>> {
        None
    }

    /// Whom a JWT stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or [`Error::Unavailable`] when the issuer's keys can't be had.
    pub async fn authenticate(&self, _text: &str) -> Result<Arc<Principal>, Error> {
        Err(Error::Unauthenticated(Unknown::Invalid))
    }

    /// Judges a caller again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the JWT has ended.
    pub fn reauthenticate(&self, _principal: &Principal) -> Result<(), Error> {
        Err(Error::Unauthenticated(Unknown::Expired))
    }
}
