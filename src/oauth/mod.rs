//! What may be asked of a provider, over the one hardened HTTP client. Knows providers as data and
//! nothing of connections, grants or storage.
//!
//! The `oauth2` crate builds the protocol's requests and reads its answers; `quirks` bends the
//! requests to what a provider takes, `answer` brings what came back into the RFC's shape, and
//! `classify` says what a refusal means.

use thiserror::Error as ThisError;

mod address;
mod answer;
mod authorize;
mod breaker;
mod classify;
mod client;
mod discovery;
mod http;
pub mod jwks;
mod quirks;
mod revoke;
mod token;
mod userinfo;

pub use self::http::{Http, HttpConfig};
pub use address::AddressFilter;
pub use answer::id_token_claims;
pub use authorize::{AuthorizationRequest, new_code_verifier};
pub use breaker::Breaker;
pub use classify::Failure;
pub use client::{Credentials, ProviderClient};
pub use discovery::discover;
pub use revoke::Revocation;
pub use token::TokenAnswer;
pub use userinfo::Identity;

/// Why a request was not even built. The texts are fit for callers.
#[derive(Debug, ThisError)]
pub enum Error {
    /// An app's or a caller's value does not fit the provider.
    #[error("{field} {reason}")]
    Invalid {
        /// The value at fault.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up: {0}")]
    Setup(String),
}

impl Error {
    fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// An entry of the embedded catalogue, read as data: this layer does not know the registry.
#[cfg(test)]
fn catalogue_entry(id: &str) -> crate::model::Provider {
    let text = include_str!("../registry/providers.toml");
    let mut entries: std::collections::BTreeMap<String, crate::model::Provider> =
        toml::from_str(text).unwrap();
    let mut entry = entries.remove(id).unwrap();
    entry.id = id.to_owned();
    entry
}
