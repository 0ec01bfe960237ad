//! Providers that tenants added to the catalogue.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::{apps, providers};
use crate::model::{CustomProvider, Provider, Timestamp};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = providers)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct ProviderRow {
    tenant: String,
    id: String,
    definition: JsonValue,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&CustomProvider> for ProviderRow {
    fn from(provider: &CustomProvider) -> Self {
        Self {
            tenant: provider.tenant.clone(),
            id: provider.definition.id.clone(),
            definition: JsonValue::of(&provider.definition),
            version: provider.version,
            created_at: provider.created_at,
            updated_at: provider.updated_at,
        }
    }
}

impl TryFrom<ProviderRow> for CustomProvider {
    type Error = Error;
    fn try_from(row: ProviderRow) -> Result<Self, Error> {
        // Never read as a default: a definition without its endpoints would be another provider.
        let definition: Provider = serde_json::from_value(row.definition.0)
            .map_err(|error| Error::unreadable(format!("provider {}: {error}", row.id)))?;
        Ok(Self {
            tenant: row.tenant,
            definition,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Inserts; `false` when the tenant has one of this id.
pub async fn insert(tx: &mut Tx, provider: &CustomProvider) -> Result<bool, Error> {
    let row = ProviderRow::from(provider);
    let inserted = on!(tx, |c| diesel::insert_into(providers::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// The tenant's provider of this id.
pub async fn find(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
) -> Result<Option<CustomProvider>, Error> {
    let row = on!(conn, |c| {
        let query = providers::table
            .find((tenant, id))
            .select(ProviderRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(CustomProvider::try_from).transpose()
}

/// Keeps the tenant's provider of this id, where there is one, from being changed or deleted until
/// the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
    let target = providers::table.find((tenant, id));
    // An update without effect: the lock of both engines, where FOR UPDATE is PostgreSQL's alone.
    let same = providers::id.eq(providers::id);
    on!(tx, |c| diesel::update(target).set(same).execute(c).await)?;
    Ok(())
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<CustomProvider>, Error> {
    let rows: Vec<ProviderRow> = on!(conn, |c| {
        let query = providers::table
            .filter(providers::tenant.eq(tenant))
            .filter(providers::id.gt(after))
            .order(providers::id)
            .limit(limit)
            .select(ProviderRow::as_select());
        query.load(c).await
    })?;
    rows.into_iter().map(CustomProvider::try_from).collect()
}

/// Writes the provider if its stored version is the one before.
pub async fn update(tx: &mut Tx, provider: &CustomProvider) -> Result<bool, Error> {
    let row = ProviderRow::from(provider);
    let target = providers::table
        .find((&provider.tenant, &provider.definition.id))
        .filter(providers::version.eq(provider.version - 1));
    Ok(on!(tx, |c| diesel::update(target).set(&row).execute(c).await)? == 1)
}

/// Deletes; `false` when there is none.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str) -> Result<bool, Error> {
    let target = providers::table.find((tenant, id));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)? == 1)
}

/// How many apps a provider has.
pub async fn app_count(conn: &mut Conn, tenant: &str, id: &str) -> Result<i64, Error> {
    let query = apps::table
        .filter(apps::tenant.eq(tenant))
        .filter(apps::provider.eq(id))
        .count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}
