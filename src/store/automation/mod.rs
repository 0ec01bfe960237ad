//! Browser automation: accounts, browser profiles, jobs, batches.

pub mod accounts;
pub mod batches;
pub mod claims;
mod job_row;
pub mod jobs;
#[cfg(test)]
mod plans;
pub mod profiles;

use diesel::backend::Backend;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as Diesel, QueryResult};
use diesel::sql_types::Bool;

use super::Error;
use crate::model::JobState;

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

// The same of jobs that are told by their ids, in a form that no index has: an index of all that wait, say,
// which knows nothing of the ids, looks cheaper to either database while it does not know how many those are.
const PENDING_BY_ID: Literal = Literal("(state || '') = 'pending'");
const RUNNING_BY_ID: Literal = Literal("(state || '') = 'running'");
const FAILED_BY_ID: Literal = Literal("(state || '') = 'failed'");
const WAITING_BY_ID: Literal = Literal("(state || '') IN ('scheduled', 'retryable', 'snoozed')");

/// In this state. Not as a bound value: SQLite plans a statement anew at each value that may be a partial
/// index's.
fn in_state(state: JobState) -> Literal {
    match state {
        JobState::Scheduled => Literal("state = 'scheduled'"),
        JobState::Pending => PENDING,
        JobState::Running => RUNNING,
        JobState::Retryable => Literal("state = 'retryable'"),
        JobState::Snoozed => Literal("state = 'snoozed'"),
        JobState::Completed => Literal("state = 'completed'"),
        JobState::Failed => FAILED,
        JobState::Cancelled => Literal("state = 'cancelled'"),
    }
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
