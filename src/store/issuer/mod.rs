//! Our own authorisation server: requests, codes, grants, tokens, devices, keys, proofs. Codes and
//! tokens are known by their hashes alone.

pub mod codes;
pub mod devices;
pub mod grants;
pub mod keys;
pub mod proofs;
pub mod requests;
pub mod tokens;

use super::columns::JsonValue;
use super::{Error, Tx, events};
use crate::model::{EventKind, NewEvent, Timestamp};

/// Loads the keys that a query finds, and locks their rows until the transaction ends. Rows that others
/// have locked are passed by: replicas that clean up at the same time share the work, and nobody who
/// holds a row and wants another meets one that does so the other way round.
macro_rules! lock_unlocked {
    ($tx:expr, $query:ident) => {
        match $tx.as_conn() {
            // Whoever is in a transaction is the only writer.
            $crate::store::pool::Conn::Sqlite(pooled) => $query.load(&mut **pooled).await,
            $crate::store::pool::Conn::Postgres(pooled) => {
                $query.for_update().skip_locked().load(&mut **pooled).await
            }
        }
    };
}
pub(super) use lock_unlocked;

/// Deletes up to a limit of the rows whose time, the named column, was before the one given, and that
/// are as `and` says.
macro_rules! delete_before {
    (
        $tx:expr, $table:ident, $key:ident as $kind:ty, $time:ident, $before:expr, $limit:expr
        $(, and $more:expr)?
    ) => {
        async {
            let query = $table::table
                .filter($table::$time.lt($before))
                $(.filter($more))?
                .order($table::$time)
                .limit($limit)
                .select($table::$key);
            let keys: Vec<$kind> = $crate::store::issuer::lock_unlocked!($tx, query)?;
            if keys.is_empty() {
                return Ok::<usize, $crate::store::Error>(0);
            }
            let target = $table::table.filter($table::$key.eq_any(keys));
            let deleted =
                $crate::store::pool::on!($tx, |c| diesel::delete(target).execute(c).await)?;
            Ok(deleted)
        }
        .await
    };
}
pub(super) use delete_before;

/// A list of texts. Never read as a default: no resources at all would be any resource.
fn texts(column: JsonValue, name: &str) -> Result<Vec<String>, Error> {
    serde_json::from_value(column.0).map_err(|error| Error::unreadable(format!("{name}: {error}")))
}

/// Every replica forgets the token, or the tokens of the grant or client.
async fn announce(tx: &mut Tx, tenant: &str, subject: &str, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent::internal(EventKind::IssuedEnded, tenant, subject, now);
    events::append(tx, &event).await
}
