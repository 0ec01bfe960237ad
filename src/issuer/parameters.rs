//! Parameters as browsers and clients send them: form-encoded, in a query or in a body.

use std::fmt;

use url::form_urlencoded;
use zeroize::Zeroize as _;

use crate::error::Error;
use crate::model::OauthErrorCode;

/// Most parameters of a request.
const PAIRS_MAX: usize = 64;

/// Longest request, in bytes.
const TEXT_MAX: usize = 16 * 1024;

/// Longest value, in bytes.
const VALUE_MAX: usize = 8_192;

/// The one that may be there more than once (RFC 8707 section 2).
const REPEATED: &str = "resource";

/// Parameters that mean something to us. Others are ignored, as the RFCs have it.
pub const RESERVED: [&str; 27] = [
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "device_code",
    "dpop_jkt",
    "grant_type",
    "login_hint",
    "nonce",
    "prompt",
    "redirect_uri",
    "refresh_token",
    "request",
    "request_uri",
    REPEATED,
    "response_mode",
    "response_type",
    "scope",
    "state",
    "token",
    "token_type_hint",
    "user_code",
    "verifier",
];

/// The parameters of a request that have a value. Some are secrets, so their memory is cleared.
#[derive(Clone)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Takes a query or a form apart. A parameter without a value counts as left out
    /// (RFC 6749 section 3.1).
    ///
    /// # Errors
    /// `invalid_request` when one of ours is there twice, or for what is too long or no UTF-8.
    pub fn parse(query_or_form: &[u8]) -> Result<Self, Error> {
        if query_or_form.len() > TEXT_MAX {
            return Err(invalid("the request is too long"));
        }
        let mut all = Self(Vec::new());
        let mut seen = Vec::new();
        for (index, (name, value)) in form_urlencoded::parse(query_or_form).enumerate() {
            if index >= PAIRS_MAX {
                return Err(invalid("the request has too many parameters"));
            }
            let Some(known) = RESERVED.into_iter().find(|known| *known == name) else {
                continue;
            };
            if known != REPEATED {
                if seen.contains(&known) {
                    return Err(invalid(format!("the parameter {known} is there twice")));
                }
                seen.push(known);
            }
            if value.len() > VALUE_MAX {
                return Err(invalid(format!("the parameter {known} is too long")));
            }
            // What could not be decoded would not be echoed as it was sent.
            if value.contains(char::REPLACEMENT_CHARACTER) || value.contains('\0') {
                return Err(invalid(format!(
                    "the parameter {known} is not text in UTF-8"
                )));
            }
            if !value.is_empty() {
                all.0.push((known.to_owned(), value.into_owned()));
            }
        }
        Ok(all)
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// The values of a parameter that may be there more than once.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| value.as_str())
    }
}

fn invalid(description: impl Into<String>) -> Error {
    Error::oauth(OauthErrorCode::InvalidRequest, description)
}

/// Shows names alone.
impl fmt::Debug for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| name);
        f.debug_set().entries(names).finish()
    }
}

impl Drop for Parameters {
    fn drop(&mut self) {
        for (_, value) in &mut self.0 {
            value.zeroize();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match Parameters::parse(text.as_bytes()) {
            Err(Error::Oauth(error)) => {
                assert_eq!(error.code, OauthErrorCode::InvalidRequest);
                error.description
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_has_no_value_is_left_out() {
        let parameters = Parameters::parse(b"state=a+b%26&scope=&nonce&other=1&other=2").unwrap();
        assert_eq!(parameters.get("state"), Some("a b&"));
        assert_eq!(parameters.get("scope"), None);
        assert_eq!(parameters.get("nonce"), None);
        assert_eq!(parameters.get("other"), None);
    }

    #[test]
    fn nothing_of_ours_is_there_twice_but_resources() {
        assert!(refused("state=a&state=a").contains("state"));
        assert!(refused("client_id=a&client%5Fid=b").contains("client_id"));
        assert!(refused("scope=&scope=a").contains("scope"));
        let parameters = Parameters::parse(b"resource=a&resource=b").unwrap();
        assert!(parameters.all("resource").eq(["a", "b"]));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        refused(&format!("state={}", "a".repeat(VALUE_MAX + 1)));
        refused(&format!("x={}", "a".repeat(TEXT_MAX)));
        refused(&"x=1&".repeat(PAIRS_MAX + 1));
        refused("state=%ff");
        refused("state=a%00");
    }

    #[test]
    fn values_are_not_shown() {
        let parameters = Parameters::parse(b"client_secret=hush").unwrap();
        assert!(!format!("{parameters:?}").contains("hush"));
    }
}
