//! Browser profiles.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::busy_if_taken;
use crate::model::{Captcha, ExecutionMode, Profile, Timestamp};
use crate::store::columns::JsonValue;
use crate::store::locks::lock;
use crate::store::pool::{Conn, Tx, on};
use crate::store::schema::automation_profiles as profiles;
use crate::store::statement::{one_of, unindexed};
use crate::store::{Error, unreadable_if_none};

#[derive(Insertable, Queryable, Selectable)]
#[diesel(table_name = profiles)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct ProfileRow {
    id: String,
    tenant: String,
    external_id: String,
    display_name: String,
    execution_mode: String,
    proxy_country: String,
    proxy_type: String,
    account_id: Option<String>,
    captcha: String,
    captcha_at: Option<Timestamp>,
    labels: JsonValue,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Profile> for ProfileRow {
    fn from(profile: &Profile) -> Self {
        let profile = profile.clone();
        Self {
            execution_mode: profile.execution_mode.as_str().to_owned(),
            captcha: profile.captcha.as_str().to_owned(),
            labels: JsonValue::of(&profile.labels),
            id: profile.id,
            tenant: profile.tenant,
            external_id: profile.external_id,
            display_name: profile.display_name,
            proxy_country: profile.proxy_country,
            proxy_type: profile.proxy_type,
            account_id: profile.account_id,
            captcha_at: profile.captcha_at,
            version: profile.version,
            created_at: profile.created_at,
            updated_at: profile.updated_at,
        }
    }
}

impl TryFrom<ProfileRow> for Profile {
    type Error = Error;
    fn try_from(row: ProfileRow) -> Result<Self, Error> {
        let mode = ExecutionMode::parse(&row.execution_mode);
        let captcha = Captcha::parse(&row.captcha);
        Ok(Self {
            execution_mode: unreadable_if_none(mode, "automation_profiles.execution_mode")?,
            captcha: unreadable_if_none(captcha, "automation_profiles.captcha")?,
            labels: row.labels.read(),
            id: row.id,
            tenant: row.tenant,
            external_id: row.external_id,
            display_name: row.display_name,
            proxy_country: row.proxy_country,
            proxy_type: row.proxy_type,
            account_id: row.account_id,
            captcha_at: row.captcha_at,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
        })
    }
}

/// What changes of a profile.
#[derive(AsChangeset)]
#[diesel(table_name = profiles, treat_none_as_null = true)]
struct ProfileChange {
    display_name: String,
    execution_mode: String,
    proxy_country: String,
    proxy_type: String,
    account_id: Option<String>,
    captcha: String,
    captcha_at: Option<Timestamp>,
    labels: JsonValue,
    version: i64,
    updated_at: Timestamp,
}

impl From<&Profile> for ProfileChange {
    fn from(profile: &Profile) -> Self {
        let row = ProfileRow::from(profile);
        Self {
            display_name: row.display_name,
            execution_mode: row.execution_mode,
            proxy_country: row.proxy_country,
            proxy_type: row.proxy_type,
            account_id: row.account_id,
            captcha: row.captcha,
            captcha_at: row.captcha_at,
            labels: row.labels,
            version: row.version,
            updated_at: row.updated_at,
        }
    }
}

/// Inserts; `false` when there is one of this external id, or of its account.
pub async fn insert(tx: &mut Tx, profile: &Profile) -> Result<bool, Error> {
    let row = ProfileRow::from(profile);
    let inserted = on!(tx, |c| diesel::insert_into(profiles::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c)
        .await)?;
    Ok(inserted == 1)
}

/// The profile with this id or external id.
pub async fn find(conn: &mut Conn, tenant: &str, name: &str) -> Result<Option<Profile>, Error> {
    let row = on!(conn, |c| {
        let query = profiles::table
            .filter(profiles::tenant.eq(tenant))
            .filter(profiles::id.eq(name).or(profiles::external_id.eq(name)))
            // An id comes before an external one that somebody made to look like one.
            .order(profiles::id.eq(name).desc())
            .select(ProfileRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(Profile::try_from).transpose()
}

/// The profiles with these ids or external ids, as far as there are any.
pub async fn of_names(
    conn: &mut Conn,
    tenant: &str,
    names: &[String],
) -> Result<Vec<Profile>, Error> {
    // Each with the tenant: with it beside them, SQLite would go through all profiles of the tenant.
    let by_id = profiles::tenant.eq(tenant).and(one_of(profiles::id, names));
    let by_external_id = profiles::tenant
        .eq(tenant)
        .and(one_of(profiles::external_id, names));
    let rows: Vec<ProfileRow> = on!(conn, |c| profiles::table
        .filter(by_id.or(by_external_id))
        .select(ProfileRow::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Profile::try_from).collect()
}

/// The profiles that are for these accounts, as far as there are any.
pub async fn of_accounts(
    conn: &mut Conn,
    tenant: &str,
    account_ids: &[String],
) -> Result<Vec<Profile>, Error> {
    let rows: Vec<ProfileRow> = on!(conn, |c| profiles::table
        .filter(unindexed(profiles::tenant).eq(tenant))
        .filter(one_of(profiles::account_id, account_ids))
        .select(ProfileRow::as_select())
        .load(c)
        .await)?;
    rows.into_iter().map(Profile::try_from).collect()
}

/// Locks browser profiles in the order of their ids, until the transaction ends, behind the accounts, as by
/// whoever changes a profile: those that are there, each with the id of its account.
pub async fn lock_all(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
) -> Result<Vec<(String, Option<String>)>, Error> {
    let query = profiles::table
        .filter(unindexed(profiles::tenant).eq(tenant))
        .filter(one_of(profiles::id, ids))
        .order(profiles::id)
        .select((profiles::id, profiles::account_id));
    Ok(lock!(tx, query)?)
}

/// The profile with this id, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<Profile>, Error> {
    let rows: Vec<ProfileRow> = lock!(
        tx,
        profiles::table
            .find(id)
            .filter(profiles::tenant.eq(tenant))
            .select(ProfileRow::as_select())
    )?;
    rows.into_iter().next().map(Profile::try_from).transpose()
}

/// Writes what changes of a profile if its stored version is the one given. One whose account another
/// profile takes meanwhile is busy.
pub async fn update(tx: &mut Tx, profile: &Profile, was: i64) -> Result<bool, Error> {
    let change = ProfileChange::from(profile);
    let target = profiles::table
        .find(&profile.id)
        .filter(profiles::tenant.eq(&profile.tenant))
        .filter(profiles::version.eq(was));
    let updated =
        on!(tx, |c| diesel::update(target).set(&change).execute(c).await).map_err(busy_if_taken)?;
    Ok(updated == 1)
}

/// Records what a job of the profile met.
pub async fn set_captcha(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    captcha: Captcha,
    now: Timestamp,
) -> Result<(), Error> {
    let target = profiles::table.find(id).filter(profiles::tenant.eq(tenant));
    let met = (
        profiles::captcha.eq(captcha.as_str()),
        profiles::captcha_at.eq((captcha != Captcha::None).then_some(now)),
        profiles::version.eq(profiles::version + 1),
        profiles::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target).set(met).execute(c).await)?;
    Ok(())
}

/// Gives the profile of an account its next version: the account is about to be deleted, which takes
/// it from the profile.
pub async fn touch_of_account(
    tx: &mut Tx,
    tenant: &str,
    account_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    let target = profiles::table
        .filter(profiles::tenant.eq(tenant))
        .filter(profiles::account_id.eq(account_id));
    let touched = (
        profiles::version.eq(profiles::version + 1),
        profiles::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target).set(touched).execute(c).await)?;
    Ok(())
}

/// Deletes.
pub async fn delete(tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
    let target = profiles::table.find(id).filter(profiles::tenant.eq(tenant));
    on!(tx, |c| diesel::delete(target).execute(c).await)?;
    Ok(())
}

/// Which profiles to list.
#[derive(Clone, Copy, Debug)]
pub struct ProfileQuery<'a> {
    /// Only those of this mode.
    pub execution_mode: Option<ExecutionMode>,
    /// Only those that met this.
    pub captcha: Option<Captcha>,
    /// Behind this id; empty for the first page.
    pub after: &'a str,
    /// At most so many.
    pub limit: i64,
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    asked: &ProfileQuery<'_>,
) -> Result<Vec<Profile>, Error> {
    let rows: Vec<ProfileRow> = on!(conn, |c| {
        let mut query = profiles::table
            .filter(profiles::tenant.eq(tenant))
            .filter(profiles::id.gt(asked.after))
            .order(profiles::id)
            .limit(asked.limit)
            .select(ProfileRow::as_select())
            .into_boxed();
        if let Some(mode) = asked.execution_mode {
            query = query.filter(profiles::execution_mode.eq(mode.as_str()));
        }
        if let Some(captcha) = asked.captcha {
            query = query.filter(profiles::captcha.eq(captcha.as_str()));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(Profile::try_from).collect()
}
