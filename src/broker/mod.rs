//! TokenBroker's domain: connecting accounts, keeping their tokens fresh, serving them, telling.

pub mod authorizations;
pub mod cache;
pub mod connections;
pub mod events;
pub mod journal;
pub mod persons;
pub mod refresh;
pub mod schedule;
pub mod sync;
pub mod token_set;
pub mod tokens;
pub mod vault;

pub use authorizations::Authorizations;
pub use cache::TokenCache;
pub use connections::Connections;
pub use events::Hub;
pub use persons::Persons;
pub use refresh::Refresher;
pub use schedule::Schedule;
pub use sync::Syncs;
pub use tokens::Tokens;
pub use vault::Vault;
