//! Which role may do what, and what each RPC needs: two tables, and nothing else decides.

use crate::model::Role;

/// A right to one kind of action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Start, follow, confirm and complete authorisations.
    Authorize,
    /// Start authorisations that no session of the owner confirms.
    AuthorizeLinkOnly,
    /// Read connections, refresh attempts and synchronisations.
    ReadConnections,
    /// Change and delete connections; revoke an app's; record synchronisations.
    WriteConnections,
    /// Revoke a connection.
    RevokeConnections,
    /// Import tokens obtained elsewhere.
    ImportConnections,
    /// Receive access tokens.
    ReadTokens,
    /// Have tokens refreshed; report them as rejected.
    RefreshTokens,
    /// Follow and list token events.
    ReadEvents,
    /// Read providers and apps.
    ReadRegistry,
    /// Register and change apps, and set their secrets.
    WriteApps,
    /// Add and change providers: whoever sets their endpoints receives what is sent there.
    WriteProviders,
    /// Read OAuth clients and how they are used.
    ReadClients,
    /// Register, approve, change, reactivate, revoke and delete OAuth clients; receive their secrets.
    WriteClients,
    /// Suspend OAuth clients.
    SuspendClients,
    /// Read users, their preferences and their sessions.
    ReadUsers,
    /// Make, change, switch off and delete users; set passwords; end sessions.
    WriteUsers,
    /// Begin sign-ins through a provider, and make sessions for browsers elsewhere.
    SignOthersIn,
    /// Read API keys.
    ReadApiKeys,
    /// Make, rotate and revoke API keys.
    WriteApiKeys,
    /// Read and verify the audit trail.
    ReadAudit,
    /// Export and erase what is held about a person.
    ManagePersons,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 22] = [
        Self::Authorize,
        Self::AuthorizeLinkOnly,
        Self::ReadConnections,
        Self::WriteConnections,
        Self::RevokeConnections,
        Self::ImportConnections,
        Self::ReadTokens,
        Self::RefreshTokens,
        Self::ReadEvents,
        Self::ReadRegistry,
        Self::WriteApps,
        Self::WriteProviders,
        Self::ReadClients,
        Self::WriteClients,
        Self::SuspendClients,
        Self::ReadUsers,
        Self::WriteUsers,
        Self::SignOthersIn,
        Self::ReadApiKeys,
        Self::WriteApiKeys,
        Self::ReadAudit,
        Self::ManagePersons,
    ];

    /// Its name, as errors and documentation have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorizations.write",
            Self::AuthorizeLinkOnly => "authorizations.link_only",
            Self::ReadConnections => "connections.read",
            Self::WriteConnections => "connections.write",
            Self::RevokeConnections => "connections.revoke",
            Self::ImportConnections => "connections.import",
            Self::ReadTokens => "tokens.read",
            Self::RefreshTokens => "tokens.refresh",
            Self::ReadEvents => "events.read",
            Self::ReadRegistry => "registry.read",
            Self::WriteApps => "apps.write",
            Self::WriteProviders => "providers.write",
            Self::ReadClients => "clients.read",
            Self::WriteClients => "clients.write",
            Self::SuspendClients => "clients.suspend",
            Self::ReadUsers => "users.read",
            Self::WriteUsers => "users.write",
            Self::SignOthersIn => "sessions.create",
            Self::ReadApiKeys => "api_keys.read",
            Self::WriteApiKeys => "api_keys.write",
            Self::ReadAudit => "audit.read",
            Self::ManagePersons => "persons.manage",
        }
    }
}

/// What a role may do; constraints narrow it down.
pub const fn permissions(role: Role) -> &'static [Permission] {
    use Permission as P;
    match role {
        Role::Admin => &P::ALL,
        Role::Operator => &[
            P::Authorize,
            P::AuthorizeLinkOnly,
            P::ReadConnections,
            P::WriteConnections,
            P::RevokeConnections,
            P::ImportConnections,
            P::RefreshTokens,
            P::ReadEvents,
            P::ReadRegistry,
            P::WriteApps,
            P::ReadClients,
            P::SuspendClients,
            P::ReadUsers,
            P::ReadApiKeys,
        ],
        Role::Auditor => &[P::ReadAudit],
        Role::Consumer => &[
            P::Authorize,
            P::ReadConnections,
            P::WriteConnections,
            P::RevokeConnections,
            P::ReadTokens,
            P::RefreshTokens,
            P::ReadEvents,
            P::ReadRegistry,
        ],
        // Automation jobs bring their own permissions; nothing here is a worker's.
        Role::Worker => &[],
        Role::IssuerUi => &[P::SignOthersIn],
        Role::User => &[P::ReadConnections, P::RevokeConnections],
    }
}

/// What one RPC needs. Handlers judge constraints besides, and the few rights that depend on the
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anybody, known or not; credentials are not looked at.
    Open,
    /// Anybody; credentials that are sent must be good.
    Optional,
    /// Whoever is known.
    Known,
    /// Callers with this permission, and signed-in users for what is their own: the handler judges
    /// whose it is.
    OwnOr(Permission),
    /// Callers with this permission.
    Needs(Permission),
}

/// Every RPC that is served. A test compares it with the descriptors, both ways.
pub const RULES: &[(&str, Rule)] = {
    use Permission as P;
    use Rule::{Known, Needs, Open, Optional, OwnOr};
    &[
        ("/grpc.health.v1.Health/Check", Open),
        ("/grpc.health.v1.Health/Watch", Open),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            Open,
        ),
        (
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            Open,
        ),
        (
            "/tokenbroker.v1.Administration/CreateApiKey",
            Needs(P::WriteApiKeys),
        ),
        ("/tokenbroker.v1.Administration/CreateSession", Optional),
        (
            "/tokenbroker.v1.Administration/CreateUser",
            Needs(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/DeactivateUser",
            Needs(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/DeleteUser",
            Needs(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/ErasePerson",
            Needs(P::ManagePersons),
        ),
        (
            "/tokenbroker.v1.Administration/ExportPerson",
            Needs(P::ManagePersons),
        ),
        ("/tokenbroker.v1.Administration/GetCaller", Known),
        (
            "/tokenbroker.v1.Administration/GetPreferences",
            OwnOr(P::ReadUsers),
        ),
        (
            "/tokenbroker.v1.Administration/GetUser",
            OwnOr(P::ReadUsers),
        ),
        (
            "/tokenbroker.v1.Administration/ListApiKeys",
            Needs(P::ReadApiKeys),
        ),
        (
            "/tokenbroker.v1.Administration/ListAuditCheckpoints",
            Needs(P::ReadAudit),
        ),
        (
            "/tokenbroker.v1.Administration/ListAuditEvents",
            Needs(P::ReadAudit),
        ),
        (
            "/tokenbroker.v1.Administration/ListSessions",
            OwnOr(P::ReadUsers),
        ),
        (
            "/tokenbroker.v1.Administration/ListUsers",
            Needs(P::ReadUsers),
        ),
        (
            "/tokenbroker.v1.Administration/ReactivateUser",
            Needs(P::WriteUsers),
        ),
        ("/tokenbroker.v1.Administration/RefreshSession", Open),
        (
            "/tokenbroker.v1.Administration/RevokeAllSessions",
            OwnOr(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/RevokeApiKey",
            Needs(P::WriteApiKeys),
        ),
        (
            "/tokenbroker.v1.Administration/RevokeSession",
            OwnOr(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/RotateApiKey",
            Needs(P::WriteApiKeys),
        ),
        (
            "/tokenbroker.v1.Administration/SetPassword",
            OwnOr(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/StartSignIn",
            Needs(P::SignOthersIn),
        ),
        (
            "/tokenbroker.v1.Administration/UpdatePreferences",
            OwnOr(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/UpdateUser",
            Needs(P::WriteUsers),
        ),
        (
            "/tokenbroker.v1.Administration/VerifyAuditLog",
            Needs(P::ReadAudit),
        ),
        (
            "/tokenbroker.v1.Administration/WatchAuditEvents",
            Needs(P::ReadAudit),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/ApproveClient",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/CreateApp",
            Needs(P::WriteApps),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/CreateClient",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/CreateProvider",
            Needs(P::WriteProviders),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/DeleteApp",
            Needs(P::WriteApps),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/DeleteClient",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/DeleteProvider",
            Needs(P::WriteProviders),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/GetApp",
            Needs(P::ReadRegistry),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/GetClient",
            Needs(P::ReadClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/GetClientStats",
            Needs(P::ReadClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/GetProvider",
            Needs(P::ReadRegistry),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/ListApps",
            Needs(P::ReadRegistry),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/ListClients",
            Needs(P::ReadClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/ListProviders",
            Needs(P::ReadRegistry),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/ReactivateClient",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/RevokeClient",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/RotateAppSecret",
            Needs(P::WriteApps),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/RotateClientSecret",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/SuspendClient",
            Needs(P::SuspendClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/UpdateApp",
            Needs(P::WriteApps),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/UpdateClient",
            Needs(P::WriteClients),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/UpdateProvider",
            Needs(P::WriteProviders),
        ),
        (
            "/tokenbroker.v1.TokenBroker/BatchGetAccessTokens",
            Needs(P::ReadTokens),
        ),
        (
            "/tokenbroker.v1.TokenBroker/CompleteAuthorization",
            Needs(P::Authorize),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ConfirmAuthorization",
            Needs(P::Authorize),
        ),
        (
            "/tokenbroker.v1.TokenBroker/DeleteConnection",
            Needs(P::WriteConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/GetAccessToken",
            Needs(P::ReadTokens),
        ),
        (
            "/tokenbroker.v1.TokenBroker/GetAuthorization",
            Needs(P::Authorize),
        ),
        (
            "/tokenbroker.v1.TokenBroker/GetConnection",
            Needs(P::ReadConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ImportConnection",
            Needs(P::ImportConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ListConnectedAccounts",
            Needs(P::ReadConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ListConnections",
            Needs(P::ReadConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ListRefreshAttempts",
            Needs(P::ReadConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ListSyncRecords",
            Needs(P::ReadConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ListTokenEvents",
            Needs(P::ReadEvents),
        ),
        (
            "/tokenbroker.v1.TokenBroker/RecordSync",
            Needs(P::WriteConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/RefreshAccessToken",
            Needs(P::RefreshTokens),
        ),
        (
            "/tokenbroker.v1.TokenBroker/ReportAccessTokenRejected",
            Needs(P::RefreshTokens),
        ),
        (
            "/tokenbroker.v1.TokenBroker/RevokeAppConnections",
            Needs(P::WriteConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/RevokeConnection",
            Needs(P::RevokeConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/StartAuthorization",
            Needs(P::Authorize),
        ),
        (
            "/tokenbroker.v1.TokenBroker/UpdateConnection",
            Needs(P::WriteConnections),
        ),
        (
            "/tokenbroker.v1.TokenBroker/WatchTokenEvents",
            Needs(P::ReadEvents),
        ),
    ]
};

/// The rule of an RPC by its path; `None` for one that is not served.
pub fn rule(path: &str) -> Option<Rule> {
    RULES
        .iter()
        .find(|(known, _)| *known == path)
        .map(|(_, rule)| *rule)
}
