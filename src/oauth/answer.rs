//! Reads what providers answer and brings it into the shape of RFC 6749 §5.1.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value, json};

use super::classify::{Refusal, clean, retry_after};
use super::http::Answer;
use crate::model::Timestamp;
use crate::model::provider::{ExpiryStyle, ExpiryUnit, Provider};

/// No lifetime is believed beyond this.
const LONGEST_LIFETIME: Duration = Duration::from_secs(100 * 365 * 86_400);

/// What a token answer holds beside the RFC's fields.
#[derive(Debug, Default)]
pub(super) struct Extras {
    pub(super) id_token: Option<SecretString>,
    pub(super) refresh_expires_in: Option<Duration>,
    pub(super) metadata: Map<String, Value>,
}

/// The body as JSON; form-encoded answers become an object of texts. Null when it is neither.
pub(super) fn decode(answer: &Answer) -> Value {
    if let Ok(value) = serde_json::from_slice(&answer.body) {
        return value;
    }
    let markup = answer.body.trim_ascii_start().starts_with(b"<");
    if markup || !answer.body.contains(&b'=') {
        return Value::Null;
    }
    let pairs = url::form_urlencoded::parse(&answer.body);
    Value::Object(
        pairs
            .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
            .collect(),
    )
}

/// What stands at a path; null and the empty text count as missing.
pub(super) fn lookup<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('|')
        .filter(|path| !path.is_empty())
        .find_map(|path| {
            // Claims are named by URLs too, whose dots part nothing.
            value
                .get(path)
                .or_else(|| walk(value, path))
                .filter(|found| !found.is_null() && found.as_str() != Some(""))
        })
}

fn walk<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(value, |value, segment| match value {
            Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
            _ => value.get(segment),
        })
}

/// A text, or a number as text, at a path.
pub(super) fn text_at(value: &Value, path: &str) -> Option<String> {
    match lookup(value, path)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn number_at(value: &Value, path: &str) -> Option<f64> {
    match lookup(value, path)? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
    .filter(|number| number.is_finite() && *number > 0.0)
}

/// The values at the named paths.
pub(super) fn metadata_at<'a>(
    value: &Value,
    paths: impl IntoIterator<Item = (&'a String, &'a String)>,
) -> Map<String, Value> {
    paths
        .into_iter()
        .filter_map(|(name, path)| Some((name.clone(), lookup(value, path)?.clone())))
        .collect()
}

/// Whether the answer says of itself that it failed, whatever its status.
pub(super) fn denies_success(provider: &Provider, body: &Value) -> bool {
    let flag = provider.token_response.success_flag.as_deref();
    flag.and_then(|path| lookup(body, path)) == Some(&Value::Bool(false))
}

/// Takes an error answer apart; `secrets` are what we sent and must not come back in a text.
pub(super) fn refusal(
    provider: &Provider,
    answer: &Answer,
    body: &Value,
    secrets: &[&str],
    now: Timestamp,
) -> Refusal {
    let paths = &provider.token_response;
    let (code, description) = match lookup(body, &paths.error) {
        // Google's API errors: {"error": {"status": …, "message": …}}.
        Some(error @ Value::Object(_)) => (
            text_at(error, "status|type|code"),
            text_at(error, "message|description"),
        ),
        _ => (
            text_at(body, &paths.error),
            text_at(body, &paths.error_description),
        ),
    };
    Refusal {
        status: answer.status.as_u16(),
        code: clean(&code.unwrap_or_default(), secrets),
        description: clean(&description.unwrap_or_default(), secrets),
        retry_after: retry_after(&answer.headers, now),
    }
}

/// A token answer in the RFC's shape, and what the RFC has no place for. None when there is no
/// access token in it.
pub(super) fn normalise(
    provider: &Provider,
    body: &Value,
    sent_at: Timestamp,
) -> Option<(Value, Extras)> {
    let paths = &provider.token_response;
    let root = paths
        .roots
        .iter()
        .filter_map(|root| match root.as_str() {
            "" => Some(body),
            path => lookup(body, path),
        })
        .find(|root| text_at(root, &paths.access_token).is_some())?;
    let period = |path: &str| {
        let number = number_at(root, path)?;
        let seconds = match paths.expires_unit {
            ExpiryUnit::Seconds => number,
            ExpiryUnit::Milliseconds => number / 1000.0,
        };
        let period = Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFETIME);
        let period = match paths.expires_style {
            ExpiryStyle::In => period,
            ExpiryStyle::At => {
                let micros = i64::try_from(period.as_micros()).unwrap_or(i64::MAX);
                Timestamp::from_micros(micros).since(sent_at)
            }
        };
        Some(period.min(LONGEST_LIFETIME))
    };
    let mut standard = Map::new();
    standard.insert(
        "access_token".to_owned(),
        text_at(root, &paths.access_token)?.into(),
    );
    let token_type = text_at(root, &paths.token_type).unwrap_or_else(|| "Bearer".to_owned());
    standard.insert("token_type".to_owned(), token_type.into());
    if let Some(token) = text_at(root, &paths.refresh_token) {
        standard.insert("refresh_token".to_owned(), token.into());
    }
    if let Some(period) = period(&paths.expires_in) {
        standard.insert("expires_in".to_owned(), json!(period.as_secs()));
    }
    if let Some(scopes) = scopes_of(provider, root, body) {
        standard.insert("scope".to_owned(), scopes.join(" ").into());
    }
    let extras = Extras {
        id_token: text_at(root, &paths.id_token).map(SecretString::from),
        refresh_expires_in: period(&paths.refresh_expires_in),
        metadata: metadata_at(body, &paths.metadata),
    };
    Some((Value::Object(standard), extras))
}

fn scopes_of(provider: &Provider, root: &Value, body: &Value) -> Option<Vec<String>> {
    let paths = &provider.token_response;
    let split = |value: &Value| -> Option<Vec<String>> {
        match value {
            Value::Array(items) => Some(
                items
                    .iter()
                    .filter_map(|item| item.as_str().map(str::to_owned))
                    .collect(),
            ),
            Value::String(text) => {
                let parts: Vec<&str> = match paths.scope_separator.as_deref() {
                    Some(separator) if !separator.is_empty() => text.split(separator).collect(),
                    _ => text.split([' ', ',']).collect(),
                };
                let parts = parts.into_iter().map(str::trim).filter(|it| !it.is_empty());
                Some(parts.map(str::to_owned).collect())
            }
            _ => None,
        }
    };
    let plain = lookup(root, &paths.scope).and_then(split);
    let additional = provider.additional_scopes.as_ref().and_then(|it| {
        let scopes = split(lookup(body, it.response.as_deref()?)?)?;
        let prefixed = scopes.iter().map(|scope| format!("{}{scope}", it.prefix));
        Some(prefixed.collect::<Vec<_>>())
    });
    // Under the second root the plain path finds the additional scopes, which are not plain.
    let plain = plain.filter(|_| std::ptr::eq(root, body) || additional.is_none());
    match (plain, additional) {
        (None, None) => None,
        (plain, additional) => Some(plain.into_iter().chain(additional).flatten().collect()),
    }
}

/// The claims of an ID token. The signature is not checked, nor need be: the token came straight
/// from the token endpoint over TLS (OpenID Connect Core 1.0 §3.1.3.7, item 6).
pub fn id_token_claims(token: &SecretString) -> Option<Map<String, Value>> {
    let mut parts = token.expose_secret().split('.');
    let payload = parts.nth(1)?;
    parts.next()?;
    let bytes = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::catalogue_entry;

    const NOW: Timestamp = Timestamp::from_micros(1_000_000_000);

    #[test]
    fn paths_have_alternatives_indices_and_dotted_names() {
        let value = json!({"a": {"b": [{"c": 7}]}, "https://x.y/z": "w", "n": null, "e": ""});
        assert_eq!(text_at(&value, "a.b.0.c").as_deref(), Some("7"));
        assert_eq!(text_at(&value, "n|e|a.b.0.c").as_deref(), Some("7"));
        assert_eq!(text_at(&value, "https://x.y/z").as_deref(), Some("w"));
        assert_eq!(text_at(&value, "a.b.1.c"), None);
    }

    #[test]
    fn slack_answers_become_standard() {
        let slack = &catalogue_entry("slack");
        let both = json!({
            "ok": true, "access_token": "xoxb", "token_type": "bot", "scope": "a,b",
            "team": {"id": "T1"},
            "authed_user": {"id": "U1", "access_token": "xoxp", "scope": "c"},
        });
        let (standard, extras) = normalise(slack, &both, NOW).unwrap();
        assert_eq!(standard["access_token"], "xoxb");
        assert_eq!(standard["scope"], "a b user:c");
        assert_eq!(extras.metadata["team_id"], "T1");
        let user = json!({
            "ok": true,
            "authed_user": {"access_token": "xoxp", "refresh_token": "r", "scope": "c,d"},
        });
        let (standard, _) = normalise(slack, &user, NOW).unwrap();
        assert_eq!(standard["access_token"], "xoxp");
        assert_eq!(standard["refresh_token"], "r");
        assert_eq!(standard["scope"], "user:c user:d");
        assert!(denies_success(slack, &json!({"ok": false})));
    }

    #[test]
    fn expiries_of_all_kinds_are_lifetimes() {
        let mut provider = Provider::default();
        let lifetime = |provider: &Provider, value: Value| {
            let body = json!({"access_token": "a", "expires_in": value});
            normalise(provider, &body, NOW).unwrap().0["expires_in"].as_u64()
        };
        assert_eq!(lifetime(&provider, json!(3600)), Some(3600));
        assert_eq!(lifetime(&provider, json!("3600")), Some(3600));
        assert_eq!(lifetime(&provider, json!(0)), None);
        assert_eq!(lifetime(&provider, json!(-5)), None);
        provider.token_response.expires_unit = ExpiryUnit::Milliseconds;
        assert_eq!(lifetime(&provider, json!(60_000)), Some(60));
        provider.token_response.expires_unit = ExpiryUnit::Seconds;
        provider.token_response.expires_style = ExpiryStyle::At;
        assert_eq!(lifetime(&provider, json!(1_060)), Some(60));
    }

    #[test]
    fn scopes_may_be_an_array_or_missing() {
        let provider = Provider::default();
        let body = json!({"access_token": "a", "scope": ["x", "y"]});
        assert_eq!(normalise(&provider, &body, NOW).unwrap().0["scope"], "x y");
        let body = json!({"access_token": "a"});
        assert_eq!(
            normalise(&provider, &body, NOW).unwrap().0.get("scope"),
            None
        );
    }

    #[test]
    fn claims_are_read_without_trust() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"sub":"42"}"#);
        let token = SecretString::from(format!("e30.{payload}.sig"));
        assert_eq!(id_token_claims(&token).unwrap()["sub"], "42");
        assert!(id_token_claims(&SecretString::from("opaque")).is_none());
        assert!(id_token_claims(&SecretString::from(format!("e30.{payload}"))).is_none());
    }
}
