//! Accounts at providers that workers sign in to.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::profiles;
use crate::model::{Account, ConnectionKind, Sealed, Timestamp};
use crate::store::columns::JsonValue;
use crate::store::locks::lock;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::automation_accounts as accounts;
use crate::store::statement::{one_of, unindexed};
use crate::store::{Error, unreadable_if_none};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = accounts)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct AccountRow {
    id: String,
    tenant: String,
    provider: String,
    username: String,
    display_name: String,
    kind: String,
    owner: String,
    app_id: Option<String>,
    client_id: String,
    client_secret: Option<Sealed>,
    password: Option<Sealed>,
    totp_secret: Option<Sealed>,
    credentials_at: Option<Timestamp>,
    connection_id: Option<String>,
    connected_at: Option<Timestamp>,
    labels: JsonValue,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Account> for AccountRow {
    fn from(account: &Account) -> Self {
        let account = account.clone();
        Self {
            kind: account.kind.as_str().to_owned(),
            labels: JsonValue::of(&account.labels),
            id: account.id,
            tenant: account.tenant,
            provider: account.provider,
            username: account.username,
            display_name: account.display_name,
            owner: account.owner,
            app_id: account.app_id,
            client_id: account.client_id,
            client_secret: account.client_secret,
            password: account.password,
            totp_secret: account.totp_secret,
            credentials_at: account.credentials_at,
            connection_id: account.connection_id,
            connected_at: account.connected_at,
            version: account.version,
            created_at: account.created_at,
            updated_at: account.updated_at,
        }
    }
}

impl TryFrom<AccountRow> for Account {
    type Error = Error;
    fn try_from(row: AccountRow) -> Result<Self, Error> {
        let kind = ConnectionKind::parse(&row.kind);
        Ok(Self {
            kind: unreadable_if_none(kind, "automation_accounts.kind")?,
            labels: row.labels.read(),
            id: row.id,
            tenant: row.tenant,
            provider: row.provider,
            username: row.username,
            display_name: row.display_name,
            owner: row.owner,
            app_id: row.app_id,
            client_id: row.client_id,
            client_secret: row.client_secret,
            password: row.password,
            totp_secret: row.totp_secret,
            credentials_at: row.credentials_at,
            connection_id: row.connection_id,
            connected_at: row.connected_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What changes of an account.
#[derive(AsChangeset)]
#[diesel(table_name = accounts, treat_none_as_null = true)]
struct AccountChange {
    display_name: String,
    kind: String,
    owner: String,
    app_id: Option<String>,
    client_id: String,
    client_secret: Option<Sealed>,
    password: Option<Sealed>,
    totp_secret: Option<Sealed>,
    credentials_at: Option<Timestamp>,
    connection_id: Option<String>,
    connected_at: Option<Timestamp>,
    labels: JsonValue,
    version: i64,
    updated_at: Timestamp,
}

impl From<&Account> for AccountChange {
    fn from(account: &Account) -> Self {
        let row = AccountRow::from(account);
        Self {
            display_name: row.display_name,
            kind: row.kind,
            owner: row.owner,
            app_id: row.app_id,
            client_id: row.client_id,
            client_secret: row.client_secret,
            password: row.password,
            totp_secret: row.totp_secret,
            credentials_at: row.credentials_at,
            connection_id: row.connection_id,
            connected_at: row.connected_at,
            labels: row.labels,
            version: row.version,
            updated_at: row.updated_at,
        }
    }
}

/// Inserts; `false` when its provider has one of this username.
pub async fn insert(tx: &mut Tx, account: &Account) -> Result<bool, Error> {
    let row = AccountRow::from(account);
    let inserted = on!(tx, |c| diesel::insert_into(accounts::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// The account.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<Account>, Error> {
    let row = on!(conn, |c| {
        let query = accounts::table
            .find(id)
            .filter(accounts::tenant.eq(tenant))
            .select(AccountRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Account::try_from).transpose()
}

/// The accounts of these ids, as far as there are any.
pub async fn of_ids(conn: &mut Conn, tenant: &str, ids: &[String]) -> Result<Vec<Account>, Error> {
    let rows: Vec<AccountRow> = on!(conn, |c| accounts::table
        .filter(unindexed(accounts::tenant).eq(tenant))
        .filter(one_of(accounts::id, ids))
        .select(AccountRow::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Account::try_from).collect()
}

/// Locks accounts in the order of their ids, until the transaction ends: the ids of those that are there.
pub async fn lock_all(tx: &mut Tx, tenant: &str, ids: &[String]) -> Result<Vec<String>, Error> {
    let query = accounts::table
        .filter(unindexed(accounts::tenant).eq(tenant))
        .filter(one_of(accounts::id, ids))
        .order(accounts::id)
        .select(accounts::id);
    Ok(lock!(tx, query)?)
}

/// The account with this id, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<Account>, Error> {
    let rows: Vec<AccountRow> = lock!(
        tx,
        accounts::table
            .find(id)
            .filter(accounts::tenant.eq(tenant))
            .select(AccountRow::as_select())
    )?;
    rows.into_iter().next().map(Account::try_from).transpose()
}

/// Writes what changes of an account if its stored version is the one given.
pub async fn update(tx: &mut Tx, account: &Account, was: i64) -> Result<bool, Error> {
    let change = AccountChange::from(account);
    let target = accounts::table
        .find(&account.id)
        .filter(accounts::tenant.eq(&account.tenant))
        .filter(accounts::version.eq(was));
    let updated = on!(tx, |c| diesel::update(target).set(&change).execute(c).await)?;
    Ok(updated == 1)
}

/// Records that an account is connected by this connection, or by none.
pub async fn connect(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    connection_id: Option<&str>,
    now: Timestamp,
) -> Result<(), Error> {
    let target = accounts::table.find(id).filter(accounts::tenant.eq(tenant));
    let connected = (
        accounts::connection_id.eq(connection_id),
        accounts::connected_at.eq(connection_id.map(|_| now)),
        accounts::version.eq(accounts::version + 1),
        accounts::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target)
        .set(connected)
        .execute(c)
        .await)?;
    Ok(())
}

/// Gives the accounts that a connection connects their next version: it is about to be deleted, which
/// takes it from them.
pub async fn touch_connected(
    tx: &mut Tx,
    tenant: &str,
    connection_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let target = accounts::table
        .filter(accounts::tenant.eq(tenant))
        .filter(accounts::connection_id.eq(connection_id));
    let touched = (
        accounts::version.eq(accounts::version + 1),
        accounts::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target).set(touched).execute(c).await)?;
    Ok(())
}

/// Takes the credentials of an owner's accounts away, who is being erased.
pub async fn forget_credentials(
    tx: &mut Tx,
    tenant: &str,
    owner: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let any = accounts::password
        .is_not_null()
        .or(accounts::totp_secret.is_not_null())
        .or(accounts::client_secret.is_not_null());
    let target = accounts::table
        .filter(accounts::tenant.eq(tenant))
        .filter(accounts::owner.eq(owner))
        .filter(any);
    let forgotten = (
        accounts::password.eq(None::<Sealed>),
        accounts::totp_secret.eq(None::<Sealed>),
        accounts::client_secret.eq(None::<Sealed>),
        accounts::credentials_at.eq(None::<Timestamp>),
        accounts::version.eq(accounts::version + 1),
        accounts::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target)
        .set(forgotten)
        .execute(c)
        .await)?;
    Ok(())
}

/// Deletes; its profile is free then.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str, now: Timestamp) -> Result<(), Error> {
    profiles::touch_of_account(tx, tenant, id, now).await?;
    let target = accounts::table.find(id).filter(accounts::tenant.eq(tenant));
    on!(tx, |c| diesel::delete(target).execute(c).await)?;
    Ok(())
}

/// Which accounts to list.
#[derive(Clone, Copy, Debug)]
pub struct AccountQuery<'a> {
    /// Only this provider's.
    pub provider: Option<&'a str>,
    /// Only those that are connected, or only those that are not.
    pub connected: Option<bool>,
    /// Behind this id; empty for the first page.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    asked: &AccountQuery<'_>,
) -> Result<Vec<Account>, Error> {
    let rows: Vec<AccountRow> = on!(conn, |c| {
        let mut query = accounts::table
            .filter(accounts::tenant.eq(tenant))
            .filter(accounts::id.gt(asked.after))
            .order(accounts::id)
            .limit(asked.limit)
            .select(AccountRow::as_select())
            .into_boxed();
        if let Some(provider) = asked.provider {
            query = query.filter(accounts::provider.eq(provider));
        }
        match asked.connected {
            Some(true) => query = query.filter(accounts::connection_id.is_not_null()),
            Some(false) => query = query.filter(accounts::connection_id.is_null()),
            None => {}
        }
        query.load(c).await
    })?;
    rows.into_iter().map(Account::try_from).collect()
}
