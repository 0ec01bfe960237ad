//! What the claims of a verified JWT must say (RFC 7519 section 4.1, RFC 8725, RFC 9068), and which
//! rule they match.

use serde_json::Value;

use crate::config::{JwtIssuer, JwtRule};
use crate::crypto::jwt::{self, Claims};
use crate::error::Unknown;
use crate::model::Timestamp;

/// Longest id of a principal in characters.
const PRINCIPAL_ID_MAX: usize = 255;

/// The media types that are taken (`typ`): a JWT, or an access token by RFC 9068. None may be
/// said. Others, such as that of a logout token, are meant for something else.
const MEDIA_TYPES: [&str; 2] = ["jwt", "at+jwt"];

/// Members that a path may go through.
const DEPTH_MAX: usize = 8;

/// Who a JWT is about, and until when.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Judged<'a> {
    pub(super) subject: &'a str,
    /// `exp` and the leeway.
    pub(super) ends_at: Timestamp,
}

/// Why a JWT is refused: what its sender is told, and what the log says.
pub(super) type Refused = (Unknown, &'static str);

/// Whether a token of this `typ` is taken.
pub(super) fn is_taken(media_type: Option<&str>) -> bool {
    let Some(text) = media_type else {
        return true;
    };
    let text = text.to_ascii_lowercase();
    // RFC 7515 section 4.1.9: the prefix is left out where nothing else has a slash.
    let short = text.strip_prefix("application/").unwrap_or(&text);
    MEDIA_TYPES.contains(&short)
}

/// Judges the claims of a token whose signature is right.
///
/// # Errors
/// [`Refused`].
pub(super) fn judge<'a>(
    issuer: &JwtIssuer,
    claims: &'a Claims,
    now: Timestamp,
) -> Result<Judged<'a>, Refused> {
    let invalid = |why| (Unknown::Invalid, why);
    if claims.get("iss").and_then(Value::as_str) != Some(issuer.issuer.as_str()) {
        return Err(invalid("iss is another"));
    }
    let meant = |audience: &String| claims.get("aud").is_some_and(|aud| says(aud, audience));
    if !issuer.audiences.iter().any(meant) {
        return Err(invalid("aud is another"));
    }
    let expires = time(claims, "exp")?.ok_or(invalid("exp is missing"))?;
    let ends_at = expires.plus(issuer.leeway);
    if ends_at <= now {
        return Err((Unknown::Expired, "exp has passed"));
    }
    let soon = now.plus(issuer.leeway);
    if time(claims, "nbf")?.is_some_and(|begins| begins > soon) {
        return Err(invalid("nbf has not come yet"));
    }
    let issued = time(claims, "iat")?;
    if issued.is_some_and(|issued| issued > soon) {
        return Err(invalid("iat has not come yet"));
    }
    // Where it is not said, it was now at the latest.
    if expires.since(issued.unwrap_or(now)) > issuer.max_lifetime {
        return Err(invalid("it lives longer than max_lifetime"));
    }
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("");
    let room = PRINCIPAL_ID_MAX.saturating_sub(super::id_of(issuer, "").chars().count());
    if subject.is_empty() || subject.chars().count() > room || subject.contains(char::is_control) {
        return Err(invalid(
            "sub is missing, too long, or has control characters",
        ));
    }
    Ok(Judged { subject, ends_at })
}

/// The first rule that matches.
pub(super) fn rule<'a>(
    issuer: &'a JwtIssuer,
    subject: &str,
    claims: &Claims,
) -> Option<&'a JwtRule> {
    issuer.rules.iter().find(|rule| {
        let subject_fits =
            rule.subject
                .as_deref()
                .is_none_or(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => subject.starts_with(prefix),
                    None => subject == pattern,
                });
        let claim_fits = |(path, text): (&String, &String)| {
            find(claims, path).is_some_and(|value| says(value, text))
        };
        subject_fits && rule.claims.iter().all(claim_fits)
    })
}

/// Whether a value is this text, or a list that holds it.
fn says(value: &Value, text: &str) -> bool {
    match value {
        Value::String(is) => is == text,
        Value::Array(items) => items.iter().any(|item| item.as_str() == Some(text)),
        _ => false,
    }
}

fn time(claims: &Claims, name: &str) -> Result<Option<Timestamp>, Refused> {
    jwt::time(claims, name).map_err(|_| (Unknown::Invalid, "exp, nbf or iat is no time"))
}

/// The value at a path of members joined by dots. Names may have dots themselves
/// (`kubernetes.io`). A path that can be read in two ways leads nowhere: who can add a claim must
/// not be able to put it before another.
fn find<'a>(claims: &'a Claims, path: &str) -> Option<&'a Value> {
    let mut found = Vec::new();
    collect(claims, path, DEPTH_MAX, &mut found);
    match found.as_slice() {
        [only] => Some(only),
        _ => None,
    }
}

fn collect<'a>(members: &'a Claims, path: &str, depth: usize, found: &mut Vec<&'a Value>) {
    found.extend(members.get(path));
    if depth == 0 {
        return;
    }
    for (dot, _) in path.match_indices('.') {
        let (name, rest) = (path.get(..dot), path.get(dot + 1..));
        if let (Some(name), Some(rest)) = (name, rest)
            && let Some(Value::Object(inner)) = members.get(name)
        {
            collect(inner, rest, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_path_leads_through_names_with_dots() {
        let claims = claims(json!({
            "kubernetes.io": { "namespace": "prod", "serviceaccount": { "name": "billing" } },
            "https://example.com/roles": ["reader", "writer"],
        }));
        let says = |path, text| find(&claims, path).is_some_and(|value| says(value, text));
        assert!(says("kubernetes.io.namespace", "prod"));
        assert!(says("kubernetes.io.serviceaccount.name", "billing"));
        assert!(says("https://example.com/roles", "writer"));
        assert!(!says("https://example.com/roles", "admin"));
        assert!(!says("kubernetes.io", "prod"));
        assert!(!says("kubernetes.io.", "prod"));
        assert!(!says("io.namespace", "prod"));
    }

    #[test]
    fn a_path_that_can_be_read_in_two_ways_leads_nowhere() {
        let claims = claims(json!({
            "kubernetes.io": { "namespace": "dev" },
            "kubernetes": { "io": { "namespace": "prod" } },
        }));
        assert_eq!(find(&claims, "kubernetes.io.namespace"), None);
    }

    #[test]
    fn a_list_holds_whole_texts_and_no_other_value_is_one() {
        assert!(says(&json!(["a", "b"]), "b"));
        assert!(!says(&json!(["ab"]), "a"));
        assert!(!says(&json!([["a"]]), "a"));
        assert!(!says(&json!(1), "1"));
        assert!(!says(&json!(true), "true"));
        assert!(!says(&json!(null), ""));
    }

    #[test]
    fn only_tokens_that_may_be_access_tokens_are_taken() {
        for fine in [
            None,
            Some("JWT"),
            Some("at+jwt"),
            Some("application/AT+JWT"),
        ] {
            assert!(is_taken(fine), "{fine:?}");
        }
        for other in ["", "logout+jwt", "dpop+jwt", "application/", "JWT2"] {
            assert!(!is_taken(Some(other)), "{other}");
        }
    }
}
