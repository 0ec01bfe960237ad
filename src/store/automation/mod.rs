//! Browser automation: accounts, browser profiles, jobs, batches.

pub mod accounts;
pub mod batches;
pub mod claims;
mod job_row;
pub mod jobs;
pub mod profiles;

use diesel::backend::Backend;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as Diesel, QueryResult};
use diesel::sql_types::Bool;

use super::Error;

/// A condition as literal SQL. A planner uses a partial index only where a query repeats the index's
/// predicate word for word, which a bound value is not. Unlike diesel's own, it leaves the prepared
/// statement in the cache: its text is one of a few.
#[derive(Clone, Copy, Debug)]
struct Literal(&'static str);

/// Waits for a worker.
const PENDING: Literal = Literal("state = 'pending'");
/// A worker has it.
const RUNNING: Literal = Literal("state = 'running'");
/// A dead letter.
const FAILED: Literal = Literal("state = 'failed'");
/// Waits for its time.
const WAITING: Literal = Literal("state IN ('scheduled', 'retryable', 'snoozed')");

impl Expression for Literal {
    type SqlType = Bool;
}
impl<GB> ValidGrouping<GB> for Literal {
    type IsAggregate = is_aggregate::Never;
}
impl<QS> SelectableExpression<QS> for Literal {}
impl<QS> AppearsOnTable<QS> for Literal {}

impl QueryId for Literal {
    type QueryId = ();
    // Its text is not in its type.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<DB: Backend> QueryFragment<DB> for Literal {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        out.push_sql(self.0);
        Ok(())
    }
}

/// What another took since the look is no defect: run again, the look tells.
fn busy_if_taken(error: Diesel) -> Error {
    match error {
        Diesel::DatabaseError(DatabaseErrorKind::UniqueViolation, _) => Error::Busy(error.into()),
        error => error.into(),
    }
}
