//! Whoever calls, by whatever they send: one place that tells API keys, sessions, client certificates
//! and JWTs apart.

use std::sync::Arc;

use super::bearer::Prefix;
use super::caller::Peer;
use super::certificates::Certificates;
use super::jwt::Jwts;
use super::principal::Credential;
use super::{ApiKeys, Principal, Sessions};
use crate::error::{Error, Unknown};
use crate::model::{EventKind, NewEvent};

/// All that callers can be known by.
pub struct Callers {
    keys: Arc<ApiKeys>,
    sessions: Arc<Sessions>,
    certificates: Certificates,
    jwts: Jwts,
}

impl Callers {
    /// By these.
    pub fn new(
        keys: Arc<ApiKeys>,
        sessions: Arc<Sessions>,
        certificates: Certificates,
        jwts: Jwts,
    ) -> Self {
        Self {
            keys,
            sessions,
            certificates,
            jwts,
        }
    }

    /// Whom a bearer token, or else the connection's certificate, stands for, if memory knows: the
    /// hot path, without the database.
    pub fn recognise(&self, bearer: Option<&str>, peer: Option<&Peer>) -> Option<Arc<Principal>> {
        match bearer {
            Some(text) if text.starts_with(Prefix::ApiKey.text()) => self.keys.recognise(text),
            Some(text) if text.starts_with(Prefix::Session.text()) => self.sessions.recognise(text),
            Some(text) => self.jwts.recognise(text),
            None => self.certificates.recognise(peer?.certificate.as_deref()?),
        }
    }

    /// Whom a bearer token, or else the connection's certificate, stands for. A bearer token that is
    /// sent must be good, whatever the certificate.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], [`Error::Unavailable`] when the keys of an issuer can't be had, or
    /// the store's.
    pub async fn authenticate(
        &self,
        bearer: Option<&str>,
        peer: Option<&Peer>,
    ) -> Result<Arc<Principal>, Error> {
        match bearer {
            Some(text) if text.starts_with(Prefix::ApiKey.text()) => {
                self.keys.authenticate(text).await
            }
            Some(text) if text.starts_with(Prefix::Session.text()) => {
                self.sessions.authenticate(text).await
            }
            Some(text) => self.jwts.authenticate(text).await,
            None => match peer.and_then(|peer| peer.certificate.as_deref()) {
                Some(certificate) => self.certificates.authenticate(certificate),
                None => Err(Error::Unauthenticated(Unknown::Missing)),
            },
        }
    }

    /// Judges a caller again, for streams that outlive their first judgement.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when its credentials have ended or were revoked, or the store's.
    pub async fn reauthenticate(&self, principal: &Principal) -> Result<(), Error> {
        match &principal.credential {
            Credential::ApiKey { hash } => self.keys.reauthenticate(hash).await,
            Credential::Session { hash, .. } => self.sessions.reauthenticate(hash).await,
            Credential::Certificate { .. } => self.certificates.reauthenticate(principal),
            Credential::Jwt { .. } => self.jwts.reauthenticate(principal),
            // Holds no stream: it does not call over the network.
            Credential::CommandLine => Err(Error::Unauthenticated(Unknown::Invalid)),
        }
    }

    /// Forgets what an event, of this replica or another, made stale.
    pub fn hear(&self, event: &NewEvent) {
        match event.kind {
            EventKind::ApiKeyChanged => self.keys.forget(),
            EventKind::SessionsEnded => self.sessions.forget(&event.subject),
            _ => {}
        }
    }

    /// Stores when keys and sessions were last used.
    ///
    /// # Errors
    /// The store's; what was not stored is stored the next time.
    pub async fn flush_use(&self) -> Result<(), Error> {
        self.keys.flush_use().await?;
        self.sessions.flush_use().await
    }
}
