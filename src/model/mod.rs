//! Pure data: no I/O, no framework. Everyone may use it.

mod app;
mod audit;
mod authorization;
mod automation;
mod caller;
mod change;
mod client;
mod connection;
mod event;
mod id;
mod issuer;
pub mod provider;
mod sealed;
mod text_enum;
mod time;
pub mod token_status;
mod user;

pub use app::{App, AppState, CustomProvider};
pub use audit::{ActorKind, AuditEvent, ChainHead, Chained, Checkpoint};
pub use authorization::{
    Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationMode,
    AuthorizationState, NotProved, ProvedAccount, Visit,
};
pub use automation::{
    Account, Batch, Captcha, ExecutionMode, Job, JobCounts, JobState, Profile, Progress,
    UniqueStates,
};
pub use caller::{ApiKey, Constraints, RateLimit, Role};
pub use change::put;
pub use client::{
    ClientAuthMethod, ClientGrantType, ClientResponseType, ClientSecret, ClientSettings,
    ClientState, ClientUsage, OauthClient,
};
pub use connection::{
    Connection, ConnectionDetails, ConnectionState, Grant, GrantState, RefreshAttempt,
    RefreshOutcome, RefreshPolicy, RefreshTrigger, SyncRecord, SyncStatus, Usage,
};
pub use event::{Event, EventKind, Horizon, JobDetail, NewEvent, Topic};
pub use id::IdKind;
pub use issuer::{
    AuthorizationCode, AuthorizationRequest, DeviceAuthorization, DeviceState, IssuedGrant,
    IssuedToken, IssuedTokenKind, IssuerKey, OauthError, OauthErrorCode, RequestState, TokenFormat,
};
pub use provider::{ConnectionKind, Provider};
pub use sealed::Sealed;
pub use time::Timestamp;
pub use user::{Preferences, Session, SignInMethod, User, UserState};
