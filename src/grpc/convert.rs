//! The wire's words for the model's, and back.

use std::time::Duration;

use prost_types::value::Kind;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::model::{ConnectionKind, RefreshPolicy, Timestamp};
use crate::pb;

/// A time of the model on the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.micros().div_euclid(1_000_000),
        nanos: i32::try_from(time.micros().rem_euclid(1_000_000) * 1_000).unwrap_or(0),
    }
}

/// A time of the wire; what is finer than a microsecond is cut off. `None` for one that is out of
/// RFC 3339's range.
pub fn from_timestamp(time: &prost_types::Timestamp) -> Option<Timestamp> {
    const FIRST: i64 = -62_135_596_800;
    const LAST: i64 = 253_402_300_799;
    let nanos = (0..1_000_000_000)
        .contains(&time.nanos)
        .then_some(time.nanos)?;
    (FIRST..=LAST)
        .contains(&time.seconds)
        .then(|| Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(nanos / 1_000)))
}

/// A duration of the model on the wire.
pub fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

/// A secret that an answer shows; empty where there is none.
pub fn shown<'a>(secret: impl Into<Option<&'a SecretString>>) -> String {
    let secret = secret.into();
    secret.map_or_else(String::new, |secret| secret.expose_secret().to_owned())
}

/// A kind on the wire.
pub const fn kind(kind: ConnectionKind) -> pb::ConnectionKind {
    match kind {
        ConnectionKind::Oauth2 => pb::ConnectionKind::Oauth2,
        ConnectionKind::Oauth1 => pb::ConnectionKind::Oauth1,
        ConnectionKind::ApiKey => pb::ConnectionKind::ApiKey,
    }
}

/// A refresh policy on the wire.
pub const fn policy(policy: RefreshPolicy) -> pb::RefreshPolicy {
    match policy {
        RefreshPolicy::Always => pb::RefreshPolicy::Always,
        RefreshPolicy::WhenUsed => pb::RefreshPolicy::WhenUsed,
        RefreshPolicy::OnDemand => pb::RefreshPolicy::OnDemand,
    }
}

/// A refresh policy of the wire.
///
/// # Errors
/// [`Error::InvalidArgument`] for a number that is none.
pub fn from_policy(field: &str, number: i32) -> Result<RefreshPolicy, Error> {
    match pb::RefreshPolicy::try_from(number) {
        Ok(pb::RefreshPolicy::Unspecified | pb::RefreshPolicy::Always) => Ok(RefreshPolicy::Always),
        Ok(pb::RefreshPolicy::WhenUsed) => Ok(RefreshPolicy::WhenUsed),
        Ok(pb::RefreshPolicy::OnDemand) => Ok(RefreshPolicy::OnDemand),
        Err(_) => Err(Error::invalid(field, "is no refresh policy")),
    }
}

/// JSON on the wire.
pub fn structure(map: &Map<String, Value>) -> prost_types::Struct {
    prost_types::Struct {
        fields: map
            .iter()
            .map(|(key, value)| (key.clone(), wire_value(value)))
            .collect(),
    }
}

fn wire_value(value: &Value) -> prost_types::Value {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or(0.0)),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(prost_types::ListValue {
            values: values.iter().map(wire_value).collect(),
        }),
        Value::Object(map) => Kind::StructValue(structure(map)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// JSON of the wire. Whole numbers come out as such: the wire knows only doubles.
pub fn from_structure(structure: prost_types::Struct) -> Map<String, Value> {
    structure
        .fields
        .into_iter()
        .map(|(key, value)| (key, json_value(value)))
        .collect()
}

fn json_value(value: prost_types::Value) -> Value {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::NumberValue(number)) => json_number(number),
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::ListValue(list)) => list.values.into_iter().map(json_value).collect(),
        Some(Kind::StructValue(inner)) => Value::Object(from_structure(inner)),
    }
}

/// Doubles hold whole numbers exactly up to here.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[allow(
    clippy::cast_possible_truncation,
    reason = "whole and within the exact range, as just checked"
)]
fn json_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT {
        Value::from(number as i64)
    } else {
        Value::from(number)
    }
}

/// A version as an etag.
pub fn etag(version: i64) -> String {
    format!("v{version}")
}

/// Refuses an etag that is not the version's; an empty one is not checked.
///
/// # Errors
/// [`Error::InvalidArgument`] when it is no etag at all.
pub fn from_etag(etag: &str) -> Result<Option<i64>, Error> {
    if etag.is_empty() {
        return Ok(None);
    }
    etag.strip_prefix('v')
        .and_then(|version| version.parse().ok())
        .map(Some)
        .ok_or_else(|| Error::invalid("etag", "is not an etag that this service gave"))
}
