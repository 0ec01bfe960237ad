//! Deleting what our authorisation server needs no longer.

use std::time::Duration;

use super::Issuer;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::issuer::{codes, devices, grants, keys, proofs, requests, tokens};
use crate::store::{Tx, transact};

/// The least rows in a batch: they are narrow, and there are as many as clients care to make.
const BATCH_MIN: i64 = 1_000;

/// The most batches of one table in a sweep. What is left after them is the next sweep's, so that a
/// backlog of one table does not keep the others waiting.
const BATCHES_MAX: usize = 1_000;

/// How long a device that nobody accepted is told that it came too late.
const LAPSED: Duration = Duration::from_secs(3_600);

/// How far the clock of the replica that exchanges a refresh token may be behind the one that sweeps.
const CLOCKS: Duration = Duration::from_secs(60);

/// What is deleted.
#[derive(Clone, Copy, Debug)]
enum Table {
    Proofs,
    Requests,
    Codes,
    /// Not rows: what is sealed in them.
    Successors,
    Tokens,
    Devices,
    Grants,
    Keys,
}

impl Table {
    /// Grants come after what belongs to them: each takes what is left of its codes, tokens and devices
    /// along, which is little by then.
    const ALL: [Self; 8] = [
        Self::Proofs,
        Self::Requests,
        Self::Codes,
        Self::Successors,
        Self::Tokens,
        Self::Devices,
        Self::Grants,
        Self::Keys,
    ];

    /// Its name in metrics.
    const fn name(self) -> &'static str {
        match self {
            Self::Proofs => "proofs",
            Self::Requests => "requests",
            Self::Codes => "codes",
            Self::Successors => "successors",
            Self::Tokens => "tokens",
            Self::Devices => "devices",
            Self::Grants => "grants",
            Self::Keys => "keys",
        }
    }
}

impl Issuer {
    /// Deletes what is needed no longer, at least `batch` rows in a statement, and answers how many rows
    /// that were. Replicas may sweep at the same time.
    ///
    /// # Errors
    /// The store's first; the other tables were swept all the same.
    pub async fn sweep(&self, batch: i64) -> Result<usize, Error> {
        let now = self.parts.clock.now();
        let limit = batch.max(BATCH_MIN);
        let mut swept = 0;
        let mut outcome = Ok(());
        for table in Table::ALL {
            let (rows, ended) = self.sweep_table(table, now, limit).await;
            if rows > 0 {
                tracing::info!(?table, rows, "deleted what was needed no longer");
                self.parts.metrics.issued_swept(table.name(), rows);
            }
            swept += rows;
            outcome = outcome.and(ended);
        }
        outcome.map(|()| swept)
    }

    /// A transaction for each batch: other writers get their turn in between.
    async fn sweep_table(
        &self,
        table: Table,
        now: Timestamp,
        limit: i64,
    ) -> (usize, Result<(), Error>) {
        let full = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut swept = 0;
        for _ in 0..BATCHES_MAX {
            let batch = transact!(self.parts.store, |tx| {
                self.sweep_batch(&mut tx, table, now, limit).await
            });
            match batch {
                Ok(rows) => {
                    swept += rows;
                    if rows < full {
                        break;
                    }
                }
                Err(error) => return (swept, Err(error)),
            }
        }
        (swept, Ok(()))
    }

    async fn sweep_batch(
        &self,
        tx: &mut Tx,
        table: Table,
        now: Timestamp,
        limit: i64,
    ) -> Result<usize, Error> {
        let config = &self.parts.config;
        let spent = now.minus(config.keep_spent);
        let swept = match table {
            Table::Proofs => proofs::any_tenant_delete_expired(tx, now, limit).await,
            Table::Requests => requests::any_tenant_delete_expired(tx, now, limit).await,
            Table::Codes => codes::any_tenant_delete_old(tx, now, limit).await,
            Table::Successors => {
                let before = now.minus(config.refresh_grace + CLOCKS);
                tokens::any_tenant_forget_successors(tx, before, limit).await
            }
            Table::Tokens => tokens::any_tenant_delete_old(tx, now, limit).await,
            Table::Devices => {
                let lapsed = now.minus(LAPSED.min(config.keep_spent));
                devices::any_tenant_delete_old(tx, lapsed, spent, limit).await
            }
            Table::Grants => grants::any_tenant_delete_old(tx, spent, limit).await,
            // There are few.
            Table::Keys => keys::delete_expired(tx, now).await,
        };
        Ok(swept?)
    }
}
