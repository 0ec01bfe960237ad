//! What each RPC tells the audit trail, written down once more and apart from the service: a change
//! that goes untold shows here, and so does an RPC that is added without a word.

/// What a call that comes about tells.
#[derive(Clone, Copy, Debug)]
pub enum Tells {
    /// It only reads, and who reads is not told.
    Nothing,
    /// It hands out tokens, which are counted by the minute.
    Counted,
    /// These, in this order.
    These(&'static [Line]),
}

/// One entry: its action, the kind of what it is on, and its reason.
pub type Line = (&'static str, &'static str, &'static str);

use Tells::{Counted, Nothing, These};

const READ: Tells = These(&[("audit.read", "audit", "")]);
const REVOKED: Line = ("connection.revoked", "connection", "revoked");

/// Every RPC, in an order in which each finds what it is to change: what destroys comes last.
pub const TABLE: &[(&str, Tells)] = &[
    ("GetCaller", Nothing),
    ("GetUser", Nothing),
    ("ListUsers", Nothing),
    ("GetPreferences", Nothing),
    ("ListSessions", Nothing),
    ("ListApiKeys", Nothing),
    ("ListProviders", Nothing),
    ("GetProvider", Nothing),
    ("GetApp", Nothing),
    ("ListApps", Nothing),
    ("GetClient", Nothing),
    ("ListClients", Nothing),
    ("GetClientStats", Nothing),
    ("GetServerMetadata", Nothing),
    ("GetAuthorizationRequest", Nothing),
    ("IntrospectToken", Nothing),
    ("GetUserInfo", Nothing),
    ("ListIssuedTokens", Nothing),
    ("ListGrants", Nothing),
    ("GetConnection", Nothing),
    ("ListConnections", Nothing),
    ("ListConnectedAccounts", Nothing),
    ("ListRefreshAttempts", Nothing),
    ("ListSyncRecords", Nothing),
    ("ListTokenEvents", Nothing),
    ("WatchTokenEvents", Nothing),
    ("GetAuthorization", Nothing),
    ("ListAccounts", Nothing),
    ("GetAccount", Nothing),
    ("ListProfiles", Nothing),
    ("GetProfile", Nothing),
    ("ListJobs", Nothing),
    ("GetJob", Nothing),
    ("ListBatches", Nothing),
    ("GetBatch", Nothing),
    ("ListDeadLetters", Nothing),
    ("WatchJobs", Nothing),
    // What workers say of their jobs is in the jobs' own events.
    ("ClaimJobs", Nothing),
    ("Heartbeat", Nothing),
    ("ReportProgress", Nothing),
    (
        "GetJobCredentials",
        These(&[("account.credentials_read", "account", "")]),
    ),
    ("CompleteJob", Nothing),
    ("FailJob", Nothing),
    ("SnoozeJob", Nothing),
    ("CreateJob", These(&[("job.created", "job", "")])),
    ("CreateBatch", These(&[("batch.created", "batch", "")])),
    ("RetryJob", These(&[("job.retried", "job", "")])),
    ("RetryBatch", These(&[("batch.retried", "batch", "")])),
    ("CancelJob", These(&[("job.cancelled", "job", "")])),
    ("CancelBatch", These(&[("batch.cancelled", "batch", "")])),
    (
        "RedriveDeadLetters",
        These(&[("dead_letters.redriven", "", "")]),
    ),
    (
        "PurgeDeadLetters",
        These(&[("dead_letters.purged", "", "")]),
    ),
    (
        "CreateAccount",
        These(&[("account.created", "account", "")]),
    ),
    (
        "UpdateAccount",
        These(&[("account.updated", "account", "")]),
    ),
    (
        "SetCredentials",
        These(&[("account.credentials_set", "account", "")]),
    ),
    (
        "MarkConnected",
        These(&[("account.connected", "account", "")]),
    ),
    (
        "DeleteAccount",
        These(&[("account.deleted", "account", "")]),
    ),
    (
        "CreateProfile",
        These(&[("profile.created", "profile", "")]),
    ),
    (
        "UpdateProfile",
        These(&[("profile.updated", "profile", "")]),
    ),
    (
        "DeleteProfile",
        These(&[("profile.deleted", "profile", "")]),
    ),
    ("GetAccessToken", Counted),
    ("BatchGetAccessTokens", Counted),
    ("ListAuditEvents", READ),
    ("ListAuditCheckpoints", READ),
    ("WatchAuditEvents", READ),
    ("VerifyAuditLog", These(&[("audit.verified", "audit", "")])),
    ("ExportPerson", These(&[("person.exported", "user", "")])),
    (
        "ReportAccessTokenRejected",
        These(&[
            ("token.rejected", "connection", ""),
            ("token.refreshed", "connection", ""),
        ]),
    ),
    (
        "RefreshAccessToken",
        These(&[("token.refreshed", "connection", "")]),
    ),
    (
        "RecordSync",
        These(&[("connection.synced", "connection", "")]),
    ),
    (
        "UpdateConnection",
        These(&[("connection.updated", "connection", "")]),
    ),
    (
        "StartAuthorization",
        These(&[("authorization.started", "authorization", "")]),
    ),
    (
        "ConfirmAuthorization",
        These(&[("authorization.confirmed", "authorization", "")]),
    ),
    (
        "CompleteAuthorization",
        These(&[
            ("connection.created", "connection", ""),
            ("authorization.completed", "authorization", ""),
        ]),
    ),
    (
        "ImportConnection",
        These(&[("connection.imported", "connection", "")]),
    ),
    (
        "StartSignIn",
        These(&[("session.sign_in_started", "authorization", "")]),
    ),
    (
        "CreateProvider",
        These(&[("provider.created", "provider", "")]),
    ),
    (
        "UpdateProvider",
        These(&[("provider.updated", "provider", "")]),
    ),
    ("CreateApp", These(&[("app.created", "app", "")])),
    ("UpdateApp", These(&[("app.updated", "app", "")])),
    ("CreateClient", These(&[("client.created", "client", "")])),
    ("UpdateClient", These(&[("client.updated", "client", "")])),
    (
        "RotateClientSecret",
        These(&[("client.secret_rotated", "client", "")]),
    ),
    (
        "AcceptAuthorizationRequest",
        These(&[("issuer.signed_in", "authorization_request", "")]),
    ),
    (
        "RejectAuthorizationRequest",
        These(&[(
            "issuer.consent_refused",
            "authorization_request",
            "access_denied",
        )]),
    ),
    (
        "ExchangeToken",
        These(&[("issuer.tokens_issued", "client", "")]),
    ),
    (
        "StartDeviceAuthorization",
        These(&[("issuer.device_started", "device", "")]),
    ),
    (
        "RevokeToken",
        These(&[("issuer.token_revoked", "issued_grant", "revoked_by_client")]),
    ),
    (
        "RevokeGrant",
        These(&[("issuer.grant_revoked", "issued_grant", "by the book")]),
    ),
    (
        "ApproveClient",
        These(&[("client.approved", "client", "by the book")]),
    ),
    (
        "SuspendClient",
        These(&[("client.suspended", "client", "by the book")]),
    ),
    (
        "ReactivateClient",
        These(&[("client.reactivated", "client", "by the book")]),
    ),
    (
        "RevokeClient",
        These(&[("client.revoked", "client", "by the book")]),
    ),
    ("DeleteClient", These(&[("client.deleted", "client", "")])),
    (
        "CreateSession",
        These(&[("session.created", "session", "")]),
    ),
    (
        "RefreshSession",
        These(&[("session.refreshed", "session", "")]),
    ),
    ("CreateUser", These(&[("user.created", "user", "")])),
    ("UpdateUser", These(&[("user.updated", "user", "")])),
    (
        "UpdatePreferences",
        These(&[("user.preferences_updated", "user", "")]),
    ),
    ("CreateApiKey", These(&[("api_key.created", "api_key", "")])),
    ("RotateApiKey", These(&[("api_key.rotated", "api_key", "")])),
    ("RevokeApiKey", These(&[("api_key.revoked", "api_key", "")])),
    (
        "RevokeSession",
        These(&[("session.revoked", "session", "revoked")]),
    ),
    (
        "RevokeAllSessions",
        These(&[("session.revoked", "user", "revoked")]),
    ),
    ("SetPassword", These(&[("user.password_set", "user", "")])),
    ("RevokeConnection", These(&[REVOKED])),
    (
        "DeleteConnection",
        These(&[("connection.deleted", "connection", "")]),
    ),
    // Those that were confirmed, completed and imported above.
    ("RevokeAppConnections", These(&[REVOKED; 3])),
    // Behind all that the provider is asked with the secret that it knows.
    (
        "RotateAppSecret",
        These(&[("app.secret_rotated", "app", "")]),
    ),
    ("DeleteApp", These(&[("app.deleted", "app", "")])),
    (
        "DeleteProvider",
        These(&[("provider.deleted", "provider", "")]),
    ),
    (
        "DeactivateUser",
        These(&[("user.deactivated", "user", "on leave")]),
    ),
    ("ReactivateUser", These(&[("user.reactivated", "user", "")])),
    ("DeleteUser", These(&[("user.deleted", "user", "")])),
    // When it begins and when it ends.
    (
        "ErasePerson",
        These(&[("person.erased", "user", ""), ("person.erased", "user", "")]),
    ),
];
