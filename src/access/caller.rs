//! A caller of one request: who they are, and where they call from.

use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use super::limits::Limiter;
use super::{Credential, Principal};
use crate::model::{Constraints, Role};

/// Longest user agent that is kept, in bytes.
pub const USER_AGENT_MAX: usize = 512;

/// Where a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The address; none where the transport does not tell.
    pub ip: Option<IpAddr>,
    /// The program; empty when it does not say, at most [`USER_AGENT_MAX`] bytes, no control
    /// characters.
    pub user_agent: String,
    /// The trace (W3C trace context) in hexadecimal; empty where there is none.
    pub trace_id: String,
}

impl Origin {
    /// The address as text; empty when not known.
    pub fn ip_text(&self) -> String {
        self.ip
            .map_or_else(String::new, |ip| ip.to_canonical().to_string())
    }

    /// A user agent as it may be kept.
    pub fn clean_user_agent(text: &str) -> String {
        let mut kept: String = text.chars().filter(|c| !c.is_control()).collect();
        while kept.len() > USER_AGENT_MAX {
            kept.pop();
        }
        kept
    }
}

/// A known caller with one request of theirs.
#[derive(Clone, Debug)]
pub struct Caller {
    principal: Arc<Principal>,
    /// Where the request comes from.
    pub origin: Origin,
}

impl Caller {
    /// This caller, calling from there.
    pub fn new(principal: Arc<Principal>, origin: Origin) -> Self {
        Self { principal, origin }
    }

    /// The command line in a tenant, by the system's name of who runs it: it may do everything.
    pub fn command_line(tenant: &str) -> Self {
        let user = std::env::var("USER").unwrap_or_default();
        let principal = Principal {
            id: user.clone(),
            name: user,
            tenant: tenant.to_owned(),
            role: Role::Admin,
            constraints: Constraints::default(),
            credential: Credential::CommandLine,
            expires_at: None,
            limiter: Arc::new(Limiter::unlimited()),
        };
        Self::new(Arc::new(principal), Origin::default())
    }

    /// Who calls.
    pub fn principal(&self) -> &Arc<Principal> {
        &self.principal
    }
}

impl Deref for Caller {
    type Target = Principal;
    fn deref(&self) -> &Principal {
        &self.principal
    }
}

/// The other end of a connection, as the transport knows it.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address.
    pub ip: Option<IpAddr>,
    /// The client certificate that it proved to hold.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// A client certificate whose chain was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of its DER form.
    pub fingerprint: [u8; 32],
    /// Its URI subject alternative names; a SPIFFE id is one.
    pub uris: Vec<String>,
    /// Its DNS subject alternative names.
    pub dns_names: Vec<String>,
    /// When it ends.
    pub not_after: crate::model::Timestamp,
}
