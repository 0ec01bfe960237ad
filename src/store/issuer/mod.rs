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
use super::locks::{delete_before, lock_unlocked};
use super::{Error, Tx, events};
use crate::model::{EventKind, NewEvent, Timestamp};

/// A list of texts. Never read as a default: no resources at all would be any resource.
fn texts(column: JsonValue, name: &str) -> Result<Vec<String>, Error> {
    serde_json::from_value(column.0).map_err(|error| Error::unreadable(format!("{name}: {error}")))
}

/// Every replica forgets the token, or the tokens of the grant or client.
async fn announce(tx: &mut Tx, tenant: &str, subject: &str, now: Timestamp) -> Result<(), Error> {
    let event = NewEvent::internal(EventKind::IssuedEnded, tenant, subject, now);
    events::append(tx, &event).await
}
