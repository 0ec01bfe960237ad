//! What users prefer: any JSON object, which is kept and not read.

use serde_json::{Map, Value};

use super::changes::{changeable, entry};
use super::{Users, rights};
use crate::access::audit::{self, Action};
use crate::access::{Caller, Permission};
use crate::error::{Error, FieldViolation, Resource};
use crate::model::Preferences;
use crate::store::{self, transact};

/// Most bytes of all preferences together, as JSON without blanks.
pub const PREFERENCES_MAX: usize = 64 * 1024;

/// Deepest nesting; the object itself is the first level.
pub const PREFERENCES_DEPTH: usize = 20;

impl Users {
    /// A user's id and preferences: their own, or of whom the caller may read.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::NotFound`], hidden from a caller with constraints.
    pub async fn preferences(
        &self,
        caller: &Caller,
        user_id: &str,
    ) -> Result<(String, Preferences), Error> {
        let user = self.by_id(caller, user_id, Permission::ReadUsers).await?;
        let mut conn = self.store.read().await?;
        let found = store::preferences::find(&mut conn, &user.tenant, &user.id).await?;
        Ok((user.id, found))
    }

    /// Replaces a user's preferences, or merges these into them (RFC 7396).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when they are, or become, too large or too deep;
    /// [`Error::Conflict`] when `version` is not the current one; [`Error::PermissionDenied`];
    /// [`Error::NotFound`], hidden from a caller with constraints.
    pub async fn set_preferences(
        &self,
        caller: &Caller,
        user_id: &str,
        values: &Map<String, Value>,
        merge: bool,
        version: Option<i64>,
    ) -> Result<(String, Preferences), Error> {
        let id = rights::named(caller, user_id, Permission::WriteUsers)?;
        let now = self.clock.now();
        transact!(self.store, |tx| {
            // Locked, so that of two merges at once neither is lost.
            let user = changeable(&mut tx, caller, id, None).await?;
            let mut set = store::preferences::find(&mut tx, &user.tenant, &user.id).await?;
            if version.is_some_and(|version| version != set.version) {
                return Err(Error::Conflict(Resource::User, id.to_owned()));
            }
            if merge {
                merge_into(&mut set.values, values);
            } else {
                set.values.clone_from(values);
            }
            super::reject(faults(&set.values))?;
            set.version += 1;
            set.updated_at = Some(now);
            store::preferences::put(&mut tx, &user.tenant, &user.id, &set, now).await?;
            let entry = entry(Action::UserPreferencesUpdated, caller, &user);
            audit::record(&mut tx, &entry.detail("merged", merge), now).await?;
            Ok((user.id, set))
        })
    }
}

/// RFC 7396 section 2, for an object patched by an object. As deep as the patch, which is judged
/// before it comes here.
fn merge_into(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(inner) => {
                let place = target.entry(key.clone()).or_insert(Value::Null);
                if !place.is_object() {
                    *place = Value::Object(Map::new());
                }
                if let Value::Object(place) = place {
                    merge_into(place, inner);
                }
            }
            value => {
                target.insert(key.clone(), value.clone());
            }
        }
    }
}

/// What is wrong with preferences.
pub fn faults(values: &Map<String, Value>) -> Vec<FieldViolation> {
    const FIELD: &str = "preferences.values";
    let mut faults = Vec::new();
    let mut fault = |text: &str| faults.push(FieldViolation::new(FIELD, text));
    if !is_within(values, PREFERENCES_DEPTH) {
        fault("is nested more than 20 levels deep");
    }
    let size = serde_json::to_string(values).map_or(usize::MAX, |text| text.len());
    if size > PREFERENCES_MAX {
        fault("is, or becomes by the merge, longer than 64 KiB as JSON");
    }
    if has_control(values) {
        fault("holds a control character that is neither a tab nor a line's end");
    }
    faults
}

fn is_within(map: &Map<String, Value>, levels: usize) -> bool {
    fn value_is_within(value: &Value, levels: usize) -> bool {
        match value {
            Value::Object(map) => is_within(map, levels),
            Value::Array(values) => {
                let below = levels.checked_sub(1);
                below.is_some_and(|levels| values.iter().all(|it| value_is_within(it, levels)))
            }
            _ => true,
        }
    }
    let below = levels.checked_sub(1);
    below.is_some_and(|levels| map.values().all(|value| value_is_within(value, levels)))
}

/// Of all control characters NUL is one that PostgreSQL can't keep.
fn has_control(map: &Map<String, Value>) -> bool {
    fn in_text(text: &str) -> bool {
        text.chars()
            .any(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r'))
    }
    fn in_value(value: &Value) -> bool {
        match value {
            Value::String(text) => in_text(text),
            Value::Array(values) => values.iter().any(in_value),
            Value::Object(map) => has_control(map),
            _ => false,
        }
    }
    map.iter()
        .any(|(key, value)| in_text(key) || in_value(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(map) => map,
            other => panic!("{other}"),
        }
    }

    /// The examples of RFC 7396 appendix A whose target and patch are objects.
    #[test]
    fn merges_as_rfc_7396_has_it() {
        for (target, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            let mut merged = object(target);
            merge_into(&mut merged, &object(patch));
            assert_eq!(Value::Object(merged), result);
        }
    }

    #[test]
    fn depth_size_and_what_cannot_be_kept_are_limited() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(faults(&object(nested(PREFERENCES_DEPTH))).is_empty());
        assert_eq!(faults(&object(nested(PREFERENCES_DEPTH + 1))).len(), 1);
        let lists = (1..=PREFERENCES_DEPTH).fold(json!([]), |inner, _| json!([inner]));
        assert_eq!(faults(&object(json!({ "a": lists }))).len(), 1);
        let sized = |size: usize| object(json!({ "a": "x".repeat(size - r#"{"a":""}"#.len()) }));
        assert!(faults(&sized(PREFERENCES_MAX)).is_empty());
        assert_eq!(faults(&sized(PREFERENCES_MAX + 1)).len(), 1);
        assert_eq!(faults(&object(json!({ "a": ["\0"] }))).len(), 1);
        assert_eq!(faults(&object(json!({ "a\u{7}": 1 }))).len(), 1);
        assert!(faults(&object(json!({ "a": "two\n\tlines" }))).is_empty());
    }
}
