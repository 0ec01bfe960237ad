//! The trail as a whole: chained, read, verified, trimmed.

use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::chain::{ORIGIN, canonical, hash};
use super::checkpoint;
use super::note::Verifier;
use super::{Action, Entry, Who};
use crate::clock::Clock;
use crate::config::{self, Config};
use crate::crypto::Keyring;
use crate::error::Error;
use crate::model::{ChainHead, Checkpoint, Timestamp};
use crate::store::audit::{chain, checkpoints, reading, trimming};
use crate::store::{self, Store, Tx, transact};

/// Rows of one statement that erases, and ids that it looks for.
const BATCH: i64 = 500;
const IDS: usize = 100;

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

    /// Clears, in one transaction, address and program of a tenant's entries that one of these did, or
    /// that nobody known did to one of them. `erased_by` is the entry that tells of it, an
    /// [`Action::PersonErased`] of the same tenant. The chain stays verifiable. Answers how many.
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
        for ids in ids.chunks(IDS) {
            loop {
                let rows = store::audit::erase_personal(tx, tenant, ids, erased_by, BATCH).await?;
                total += rows;
                if rows == 0 {
                    break;
                }
            }
        }
        Ok(total)
    }

    /// Retention: lets the oldest entries go, up to the last checkpoint before the first entry that is
    /// still kept. That checkpoint stays, verification begins with it, and a signed entry tells of it.
    /// Answers how many entries were deleted.
    ///
    /// # Errors
    /// The store's. [`Error::Internal`] when the checkpoint does not agree with the chain: what may be
    /// evidence is kept.
    pub async fn trim(&self, batch: i64) -> Result<usize, Error> {
        let Some(kept) = self.config.retention else {
            return Ok(0);
        };
        let now = self.clock.now();
        let since = now.minus(kept);
        let mut conn = self.store.read().await?;
        let trimmed = chain::head(&mut conn).await?.map_or(0, |head| head.trimmed);
        let first_kept = trimming::any_tenant_first_within(&mut conn, trimmed, since..=now).await?;
        let through = first_kept.map_or(i64::MAX, |first| first - 1);
        let anchor = checkpoints::newest(&mut conn, through).await?;
        drop(conn);
        if let Some(anchor) = anchor.filter(|anchor| anchor.position > trimmed) {
            self.let_go(&anchor, since, now).await?;
        }
        self.delete_trimmed(batch).await
    }

    /// Says, in one transaction, that what is up to a checkpoint has left.
    async fn let_go(
        &self,
        anchor: &Checkpoint,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<(), Error> {
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
            let head = chain::lock_head(&mut tx).await?;
            if head.trimmed >= position {
                return Ok(());
            }
            let time = time_signed(&mut tx, &head, anchor).await?.ok_or_else(|| {
                Error::internal(
                    "the audit trail is not trimmed: a checkpoint does not agree with it",
                )
            })?;
            if time >= since {
                return Ok(());
            }
            trimming::set_trimmed(&mut tx, position).await?;
            super::record(&mut tx, &entry, now).await?;
            Ok(())
        })
    }

    /// Deletes, a batch at a time, what has left.
    async fn delete_trimmed(&self, batch: i64) -> Result<usize, Error> {
        let mut conn = self.store.read().await?;
        let head = chain::head(&mut conn).await?;
        drop(conn);
        let Some(trimmed) = head.map(|head| head.trimmed).filter(|place| *place > 0) else {
            return Ok(0);
        };
        let mut total = 0;
        loop {
            // A connection for one batch only: other writers get their turn in between.
            let mut conn = self.store.write().await?;
            let deleted = trimming::any_tenant_delete(&mut conn, trimmed, batch).await?;
            if deleted == 0 {
                trimming::delete_checkpoints(&mut conn, trimmed).await?;
                return Ok(total);
            }
            total += deleted;
        }
    }
}

/// When the entry at a checkpoint's place was written: the hash that was signed covers its time, so that
/// nobody can have made it older. `None` where the entry is not what was signed.
async fn time_signed(
    tx: &mut Tx,
    head: &ChainHead,
    anchor: &Checkpoint,
) -> Result<Option<Timestamp>, Error> {
    let before = anchor.position - 1;
    let mut previous = (before == 0).then(|| ORIGIN.to_vec());
    if before > 0 && before == head.trimmed {
        // Retention left the checkpoint of it only.
        let found = checkpoints::find(tx, before).await?;
        previous = found.map(|checkpoint| checkpoint.hash);
    }
    for entry in reading::any_tenant_after(tx, before - 1, 2).await? {
        if entry.position == Some(anchor.position) {
            let own = previous.map(|previous| hash(&previous, &canonical(&entry.event)).to_vec());
            let agrees = own.as_ref() == Some(&anchor.hash) && entry.hash == own;
            return Ok(agrees.then_some(entry.event.occurred_at));
        }
        previous = entry.hash;
    }
    Ok(None)
}
