//! The wire's words that accounts, profiles and jobs share, for the model's, and back. A number that is
//! no value of its field is a fault of it.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use crate::grpc::convert::{from_structure, structure};
use crate::grpc::fields::{Fields, ordered};
use crate::model::{Captcha, ConnectionKind, ExecutionMode};
use crate::pb;

const LABELS_MAX: usize = 32;
const LABEL_NAME_MAX: usize = 63;
const LABEL_MAX: usize = 200;

/// An execution mode on the wire.
pub(super) const fn mode(mode: ExecutionMode) -> pb::ExecutionMode {
    match mode {
        ExecutionMode::Any => pb::ExecutionMode::Unspecified,
        ExecutionMode::Cloud => pb::ExecutionMode::Cloud,
        ExecutionMode::Local => pb::ExecutionMode::Local,
    }
}

/// An execution mode of the wire; [`ExecutionMode::Any`] where it is not set.
pub(super) fn from_mode(fields: &mut Fields, field: &str, number: i32) -> ExecutionMode {
    match pb::ExecutionMode::try_from(number) {
        Ok(pb::ExecutionMode::Unspecified) => ExecutionMode::Any,
        Ok(pb::ExecutionMode::Cloud) => ExecutionMode::Cloud,
        Ok(pb::ExecutionMode::Local) => ExecutionMode::Local,
        Err(_) => {
            fields.check(false, field, "is no execution mode");
            ExecutionMode::Any
        }
    }
}

/// What is known of captchas, on the wire.
pub(super) const fn captcha(captcha: Captcha) -> pb::CaptchaState {
    match captcha {
        Captcha::None => pb::CaptchaState::Unspecified,
        Captcha::Detected => pb::CaptchaState::Detected,
        Captcha::Resolved => pb::CaptchaState::Resolved,
    }
}

/// The same of the wire; [`Captcha::None`] where it is not set.
pub(super) fn from_captcha(fields: &mut Fields, field: &str, number: i32) -> Captcha {
    match pb::CaptchaState::try_from(number) {
        Ok(pb::CaptchaState::Unspecified) => Captcha::None,
        Ok(pb::CaptchaState::Detected) => Captcha::Detected,
        Ok(pb::CaptchaState::Resolved) => Captcha::Resolved,
        Err(_) => {
            fields.check(false, field, "is no state of a captcha");
            Captcha::None
        }
    }
}

/// What sort of credential, of the wire; none where it is not set.
pub(super) fn from_type(fields: &mut Fields, field: &str, number: i32) -> Option<ConnectionKind> {
    match pb::ConnectionKind::try_from(number) {
        Ok(pb::ConnectionKind::Unspecified) => None,
        Ok(pb::ConnectionKind::Oauth2) => Some(ConnectionKind::Oauth2),
        Ok(pb::ConnectionKind::Oauth1) => Some(ConnectionKind::Oauth1),
        Ok(pb::ConnectionKind::ApiKey) => Some(ConnectionKind::ApiKey),
        Err(_) => {
            fields.check(false, field, "is no type of connections");
            None
        }
    }
}

/// The caller's own labels, in order.
pub(super) fn labels(
    fields: &mut Fields,
    field: &str,
    labels: HashMap<String, String>,
) -> BTreeMap<String, String> {
    fields.map(field, labels.iter(), LABELS_MAX, LABEL_NAME_MAX, LABEL_MAX);
    ordered(labels)
}

/// JSON on the wire; none where it is no object, which only an object's place can hold.
pub(super) fn json(value: &Value) -> Option<prost_types::Struct> {
    value.as_object().map(structure)
}

/// JSON of the wire, at most `max` bytes as text; none where it is not set.
pub(super) fn from_json(
    fields: &mut Fields,
    field: &str,
    value: Option<prost_types::Struct>,
    max: usize,
) -> Option<Value> {
    let value = Value::Object(from_structure(value?));
    fields.check(
        value.to_string().len() <= max,
        field,
        format!("at most {max} bytes as JSON are allowed"),
    );
    // PostgreSQL's JSON holds none.
    let fine = !has_nul(&value);
    fields.check(fine, field, "the character U+0000 is not allowed");
    Some(value)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(values) => values.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(name, value)| name.contains('\0') || has_nul(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(judge: impl FnOnce(&mut Fields)) -> usize {
        let mut fields = Fields::new();
        judge(&mut fields);
        match fields.finish() {
            Err(crate::Error::InvalidArgument(faults)) => faults.len(),
            _ => 0,
        }
    }

    #[test]
    fn every_word_goes_there_and_back() {
        let found = faults(|fields| {
            for it in [
                ExecutionMode::Any,
                ExecutionMode::Cloud,
                ExecutionMode::Local,
            ] {
                assert_eq!(from_mode(fields, "mode", mode(it).into()), it);
            }
            for it in [Captcha::None, Captcha::Detected, Captcha::Resolved] {
                assert_eq!(from_captcha(fields, "captcha", captcha(it).into()), it);
            }
        });
        assert_eq!(found, 0);
    }

    #[test]
    fn other_numbers_are_faults() {
        let found = faults(|fields| {
            from_mode(fields, "mode", 9);
            from_captcha(fields, "captcha", 9);
            from_type(fields, "type", 9);
        });
        assert_eq!(found, 3);
    }

    #[test]
    fn json_is_bounded_and_holds_no_nul() {
        let object = |text: &str| {
            let value = serde_json::json!({ "text": text });
            json(&value)
        };
        let found = |text: &str| faults(|f| drop(from_json(f, "payload", object(text), 20)));
        assert_eq!(found("short"), 0);
        assert_eq!(found("longer than that is"), 1);
        assert_eq!(found("\0"), 1);
    }
}
