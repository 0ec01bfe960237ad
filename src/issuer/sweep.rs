//! Deleting what our authorisation server needs no longer.

use super::Issuer;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::issuer::{codes, devices, grants, keys, proofs, requests, tokens};

/// The most batches of one table in a sweep. What is left after them is the next sweep's, so that a
/// backlog of one table does not keep the others waiting.
const BATCHES_MAX: usize = 100;

/// What is deleted.
#[derive(Clone, Copy, Debug)]
enum Table {
    Proofs,
    Requests,
    Codes,
    Tokens,
    Devices,
    Grants,
}

impl Table {
    /// Grants come last: each takes what is left of its codes, tokens and devices along, which is
    /// little by then.
    const ALL: [Self; 6] = [
        Self::Proofs,
        Self::Requests,
        Self::Codes,
        Self::Tokens,
        Self::Devices,
        Self::Grants,
    ];
}

impl Issuer {
    /// Deletes what is needed no longer, `batch` rows in a statement, and answers how many rows that
    /// were. Replicas may sweep at the same time.
    ///
    /// # Errors
    /// The store's; what was deleted until then stays deleted.
    pub async fn sweep(&self, batch: i64) -> Result<usize, Error> {
        let now = self.parts.clock.now();
        let full = usize::try_from(batch).unwrap_or(usize::MAX);
        let mut swept = 0;
        for table in Table::ALL {
            let mut deleted = 0;
            for _ in 0..BATCHES_MAX {
                let some = self.sweep_batch(table, now, batch).await?;
                deleted += some;
                if some < full {
                    break;
                }
            }
            if deleted > 0 {
                tracing::info!(?table, rows = deleted, "deleted what was needed no longer");
            }
            swept += deleted;
        }
        let mut conn = self.parts.store.write().await?;
        Ok(swept + keys::delete_expired(&mut conn, now).await?)
    }

    /// Takes a connection for one batch only: other writers get their turn in between.
    async fn sweep_batch(&self, table: Table, now: Timestamp, limit: i64) -> Result<usize, Error> {
        let spent = now.minus(self.parts.config.keep_spent);
        let mut conn = self.parts.store.write().await?;
        let deleted = match table {
            Table::Proofs => proofs::any_tenant_delete_expired(&mut conn, now, limit).await,
            Table::Requests => requests::any_tenant_delete_expired(&mut conn, now, limit).await,
            Table::Codes => codes::any_tenant_delete_old(&mut conn, now, limit).await,
            Table::Tokens => tokens::any_tenant_delete_old(&mut conn, now, limit).await,
            // For a while the device is told that it came too late.
            Table::Devices => devices::any_tenant_delete_expired(&mut conn, spent, limit).await,
            Table::Grants => grants::any_tenant_delete_old(&mut conn, spent, limit).await,
        };
        Ok(deleted?)
    }
}
