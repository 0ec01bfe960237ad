//! Apps and custom providers.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::{apps, connections};
use super::{Error, unreadable_if_none};
use crate::model::{App, AppState, Sealed, Timestamp};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = apps, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct AppRow {
    id: String,
    tenant: String,
    provider: String,
    client_id: Option<String>,
    external_key: Option<String>,
    display_name: String,
    client_secret: Option<Sealed>,
    previous_secret: Option<Sealed>,
    previous_secret_expires_at: Option<Timestamp>,
    default_scopes: JsonValue,
    allowed_return_urls: JsonValue,
    redirect_uris: JsonValue,
    variables: JsonValue,
    workspace_email: String,
    workspace_name: String,
    state: String,
    misconfiguration: String,
    misconfigured_at: Option<Timestamp>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&App> for AppRow {
    fn from(app: &App) -> Self {
        Self {
            id: app.id.clone(),
            tenant: app.tenant.clone(),
            provider: app.provider.clone(),
            client_id: app.client_id.clone(),
            external_key: app.external_key.clone(),
            display_name: app.display_name.clone(),
            client_secret: app.client_secret.clone(),
            previous_secret: app.previous_secret.clone(),
            previous_secret_expires_at: app.previous_secret_expires_at,
            default_scopes: JsonValue::of(&app.default_scopes),
            allowed_return_urls: JsonValue::of(&app.allowed_return_urls),
            redirect_uris: JsonValue::of(&app.redirect_uris),
            variables: JsonValue::of(&app.variables),
            workspace_email: app.workspace_email.clone(),
            workspace_name: app.workspace_name.clone(),
            state: app.state.as_str().to_owned(),
            misconfiguration: app.misconfiguration.clone(),
            misconfigured_at: app.misconfigured_at,
            version: app.version,
            created_at: app.created_at,
            updated_at: app.updated_at,
        }
    }
}

impl TryFrom<AppRow> for App {
    type Error = Error;
    fn try_from(row: AppRow) -> Result<Self, Error> {
        Ok(Self {
            state: unreadable_if_none(AppState::parse(&row.state), "apps.state")?,
            id: row.id,
            tenant: row.tenant,
            provider: row.provider,
            client_id: row.client_id,
            external_key: row.external_key,
            display_name: row.display_name,
            client_secret: row.client_secret,
            previous_secret: row.previous_secret,
            previous_secret_expires_at: row.previous_secret_expires_at,
            default_scopes: row.default_scopes.read(),
            allowed_return_urls: row.allowed_return_urls.read(),
            redirect_uris: row.redirect_uris.read(),
            variables: row.variables.read(),
            workspace_email: row.workspace_email,
            workspace_name: row.workspace_name,
            misconfiguration: row.misconfiguration,
            misconfigured_at: row.misconfigured_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// Inserts; `false` when its client id or external key is taken.
pub async fn insert(tx: &mut Tx, app: &App) -> Result<bool, Error> {
    let row = AppRow::from(app);
    let inserted = on!(tx, |c| diesel::insert_into(apps::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// The app with this id, client id or external key.
pub async fn find(conn: &mut Conn, tenant: &str, name: &str) -> Result<Option<App>, Error> {
    let row = on!(conn, |c| {
        let query = apps::table
            .filter(apps::tenant.eq(tenant))
            .filter(
                apps::id
                    .eq(name)
                    .or(apps::client_id.eq(name))
                    .or(apps::external_key.eq(name)),
            )
            // An id comes before a key that somebody made to look like one.
            .order(apps::id.eq(name).desc())
            .select(AppRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(App::try_from).transpose()
}

/// The app with this id, whatever its tenant: for the callback, whose path names it.
pub async fn any_tenant_find(conn: &mut Conn, id: &str) -> Result<Option<App>, Error> {
    let row = on!(conn, |c| {
        let query = apps::table.find(id).select(AppRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(App::try_from).transpose()
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    provider: Option<&str>,
    after: &str,
    limit: i64,
) -> Result<Vec<App>, Error> {
    let rows: Vec<AppRow> = on!(conn, |c| {
        let mut query = apps::table
            .filter(apps::tenant.eq(tenant))
            .filter(apps::id.gt(after))
            .order(apps::id)
            .limit(limit)
            .select(AppRow::as_select())
            .into_boxed();
        if let Some(provider) = provider {
            query = query.filter(apps::provider.eq(provider));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(App::try_from).collect()
}

/// Writes the app if its stored version is the one before; `None` when that is not so,
/// `Some(false)` when its client id or external key is taken.
pub async fn update(tx: &mut Tx, app: &App) -> Result<Option<bool>, Error> {
    let taken = apps::table
        .filter(apps::tenant.eq(&app.tenant))
        .filter(apps::id.ne(&app.id))
        .filter(
            apps::client_id
                .eq(&app.client_id)
                .or(apps::external_key.eq(&app.external_key)),
        )
        .count();
    let taken: i64 = on!(tx, |c| taken.get_result(c).await)?;
    if taken > 0 {
        return Ok(Some(false));
    }
    let row = AppRow::from(app);
    let target = apps::table
        .find(&app.id)
        .filter(apps::tenant.eq(&app.tenant))
        .filter(apps::version.eq(app.version - 1));
    let updated = on!(tx, |c| diesel::update(target).set(&row).execute(c).await)?;
    Ok((updated == 1).then_some(true))
}

/// Marks what the provider objects to; an empty text clears it.
pub async fn mark(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    misconfiguration: &str,
    at: Option<Timestamp>,
) -> Result<bool, Error> {
    let target = apps::table.find(id).filter(apps::tenant.eq(tenant));
    let changed = (
        apps::misconfiguration.eq(misconfiguration),
        apps::misconfigured_at.eq(at),
    );
    Ok(on!(tx, |c| diesel::update(target).set(changed).execute(c).await)? == 1)
}

/// Deletes; `false` when there is none of this version. The caller has seen that no connection
/// refers to it.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str) -> Result<bool, Error> {
    let target = apps::table.find(id).filter(apps::tenant.eq(tenant));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)? == 1)
}

/// How many connections an app has.
pub async fn connection_count(conn: &mut Conn, tenant: &str, id: &str) -> Result<i64, Error> {
    let query = connections::table
        .filter(connections::tenant.eq(tenant))
        .filter(connections::app_id.eq(id))
        .count();
    Ok(on!(conn, |c| query.get_result(c).await)?)
}
