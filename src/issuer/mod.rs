//! Our own authorisation server: third-party clients have people's consent here, and get tokens.
//!
//! A browser's way: [`Issuer::begin`] judges the client's request and binds it to the browser;
//! [`Issuer::sign_in`] and [`Issuer::decide`], or the operator's own application by
//! [`Issuer::accept_request`], settle it; the browser goes back with a code. A client's way:
//! [`Issuer::exchange`] gives tokens for the code. Each consent is a grant, the family of all tokens
//! that come of it; whatever revokes one takes its row's lock.

mod assertion;
mod authentication;
mod brake;
mod codes;
mod devices;
mod dpop;
mod exchange;
mod grants;
mod introspection;
mod issue;
mod keys;
mod limits;
mod metadata;
mod parameters;
mod redeem;
mod refresh;
mod requests;
mod requests_csrf;
mod revocation;
mod scopes;
mod sweep;
mod usage;
mod userinfo;

use std::sync::Arc;

use tokio::sync::Notify;
use url::Url;

use crate::access::Users;
use crate::clock::Clock;
use crate::config;
use crate::crypto::Keyring;
use crate::freshness::Freshness;
use crate::oauth::Http;
use crate::store::Store;
use crate::telemetry::Metrics;

pub use authentication::{Credentials, SecretMethod};
pub use devices::{DeviceStarted, NewDevice};
pub use dpop::Proof;
pub use exchange::{Exchange, TokenGrant, Tokens};
pub use grants::GrantFilter;
pub use introspection::{Introspection, Reader};
pub use parameters::{Parameters, RESERVED};
pub use requests::{Accepted, Begun, Decision, Finish, NotBegun, Pushed, Shown};
pub use scopes::ScopeWords;
pub use userinfo::UserInfo;

pub use crate::crypto::jwt::ALGORITHMS as PROOF_ALGORITHMS;

/// What the authorisation server is made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Seals keys and answers that may be repeated.
    pub keyring: Keyring,
    /// The time.
    pub clock: Clock,
    /// Fetches the keys of clients.
    pub http: Http,
    /// Lifetimes and addresses.
    pub config: config::Issuer,
    /// Where browsers are.
    pub web_url: Url,
    /// Who signs in.
    pub users: Arc<Users>,
    /// The hub's.
    pub freshness: Arc<Freshness>,
    /// Wakes the relay of events after a commit.
    pub poke: Arc<Notify>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// Our own authorisation server. Shared behind an `Arc`.
pub struct Issuer {
    parts: Parts,
    keys: keys::SigningKeys,
    client_keys: assertion::ClientKeys,
    attempts: authentication::Attempts,
    nonces: dpop::Nonces,
    typed: brake::Brake,
    begun: brake::Brake,
    public: brake::Brake,
    cache: introspection::Cache,
    usage: usage::Usage,
    hourly: limits::Hourly,
}

impl Issuer {
    /// Of these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            keys: keys::SigningKeys::new(&parts),
            client_keys: assertion::ClientKeys::new(&parts),
            attempts: authentication::Attempts::new(&parts),
            nonces: dpop::Nonces::new(&parts),
            typed: brake::Brake::of_typed_codes(parts.clock.clone()),
            begun: brake::Brake::of_requests(parts.clock.clone()),
            public: brake::Brake::of_public_clients(parts.clock.clone()),
            cache: introspection::Cache::new(&parts),
            usage: usage::Usage::new(Arc::clone(&parts.metrics)),
            hourly: limits::Hourly::new(parts.clock.clone()),
            parts,
        }
    }

    /// Has the other replicas told at once of what was committed.
    fn poke(&self) {
        self.parts.poke.notify_one();
    }
}
