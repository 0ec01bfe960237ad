//! Parsing one raw value as what its key expects. The error is the end of a sentence that
//! begins with the key: `30 is not a duration such as "30s"`.

use std::path::PathBuf;
use std::time::Duration;

use toml::Value;
use url::Url;

use super::sources::Raw;

/// The value for a fault's text. Never used for secrets.
pub(super) fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) | Raw::Typed(Value::String(text)) => format!("{text:?}"),
        Raw::Typed(Value::Array(_)) => "a list".to_owned(),
        Raw::Typed(Value::Table(_)) => "a table".to_owned(),
        Raw::Typed(value) => value.to_string(),
    }
}

/// A variable's text is taken as the TOML value that it spells, where it spells one.
fn typed(raw: &Raw) -> Option<Value> {
    match raw {
        Raw::Typed(value) => Some(value.clone()),
        Raw::Text(text) => text.trim().parse().ok(),
    }
}

/// A string. A variable needs no quotation marks; where it has them (some tools keep those of an
/// env file), they are taken off.
pub(super) fn text(raw: &Raw) -> Result<String, String> {
    match (raw, typed(raw)) {
        (_, Some(Value::String(text))) => Ok(text),
        (Raw::Text(text), _) => Ok(text.clone()),
        _ => Err(format!("{} is not a string", shown(raw))),
    }
}

pub(super) fn boolean(raw: &Raw) -> Result<bool, String> {
    match typed(raw) {
        Some(Value::Boolean(value)) => Ok(value),
        _ => Err(format!("{} is not true or false", shown(raw))),
    }
}

pub(super) fn integer(raw: &Raw) -> Result<i64, String> {
    match typed(raw) {
        Some(Value::Integer(value)) => Ok(value),
        _ => Err(format!("{} is not a whole number", shown(raw))),
    }
}

pub(super) fn number(raw: &Raw) -> Result<f64, String> {
    match typed(raw) {
        Some(Value::Float(value)) if value.is_finite() => Ok(value),
        Some(Value::Integer(value)) => {
            let small = i32::try_from(value).map_err(|_| format!("{value} is out of range"))?;
            Ok(f64::from(small))
        }
        _ => Err(format!("{} is not a number", shown(raw))),
    }
}

pub(super) fn duration(raw: &Raw) -> Result<Duration, String> {
    let problem = || format!("{} is not a duration such as \"30s\"", shown(raw));
    let text = text(raw).map_err(|_| problem())?;
    humantime::parse_duration(text.trim()).map_err(|_| problem())
}

/// Bytes: a whole number, or a string with the unit B, KiB, MiB or GiB.
pub(super) fn bytes(raw: &Raw) -> Result<u64, String> {
    let problem = || format!("{} is not a size such as \"1 MiB\"", shown(raw));
    if let Ok(count) = integer(raw) {
        return u64::try_from(count).map_err(|_| problem());
    }
    let text = text(raw).map_err(|_| problem())?;
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(end);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(problem()),
    };
    let count: u64 = count.parse().map_err(|_| problem())?;
    count.checked_mul(factor).ok_or_else(problem)
}

pub(super) fn url(raw: &Raw) -> Result<Url, String> {
    let text = text(raw)?;
    Url::parse(text.trim()).map_err(|error| format!("{text:?} is not a URL: {error}"))
}

pub(super) fn path(raw: &Raw) -> Result<PathBuf, String> {
    let text = text(raw).map_err(|_| format!("{} is not a path", shown(raw)))?;
    if text.trim().is_empty() {
        return Err("a path must not be empty".to_owned());
    }
    if text.contains('\0') {
        return Err("a path can't hold a zero byte".to_owned());
    }
    if text == "~" || text.starts_with("~/") {
        return Err(format!(
            "{text:?} begins with \"~\", which only a shell expands"
        ));
    }
    Ok(PathBuf::from(text))
}

/// A list of strings. A variable may also give it as words between commas.
pub(super) fn texts(raw: &Raw) -> Result<Vec<String>, String> {
    match (raw, typed(raw)) {
        (_, Some(Value::Array(items))) => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(format!(
                    "{} in the list is not a string",
                    shown(&Raw::Typed(other))
                )),
            })
            .collect(),
        (Raw::Text(text), _) if !text.trim_start().starts_with('[') => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()),
        _ => Err(format!("{} is not a list of strings", shown(raw))),
    }
}
