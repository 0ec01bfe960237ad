//! People who sign in, and where they are signed in.

use serde_json::{Map, Value};

use super::{Constraints, Role, Timestamp};

/// Whether a user may sign in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserState {
    /// They may.
    Active,
    /// They were switched off.
    Inactive,
}

/// A person who signs in.
#[derive(Clone, Debug)]
pub struct User {
    /// `user_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// In lower case; unique in the tenant.
    pub email: String,
    /// Somebody has made sure that the address is theirs.
    pub email_verified: bool,
    /// Their name for people.
    pub display_name: String,
    /// Argon2id in PHC form; none for who signs in through a provider.
    pub password_hash: Option<String>,
    /// What they may do.
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// Whose connections are theirs; unique in the tenant.
    pub owner: String,
    /// Whether they may sign in.
    pub state: UserState,
    /// Grows with every change.
    pub version: i64,
    /// When the user was made.
    pub created_at: Timestamp,
    /// When the user last changed.
    pub updated_at: Timestamp,
    /// When they last signed in.
    pub last_sign_in_at: Option<Timestamp>,
    /// When they were last given a password.
    pub password_changed_at: Option<Timestamp>,
    /// When the user was deleted; such a user is found by nobody but retention.
    pub deleted_at: Option<Timestamp>,
}

/// What a user prefers.
#[derive(Clone, Debug, Default)]
pub struct Preferences {
    /// Any JSON object.
    pub values: Map<String, Value>,
    /// Grows with every change; 0 when none were ever set.
    pub version: i64,
    /// When they last changed.
    pub updated_at: Option<Timestamp>,
}

/// How a user signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignInMethod {
    /// By e-mail address and password.
    Password,
    /// Through a provider.
    Provider,
}

/// A user, signed in somewhere. Its tokens are stored as hashes, which are not here.
#[derive(Clone, Debug)]
pub struct Session {
    /// `sess_…`.
    pub id: String,
    /// The tenant.
    pub tenant: String,
    /// The user.
    pub user_id: String,
    /// How they signed in.
    pub method: SignInMethod,
    /// When they did.
    pub created_at: Timestamp,
    /// When the session token was issued.
    pub issued_at: Timestamp,
    /// When it was last used; some seconds behind.
    pub last_used_at: Timestamp,
    /// When it ends in any case.
    pub expires_at: Timestamp,
    /// When the session can no longer be refreshed.
    pub refresh_expires_at: Timestamp,
    /// The address they signed in from; empty when not known.
    pub ip: String,
    /// The program they signed in with; empty when not known.
    pub user_agent: String,
    /// When it was ended.
    pub revoked_at: Option<Timestamp>,
    /// Why it was ended; empty while it was not.
    pub revoke_reason: String,
}
