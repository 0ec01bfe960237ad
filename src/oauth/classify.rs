//! What a provider's refusal means for the grant: the difference between trying again, giving up
//! and not knowing.

use std::fmt;
use std::time::Duration;

use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::model::Timestamp;
use crate::model::provider::{ErrorClass, ErrorRule};

/// Longest wait that a provider can ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// Longest text of a provider that is kept.
const LONGEST_TEXT: usize = 200;

/// Why a provider did not do what it was asked. The texts hold no token, secret or body: a
/// provider's own words are cut to 200 printable characters, and what we sent is blotted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Nothing left this machine: no connection, no such name, an address not allowed, or a
    /// request that cannot be built. Safe to repeat.
    NotSent {
        /// The cause.
        detail: String,
    },
    /// Sent, and nobody knows whether it was processed: a deadline, a dropped connection, 502,
    /// 504, an unreadable success. A one-time token may be spent.
    Ambiguous {
        /// The cause.
        detail: String,
    },
    /// The provider is busy or failing (429, 500, 503): worth trying later.
    Transient {
        /// HTTP status, if it came to one.
        status: Option<u16>,
        /// How long the provider, or our breaker, asks to wait.
        retry_after: Option<Duration>,
        /// The cause.
        detail: String,
    },
    /// The code or refresh token is dead: the owner must consent again.
    GrantDead {
        /// The provider's error code.
        code: String,
        /// The provider's error text.
        description: String,
    },
    /// The app's registration is at fault; every connection of it is affected.
    ClientMisconfigured {
        /// The provider's error code.
        code: String,
        /// The provider's error text.
        description: String,
    },
    /// This request was refused; the grant is as it was.
    Rejected {
        /// The provider's error code.
        code: String,
        /// The provider's error text.
        description: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent { detail } => write!(f, "the provider was not reached: {detail}"),
            Self::Ambiguous { detail } => write!(f, "the provider's answer was lost: {detail}"),
            Self::Transient { detail, .. } => {
                write!(f, "the provider is unavailable: {detail}")
            }
            Self::GrantDead { code, description } => {
                write!(f, "the grant is dead: {code} {description}")
            }
            Self::ClientMisconfigured { code, description } => {
                write!(f, "the app is misconfigured: {code} {description}")
            }
            Self::Rejected { code, description } => {
                write!(f, "the provider refused: {code} {description}")
            }
        }
    }
}

impl std::error::Error for Failure {}

/// An error answer, taken apart and cleaned.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The provider's error code; empty when it gave none.
    pub(super) code: String,
    pub(super) description: String,
    pub(super) retry_after: Option<Duration>,
}

/// Gives a refusal its meaning: the provider's own rules first, then status and RFC 6749 §5.2.
pub(super) fn classify(refusal: Refusal, rules: &[ErrorRule]) -> Failure {
    let class = rules
        .iter()
        .find(|rule| matches(rule, &refusal))
        .map_or_else(|| class_of(&refusal), |rule| rule.class);
    let Refusal {
        status,
        code,
        description,
        retry_after,
    } = refusal;
    let detail = match (code.as_str(), description.as_str()) {
        ("", "") => format!("status {status}"),
        _ => format!("status {status} {code} {description}")
            .trim_end()
            .to_owned(),
    };
    let code = match code.as_str() {
        "" => format!("http_{status}"),
        _ => code,
    };
    match class {
        ErrorClass::GrantDead => Failure::GrantDead { code, description },
        ErrorClass::ClientMisconfigured => Failure::ClientMisconfigured { code, description },
        ErrorClass::Rejected => Failure::Rejected { code, description },
        ErrorClass::Ambiguous => Failure::Ambiguous { detail },
        ErrorClass::Transient => Failure::Transient {
            status: Some(status),
            retry_after,
            detail,
        },
    }
}

fn matches(rule: &ErrorRule, refusal: &Refusal) -> bool {
    let named = rule.status.is_some() || rule.code.is_some() || rule.message_contains.is_some();
    named
        && rule.status.is_none_or(|status| status == refusal.status)
        && rule.code.as_ref().is_none_or(|code| *code == refusal.code)
        && rule.message_contains.as_ref().is_none_or(|part| {
            refusal
                .description
                .to_lowercase()
                .contains(&part.to_lowercase())
        })
}

fn class_of(refusal: &Refusal) -> ErrorClass {
    match refusal.status {
        // A gateway speaks, and what stands behind it may have done the work. 520 to 524 are
        // Cloudflare's words for the same.
        502 | 504 | 520..=524 => return ErrorClass::Ambiguous,
        // Before the code: a server in trouble has been seen to blame the token.
        408 | 425 | 429 | 500.. => return ErrorClass::Transient,
        _ => {}
    }
    match refusal.code.as_str() {
        "invalid_grant"
        | "invalid_token"
        | "interaction_required"
        | "login_required"
        | "consent_required" => ErrorClass::GrantDead,
        "invalid_client" | "unauthorized_client" | "unsupported_grant_type" => {
            ErrorClass::ClientMisconfigured
        }
        "temporarily_unavailable" | "server_error" | "slow_down" | "rate_limited" => {
            ErrorClass::Transient
        }
        "" => match refusal.status {
            // Client authentication failed, or this is not the endpoint.
            401 | 404 | 405 | 410 | 415 => ErrorClass::ClientMisconfigured,
            // No OAuth server: a firewall in front of it.
            403 => ErrorClass::Transient,
            _ => ErrorClass::Rejected,
        },
        _ => ErrorClass::Rejected,
    }
}

/// A provider's text made fit for logs and callers: printable, 200 characters at most, and
/// without what we sent.
pub(super) fn clean(text: &str, secrets: &[&str]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|it| it.len() >= 4) {
        text = text.replace(secret, "[redacted]");
    }
    let printable: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LONGEST_TEXT)
        .collect();
    printable.trim().to_owned()
}

/// `Retry-After` (RFC 9110 §10.2.3): seconds or a date.
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::parse(text).ok()?;
            Timestamp::from_micros(date.timestamp().as_microsecond()).since(now)
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(status: u16, code: &str, description: &str, rules: &[ErrorRule]) -> &'static str {
        let refusal = Refusal {
            status,
            code: code.to_owned(),
            description: description.to_owned(),
            retry_after: None,
        };
        match classify(refusal, rules) {
            Failure::NotSent { .. } => "not sent",
            Failure::Ambiguous { .. } => "ambiguous",
            Failure::Transient { .. } => "transient",
            Failure::GrantDead { .. } => "dead",
            Failure::ClientMisconfigured { .. } => "misconfigured",
            Failure::Rejected { .. } => "rejected",
        }
    }

    #[test]
    fn status_and_code_decide() {
        for (status, code, expected) in [
            (400, "invalid_grant", "dead"),
            (403, "invalid_grant", "dead"),
            (500, "invalid_grant", "transient"),
            (401, "invalid_client", "misconfigured"),
            (400, "unauthorized_client", "misconfigured"),
            (401, "", "misconfigured"),
            (404, "", "misconfigured"),
            (400, "invalid_scope", "rejected"),
            (400, "", "rejected"),
            (302, "", "rejected"),
            (403, "", "transient"),
            (429, "", "transient"),
            (503, "", "transient"),
            (502, "", "ambiguous"),
            (504, "", "ambiguous"),
            (400, "temporarily_unavailable", "transient"),
        ] {
            assert_eq!(class(status, code, "", &[]), expected, "{status} {code}");
        }
    }

    #[test]
    fn rules_of_the_provider_come_first() {
        let rules = [ErrorRule {
            status: None,
            code: Some("invalid_request".to_owned()),
            message_contains: Some("token was invalid".to_owned()),
            class: ErrorClass::GrantDead,
        }];
        let said = "Value passed for the Token Was Invalid.";
        assert_eq!(class(400, "invalid_request", said, &rules), "dead");
        assert_eq!(class(400, "invalid_request", "else", &rules), "rejected");
    }

    #[test]
    fn texts_carry_nothing_of_ours() {
        assert_eq!(
            clean("token rt-secret\nis bad", &["rt-secret"]),
            "token [redacted] is bad"
        );
        assert_eq!(clean(&"x".repeat(1000), &[]).len(), 200);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_micros(784_111_777_000_000);
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|it| it.as_secs())
        };
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("999999999"), Some(86_400));
        assert_eq!(wait("soon"), None);
    }
}
