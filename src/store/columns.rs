//! Column types that mean the same in both engines, and the database's own clock.

use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow, Queryable};
use diesel::expression::{
    AppearsOnTable, AsExpression, Expression, SelectableExpression, ValidGrouping, is_aggregate,
};
use diesel::internal::derives::as_expression::Bound;
use diesel::pg::{Pg, PgValue};
use diesel::query_builder::{AstPass, QueryFragment, QueryId};
use diesel::result::QueryResult;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sql_types::{BigInt, Binary, Nullable, SqlType, Text};
use diesel::sqlite::Sqlite;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{Sealed, Timestamp};

/// `timestamptz` in PostgreSQL, integer microseconds since the Unix epoch in SQLite.
#[derive(Clone, Copy, Debug, Default, QueryId, SqlType)]
#[diesel(postgres_type(oid = 1184, array_oid = 1185))]
#[diesel(sqlite_type(name = "Long"))]
pub struct UtcTimestamp;

/// `jsonb` in PostgreSQL, text in SQLite.
#[derive(Clone, Copy, Debug, Default, QueryId, SqlType)]
#[diesel(postgres_type(oid = 3802, array_oid = 3807))]
#[diesel(sqlite_type(name = "Text"))]
pub struct Json;

/// Lets a plain value of the model be a column, without the model knowing of diesel.
macro_rules! column {
    ($rust:ty, $sql:ty) => {
        impl AsExpression<$sql> for $rust {
            type Expression = Bound<$sql, Self>;
            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }
        impl<'a> AsExpression<$sql> for &'a $rust {
            type Expression = Bound<$sql, Self>;
            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }
        impl AsExpression<Nullable<$sql>> for $rust {
            type Expression = Bound<Nullable<$sql>, Self>;
            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }
        impl<'a> AsExpression<Nullable<$sql>> for &'a $rust {
            type Expression = Bound<Nullable<$sql>, Self>;
            fn as_expression(self) -> Self::Expression {
                Bound::new(self)
            }
        }
        impl<DB: Backend> ToSql<Nullable<$sql>, DB> for $rust
        where
            $rust: ToSql<$sql, DB>,
        {
            fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
                ToSql::<$sql, DB>::to_sql(self, out)
            }
        }
        impl<DB: Backend> Queryable<$sql, DB> for $rust
        where
            $rust: FromSql<$sql, DB>,
        {
            type Row = Self;
            fn build(row: Self) -> deserialize::Result<Self> {
                Ok(row)
            }
        }
    };
}

column!(Timestamp, UtcTimestamp);
column!(Sealed, Binary);

/// From the Unix epoch to PostgreSQL's, 2000-01-01, in microseconds.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

impl ToSql<UtcTimestamp, Pg> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        let micros = self.micros().saturating_sub(POSTGRES_EPOCH);
        ToSql::<BigInt, Pg>::to_sql(&micros, &mut out.reborrow())
    }
}

impl FromSql<UtcTimestamp, Pg> for Timestamp {
    fn from_sql(bytes: PgValue<'_>) -> deserialize::Result<Self> {
        let micros = <i64 as FromSql<BigInt, Pg>>::from_sql(bytes)?;
        Ok(Self::from_micros(micros.saturating_add(POSTGRES_EPOCH)))
    }
}

impl ToSql<UtcTimestamp, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.micros());
        Ok(IsNull::No)
    }
}

impl FromSql<UtcTimestamp, Sqlite> for Timestamp {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        <i64 as FromSql<BigInt, Sqlite>>::from_sql(value).map(Self::from_micros)
    }
}

impl<DB: Backend> ToSql<Binary, DB> for Sealed
where
    [u8]: ToSql<Binary, DB>,
{
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, DB>) -> serialize::Result {
        self.as_bytes().to_sql(out)
    }
}

impl<DB: Backend> FromSql<Binary, DB> for Sealed
where
    Vec<u8>: FromSql<Binary, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Vec::<u8>::from_sql(bytes).map(Self::from_envelope)
    }
}

/// A JSON column's value.
#[derive(AsExpression, Clone, Debug, FromSqlRow, PartialEq)]
#[diesel(sql_type = Json)]
pub struct JsonValue(pub serde_json::Value);

impl JsonValue {
    /// What `value` is in JSON. Our own plain data always is something.
    pub fn of(value: &impl Serialize) -> Self {
        Self(serde_json::to_value(value).unwrap_or_default())
    }

    /// Back to data; what a newer version may have written and this one can't read is the default.
    pub fn read<T: DeserializeOwned + Default>(self) -> T {
        serde_json::from_value(self.0).unwrap_or_default()
    }
}

impl ToSql<Json, Pg> for JsonValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Pg>) -> serialize::Result {
        // The version byte of jsonb's binary form.
        std::io::Write::write_all(out, &[1])?;
        serde_json::to_writer(out, &self.0)?;
        Ok(IsNull::No)
    }
}

impl FromSql<Json, Pg> for JsonValue {
    fn from_sql(value: PgValue<'_>) -> deserialize::Result<Self> {
        let json = value
            .as_bytes()
            .strip_prefix(&[1])
            .ok_or("unknown version of jsonb")?;
        Ok(Self(serde_json::from_slice(json)?))
    }
}

impl ToSql<Json, Sqlite> for JsonValue {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        out.set_value(self.0.to_string());
        Ok(IsNull::No)
    }
}

impl FromSql<Json, Sqlite> for JsonValue {
    fn from_sql(value: <Sqlite as Backend>::RawValue<'_>) -> deserialize::Result<Self> {
        let text = <String as FromSql<Text, Sqlite>>::from_sql(value)?;
        Ok(Self(serde_json::from_str(&text)?))
    }
}

/// The database's clock, and so many microseconds more. Leases are set and judged by it alone.
#[derive(Clone, Copy, Debug, QueryId)]
pub struct DbNow {
    plus_micros: i64,
}

impl DbNow {
    /// The database's clock.
    pub const fn now() -> Self {
        Self { plus_micros: 0 }
    }

    /// That clock and `duration` more.
    pub fn plus(duration: std::time::Duration) -> Self {
        Self {
            plus_micros: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX),
        }
    }

    /// That clock less `duration`.
    pub fn minus(duration: std::time::Duration) -> Self {
        Self {
            plus_micros: i64::try_from(duration.as_micros()).map_or(i64::MIN, |micros| -micros),
        }
    }
}

impl Expression for DbNow {
    type SqlType = UtcTimestamp;
}
impl ValidGrouping<()> for DbNow {
    type IsAggregate = is_aggregate::Never;
}
impl<QS> SelectableExpression<QS> for DbNow {}
impl<QS> AppearsOnTable<QS> for DbNow {}

impl QueryFragment<Pg> for DbNow {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Pg>) -> QueryResult<()> {
        out.push_sql("(clock_timestamp() + ");
        out.push_bind_param::<BigInt, _>(&self.plus_micros)?;
        out.push_sql(" * interval '1 microsecond')");
        Ok(())
    }
}

impl QueryFragment<Sqlite> for DbNow {
    fn walk_ast<'b>(&'b self, mut out: AstPass<'_, 'b, Sqlite>) -> QueryResult<()> {
        out.push_sql("(CAST(unixepoch('subsec') * 1000000 AS integer) + ");
        out.push_bind_param::<BigInt, _>(&self.plus_micros)?;
        out.push_sql(")");
        Ok(())
    }
}
