//! Users. Those that were deleted are found by nothing here but what says so.

use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error as Diesel};
use diesel_async::RunQueryDsl;

use super::columns::JsonValue;
use super::pool::{Conn, Tx, on};
use super::schema::users;
use super::{Error, unreadable_if_none};
use crate::model::{Role, Timestamp, User, UserState};

#[derive(AsChangeset, Insertable, Queryable, Selectable)]
#[diesel(table_name = users, treat_none_as_null = true)]
#[diesel(check_for_backend(diesel::pg::Pg, diesel::sqlite::Sqlite))]
struct UserRow {
    id: String,
    tenant: String,
    email: String,
    email_verified: bool,
    display_name: String,
    search_text: String,
    password_hash: Option<String>,
    role: String,
    grants: JsonValue,
    owner: String,
    state: String,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
    last_sign_in_at: Option<Timestamp>,
    password_changed_at: Option<Timestamp>,
    deleted_at: Option<Timestamp>,
}

impl From<&User> for UserRow {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.clone(),
            tenant: user.tenant.clone(),
            email: user.email.clone(),
            email_verified: user.email_verified,
            display_name: user.display_name.clone(),
            // A line break is in neither, so that nothing is found across their border.
            search_text: format!("{}\n{}", user.email, user.display_name.to_lowercase()),
            password_hash: user.password_hash.clone(),
            role: user.role.as_str().to_owned(),
            grants: JsonValue::of(&user.constraints),
            owner: user.owner.clone(),
            state: user.state.as_str().to_owned(),
            version: user.version,
            created_at: user.created_at,
            updated_at: user.updated_at,
            last_sign_in_at: user.last_sign_in_at,
            password_changed_at: user.password_changed_at,
            deleted_at: user.deleted_at,
        }
    }
}

impl TryFrom<UserRow> for User {
    type Error = Error;
    fn try_from(row: UserRow) -> Result<Self, Error> {
        Ok(Self {
            role: unreadable_if_none(Role::parse(&row.role), "users.role")?,
            state: unreadable_if_none(UserState::parse(&row.state), "users.state")?,
            // Never read as a default: constraints that are lost would be rights that are gained.
            constraints: serde_json::from_value(row.grants.0)
                .map_err(|error| Error::unreadable(format!("users.grants: {error}")))?,
            id: row.id,
            tenant: row.tenant,
            email: row.email,
            email_verified: row.email_verified,
            display_name: row.display_name,
            password_hash: row.password_hash,
            owner: row.owner,
            version: row.version,
            created_at: row.created_at,
            updated_at: row.updated_at,
            last_sign_in_at: row.last_sign_in_at,
            password_changed_at: row.password_changed_at,
            deleted_at: row.deleted_at,
        })
    }
}

/// What writing a user came to. Unless it was [`Written::Done`], the transaction is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// Another user has the e-mail address.
    EmailTaken,
    /// Another user has the owner.
    OwnerTaken,
}

impl Written {
    /// Which index refused, by its name (PostgreSQL) or its columns (SQLite).
    fn of(outcome: diesel::QueryResult<usize>) -> Result<Self, Error> {
        match outcome {
            Ok(1) => Ok(Self::Done),
            Ok(_) => Err(Error::unreadable("the user is gone although it was locked")),
            Err(Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, info)) => {
                Ok(if info.message().contains("owner") {
                    Self::OwnerTaken
                } else {
                    Self::EmailTaken
                })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Inserts a new user.
pub async fn insert(tx: &mut Tx, user: &User) -> Result<Written, Error> {
    let row = UserRow::from(user);
    let outcome = on!(tx, |c| diesel::insert_into(users::table)
        .values(&row)
        .execute(c)
        .await);
    Written::of(outcome)
}

/// Writes a user that this transaction has locked.
pub async fn update(tx: &mut Tx, user: &User) -> Result<Written, Error> {
    let row = UserRow::from(user);
    let target = users::table
        .find(&user.id)
        .filter(users::tenant.eq(&user.tenant));
    let outcome = on!(tx, |c| diesel::update(target).set(&row).execute(c).await);
    Written::of(outcome)
}

/// The user of this id, locked until the transaction ends.
pub async fn lock(tx: &mut Tx, tenant: &str, id: &str) -> Result<Option<User>, Error> {
    let target = users::table
        .find(id)
        .filter(users::tenant.eq(tenant))
        .filter(users::deleted_at.is_null());
    // An update without effect: the lock of both engines, where FOR UPDATE is PostgreSQL's alone.
    let row = on!(tx, |c| diesel::update(target)
        .set(users::id.eq(users::id))
        .returning(UserRow::as_returning())
        .get_result(c)
        .await
        .optional())?;
    row.map(User::try_from).transpose()
}

/// The user of this id.
pub async fn find(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<User>, Error> {
    let row = on!(conn, |c| {
        let query = users::table
            .find(id)
            .filter(users::tenant.eq(tenant))
            .filter(users::deleted_at.is_null())
            .select(UserRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(User::try_from).transpose()
}

/// The user of this id, deleted softly or not.
pub async fn find_ever(conn: &mut Conn, tenant: &str, id: &str) -> Result<Option<User>, Error> {
    let row = on!(conn, |c| {
        let query = users::table
            .find(id)
            .filter(users::tenant.eq(tenant))
            .select(UserRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(User::try_from).transpose()
}

/// Which of these users there are, deleted softly or not; they stay until the transaction ends.
pub async fn any_tenant_lock_ever(tx: &mut Tx, ids: &[String]) -> Result<Vec<String>, Error> {
    let target = users::table.filter(users::id.eq_any(ids));
    Ok(match &mut **tx {
        // In one order, lest two wait for each other; and not so that users can't change meanwhile.
        Conn::Postgres(conn) => {
            let query = target.order(users::id).select(users::id).for_key_share();
            query.load(&mut **conn).await?
        }
        // As in `lock`.
        Conn::Sqlite(conn) => {
            diesel::update(target)
                .set(users::id.eq(users::id))
                .returning(users::id)
                .get_results(&mut **conn)
                .await?
        }
    })
}

/// The user of this e-mail address, which is in lower case.
pub async fn find_by_email(
    conn: &mut Conn,
    tenant: &str,
    email: &str,
) -> Result<Option<User>, Error> {
    let row = on!(conn, |c| {
        let query = users::table
            .filter(users::tenant.eq(tenant))
            .filter(users::email.eq(email))
            .filter(users::deleted_at.is_null())
            .select(UserRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(User::try_from).transpose()
}

/// The user whose connections are those of this owner.
pub async fn find_by_owner(
    conn: &mut Conn,
    tenant: &str,
    owner: &str,
) -> Result<Option<User>, Error> {
    let row = on!(conn, |c| {
        let query = users::table
            .filter(users::tenant.eq(tenant))
            .filter(users::owner.eq(owner))
            .filter(users::deleted_at.is_null())
            .select(UserRow::as_select());
        query.first(c).await.optional()
    })?;
    row.map(User::try_from).transpose()
}

/// Which users to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these.
    pub state: Option<UserState>,
    /// Only those whose e-mail address or name contains this, in any case; empty for all.
    pub query: String,
}

/// One page by id.
pub async fn list(
    conn: &mut Conn,
    tenant: &str,
    filter: &Filter,
    after: &str,
    limit: i64,
) -> Result<Vec<User>, Error> {
    let rows: Vec<UserRow> = on!(conn, |c| {
        let mut query = users::table
            .filter(users::tenant.eq(tenant))
            .filter(users::deleted_at.is_null())
            .filter(users::id.gt(after))
            .order(users::id)
            .limit(limit)
            .select(UserRow::as_select())
            .into_boxed();
        if let Some(state) = filter.state {
            query = query.filter(users::state.eq(state.as_str()));
        }
        if !filter.query.is_empty() {
            let pattern = containing(&filter.query);
            query = query.filter(users::search_text.like(pattern).escape('\\'));
        }
        query.load(c).await
    })?;
    rows.into_iter().map(User::try_from).collect()
}

/// A LIKE pattern of texts that contain this one, whose wildcards stand for themselves.
fn containing(text: &str) -> String {
    let mut pattern = String::from("%");
    for letter in text.to_lowercase().chars() {
        if matches!(letter, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern.push('%');
    pattern
}

/// Replaces a password's hash by another of the same password, unless the password was changed
/// meanwhile.
pub async fn rehash(
    conn: &mut Conn,
    tenant: &str,
    id: &str,
    old: &str,
    new: &str,
) -> Result<bool, Error> {
    let target = users::table
        .find(id)
        .filter(users::tenant.eq(tenant))
        .filter(users::password_hash.eq(old));
    let hash = users::password_hash.eq(new);
    Ok(on!(conn, |c| diesel::update(target).set(hash).execute(c).await)? == 1)
}

/// Deleted users of before a time, as tenant and id, up to `limit`.
pub async fn any_tenant_deleted_before(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(String, String)>, Error> {
    let query = users::table
        .filter(users::deleted_at.lt(before))
        .order(users::deleted_at)
        .limit(limit)
        .select((users::tenant, users::id));
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Removes a user for good, deleted before or not; preferences and sessions go too. `false` when
/// there is none.
pub async fn remove(tx: &mut Tx, tenant: &str, id: &str) -> Result<bool, Error> {
    let target = users::table.find(id).filter(users::tenant.eq(tenant));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_themselves() {
        assert_eq!(containing("50%_ÀB\\"), "%50\\%\\_àb\\\\%");
    }
}
