//! What consumers report of the data that they synchronised through a connection.

use std::time::Duration;

use super::connections::{entry, find_allowed};
use crate::access::audit::{self, Action};
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission, Principal};
use crate::clock::Clock;
use crate::crypto::Keyring;
use crate::error::{Error, Resource};
use crate::model::{IdKind, SyncRecord, SyncStatus};
use crate::store::{self, Store, transact};

/// The synchronisations recorded in this database.
pub struct Syncs {
    store: Store,
    keyring: Keyring,
    clock: Clock,
}

/// A synchronisation to record.
#[derive(Clone, Debug)]
pub struct NewSync {
    /// The connection.
    pub connection_id: String,
    /// What was done, in the consumer's words.
    pub action: String,
    /// How it ended.
    pub status: SyncStatus,
    /// Bytes moved.
    pub data_size: i64,
    /// How long it took.
    pub duration: Duration,
    /// What went wrong; empty when nothing did.
    pub error: String,
}

impl Syncs {
    /// Over a store; the keys tell one request from another without keeping it.
    pub fn new(store: Store, keyring: Keyring, clock: Clock) -> Self {
        Self {
            store,
            keyring,
            clock,
        }
    }

    /// Records a synchronisation; with a request id, once.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the connection, [`Error::PermissionDenied`] for what the caller is
    /// not allowed, [`Error::AlreadyExists`] when the request was answered before and its record is
    /// gone, [`Error::InvalidArgument`] when its id stands for another request, or the store's.
    pub async fn record(
        &self,
        caller: &Caller,
        new: &NewSync,
        once: Option<&Once<'_>>,
    ) -> Result<SyncRecord, Error> {
        let now = self.clock.now();
        let create = self.create(caller, new, once);
        match requests::answer(&self.store, &self.keyring, once, now, create).await? {
            Outcome::Made(record) => Ok(record),
            Outcome::Before(replayed) => self.find(caller, new, replayed.resource_id).await,
        }
    }

    /// Records it; `None` when a concurrent retry did.
    async fn create(
        &self,
        caller: &Caller,
        new: &NewSync,
        once: Option<&Once<'_>>,
    ) -> Result<Option<SyncRecord>, Error> {
        let tenant = &caller.tenant;
        let id = &new.connection_id;
        let permission = Permission::WriteConnections;
        transact!(self.store, |tx| {
            find_allowed(&mut tx, caller, id, permission).await?;
            let record = SyncRecord {
                id: IdKind::Sync.new_id(),
                tenant: tenant.clone(),
                connection_id: id.clone(),
                action: new.action.clone(),
                status: new.status,
                data_size: new.data_size,
                duration: new.duration,
                error: new.error.clone(),
                created_at: self.clock.now(),
            };
            if let Some(once) = once {
                let keyring = &self.keyring;
                let at = record.created_at;
                if !requests::remember(&mut tx, keyring, once, &record.id, None, at).await? {
                    return Ok(None);
                }
            }
            // Deleted between the look and the lock: else the foreign key would say so, less well.
            let Some(connection) = store::connections::lock(&mut tx, tenant, id).await? else {
                let missing = Error::NotFound(Resource::Connection, id.clone());
                return Err(caller.hidden(permission, missing));
            };
            store::records::insert_sync(&mut tx, &record).await?;
            let entry = entry(Action::ConnectionSynced, caller, &connection)
                .detail("sync_id", &record.id)
                .detail("action", &record.action)
                .detail("status", record.status.as_str());
            audit::record(&mut tx, &entry, record.created_at).await?;
            Ok(Some(record))
        })
    }

    /// What the first call recorded.
    async fn find(
        &self,
        principal: &Principal,
        new: &NewSync,
        record_id: String,
    ) -> Result<SyncRecord, Error> {
        let mut conn = self.store.read().await?;
        let permission = Permission::WriteConnections;
        find_allowed(&mut conn, principal, &new.connection_id, permission).await?;
        store::records::find_sync(&mut conn, &principal.tenant, &record_id)
            .await?
            .ok_or_else(|| Error::AlreadyExists {
                resource: Resource::Connection,
                name: record_id,
                detail: "this request recorded it, and the record was pruned since".to_owned(),
            })
    }

    /// One page of a connection's synchronisations, newest first, before the id `before` (all when
    /// it is empty).
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`] for what the caller is not allowed, or the
    /// store's.
    pub async fn list(
        &self,
        principal: &Principal,
        connection_id: &str,
        before: &str,
        limit: i64,
    ) -> Result<Vec<SyncRecord>, Error> {
        let mut conn = self.store.read().await?;
        let permission = Permission::ReadConnections;
        find_allowed(&mut conn, principal, connection_id, permission).await?;
        let tenant = &principal.tenant;
        Ok(store::records::list_syncs(&mut conn, tenant, connection_id, before, limit).await?)
    }
}
