//! Browser automation: accounts, browser profiles, jobs, batches.

pub mod accounts;
pub mod batches;
pub mod claims;
mod job_row;
pub mod jobs;
pub mod profiles;

use diesel::TextExpressionMethods as _;
use diesel::backend::Backend;
use diesel::dsl;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as Diesel, QueryResult};
use diesel::sql_types::Bool;

use super::Error;
use super::schema::automation_jobs;

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

/// The state of jobs that are told by their ids, in a form that no index has. An index of all that wait or
/// run, say, which knows nothing of the ids, looks cheaper to either database while it does not know how many
/// those are; and SQLite plans a statement anew at each value that may be of a partial index's predicate.
fn state_by_id() -> dsl::Concat<automation_jobs::state, &'static str> {
    automation_jobs::state.concat("")
}

/// The tenant of jobs that are told by a list of ids, for the same reason.
fn tenant_by_id() -> dsl::Concat<automation_jobs::tenant, &'static str> {
    automation_jobs::tenant.concat("")
}

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
