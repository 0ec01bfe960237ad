//! What a provider's answer says: the callback's parameters, its refusals and its ID token.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::crypto::digest;
use crate::error::Error;
use crate::model::{AuthorizationFailure, Provider};
use crate::oauth::{Failure, id_token_claims};

/// Longest text of a provider that is kept, in characters.
const TEXT_MAX: usize = 200;
/// Longest callback parameter that is kept as metadata, in characters.
pub(super) const METADATA_MAX: usize = 512;

/// The parameters of a callback.
pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    /// A parameter that occurs twice is refused, an empty one is as good as none (OAuth 2.1).
    pub(super) fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, Error> {
        let mut map = BTreeMap::new();
        for (name, value) in pairs {
            if map.insert(name, value).is_some() {
                return Err(Error::invalid(
                    "parameters",
                    "a parameter occurs more than once",
                ));
            }
        }
        map.retain(|_, value| !value.is_empty());
        Ok(Self(map))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

/// What the provider answered.
pub(super) enum Verdict {
    Code(SecretString),
    Failure(AuthorizationFailure),
}

/// Reads the provider's answer. `provider` has its templates filled in.
pub(super) fn verdict(provider: &Provider, parameters: &Parameters) -> Result<Verdict, Error> {
    // RFC 9207 section 2.4; errors carry the issuer, too.
    if let Some(expected) = &provider.issuer {
        let told = parameters.get("iss");
        let fine = match told {
            Some(issuer) => issuer == expected,
            None => !provider.sends_issuer,
        };
        if !fine {
            return Ok(Verdict::Failure(AuthorizationFailure {
                reason: "ISSUER_MISMATCH".to_owned(),
                message: "the answer does not come from the provider that was asked".to_owned(),
                ..AuthorizationFailure::default()
            }));
        }
    }
    if let Some(error) = parameters.get("error") {
        let code = printable(error, TEXT_MAX);
        return Ok(Verdict::Failure(AuthorizationFailure {
            reason: "PROVIDER_ERROR".to_owned(),
            message: format!("the provider refused: {code}"),
            provider_description: parameters
                .get("error_description")
                .map(|text| printable(text, TEXT_MAX))
                .unwrap_or_default(),
            provider_error: code,
        }));
    }
    match parameters.get(&provider.callback_code_parameter) {
        Some(code) => Ok(Verdict::Code(SecretString::from(code))),
        None => Err(Error::invalid(
            "parameters",
            "there is neither a code nor an error among them",
        )),
    }
}

pub(super) fn refused_exchange(failure: &Failure) -> AuthorizationFailure {
    let (provider_error, provider_description) = match failure {
        Failure::GrantDead { code, description }
        | Failure::ClientMisconfigured { code, description }
        | Failure::Rejected { code, description } => (code.as_str(), description.as_str()),
        Failure::NotSent { .. } | Failure::Ambiguous { .. } | Failure::Transient { .. } => ("", ""),
    };
    let message = match failure {
        Failure::GrantDead { .. } | Failure::Rejected { .. } => {
            "the provider did not accept its own code".to_owned()
        }
        other => other.to_string(),
    };
    AuthorizationFailure {
        reason: "EXCHANGE_FAILED".to_owned(),
        message: printable(&message, 2 * TEXT_MAX),
        provider_error: printable(provider_error, TEXT_MAX),
        provider_description: printable(provider_description, TEXT_MAX),
    }
}

/// Whether an ID token answers the nonce that was sent (OpenID Connect Core 1.0 section 3.1.3.7,
/// item 11). Without the one or the other there is nothing to compare.
pub(super) fn nonce_matches(sent: Option<&SecretString>, id_token: Option<&SecretString>) -> bool {
    let (Some(sent), Some(id_token)) = (sent, id_token) else {
        return true;
    };
    let claims = id_token_claims(id_token);
    let told = claims
        .as_ref()
        .and_then(|claims| claims.get("nonce"))
        .and_then(Value::as_str)
        .unwrap_or_default();
    digest::constant_time_eq(told.as_bytes(), sent.expose_secret().as_bytes())
}

/// A provider's words as they may be kept and shown: without control characters, and cut.
pub(super) fn printable(text: &str, max: usize) -> String {
    text.chars().filter(|c| !c.is_control()).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn parameters(pairs: &[(&str, &str)]) -> Result<Parameters, Error> {
        Parameters::of(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn a_parameter_occurs_once_and_an_empty_one_not_at_all() {
        assert!(parameters(&[("state", "a"), ("state", "a")]).is_err());
        assert!(parameters(&[("code", ""), ("code", "x")]).is_err());
        let read = parameters(&[("state", "a"), ("error", "")]).unwrap();
        assert_eq!(read.get("state"), Some("a"));
        assert_eq!(read.get("error"), None);
    }

    #[test]
    fn the_issuer_is_compared_where_it_is_known() {
        let mut provider = Provider {
            issuer: Some("https://a.example".to_owned()),
            ..Provider::default()
        };
        let reason = |provider: &Provider, pairs: &[(&str, &str)]| match verdict(
            provider,
            &parameters(pairs).unwrap(),
        ) {
            Ok(Verdict::Code(_)) => "code".to_owned(),
            Ok(Verdict::Failure(failure)) => failure.reason,
            Err(_) => "refused".to_owned(),
        };
        let own = ("iss", "https://a.example");
        let other = ("iss", "https://a.example/");
        assert_eq!(reason(&provider, &[("code", "c"), own]), "code");
        assert_eq!(reason(&provider, &[("code", "c")]), "code");
        assert_eq!(
            reason(&provider, &[("code", "c"), other]),
            "ISSUER_MISMATCH"
        );
        provider.sends_issuer = true;
        assert_eq!(reason(&provider, &[("code", "c")]), "ISSUER_MISMATCH");
        assert_eq!(reason(&provider, &[("error", "e"), own]), "PROVIDER_ERROR");
        assert_eq!(reason(&provider, &[own]), "refused");
    }

    #[test]
    fn a_providers_words_are_cut_and_cleaned() {
        let text = "x".repeat(300);
        let pairs = [("error", "acc\ness"), ("error_description", text.as_str())];
        let Ok(Verdict::Failure(failure)) =
            verdict(&Provider::default(), &parameters(&pairs).unwrap())
        else {
            panic!("no failure");
        };
        assert_eq!(failure.provider_error, "access");
        assert_eq!(failure.provider_description.len(), TEXT_MAX);
    }

    #[test]
    fn a_nonce_is_answered_by_the_id_token() {
        let sent = SecretString::from("n-1");
        let token =
            |claims: &str| SecretString::from(format!("h.{}.s", URL_SAFE_NO_PAD.encode(claims)));
        let same = token(r#"{"nonce":"n-1"}"#);
        let other = token(r#"{"nonce":"n-2"}"#);
        let none = token("{}");
        assert!(nonce_matches(Some(&sent), Some(&same)));
        assert!(!nonce_matches(Some(&sent), Some(&other)));
        assert!(!nonce_matches(Some(&sent), Some(&none)));
        assert!(nonce_matches(Some(&sent), None));
        assert!(nonce_matches(None, Some(&other)));
        assert!(!nonce_matches(Some(&sent), Some(&SecretString::from("x"))));
    }
}
