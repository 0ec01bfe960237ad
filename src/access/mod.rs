//! Who calls, what they may do, and the trail of what they did.

pub mod api_keys;
pub mod audit;
pub mod bearer;
pub mod caller;
pub mod callers;
pub mod certificates;
pub mod jwt;
mod known;
pub mod limits;
pub mod passwords;
pub mod policy;
pub mod principal;
pub mod requests;
pub mod sessions;
pub mod throttle;
pub mod users;

pub use api_keys::ApiKeys;
pub use caller::{Caller, Origin, Peer};
pub use callers::Callers;
pub use policy::Permission;
pub use principal::{Credential, Principal};
pub use sessions::Sessions;
pub use users::Users;
