//! Keys that tokens are signed with. They are the installation's: no tenant has any.

use diesel::prelude::*;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use crate::model::{IssuerKey, Sealed, Timestamp};
use crate::store::Error;
use crate::store::columns::JsonValue;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::issuer_keys as keys;

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = keys)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct KeyRow {
    id: String,
    private_key: Sealed,
    public_jwk: JsonValue,
    created_at: Timestamp,
    signs_from: Timestamp,
    signs_until: Timestamp,
    expires_at: Timestamp,
}

impl From<&IssuerKey> for KeyRow {
    fn from(key: &IssuerKey) -> Self {
        let key = key.clone();
        Self {
            id: key.id,
            private_key: key.private_key,
            public_jwk: JsonValue(key.public_jwk),
            created_at: key.created_at,
            signs_from: key.signs_from,
            signs_until: key.signs_until,
            expires_at: key.expires_at,
        }
    }
}

impl From<KeyRow> for IssuerKey {
    fn from(row: KeyRow) -> Self {
        Self {
            id: row.id,
            private_key: row.private_key,
            public_jwk: row.public_jwk.0,
            created_at: row.created_at,
            signs_from: row.signs_from,
            signs_until: row.signs_until,
            expires_at: row.expires_at,
        }
    }
}

/// All keys, the one that signs last first.
pub async fn list(conn: &mut Conn) -> Result<Vec<IssuerKey>, Error> {
    let rows: Vec<KeyRow> = on!(conn, |c| {
        let query = keys::table
            .order((keys::signs_from.desc(), keys::id.desc()))
            .select(KeyRow::as_select());
        query.load(c).await
    })?;
    Ok(rows.into_iter().map(IssuerKey::from).collect())
}

/// Inserts a new key.
async fn insert(tx: &mut Tx, key: &IssuerKey) -> Result<(), Error> {
    let row = KeyRow::from(key);
    on!(tx, |c| diesel::insert_into(keys::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// Inserts a key if the first of [`list`] is still the one given; `false` when it is not. Of several
/// replicas that want to make the next key only one does.
pub async fn insert_if_newest_is(
    tx: &mut Tx,
    key: &IssuerKey,
    newest: Option<&str>,
) -> Result<bool, Error> {
    // No row is there to be locked before the first key. On SQLite there is one writer anyway.
    if let Conn::Postgres(conn) = &mut **tx {
        conn.batch_execute("LOCK TABLE issuer_keys IN SHARE ROW EXCLUSIVE MODE")
            .await?;
    }
    let query = keys::table
        .order((keys::signs_from.desc(), keys::id.desc()))
        .select(keys::id);
    let found: Option<String> = on!(tx, |c| query.first(c).await.optional())?;
    if found.as_deref() != newest {
        return Ok(false);
    }
    insert(tx, key).await?;
    Ok(true)
}

/// Deletes keys of which nothing that they signed is good any more.
pub async fn delete_expired(tx: &mut Tx, now: Timestamp) -> Result<usize, Error> {
    let target = keys::table.filter(keys::expires_at.lt(now));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)?)
}
