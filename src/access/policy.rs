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
    /// Change, revoke and delete connections; record synchronisations.
    WriteConnections,
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
}

impl Permission {
    /// Its name, as errors and documentation have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Authorize => "authorizations.write",
            Self::AuthorizeLinkOnly => "authorizations.link_only",
            Self::ReadConnections => "connections.read",
            Self::WriteConnections => "connections.write",
            Self::ImportConnections => "connections.import",
            Self::ReadTokens => "tokens.read",
            Self::RefreshTokens => "tokens.refresh",
            Self::ReadEvents => "events.read",
            Self::ReadRegistry => "registry.read",
            Self::WriteApps => "apps.write",
            Self::WriteProviders => "providers.write",
        }
    }
}

/// What a role may do; constraints narrow it down.
pub const fn permissions(role: Role) -> &'static [Permission] {
    use Permission as P;
    match role {
        Role::Admin => &[
            P::Authorize,
            P::AuthorizeLinkOnly,
            P::ReadConnections,
            P::WriteConnections,
            P::ImportConnections,
            P::ReadTokens,
            P::RefreshTokens,
            P::ReadEvents,
            P::ReadRegistry,
            P::WriteApps,
            P::WriteProviders,
        ],
        Role::Operator => &[
            P::Authorize,
            P::AuthorizeLinkOnly,
            P::ReadConnections,
            P::WriteConnections,
            P::ImportConnections,
            P::RefreshTokens,
            P::ReadEvents,
            P::ReadRegistry,
            P::WriteApps,
        ],
        Role::Consumer => &[
            P::Authorize,
            P::ReadConnections,
            P::WriteConnections,
            P::ReadTokens,
            P::RefreshTokens,
            P::ReadEvents,
            P::ReadRegistry,
        ],
        // Automation jobs bring their own permissions; nothing here is a worker's.
        Role::Worker => &[],
    }
}

/// What one RPC needs. Handlers judge constraints besides, and the few rights that depend on the
/// request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Anybody, known or not.
    Open,
    /// Callers with this permission.
    Needs(Permission),
}

/// Every RPC that is served. A test compares it with the descriptors, both ways.
pub const RULES: &[(&str, Rule)] = {
    use Permission as P;
    use Rule::{Needs, Open};
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
            "/tokenbroker.v1.ClientRegistry/CreateApp",
            Needs(P::WriteApps),
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
            "/tokenbroker.v1.ClientRegistry/DeleteProvider",
            Needs(P::WriteProviders),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/GetApp",
            Needs(P::ReadRegistry),
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
            "/tokenbroker.v1.ClientRegistry/ListProviders",
            Needs(P::ReadRegistry),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/RotateAppSecret",
            Needs(P::WriteApps),
        ),
        (
            "/tokenbroker.v1.ClientRegistry/UpdateApp",
            Needs(P::WriteApps),
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
            Needs(P::WriteConnections),
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
