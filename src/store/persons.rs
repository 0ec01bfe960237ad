//! What is held about one person, over all tables: found, counted, and erased.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::authorizations::FINISHED;
use super::pool::{Conn, Tx, on};
use super::schema::{authorizations, connections, refresh_attempts, sessions};
use super::{Error, users};
use crate::model::{Timestamp, User, UserState};

/// Who a person is in these tables.
#[derive(Clone, Debug)]
pub struct Person {
    /// The user, deleted ones too; none where only connections name the person.
    pub user: Option<User>,
    /// Whose connections are theirs.
    pub owner: String,
}

impl Person {
    /// The user's id.
    pub fn user_id(&self) -> Option<&str> {
        self.user.as_ref().map(|user| user.id.as_str())
    }
}

/// How much is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Connections.
    pub connections: i64,
    /// Sessions, those that ended too.
    pub sessions: i64,
}

/// The person that a user is; softly deleted users too.
pub async fn of_user(
    conn: &mut Conn,
    tenant: &str,
    user_id: &str,
) -> Result<Option<Person>, Error> {
    let found = users::find_ever(conn, tenant, user_id).await?;
    Ok(found.map(|user| Person {
        owner: user.owner.clone(),
        user: Some(user),
    }))
}

/// The person that an owner is, with their user where there is one.
pub async fn of_owner(conn: &mut Conn, tenant: &str, owner: &str) -> Result<Person, Error> {
    Ok(Person {
        user: users::find_by_owner(conn, tenant, owner).await?,
        owner: owner.to_owned(),
    })
}

/// Whether another user, who is not deleted, has this owner now: then connections are theirs.
pub async fn is_owner_taken(conn: &mut Conn, tenant: &str, person: &Person) -> Result<bool, Error> {
    let holder = users::find_by_owner(conn, tenant, &person.owner).await?;
    Ok(holder.is_some_and(|holder| Some(holder.id.as_str()) != person.user_id()))
}

/// How much is held of a person.
pub async fn amounts(conn: &mut Conn, tenant: &str, person: &Person) -> Result<Amounts, Error> {
    let owned = connections::table
        .filter(connections::tenant.eq(tenant))
        .filter(connections::owner.eq(&person.owner))
        .count();
    let signed_in = sessions::table
        .filter(sessions::tenant.eq(tenant))
        .filter(sessions::user_id.eq(person.user_id().unwrap_or_default()))
        .count();
    Ok(Amounts {
        connections: on!(conn, |c| owned.get_result(c).await)?,
        sessions: on!(conn, |c| signed_in.get_result(c).await)?,
    })
}

/// The ids of an owner's connections after one, in order.
pub async fn connection_ids(
    conn: &mut Conn,
    tenant: &str,
    owner: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, Error> {
    let query = connections::table
        .filter(connections::tenant.eq(tenant))
        .filter(connections::owner.eq(owner))
        .filter(connections::id.gt(after))
        .order(connections::id)
        .limit(limit)
        .select(connections::id);
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// The ids of an owner's finished authorisations, up to `limit`: what their browser is called in the
/// trail.
pub async fn authorization_ids(
    conn: &mut Conn,
    tenant: &str,
    owner: &str,
    limit: i64,
) -> Result<Vec<String>, Error> {
    let query = authorizations::table
        .filter(authorizations::tenant.eq(tenant))
        .filter(authorizations::owner.eq(owner))
        .filter(authorizations::state.eq_any(FINISHED))
        .order(authorizations::id)
        .limit(limit)
        .select(authorizations::id);
    Ok(on!(conn, |c| query.load(c).await)?)
}

/// Switches a user off, so that nothing new comes while the person is being erased.
pub async fn lock_out(
    tx: &mut Tx,
    tenant: &str,
    user_id: &str,
    now: Timestamp,
) -> Result<(), Error> {
    use super::schema::users;
    let target = users::table.find(user_id).filter(users::tenant.eq(tenant));
    let change = (
        users::state.eq(UserState::Inactive.as_str()),
        users::version.eq(users::version + 1),
        users::updated_at.eq(now),
    );
    on!(tx, |c| diesel::update(target).set(change).execute(c).await)?;
    Ok(())
}

/// Takes the providers' words, which may name the person, from the log of refreshes of their
/// connections; ids, times and outcomes stay. Call it while the connections are there.
pub async fn reduce_attempts(tx: &mut Tx, tenant: &str, owner: &str) -> Result<usize, Error> {
    let grants = connections::table
        .filter(connections::tenant.eq(tenant))
        .filter(connections::owner.eq(owner))
        .select(connections::grant_id);
    let target = refresh_attempts::table
        .filter(refresh_attempts::tenant.eq(tenant))
        .filter(refresh_attempts::grant_id.eq_any(grants))
        .filter(refresh_attempts::error_message.ne(""));
    let change = refresh_attempts::error_message.eq("");
    Ok(on!(tx, |c| diesel::update(target)
        .set(change)
        .execute(c)
        .await)?)
}

/// Deletes these authorisations, with their visits; one that is not finished may hold tokens, and stays.
pub async fn delete_authorizations(
    tx: &mut Tx,
    tenant: &str,
    ids: &[String],
) -> Result<usize, Error> {
    let target = authorizations::table
        .filter(authorizations::tenant.eq(tenant))
        .filter(authorizations::id.eq_any(ids))
        .filter(authorizations::state.eq_any(FINISHED));
    Ok(on!(tx, |c| diesel::delete(target).execute(c).await)?)
}
