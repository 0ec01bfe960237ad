//! Rows on their way to the trail: of what was counted in memory.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Entry;
use crate::access::Origin;
use crate::error::Error;
use crate::model::{ActorKind, IdKind, Timestamp};
use crate::store::{self, Store, Tx};

/// A row to be written. Its id is drawn once: when the answer to a commit was lost, it is written again,
/// and is there once.
struct Row {
    id: String,
    entry: Entry,
    at: Timestamp,
}

/// Rows that wait for the database.
pub(super) struct Outbox {
    store: Store,
    rows: Mutex<Vec<Row>>,
}

impl Outbox {
    pub(super) fn new(store: Store) -> Self {
        Self {
            store,
            rows: Mutex::default(),
        }
    }

    /// Writes what waits, and then these. `more` is asked only once everything before is written: so
    /// no more waits here than was counted at a time.
    ///
    /// # Errors
    /// The store's; what is not known to be written waits for the next time.
    pub(super) async fn flush(
        &self,
        more: impl FnOnce() -> Vec<(Entry, Timestamp)>,
    ) -> Result<(), Error> {
        self.write().await?;
        let more = more().into_iter().map(|(entry, at)| Row {
            id: IdKind::AuditEvent.new_id(),
            entry,
            at,
        });
        self.rows().extend(more);
        self.write().await
    }

    async fn write(&self) -> Result<(), Error> {
        let mut rows = std::mem::take(&mut *self.rows());
        let (done, written) = store::write_in_chunks(&self.store, &rows, record_counted).await;
        self.rows().extend(rows.drain(done..));
        written
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records what was counted in memory. Users who were erased meanwhile must not get an address back:
/// entries of theirs are written without.
async fn record_counted(tx: &mut Tx, rows: &[Row]) -> Result<(), Error> {
    let is_user = |entry: &Entry| entry.who.kind == ActorKind::User;
    let users: BTreeSet<String> = rows
        .iter()
        .filter(|row| is_user(&row.entry))
        .map(|row| row.entry.who.id.clone())
        .collect();
    let there = if users.is_empty() {
        Vec::new()
    } else {
        store::users::any_tenant_lock_ever(tx, &Vec::from_iter(users)).await?
    };
    for Row { id, entry, at } in rows {
        let mut entry = entry.clone();
        if is_user(&entry) && !there.contains(&entry.who.id) {
            entry.who.origin = Origin::default();
        }
        store::audit::insert(tx, &entry.event(id.clone(), *at)).await?;
    }
    Ok(())
}
