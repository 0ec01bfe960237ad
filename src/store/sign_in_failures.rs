//! Failed sign-ins, counted by subject: the hash of an account or of an address.

use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use super::Error;
use super::pool::{Conn, Tx, on};
use super::schema::sign_in_failures as failures;
use crate::model::Timestamp;

/// How a subject stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Failures so far, attempts under way among them.
    pub failures: i32,
    /// When the last of them was.
    pub last_at: Timestamp,
    /// Until when no further attempt is admitted.
    pub blocked_until: Timestamp,
}

/// How a subject stands; none while nothing failed.
pub async fn find(conn: &mut Conn, subject: &[u8]) -> Result<Option<Count>, Error> {
    let query = failures::table.find(subject).select((
        failures::failures,
        failures::last_at,
        failures::blocked_until,
    ));
    let row: Option<(i32, Timestamp, Timestamp)> = on!(conn, |c| query.first(c).await.optional())?;
    Ok(row.map(count))
}

/// The same, locked until the transaction ends; made when there is none.
pub async fn lock(tx: &mut Tx, subject: &[u8], now: Timestamp) -> Result<Count, Error> {
    let row = (
        failures::subject.eq(subject),
        failures::failures.eq(0),
        failures::last_at.eq(now),
        failures::blocked_until.eq(Timestamp::default()),
    );
    // An update without effect locks, and gives the row back whoever made it.
    let row: (i32, Timestamp, Timestamp) = on!(tx, |c| diesel::insert_into(failures::table)
        .values(row)
        .on_conflict(failures::subject)
        .do_update()
        .set(failures::subject.eq(failures::subject))
        .returning((
            failures::failures,
            failures::last_at,
            failures::blocked_until,
        ))
        .get_result(c)
        .await)?;
    Ok(count(row))
}

fn count((failures, last_at, blocked_until): (i32, Timestamp, Timestamp)) -> Count {
    Count {
        failures,
        last_at,
        blocked_until,
    }
}

/// Sets how a subject stands, which this transaction has locked.
pub async fn set(tx: &mut Tx, subject: &[u8], count: Count) -> Result<(), Error> {
    let target = failures::table.find(subject);
    let changed = (
        failures::failures.eq(count.failures),
        failures::last_at.eq(count.last_at),
        failures::blocked_until.eq(count.blocked_until),
    );
    on!(tx, |c| diesel::update(target).set(changed).execute(c).await)?;
    Ok(())
}

/// Forgets a subject.
pub async fn clear(tx: &mut Tx, subject: &[u8]) -> Result<(), Error> {
    let target = failures::table.find(subject);
    on!(tx, |c| diesel::delete(target).execute(c).await)?;
    Ok(())
}

/// Forgets what last failed before a time, up to `limit` subjects.
pub async fn any_tenant_prune(
    conn: &mut Conn,
    before: Timestamp,
    limit: i64,
) -> Result<usize, Error> {
    let query = failures::table
        .filter(failures::last_at.lt(before))
        .order(failures::last_at)
        .limit(limit)
        .select(failures::subject);
    let subjects: Vec<Vec<u8>> = on!(conn, |c| query.load(c).await)?;
    let target = failures::table
        .filter(failures::subject.eq_any(subjects))
        .filter(failures::last_at.lt(before));
    Ok(on!(conn, |c| diesel::delete(target).execute(c).await)?)
}
