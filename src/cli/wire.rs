//! JSON and durations as the protos have them, for the commands that call the service.

use std::time::Duration;

use serde_json::{Map, Number, Value};

/// An object as a `Struct`; empty where it is none.
pub(super) fn structure(value: &Value) -> prost_types::Struct {
    value.as_object().map(of_object).unwrap_or_default()
}

/// An object as a `Struct`.
pub(super) fn of_object(object: &Map<String, Value>) -> prost_types::Struct {
    let fields = object.iter();
    prost_types::Struct {
        fields: fields
            .map(|(name, value)| (name.clone(), field(value)))
            .collect(),
    }
}

fn field(value: &Value) -> prost_types::Value {
    use prost_types::value::Kind;
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Value::String(value) => Kind::StringValue(value.clone()),
        Value::Array(items) => Kind::ListValue(prost_types::ListValue {
            values: items.iter().map(field).collect(),
        }),
        Value::Object(_) => Kind::StructValue(structure(value)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// A `Struct` as an object.
pub(super) fn object(structure: prost_types::Struct) -> Value {
    let fields = structure.fields.into_iter();
    Value::Object(fields.map(|(name, it)| (name, value(it))).collect())
}

fn value(value: prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(value),
        Some(Kind::NumberValue(value)) => number(value),
        Some(Kind::StringValue(value)) => Value::String(value),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(self::value).collect(),
        Some(Kind::StructValue(structure)) => object(structure),
    }
}

/// Whole numbers without a point: a `Struct` knows doubles only, and `2.0` is no index.
fn number(value: f64) -> Value {
    /// Up to here a double has every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() <= EXACT {
        #[allow(
            clippy::cast_possible_truncation,
            reason = "it is whole, and within the bounds"
        )]
        return Value::from(value as i64);
    }
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// A duration; the longest that can be told where it is longer.
pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_comes_back_as_it_was() {
        let value = json!({"a": [1, 2.5, null, true, "x"], "b": {"c": -7}, "d": 1e300});
        assert_eq!(object(structure(&value)), value);
    }
}
