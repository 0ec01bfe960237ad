//! Client certificates, mapped to roles by the configuration.

use std::sync::Arc;

use super::Principal;
use super::caller::PeerCertificate;
use crate::error::{Error, Unknown};

/// The rules of the configuration.
#[derive(Default)]
pub struct Certificates {}

impl Certificates {
    /// Whom a certificate stands for, if memory knows.
    pub fn recognise(&self, _certificate: &PeerCertificate) -> Option<Arc<Principal>> {
        None
    }

    /// Whom a certificate stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when no rule takes it, or it has ended.
    pub fn authenticate(&self, _certificate: &PeerCertificate) -> Result<Arc<Principal>, Error> {
        Err(Error::Unauthenticated(Unknown::Unmapped))
    }

    /// Judges a caller again.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the certificate has ended.
    pub fn reauthenticate(&self, _principal: &Principal) -> Result<(), Error> {
        Err(Error::Unauthenticated(Unknown::Unmapped))
    }
}
