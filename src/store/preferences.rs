//! What users prefer.

use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::RunQueryDsl;
use serde_json::Value;

use super::Error;
use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::user_preferences as preferences;
use crate::model::{Preferences, Timestamp};

/// A user's preferences; the default where none were ever set.
pub async fn find(conn: &mut Conn, tenant: &str, user_id: &str) -> Result<Preferences, Error> {
    let row: Option<(JsonValue, i64, Timestamp)> = on!(conn, |c| {
        let query = preferences::table
            .find(user_id)
            .filter(preferences::tenant.eq(tenant))
            .select((
                preferences::preferences,
                preferences::version,
                preferences::updated_at,
            ));
        query.first(c).await.optional()
    })?;
    match row {
        None => Ok(Preferences::default()),
        Some((JsonValue(Value::Object(values)), version, updated_at)) => Ok(Preferences {
            values,
            version,
            updated_at: Some(updated_at),
        }),
        Some(_) => Err(Error::unreadable("user_preferences.preferences: no object")),
    }
}

/// Sets a user's preferences. The user is locked by this transaction.
pub async fn put(
    tx: &mut Tx,
    tenant: &str,
    user_id: &str,
    set: &Preferences,
    now: Timestamp,
) -> Result<(), Error> {
    let row = (
        preferences::user_id.eq(user_id),
        preferences::tenant.eq(tenant),
        preferences::preferences.eq(JsonValue::of(&set.values)),
        preferences::version.eq(set.version),
        preferences::updated_at.eq(now),
    );
    let changed = (
        preferences::preferences.eq(excluded(preferences::preferences)),
        preferences::version.eq(excluded(preferences::version)),
        preferences::updated_at.eq(excluded(preferences::updated_at)),
    );
    on!(tx, |c| diesel::insert_into(preferences::table)
        .values(row)
        .on_conflict(preferences::user_id)
        .do_update()
        .set(changed)
        .execute(c)
        .await)?;
    Ok(())
}
