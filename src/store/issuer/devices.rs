//! Devices that wait for their person's consent.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::{delete_before, texts};
use crate::model::{DeviceAuthorization, DeviceState, Timestamp};
use crate::store::columns::JsonValue;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::device_authorizations as devices;
use crate::store::{Error, unreadable_if_none};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = devices, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct DeviceRow {
    id: String,
    tenant: String,
    client_id: String,
    device_code_hash: Vec<u8>,
    user_code_hash: Vec<u8>,
    scopes: JsonValue,
    resources: JsonValue,
    state: String,
    grant_id: Option<String>,
    interval_seconds: i64,
    polled_at: Option<Timestamp>,
    ip: String,
    user_agent: String,
    created_at: Timestamp,
    expires_at: Timestamp,
}

impl From<&DeviceAuthorization> for DeviceRow {
    fn from(device: &DeviceAuthorization) -> Self {
        let device = device.clone();
        Self {
            scopes: JsonValue::of(&device.scopes),
            resources: JsonValue::of(&device.resources),
            state: device.state.as_str().to_owned(),
            id: device.id,
            tenant: device.tenant,
            client_id: device.client_id,
            device_code_hash: device.device_code_hash,
            user_code_hash: device.user_code_hash,
            grant_id: device.grant_id,
            interval_seconds: device.interval_seconds,
            polled_at: device.polled_at,
            ip: device.ip,
            user_agent: device.user_agent,
            created_at: device.created_at,
            expires_at: device.expires_at,
        }
    }
}

impl TryFrom<DeviceRow> for DeviceAuthorization {
    type Error = Error;
    fn try_from(row: DeviceRow) -> Result<Self, Error> {
        let state = DeviceState::parse(&row.state);
        Ok(Self {
            state: unreadable_if_none(state, "device_authorizations.state")?,
            scopes: texts(row.scopes, "device_authorizations.scopes")?,
            resources: texts(row.resources, "device_authorizations.resources")?,
            id: row.id,
            tenant: row.tenant,
            client_id: row.client_id,
            device_code_hash: row.device_code_hash,
            user_code_hash: row.user_code_hash,
            grant_id: row.grant_id,
            interval_seconds: row.interval_seconds,
            polled_at: row.polled_at,
            ip: row.ip,
            user_agent: row.user_agent,
            created_at: row.created_at,
            expires_at: row.expires_at,
        })
    }
}

/// Inserts a new device.
pub async fn insert(tx: &mut Tx, device: &DeviceAuthorization) -> Result<(), Error> {
    let row = DeviceRow::from(device);
    on!(tx, |c| diesel::insert_into(devices::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The device whose code has this hash: whose it is, nobody knows before.
pub async fn any_tenant_find_by_device_code(
    conn: &mut Conn,
    hash: &[u8],
) -> Result<Option<DeviceAuthorization>, Error> {
    let row = on!(conn, |c| {
        let query = devices::table
            .filter(devices::device_code_hash.eq(hash))
            .select(DeviceRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(DeviceAuthorization::try_from).transpose()
}

/// The device whose person types a code with this hash: a browser knows no tenant.
pub async fn any_tenant_find_by_user_code(
    conn: &mut Conn,
    hash: &[u8],
) -> Result<Option<DeviceAuthorization>, Error> {
    let row = on!(conn, |c| {
        let query = devices::table
            .filter(devices::user_code_hash.eq(hash))
            .select(DeviceRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(DeviceAuthorization::try_from).transpose()
}

/// The device of this id, locked until the transaction ends.
pub async fn any_tenant_lock(tx: &mut Tx, id: &str) -> Result<Option<DeviceAuthorization>, Error> {
    // An update without effect: the lock of both engines, where FOR UPDATE is PostgreSQL's alone.
    let row = on!(tx, |c| diesel::update(devices::table.find(id))
        .set(devices::id.eq(devices::id))
        .returning(DeviceRow::as_returning())
        .get_result(c)
        .await
        .optional())?;
    row.map(DeviceAuthorization::try_from).transpose()
}

/// Writes a device if its stored state is the one given; `false` when that is not so.
pub async fn update(
    tx: &mut Tx,
    device: &DeviceAuthorization,
    was: DeviceState,
) -> Result<bool, Error> {
    let row = DeviceRow::from(device);
    let target = devices::table
        .find(&device.id)
        .filter(devices::tenant.eq(&device.tenant))
        .filter(devices::state.eq(was.as_str()));
    let updated = on!(tx, |c| diesel::update(target).set(&row).execute(c).await)?;
    Ok(updated == 1)
}

/// Records when a device last asked, and how long it has to wait now.
pub async fn poll(
    tx: &mut Tx,
    id: &str,
    polled_at: Timestamp,
    interval_seconds: i64,
) -> Result<(), Error> {
    let polled = (
        devices::polled_at.eq(Some(polled_at)),
        devices::interval_seconds.eq(interval_seconds),
    );
    on!(tx, |c| diesel::update(devices::table.find(id))
        .set(polled)
        .execute(c)
        .await)?;
    Ok(())
}

/// Deletes devices up to `limit`, with the requests that were made for them: those that nobody accepted
/// and whose time was over before `lapsed`, and all whose time was over before `spent`.
pub async fn any_tenant_delete_old(
    tx: &mut Tx,
    lapsed: Timestamp,
    spent: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let useless = [DeviceState::Pending, DeviceState::Rejected].map(DeviceState::as_str);
    let is_useless = devices::state.eq_any(useless);
    let gone =
        delete_before!(tx, devices, id as String, expires_at, lapsed, limit, and is_useless)?;
    let left = limit.saturating_sub(i64::try_from(gone).unwrap_or(i64::MAX));
    if left <= 0 {
        return Ok(gone);
    }
    Ok(gone + delete_before!(tx, devices, id as String, expires_at, spent, left)?)
}
