//! What statements need that diesel's own have not.

use std::collections::BTreeMap;

use diesel::TextExpressionMethods;
use diesel::backend::Backend;
use diesel::dsl;
use diesel::expression::{
    AppearsOnTable, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::pg::Pg;
use diesel::query_builder::{AstPass, Query, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::sql_types::{Array, Bool, Text};
use diesel::sqlite::Sqlite;

/// A statement that stays prepared on its connection.
///
/// Diesel parses and plans every update anew, as all that has raw SQL in it: in PostgreSQL that takes
/// another way to the server and back. A connection keeps what it has prepared: only for statements whose
/// text is one of a few.
#[derive(Clone, Copy, Debug)]
pub(super) struct Prepared<Q>(Q);

/// Has a statement stay prepared.
pub(super) trait Prepare: Sized {
    /// See [`Prepared`].
    fn prepared(self) -> Prepared<Self> {
        Prepared(self)
    }
}
impl<Q> Prepare for Q {}

impl<Q> QueryId for Prepared<Q> {
    type QueryId = ();
    // It is told by its text.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<Q: Query> Query for Prepared<Q> {
    type SqlType = Q::SqlType;
}

impl<Q, C> diesel::RunQueryDsl<C> for Prepared<Q> {}

impl<DB: Backend, Q: QueryFragment<DB>> QueryFragment<DB> for Prepared<Q> {
    fn walk_ast<'b>(&'b self, out: AstPass<'_, 'b, DB>) -> QueryResult<()> {
        self.0.walk_ast(out)
    }

    fn is_safe_to_cache_prepared(&self, _: &DB) -> QueryResult<bool> {
        Ok(true)
    }
}

/// A text column in a form that no index matches, for statements whose rows are told by something else, such
/// as their ids. Otherwise either database, while it does not know how many rows there are, may prefer an index
/// that narrows by this column alone: all jobs of a tenant, or all that run. SQLite would also plan anew at each
/// value that may be of a partial index's predicate. Of no use where the statement repeats such a predicate:
/// PostgreSQL may go through all of that index.
pub(super) fn unindexed<C>(column: C) -> dsl::Concat<C, &'static str>
where
    C: Expression<SqlType = Text> + TextExpressionMethods,
{
    column.concat("")
}

/// Whether a column is one of some texts, or none of them: in one bind, so that the statement's text does
/// not depend on how many there are.
#[derive(Clone, Debug)]
pub(super) struct OneOf<'a, C> {
    column: C,
    not: bool,
    texts: Vec<&'a str>,
    /// The same in JSON, for SQLite, which has no arrays.
    json: String,
}

/// Whether the column is one of these.
pub(super) fn one_of<'a, C>(
    column: C,
    texts: impl IntoIterator<Item = &'a String>,
) -> OneOf<'a, C> {
    let texts: Vec<&str> = texts.into_iter().map(String::as_str).collect();
    OneOf {
        column,
        not: false,
        json: serde_json::Value::from(texts.as_slice()).to_string(),
        texts,
    }
}

/// Whether the column is none of these.
pub(super) fn none_of<'a, C>(
    column: C,
    texts: impl IntoIterator<Item = &'a String>,
) -> OneOf<'a, C> {
    OneOf {
        not: true,
        ..one_of(column, texts)
    }
}

impl<C> Expression for OneOf<'_, C> {
    type SqlType = Bool;
}
impl<C, GB> ValidGrouping<GB> for OneOf<'_, C> {
    type IsAggregate = is_aggregate::Never;
}
impl<C: SelectableExpression<QS>, QS> SelectableExpression<QS> for OneOf<'_, C> {}
impl<C: AppearsOnTable<QS>, QS> AppearsOnTable<QS> for OneOf<'_, C> {}

impl<C: QueryId> QueryId for OneOf<'_, C> {
    type QueryId = ();
    // Whether it is not is not in its type.
    const HAS_STATIC_QUERY_ID: bool = false;
}

impl<C: QueryFragment<Pg>> QueryFragment<Pg> for OneOf<'_, C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        self.column.walk_ast(out.reborrow())?;
        out.push_sql(if self.not { " <> ALL(" } else { " = ANY(" });
        out.push_bind_param::<Array<Text>, _>(&self.texts)?;
        out.push_sql(")");
        Ok(())
    }
}

impl<C: QueryFragment<Sqlite>> QueryFragment<Sqlite> for OneOf<'_, C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        self.column.walk_ast(out.reborrow())?;
        out.push_sql(if self.not { " NOT IN " } else { " IN " });
        out.push_sql("(SELECT value FROM json_each(");
        out.push_bind_param::<Text, _>(&self.json)?;
        out.push_sql("))");
        Ok(())
    }
}

/// What a map has under a column's text: one bind, whatever is in it. Null where it has nothing.
#[derive(Clone, Debug)]
pub(super) struct Under<C> {
    json: String,
    column: C,
}

/// What `map` has under the column's text.
pub(super) fn under<C>(map: &BTreeMap<String, String>, column: C) -> Under<C> {
    let map = map
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let json = serde_json::Value::from_iter(map).to_string();
    Under { json, column }
}

impl<C> Expression for Under<C> {
    type SqlType = Text;
}
impl<C, GB> ValidGrouping<GB> for Under<C> {
    type IsAggregate = is_aggregate::Never;
}
impl<C: SelectableExpression<QS>, QS> SelectableExpression<QS> for Under<C> {}
impl<C: AppearsOnTable<QS>, QS> AppearsOnTable<QS> for Under<C> {}

impl<C: QueryId> QueryId for Under<C> {
    type QueryId = Under<C::QueryId>;
    const HAS_STATIC_QUERY_ID: bool = C::HAS_STATIC_QUERY_ID;
}

impl<C: QueryFragment<Pg>> QueryFragment<Pg> for Under<C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("(CAST(");
        out.push_bind_param::<Text, _>(&self.json)?;
        out.push_sql(" AS jsonb) ->> ");
        self.column.walk_ast(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}

impl<C: QueryFragment<Sqlite>> QueryFragment<Sqlite> for Under<C> {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("(");
        out.push_bind_param::<Text, _>(&self.json)?;
        out.push_sql(" ->> ");
        self.column.walk_ast(out.reborrow())?;
        out.push_sql(")");
        Ok(())
    }
}
