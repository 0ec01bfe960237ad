//! OAuth clients, their secrets, and how they are used. Those that were deleted are found by nothing
//! here but what deletes them for good.

use std::time::Duration;

use diesel::dsl::count;
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::columns::JsonValue;
use super::locks::delete_before;
use super::pool::{Conn, Tx, on};
use super::schema::{issued_grants, oauth_client_secrets, oauth_client_usage, oauth_clients};
use super::{Error, unreadable_if_none};
use crate::model::{
    ClientAuthMethod, ClientGrantType, ClientResponseType, ClientSecret, ClientSettings,
    ClientState, ClientUsage, OauthClient, Sealed, Timestamp, TokenFormat,
};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = oauth_clients, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct ClientRow {
    id: String,
    tenant: String,
    name: String,
    description: String,
    logo_url: String,
    homepage_url: String,
    auth_method: String,
    jwks: String,
    jwks_uri: String,
    redirect_uris: JsonValue,
    grant_types: JsonValue,
    response_types: JsonValue,
    scopes: JsonValue,
    access_token_seconds: i64,
    refresh_token_seconds: i64,
    require_pkce: bool,
    trusted: bool,
    rate_limit_per_hour: Option<i32>,
    webhook_url: String,
    webhook_secret: Option<Sealed>,
    webhook_events: JsonValue,
    state: String,
    state_reason: String,
    state_changed_at: Timestamp,
    created_by: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
    access_token_format: String,
    dpop_bound: bool,
    require_pushed: bool,
}

impl From<&OauthClient> for ClientRow {
    fn from(client: &OauthClient) -> Self {
        let settings = client.settings.clone();
        let grants: Vec<_> = settings.grant_types.iter().map(|it| it.as_str()).collect();
        let responses = settings.response_types.iter();
        let responses: Vec<_> = responses.map(|it| it.as_str()).collect();
        Self {
            id: client.id.clone(),
            tenant: client.tenant.clone(),
            grant_types: JsonValue::of(&grants),
            response_types: JsonValue::of(&responses),
            redirect_uris: JsonValue::of(&settings.redirect_uris),
            scopes: JsonValue::of(&settings.allowed_scopes),
            webhook_events: JsonValue::of(&settings.webhook_events),
            name: settings.name,
            description: settings.description,
            logo_url: settings.logo_url,
            homepage_url: settings.homepage_url,
            auth_method: settings.auth_method.as_str().to_owned(),
            jwks: settings.jwks,
            jwks_uri: settings.jwks_uri,
            access_token_seconds: seconds(settings.access_token_lifetime),
            refresh_token_seconds: seconds(settings.refresh_token_lifetime),
            require_pkce: settings.require_pkce,
            trusted: settings.trusted,
            rate_limit_per_hour: settings
                .rate_limit_per_hour
                .map(|limit| i32::try_from(limit).unwrap_or(i32::MAX)),
            webhook_url: settings.webhook_url,
            webhook_secret: client.webhook_secret.clone(),
            state: client.state.as_str().to_owned(),
            state_reason: client.state_reason.clone(),
            state_changed_at: client.state_changed_at,
            created_by: client.created_by.clone(),
            version: client.version,
            created_at: client.created_at,
            updated_at: client.updated_at,
            deleted_at: client.deleted_at,
            access_token_format: settings.access_token_format.as_str().to_owned(),
            dpop_bound: settings.dpop_bound,
            require_pushed: settings.require_pushed,
        }
    }
}

impl TryFrom<ClientRow> for OauthClient {
    type Error = Error;
    fn try_from(row: ClientRow) -> Result<Self, Error> {
        let auth_method = ClientAuthMethod::parse(&row.auth_method);
        let format = TokenFormat::parse(&row.access_token_format);
        let settings = ClientSettings {
            auth_method: unreadable_if_none(auth_method, "oauth_clients.auth_method")?,
            grant_types: listed(
                row.grant_types,
                ClientGrantType::parse,
                "oauth_clients.grant_types",
            )?,
            response_types: listed(
                row.response_types,
                ClientResponseType::parse,
                "oauth_clients.response_types",
            )?,
            name: row.name,
            description: row.description,
            logo_url: row.logo_url,
            homepage_url: row.homepage_url,
            jwks: row.jwks,
            jwks_uri: row.jwks_uri,
            redirect_uris: row.redirect_uris.read(),
            allowed_scopes: row.scopes.read(),
            access_token_lifetime: lifetime(row.access_token_seconds),
            refresh_token_lifetime: lifetime(row.refresh_token_seconds),
            require_pkce: row.require_pkce,
            trusted: row.trusted,
            rate_limit_per_hour: row
                .rate_limit_per_hour
                .and_then(|limit| u32::try_from(limit).ok()),
            webhook_url: row.webhook_url,
            webhook_events: row.webhook_events.read(),
            access_token_format: unreadable_if_none(format, "oauth_clients.access_token_format")?,
            dpop_bound: row.dpop_bound,
            require_pushed: row.require_pushed,
        };
        Ok(Self {
            state: unreadable_if_none(ClientState::parse(&row.state), "oauth_clients.state")?,
            id: row.id,
            tenant: row.tenant,
            settings,
            webhook_secret: row.webhook_secret,
            state_reason: row.state_reason,
            state_changed_at: row.state_changed_at,
            created_by: row.created_by,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            deleted_at: row.deleted_at,
        })
    }
}

/// A list of what the model knows by name; one that it does not know is not left out in silence.
fn listed<T>(
    column: JsonValue,
    parse: impl Fn(&str) -> Option<T>,
    name: &str,
) -> Result<Vec<T>, Error> {
    let texts: Vec<String> = column.read();
    let values = texts.iter().map(|text| parse(text)).collect();
    unreadable_if_none(values, name)
}

fn seconds(lifetime: Duration) -> i64 {
    i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX)
}

fn lifetime(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = oauth_client_secrets)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct SecretRow {
    hash: Vec<u8>,
    tenant: String,
    client_id: String,
    prefix: String,
    created_at: Timestamp,
    expires_at: Timestamp,
    superseded_at: Option<Timestamp>,
}

impl From<&ClientSecret> for SecretRow {
    fn from(secret: &ClientSecret) -> Self {
        let secret = secret.clone();
        Self {
            hash: secret.hash,
            tenant: secret.tenant,
            client_id: secret.client_id,
            prefix: secret.prefix,
            created_at: secret.created_at,
            expires_at: secret.expires_at,
            superseded_at: secret.superseded_at,
        }
    }
}

impl From<SecretRow> for ClientSecret {
    fn from(row: SecretRow) -> Self {
        Self {
            hash: row.hash,
            tenant: row.tenant,
            client_id: row.client_id,
            prefix: row.prefix,
            created_at: row.created_at,
            expires_at: row.expires_at,
            superseded_at: row.superseded_at,
        }
    }
}

/// Inserts a new client.
pub async fn insert(tx: &mut Tx, client: &OauthClient) -> Result<(), Error> {
    let row = ClientRow::from(client);
    on!(tx, |c| diesel::insert_into(oauth_clients::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The client of this id.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<OauthClient>, Error> {
    let row = on!(conn, |c| {
        let query = oauth_clients::table
            .find(id)
            .filter(oauth_clients::tenant.eq(tenant))
            .filter(oauth_clients::deleted_at.is_null())
            .select(ClientRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(OauthClient::try_from).transpose()
}

/// The client of this id, whatever its tenant: at our own authorisation server it is known by its id
/// alone.
pub async fn any_tenant_find(conn: &mut Conn, id: &str) -> Result<Option<OauthClient>, Error> {
    let row = on!(conn, |c| {
        let query = oauth_clients::table
            .find(id)
            .filter(oauth_clients::deleted_at.is_null())
            .select(ClientRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(OauthClient::try_from).transpose()
}

/// One page by id; of one state where it is given.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    state: Option<ClientState>,
    after: &str,
    limit: i64,
) -> Result<Vec<OauthClient>, Error> {
    let rows: Vec<ClientRow> = on!(conn, |c| {
        let mut query = oauth_clients::table
            .filter(oauth_clients::tenant.eq(tenant))
            .filter(oauth_clients::deleted_at.is_null())
            .filter(oauth_clients::id.gt(after))
            .order(oauth_clients::id)
            .limit(limit)
            .select(ClientRow::as_select())
            .into_boxed();
        if let Some(state) = state {
            query = query.filter(oauth_clients::state.eq(state.as_str()));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(OauthClient::try_from).collect()
}

/// Writes the client if its stored version is the one before; `false` when that is not so.
pub async fn update(tx: &mut Tx, client: &OauthClient) -> Result<bool, Error> {
    let row = ClientRow::from(client);
    let target = oauth_clients::table
        .find(&client.id)
        .filter(oauth_clients::tenant.eq(&client.tenant))
        .filter(oauth_clients::deleted_at.is_null())
        .filter(oauth_clients::version.eq(client.version - 1));
    let updated = on!(tx, |c| diesel::update(target).set(&row).execute(c).await)?;
    Ok(updated == 1)
}

/// Inserts a secret. A client has one that is current at most.
pub async fn insert_secret(tx: &mut Tx, secret: &ClientSecret) -> Result<(), Error> {
    let row = SecretRow::from(secret);
    on!(tx, |c| diesel::insert_into(oauth_client_secrets::table)
        .values(&row)
        .execute(c)
        .await)?;
    Ok(())
}

/// The secrets of these clients, also those whose time is over: of each client the latest first.
pub async fn secrets(
    conn: &mut Conn,
    tenant: &str,
    client_ids: &[String],
) -> Result<Vec<ClientSecret>, Error> {
    let rows: Vec<SecretRow> = on!(conn, |c| {
        let query = oauth_client_secrets::table
            .filter(oauth_client_secrets::tenant.eq(tenant))
            .filter(oauth_client_secrets::client_id.eq_any(client_ids.to_vec()))
            .order((
                oauth_client_secrets::client_id,
                oauth_client_secrets::superseded_at.is_null().desc(),
            ))
            .select(SecretRow::as_select());
        query.load(c).await
    })?;
    Ok(rows.into_iter().map(ClientSecret::from).collect())
}

/// Deletes all secrets of a client.
pub async fn delete_secrets(tx: &mut Tx, tenant: &str, client_id: &str) -> Result<(), Error> {
    let target = oauth_client_secrets::table
        .filter(oauth_client_secrets::tenant.eq(tenant))
        .filter(oauth_client_secrets::client_id.eq(client_id));
    on!(tx, |c| diesel::delete(target).execute(c).await)?;
    Ok(())
}

/// How a client is used; `None` when it never was.
pub async fn usage(
    conn: &mut Conn,
    tenant: &str,
    client_id: &str,
) -> Result<Option<ClientUsage>, Error> {
    let row: Option<(i64, i64, Option<Timestamp>)> = on!(conn, |c| {
        let query = oauth_client_usage::table
            .find(client_id)
            .filter(oauth_client_usage::tenant.eq(tenant))
            .select((
                oauth_client_usage::authorizations,
                oauth_client_usage::tokens,
                oauth_client_usage::last_used_at,
            ));
        query.first(c).await.optional()
    })?;
    let people = issued_grants::table
        .filter(issued_grants::client_id.eq(client_id))
        .filter(issued_grants::tenant.eq(tenant))
        .select(count(issued_grants::user_id).aggregate_distinct());
    let unique_users: i64 = on!(conn, |c| people.get_result(c).await)?;
    if row.is_none() && unique_users == 0 {
        return Ok(None);
    }
    let (authorizations, tokens, last_used_at) = row.unwrap_or_default();
    Ok(Some(ClientUsage {
        authorizations,
        tokens,
        last_used_at,
        unique_users,
    }))
}

/// Adds to how a client is used; nothing for one that is gone. People are counted when they are
/// asked for.
pub async fn add_usage(
    tx: &mut Tx,
    tenant: &str,
    client_id: &str,
    usage: &ClientUsage,
) -> Result<(), Error> {
    use oauth_client_usage as counted;
    let exists = oauth_clients::table
        .find(client_id)
        .filter(oauth_clients::tenant.eq(tenant))
        .count();
    let exists: i64 = on!(tx, |c| exists.get_result(c).await)?;
    if exists == 0 {
        return Ok(());
    }
    on!(tx, |c| diesel::insert_into(counted::table)
        .values((
            counted::client_id.eq(client_id),
            counted::tenant.eq(tenant),
            counted::authorizations.eq(usage.authorizations),
            counted::tokens.eq(usage.tokens),
            counted::last_used_at.eq(usage.last_used_at),
        ))
        .on_conflict(counted::client_id)
        .do_update()
        .set((
            counted::authorizations.eq(counted::authorizations + usage.authorizations),
            counted::tokens.eq(counted::tokens + usage.tokens),
        ))
        .execute(c)
        .await)?;
    // Consents without a token leave it as it was.
    if let Some(last_used_at) = usage.last_used_at {
        let target = counted::table.find(client_id);
        let used = counted::last_used_at.eq(last_used_at);
        on!(tx, |c| diesel::update(target).set(used).execute(c).await)?;
    }
    Ok(())
}

/// Deletes secrets whose time was over before the one given, up to `limit`.
pub async fn any_tenant_delete_expired_secrets(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    use oauth_client_secrets as secrets;
    delete_before!(conn, secrets, hash as Vec<u8>, expires_at, before, limit)
}

/// Deletes for good clients that were deleted before a time, up to `limit`, with all that is left of
/// what they had.
pub async fn any_tenant_delete_deleted(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    use oauth_clients as clients;
    delete_before!(conn, clients, id as String, deleted_at, before, limit)
}
