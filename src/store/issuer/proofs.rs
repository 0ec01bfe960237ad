//! Proofs that were seen: each is good once.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::delete_before;
use crate::model::Timestamp;
use crate::store::Error;
use crate::store::pool::{Tx, on};
use crate::store::schema::spent_proofs as proofs;

/// Spends a proof; `false` when it was spent before. It is remembered until `expires_at`, when the
/// proof is no longer good anyway.
pub async fn spend(tx: &mut Tx, hash: &[u8], expires_at: Timestamp) -> Result<bool, Error> {
    let row = (proofs::hash.eq(hash), proofs::expires_at.eq(expires_at));
    let spent = on!(tx, |c| diesel::insert_into(proofs::table)
        .values(row)
        .on_conflict(proofs::hash)
        .do_nothing()
        .execute(c)
        .await)?;
    Ok(spent == 1)
}

/// Forgets proofs that are no longer good, up to `limit`.
pub async fn any_tenant_delete_expired(
    tx: &mut Tx,
    now: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    delete_before!(tx, proofs, hash as Vec<u8>, expires_at, now, limit)
}
