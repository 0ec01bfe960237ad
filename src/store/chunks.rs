//! Storing what was counted in memory: much at once, and known how far it came.

use super::pool::transact;
use super::{Store, Tx};
use crate::Error;

/// Rows written in one transaction.
const CHUNK: usize = 500;

/// Writes all in their order, a chunk a transaction, up to the first chunk that fails. Answers how many
/// are written for certain: those behind are the caller's to keep. Of these the first chunk may be there
/// all the same, when only the answer to its commit was lost.
pub async fn write_in_chunks<T>(
    store: &Store,
    all: &[T],
    write: impl AsyncFn(&mut Tx, &[T]) -> Result<(), Error>,
) -> (usize, Result<(), Error>) {
    let mut done = 0;
    for chunk in all.chunks(CHUNK) {
        let written: Result<(), Error> = transact!(store, |tx| { write(&mut tx, chunk).await });
        if written.is_err() {
            return (done, written);
        }
        done += chunk.len();
    }
    (done, Ok(()))
}
