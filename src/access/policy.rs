//! Which role may do what, and what each RPC needs: two tables, and nothing else decides.

mod rules;

use crate::model::Role;

pub use rules::{RULES, Rule, rule};

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
    /// Exchange, begin and revoke what our authorisation server issues, for its clients.
    ExchangeTokens,
    /// Look at, accept and reject authorisation requests: to say who signed in and what they agreed
    /// to.
    DriveAuthorizations,
    /// Ask whether tokens that we issued are good, and for what.
    IntrospectTokens,
    /// Read what people gave to OAuth clients, and which tokens came of it.
    ReadGrants,
    /// Take back what people gave to OAuth clients.
    RevokeGrants,
    /// Read automated accounts and browser profiles.
    ReadAccounts,
    /// Make, change and delete automated accounts and browser profiles; set their credentials.
    WriteAccounts,
    /// Read and follow jobs and batches.
    ReadJobs,
    /// Ask for jobs and batches, call them off, begin them again, purge them.
    WriteJobs,
    /// Claim jobs and work on them; receive their links and their accounts' credentials.
    WorkJobs,
}

impl Permission {
    /// Every permission.
    pub const ALL: [Self; 32] = [
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
        Self::ExchangeTokens,
        Self::DriveAuthorizations,
        Self::IntrospectTokens,
        Self::ReadGrants,
        Self::RevokeGrants,
        Self::ReadAccounts,
        Self::WriteAccounts,
        Self::ReadJobs,
        Self::WriteJobs,
        Self::WorkJobs,
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
            Self::ExchangeTokens => "issuer.exchange",
            Self::DriveAuthorizations => "issuer.authorizations",
            Self::IntrospectTokens => "issuer.introspect",
            Self::ReadGrants => "grants.read",
            Self::RevokeGrants => "grants.revoke",
            Self::ReadAccounts => "accounts.read",
            Self::WriteAccounts => "accounts.write",
            Self::ReadJobs => "jobs.read",
            Self::WriteJobs => "jobs.write",
            Self::WorkJobs => "jobs.work",
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
            P::ReadGrants,
            P::RevokeGrants,
            P::ReadAccounts,
            P::WriteAccounts,
            P::ReadJobs,
            P::WriteJobs,
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
            P::IntrospectTokens,
            P::ReadJobs,
            P::WriteJobs,
        ],
        Role::Worker => &[P::ReadJobs, P::WorkJobs],
        Role::IssuerUi => &[
            P::SignOthersIn,
            P::ExchangeTokens,
            P::DriveAuthorizations,
            P::IntrospectTokens,
        ],
        Role::User => &[P::ReadConnections, P::RevokeConnections],
    }
}
