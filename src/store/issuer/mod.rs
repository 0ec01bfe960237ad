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

/// Deletes up to a limit of the rows whose time, the named column, was before the one given.
/// Whatever of a batch another replica took meanwhile, or moved on, is left alone.
macro_rules! delete_before {
    ($conn:expr, $table:ident, $key:ident as $kind:ty, $time:ident, $before:expr, $limit:expr) => {
        async {
            let query = $table::table
                .filter($table::$time.lt($before))
                .order($table::$time)
                .limit($limit)
                .select($table::$key);
            let keys: Vec<$kind> = $crate::store::pool::on!($conn, |c| query.load(c).await)?;
            if keys.is_empty() {
                return Ok::<usize, $crate::store::Error>(0);
            }
            let target = $table::table
                .filter($table::$key.eq_any(keys))
                .filter($table::$time.lt($before));
            let deleted =
                $crate::store::pool::on!($conn, |c| diesel::delete(target).execute(c).await)?;
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
