//! Connections as callers see them: read, listed, changed, revoked and deleted.
//!
//! Whatever writes locks the connections of a grant first, in the order of their ids, and then the
//! grant, as a refresh does.

mod changes;
mod revocation;

use std::sync::Arc;

use tokio::sync::Notify;

pub use changes::Changes;
pub use revocation::{AppRevocation, ProviderRevocation};

use super::cache::TokenCache;
use super::vault::Vault;
use crate::access::audit::{Action, Entry, Who};
use crate::access::{Permission, Principal};
use crate::clock::Clock;
use crate::error::{Error, Resource};
use crate::model::token_status::Standing;
use crate::model::{Connection, ConnectionDetails, ConnectionState, Grant, RefreshAttempt};
use crate::oauth::Http;
use crate::registry::Registry;
use crate::store::{self, Conn, Store, Tx};

/// How many pages of the store one call reads in search of the owners that a caller is allowed. A
/// caller held to few of many owners gets short pages rather than long waits.
const SCANS_MAX: usize = 20;

/// The connections of this database.
pub struct Connections {
    store: Store,
    vault: Vault,
    clock: Clock,
    http: Http,
    registry: Arc<Registry>,
    cache: Arc<TokenCache>,
    poke: Arc<Notify>,
}

/// Which connections to list. Empty strings match all.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only this app's: its id, client id or external key.
    pub app: String,
    /// Only this owner's.
    pub owner: String,
    /// Only this provider's: its id or alias.
    pub provider: String,
    /// Only those that stand so.
    pub standing: Option<Standing>,
}

/// One page of connections.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The connections, by id.
    pub connections: Vec<ConnectionDetails>,
    /// The id behind which the next page begins; none on the last page. A page may be short, even
    /// empty, and still have a next one.
    pub next: Option<String>,
}

/// A grant with all its connections, locked until the transaction ends.
struct Locked {
    /// The one asked for.
    connection: Connection,
    /// All that share the grant, by id; the one asked for among them.
    all: Vec<Connection>,
    grant: Grant,
}

impl Connections {
    /// Over a store. `poke` wakes the relay of events after a commit.
    pub fn new(
        store: Store,
        vault: Vault,
        clock: Clock,
        http: Http,
        registry: Arc<Registry>,
        cache: Arc<TokenCache>,
        poke: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            vault,
            clock,
            http,
            registry,
            cache,
            poke,
        }
    }

    /// After a commit that ended connections: here their tokens are forgotten at once, so that who
    /// revoked one is never served it again by this replica; the others hear of it.
    fn told(&self, ids: &[String]) {
        for id in ids {
            self.cache.forget(id);
        }
        self.poke.notify_one();
    }

    /// One connection.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`] for what the caller is not allowed, or the
    /// store's.
    pub async fn get(&self, principal: &Principal, id: &str) -> Result<ConnectionDetails, Error> {
        self.details(principal, id, Permission::ReadConnections)
            .await
    }

    async fn details(
        &self,
        principal: &Principal,
        id: &str,
        permission: Permission,
    ) -> Result<ConnectionDetails, Error> {
        let mut conn = self.store.read().await?;
        store::connections::find_details(&mut conn, &principal.tenant, id)
            .await?
            .filter(|found| is_allowed(principal, &found.connection))
            .ok_or_else(|| unknown(principal, id, permission))
    }

    /// One page of at most `size` connections behind the id `after`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an app or provider that does not exist,
    /// [`Error::PermissionDenied`] for what the caller is not allowed, or the store's.
    pub async fn list(
        &self,
        principal: &Principal,
        filter: &ListFilter,
        after: &str,
        size: usize,
    ) -> Result<Listed, Error> {
        let mut conn = self.store.read().await?;
        let filter = self.narrowed(&mut conn, principal, filter).await?;
        // One more than the page, to know whether it is the last.
        let limit = i64::try_from(size).unwrap_or(i64::MAX).saturating_add(1);
        let mut after = after.to_owned();
        let mut connections = Vec::new();
        for _ in 0..SCANS_MAX {
            let rows =
                store::connections::list(&mut conn, &principal.tenant, &filter, &after, limit)
                    .await?;
            let exhausted = rows.len() <= size;
            if let Some(last) = rows.last() {
                after.clone_from(&last.connection.id);
            }
            connections.extend(
                rows.into_iter()
                    .filter(|row| principal.allows_owner(&row.connection.owner)),
            );
            if connections.len() > size {
                connections.truncate(size);
                let next = connections.last().map(|last| last.connection.id.clone());
                return Ok(Listed { connections, next });
            }
            if exhausted {
                return Ok(Listed {
                    connections,
                    next: None,
                });
            }
        }
        Ok(Listed {
            connections,
            next: Some(after),
        })
    }

    /// The filter of the store: names resolved, and what the caller is allowed pushed into it as
    /// far as it goes. Owner patterns are left to the caller's loop.
    async fn narrowed(
        &self,
        conn: &mut Conn,
        principal: &Principal,
        filter: &ListFilter,
    ) -> Result<store::connections::Filter, Error> {
        let tenant = &principal.tenant;
        let allowed = &principal.constraints;
        let permission = Permission::ReadConnections;
        let mut narrowed = store::connections::Filter {
            state: filter.standing.map(states),
            apps: allowed.apps.clone(),
            providers: allowed.providers.clone(),
            ..store::connections::Filter::default()
        };
        if !filter.app.is_empty() {
            narrowed.app_id = self
                .registry
                .app(conn, tenant, &filter.app)
                .await?
                .filter(|app| principal.allows_app(&app.id, &app.provider))
                .ok_or_else(|| {
                    let missing = Error::NotFound(Resource::App, filter.app.clone());
                    principal.hidden(permission, missing)
                })?
                .id;
        }
        if !filter.provider.is_empty() {
            let found = self.registry.provider(conn, tenant, &filter.provider).await;
            narrowed.provider = match found {
                Ok(found) => found.id,
                Err(missing @ Error::NotFound(..)) => {
                    return Err(principal.hidden(permission, missing));
                }
                Err(error) => return Err(error),
            };
            if !allowed.providers.is_empty() && !allowed.providers.contains(&narrowed.provider) {
                return Err(Error::PermissionDenied(permission.name()));
            }
        }
        if !filter.owner.is_empty() {
            if !principal.allows_owner(&filter.owner) {
                return Err(Error::PermissionDenied(permission.name()));
            }
            narrowed.owner.clone_from(&filter.owner);
        } else if let [only] = allowed.owners.as_slice()
            && !only.ends_with('*')
        {
            narrowed.owner.clone_from(only);
        }
        Ok(narrowed)
    }

    /// One page of the attempts to refresh a connection's tokens, newest first, before the id
    /// `before` (all when it is empty). Connections that share a grant share its attempts.
    ///
    /// # Errors
    /// As [`Connections::get`].
    pub async fn list_attempts(
        &self,
        principal: &Principal,
        id: &str,
        before: &str,
        limit: i64,
    ) -> Result<Vec<RefreshAttempt>, Error> {
        let mut conn = self.store.read().await?;
        let connection =
            find_allowed(&mut conn, principal, id, Permission::ReadConnections).await?;
        let grant_id = &connection.grant_id;
        Ok(
            store::records::list_attempts(&mut conn, &principal.tenant, grant_id, before, limit)
                .await?,
        )
    }
}

/// Whether the caller is allowed a connection.
fn is_allowed(principal: &Principal, connection: &Connection) -> bool {
    principal.allows(&connection.app_id, &connection.provider, &connection.owner)
}

/// The error for a connection that does not exist, or that the caller is not allowed.
fn unknown(principal: &Principal, id: &str, permission: Permission) -> Error {
    let missing = Error::NotFound(Resource::Connection, id.to_owned());
    principal.hidden(permission, missing)
}

/// A connection that the caller is allowed.
pub(super) async fn find_allowed(
    conn: &mut Conn,
    principal: &Principal,
    id: &str,
    permission: Permission,
) -> Result<Connection, Error> {
    store::connections::find(conn, &principal.tenant, id)
        .await?
        .map(|(connection, _)| connection)
        .filter(|connection| is_allowed(principal, connection))
        .ok_or_else(|| unknown(principal, id, permission))
}

/// Locks a connection that the caller is allowed, with its grant and all that share it.
///
/// When the grant got or lost a connection between the look and the locks, the store is called
/// busy, which runs the transaction again.
async fn lock(
    tx: &mut Tx,
    principal: &Principal,
    id: &str,
    permission: Permission,
) -> Result<Locked, Error> {
    let tenant = &principal.tenant;
    let grant_id = find_allowed(tx, principal, id, permission).await?.grant_id;
    let all = store::connections::lock_of_grant(tx, tenant, &grant_id).await?;
    let grant = store::grants::lock(tx, tenant, &grant_id).await?;
    let sharing = store::connections::of_grant(tx, tenant, &grant_id).await?;
    let same = sharing.len() == all.len() && sharing.iter().zip(&all).all(|(a, b)| a.id == b.id);
    let connection = all.iter().find(|found| found.id == id).cloned();
    match (connection, grant) {
        (Some(connection), Some(grant)) if same => Ok(Locked {
            connection,
            all,
            grant,
        }),
        _ => Err(overtaken()),
    }
}

/// What is recorded of any change of a connection.
pub(super) fn entry(action: Action, who: impl Into<Who>, connection: &Connection) -> Entry {
    Entry::new(action, who)
        .on("connection", &connection.id)
        .provider(&connection.provider)
        .detail("app_id", &connection.app_id)
        .detail("owner", &connection.owner)
}

fn overtaken() -> Error {
    Error::Store(store::Error::Busy(
        "the connection's grant was changed meanwhile".into(),
    ))
}

const fn states(standing: Standing) -> (ConnectionState, Option<bool>) {
    match standing {
        Standing::Pending => (ConnectionState::Pending, None),
        Standing::Active => (ConnectionState::Active, Some(false)),
        Standing::ReauthorizationRequired => (ConnectionState::Active, Some(true)),
        Standing::Revoked => (ConnectionState::Revoked, None),
    }
}
