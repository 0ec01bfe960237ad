//! Who calls and what they may do.

pub mod api_key;
pub mod api_keys;
mod known_keys;
pub mod policy;
pub mod principal;
pub mod requests;

pub use api_keys::ApiKeys;
pub use policy::Permission;
pub use principal::Principal;
