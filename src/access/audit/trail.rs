//! The trail as a whole: chained, read, verified, trimmed.

use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::checkpoint;
use super::note::Verifier;
use super::{Action, Entry, Who};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::crypto::Keyring;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::{self, Store, Tx, transact};

/// Rows of one statement that erases or deletes.
const BATCH: i64 = 500;

/// The audit trail of this database.
pub struct Trail {
    pub(super) store: Store,
    pub(super) keyring: Keyring,
    pub(super) clock: Clock,
    pub(super) config: config::Audit,
    /// How often a silent stream hears that it lives.
    pub(super) heartbeat: Duration,
    /// What checkpoints are verified with.
    pub(super) verifiers: Vec<Verifier>,
    /// Notified when entries got their places here.
    pub(super) grown: Notify,
    /// One verification at a time reads the whole trail.
    pub(super) verifying: Semaphore,
    /// Ends streams and verifications.
    pub(super) stopping: CancellationToken,
}

impl Trail {
    /// On a store.
    pub fn new(
        store: Store,
        keyring: Keyring,
        clock: Clock,
        config: &Config,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            verifiers: Verifier::all(&keyring, &config.audit.former_keys),
            store,
            keyring,
            clock,
            config: config.audit.clone(),
            heartbeat: config.events.heartbeat_interval,
            grown: Notify::new(),
            verifying: Semaphore::new(1),
            stopping,
        }
    }

    /// Records something that is no part of a change.
    ///
    /// # Errors
    /// The store's.
    pub async fn record(&self, entry: &Entry) -> Result<String, Error> {
        let now = self.clock.now();
        transact!(self.store, |tx| {
            super::record(&mut tx, entry, now).await
        })
    }

    /// Clears address and program of a tenant's entries that one of these did or that are about one
    /// of them; `erased_by` is the entry, an [`Action::PersonErased`] of the same tenant and
    /// transaction, that tells of it. The chain stays verifiable. Answers how many.
    ///
    /// # Errors
    /// The store's.
    pub async fn erase_personal(
        tx: &mut Tx,
        tenant: &str,
        ids: &[String],
        erased_by: &str,
    ) -> Result<usize, Error> {
        let mut total = 0;
        loop {
            let erased = store::audit::erase_personal(tx, tenant, ids, erased_by, BATCH).await?;
            total += erased;
            if erased == 0 {
                return Ok(total);
            }
        }
    }

    /// Retention: lets the oldest entries go, up to a checkpoint that was signed before the time from
    /// which they are kept. That checkpoint stays, verification begins with it, and a signed entry
    /// tells of it. Answers how many entries were deleted.
    ///
    /// # Errors
    /// The store's. [`Error::Internal`] when the checkpoint does not agree with the chain: what may be
    /// evidence is kept.
    pub async fn trim(&self, batch: i64) -> Result<usize, Error> {
        let Some(kept) = self.config.retention else {
            return Ok(0);
        };
        let now = self.clock.now();
        let mut conn = self.store.read().await?;
        let trimmed = store::audit::chain::head(&mut conn)
            .await?
            .map_or(0, |head| head.trimmed);
        let anchor =
            store::audit::checkpoints::newest_before(&mut conn, trimmed, now.minus(kept)).await?;
        drop(conn);
        if let Some(anchor) = anchor {
            self.let_go(&anchor, now).await?;
        }
        self.delete_trimmed(batch).await
    }

    /// Says, in one transaction, that what is up to a checkpoint has left.
    async fn let_go(&self, anchor: &crate::model::Checkpoint, now: Timestamp) -> Result<(), Error> {
        let statement = checkpoint::read(&anchor.note, &self.verifiers);
        let signed = statement.is_some_and(|read| {
            read.signer.is_some() && read.position == anchor.position && read.hash == anchor.hash
        });
        let signer = self.keyring.signer().filter(|_| signed).ok_or_else(|| {
            Error::internal("the audit trail is not trimmed: a checkpoint is not as it was signed")
        })?;
        let position = anchor.position;
        let note = checkpoint::sign_trimmed(&self.config.origin, position, &anchor.hash, &signer);
        let entry = Entry::new(Action::AuditTrimmed, Who::system("retention", ""))
            .on("audit", "")
            .detail("through_position", position)
            .detail("note", note);
        transact!(self.store, |tx| {
            let head = store::audit::chain::lock_head(&mut tx).await?;
            if head.trimmed >= position {
                return Ok(());
            }
            let there = store::audit::trimming::any_tenant_hash_at(&mut tx, position).await?;
            if there.as_ref() != Some(&anchor.hash) {
                return Err(Error::internal(
                    "the audit trail is not trimmed: a checkpoint does not agree with it",
                ));
            }
            store::audit::trimming::set_trimmed(&mut tx, position).await?;
            super::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }

    /// Deletes, a batch at a time, what has left.
    async fn delete_trimmed(&self, batch: i64) -> Result<usize, Error> {
        let mut conn = self.store.read().await?;
        let head = store::audit::chain::head(&mut conn).await?;
        drop(conn);
        let Some(trimmed) = head.map(|head| head.trimmed).filter(|place| *place > 0) else {
            return Ok(0);
        };
        let mut total = 0;
        loop {
            // A connection for one batch only: other writers get their turn in between.
            let mut conn = self.store.write().await?;
            let deleted =
                store::audit::trimming::any_tenant_delete(&mut conn, trimmed, batch).await?;
            if deleted == 0 {
                store::audit::trimming::delete_checkpoints(&mut conn, trimmed).await?;
                return Ok(total);
            }
            total += deleted;
        }
    }
}
