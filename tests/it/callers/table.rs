//! What each role may, written down once more and apart from the service: a right that slips into its
//! tables shows here, and so does an RPC that is added without a word.

use tokenbroker::model::Role;
use tonic::Code;

use Code::{FailedPrecondition, Ok};

/// Who may call an RPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum May {
    /// Whoever asks; credentials are not looked at.
    Anybody,
    /// Whoever asks; credentials that are sent must be good.
    AnybodyGood,
    /// Callers of these roles, a letter each: admin, operator, auditor (t for trail), consumer,
    /// worker, issuer_ui, user.
    Roles(&'static str),
    /// The same; and signed-in users for what is their own.
    OwnOr(&'static str),
}

/// What a sound request says to another tenant's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abroad {
    /// It names something: there is no such thing.
    NotFound,
    /// It names nothing of the tenant: an answer that holds nothing of it.
    Empty,
    /// It comes with a client's or a person's own word: OAuth's answer to one that is nobody's.
    Nobody,
    /// It makes something in the tenant that asks, or has nothing to do with it: not called.
    Own,
}

use Abroad::{Empty, Nobody, NotFound, Own};
use May::{Anybody, AnybodyGood, OwnOr, Roles};

/// One RPC: its name, who may call it, what a sound request comes to for them, and for another tenant.
pub type Row = (&'static str, May, Code, Abroad);

/// In an order in which every request finds what it names: what destroys comes last.
pub const TABLE: &[Row] = &[
    ("GetCaller", Roles("aotcwiu"), Ok, Empty),
    ("GetUser", OwnOr("ao"), Ok, NotFound),
    ("ListUsers", Roles("ao"), Ok, Empty),
    ("GetPreferences", OwnOr("ao"), Ok, NotFound),
    ("ListSessions", OwnOr("ao"), Ok, NotFound),
    ("ListApiKeys", Roles("ao"), Ok, Empty),
    ("ListAuditEvents", Roles("at"), Ok, Empty),
    ("ListAuditCheckpoints", Roles("at"), Ok, Empty),
    ("VerifyAuditLog", Roles("at"), Ok, Own),
    ("WatchAuditEvents", Roles("at"), Ok, Empty),
    ("ExportPerson", Roles("a"), Ok, NotFound),
    ("ListProviders", Roles("aoc"), Ok, Empty),
    ("GetProvider", Roles("aoc"), Ok, NotFound),
    ("GetApp", Roles("aoc"), Ok, NotFound),
    ("ListApps", Roles("aoc"), Ok, Empty),
    ("GetClient", Roles("ao"), Ok, NotFound),
    ("ListClients", Roles("ao"), Ok, Empty),
    ("GetClientStats", Roles("ao"), Ok, NotFound),
    ("GetServerMetadata", Anybody, Ok, Own),
    ("GetAuthorizationRequest", Roles("ai"), Ok, NotFound),
    ("IntrospectToken", Roles("aci"), Ok, Empty),
    ("GetUserInfo", Roles("aci"), Ok, Nobody),
    ("ListIssuedTokens", Roles("ao"), Ok, Empty),
    ("ListGrants", OwnOr("ao"), Ok, Empty),
    ("AcceptAuthorizationRequest", Roles("ai"), Ok, NotFound),
    ("RejectAuthorizationRequest", Roles("ai"), Ok, NotFound),
    ("ExchangeToken", Roles("ai"), Ok, Nobody),
    ("StartDeviceAuthorization", Roles("ai"), Ok, Nobody),
    ("RevokeToken", Roles("ai"), Ok, Nobody),
    ("RevokeGrant", OwnOr("ao"), Ok, NotFound),
    ("GetConnection", Roles("aocu"), Ok, NotFound),
    ("ListConnections", Roles("aocu"), Ok, NotFound),
    ("ListConnectedAccounts", Roles("aocu"), Ok, Empty),
    ("ListRefreshAttempts", Roles("aocu"), Ok, NotFound),
    ("ListSyncRecords", Roles("aocu"), Ok, NotFound),
    ("ListTokenEvents", Roles("aoc"), Ok, NotFound),
    ("WatchTokenEvents", Roles("aoc"), Ok, NotFound),
    ("GetAuthorization", Roles("aoc"), Ok, NotFound),
    ("GetAccessToken", Roles("ac"), Ok, NotFound),
    ("BatchGetAccessTokens", Roles("ac"), Ok, Empty),
    ("RefreshAccessToken", Roles("aoc"), Ok, NotFound),
    ("ReportAccessTokenRejected", Roles("aoc"), Ok, NotFound),
    ("RecordSync", Roles("aoc"), Ok, NotFound),
    ("UpdateConnection", Roles("aoc"), Ok, NotFound),
    ("StartAuthorization", Roles("aoc"), Ok, NotFound),
    // The scene's authorisation waits for its owner's browser.
    (
        "ConfirmAuthorization",
        Roles("aoc"),
        FailedPrecondition,
        NotFound,
    ),
    (
        "CompleteAuthorization",
        Roles("aoc"),
        FailedPrecondition,
        NotFound,
    ),
    ("ImportConnection", Roles("ao"), Ok, NotFound),
    ("CreateProvider", Roles("a"), Ok, Own),
    ("StartSignIn", Roles("ai"), Ok, NotFound),
    ("UpdateProvider", Roles("a"), Ok, NotFound),
    ("CreateApp", Roles("ao"), Ok, NotFound),
    ("UpdateApp", Roles("ao"), Ok, NotFound),
    ("RotateAppSecret", Roles("ao"), Ok, NotFound),
    ("CreateClient", Roles("a"), Ok, Own),
    ("UpdateClient", Roles("a"), Ok, NotFound),
    ("RotateClientSecret", Roles("a"), Ok, NotFound),
    ("ApproveClient", Roles("a"), Ok, NotFound),
    ("SuspendClient", Roles("ao"), Ok, NotFound),
    ("ReactivateClient", Roles("a"), Ok, NotFound),
    ("CreateSession", AnybodyGood, Ok, Own),
    ("RefreshSession", Anybody, Ok, Own),
    ("CreateUser", Roles("a"), Ok, Own),
    ("UpdateUser", Roles("a"), Ok, NotFound),
    ("UpdatePreferences", OwnOr("a"), Ok, NotFound),
    ("CreateApiKey", Roles("a"), Ok, Own),
    ("RotateApiKey", Roles("a"), Ok, NotFound),
    ("RevokeApiKey", Roles("a"), Ok, NotFound),
    ("RevokeSession", OwnOr("a"), Ok, NotFound),
    ("SetPassword", OwnOr("a"), Ok, NotFound),
    ("ListAccounts", Roles("ao"), Ok, Empty),
    ("GetAccount", Roles("ao"), Ok, NotFound),
    ("ListProfiles", Roles("ao"), Ok, Empty),
    ("GetProfile", Roles("ao"), Ok, NotFound),
    ("ListJobs", Roles("aocw"), Ok, Empty),
    ("GetJob", Roles("aocw"), Ok, NotFound),
    ("ListBatches", Roles("aocw"), Ok, Empty),
    ("GetBatch", Roles("aocw"), Ok, NotFound),
    ("ListDeadLetters", Roles("aocw"), Ok, Empty),
    ("WatchJobs", Roles("aocw"), Ok, Empty),
    ("ClaimJobs", Roles("aw"), Ok, Empty),
    ("Heartbeat", Roles("aw"), Ok, NotFound),
    ("ReportProgress", Roles("aw"), Ok, NotFound),
    ("GetJobCredentials", Roles("aw"), Ok, NotFound),
    ("CompleteJob", Roles("aw"), Ok, NotFound),
    ("FailJob", Roles("aw"), Ok, NotFound),
    ("SnoozeJob", Roles("aw"), Ok, NotFound),
    ("CreateJob", Roles("aoc"), Ok, NotFound),
    ("CreateBatch", Roles("aoc"), Ok, Own),
    ("RetryJob", Roles("aoc"), Ok, NotFound),
    ("RetryBatch", Roles("aoc"), Ok, NotFound),
    ("CancelJob", Roles("aoc"), Ok, NotFound),
    ("CancelBatch", Roles("aoc"), Ok, NotFound),
    ("RedriveDeadLetters", Roles("aoc"), Ok, Empty),
    ("PurgeDeadLetters", Roles("aoc"), Ok, Empty),
    ("CreateAccount", Roles("ao"), Ok, NotFound),
    ("UpdateAccount", Roles("ao"), Ok, NotFound),
    ("SetCredentials", Roles("ao"), Ok, NotFound),
    ("MarkConnected", Roles("ao"), Ok, NotFound),
    ("DeleteAccount", Roles("ao"), Ok, NotFound),
    ("CreateProfile", Roles("ao"), Ok, Own),
    ("UpdateProfile", Roles("ao"), Ok, NotFound),
    ("DeleteProfile", Roles("ao"), Ok, NotFound),
    ("RevokeConnection", Roles("aocu"), Ok, NotFound),
    ("RevokeAppConnections", Roles("aoc"), Ok, NotFound),
    ("DeleteConnection", Roles("aoc"), Ok, NotFound),
    // They have apps, and connections that were imported or made from another provider's account.
    ("DeleteApp", Roles("ao"), FailedPrecondition, NotFound),
    ("DeleteProvider", Roles("a"), FailedPrecondition, NotFound),
    ("RevokeClient", Roles("a"), Ok, NotFound),
    ("DeleteClient", Roles("a"), Ok, NotFound),
    ("DeactivateUser", Roles("a"), Ok, NotFound),
    ("ReactivateUser", Roles("a"), Ok, NotFound),
    // Signs the caller out where it is the user.
    ("RevokeAllSessions", OwnOr("a"), Ok, NotFound),
    ("DeleteUser", Roles("a"), Ok, NotFound),
    ("ErasePerson", Roles("a"), Ok, NotFound),
];

/// The row of an RPC.
pub fn row(rpc: &str) -> &'static Row {
    let found = TABLE.iter().find(|(name, ..)| *name == rpc);
    found.unwrap_or_else(|| panic!("{rpc} has no row in tests/it/callers/table.rs"))
}

fn letter(role: Role) -> char {
    match role {
        Role::Admin => 'a',
        Role::Operator => 'o',
        Role::Auditor => 't',
        Role::Consumer => 'c',
        Role::Worker => 'w',
        Role::IssuerUi => 'i',
        Role::User => 'u',
    }
}

/// Whether a role's permissions allow an RPC.
pub fn by_role(role: Role, rpc: &str) -> bool {
    match row(rpc).1 {
        Anybody | AnybodyGood => true,
        Roles(letters) | OwnOr(letters) => letters.contains(letter(role)),
    }
}

/// Whether a caller may: a signed-in one for what is their own, too.
pub fn allowed(role: Role, signed_in: bool, rpc: &str) -> bool {
    by_role(role, rpc) || (signed_in && matches!(row(rpc).1, OwnOr(_)))
}
