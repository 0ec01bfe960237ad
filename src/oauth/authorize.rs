//! The authorization request (RFC 6749 §4.1.1): the URL that the owner's browser is sent to.

use std::collections::BTreeMap;

use oauth2::{CsrfToken, PkceCodeChallenge, PkceCodeVerifier};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::Error;
use super::client::ProviderClient;
use super::quirks::renamed;
use crate::model::provider::Pkce;

/// Parameters that callers cannot set: the flow's safety hangs on them.
const OURS: [&str; 8] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "nonce",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
];

/// What one authorization asks for.
#[derive(Clone, Debug)]
pub struct AuthorizationRequest<'a> {
    /// Scopes or their friendly names; the provider's defaults when empty.
    pub scopes: &'a [String],
    /// Unguessable, one use (RFC 6749 §10.12).
    pub state: &'a str,
    /// Sent to providers that take one (OpenID Connect).
    pub nonce: Option<&'a str>,
    /// PKCE verifier, whose S256 challenge is sent unless the provider refuses PKCE.
    pub code_verifier: Option<&'a SecretString>,
    /// Account to propose to the owner.
    pub login_hint: Option<&'a str>,
    /// Further parameters of the caller's. Those that are ours are refused.
    pub extra_params: &'a BTreeMap<String, String>,
}

/// A fresh PKCE verifier: 256 random bits (RFC 7636 §4.1).
pub fn new_code_verifier() -> SecretString {
    let (_, verifier) = PkceCodeChallenge::new_random_sha256();
    SecretString::from(verifier.into_secret())
}

impl ProviderClient {
    /// The URL to send the owner's browser to. Fails on parameters that are not the caller's to
    /// set, on a malformed verifier, and without one where the provider demands PKCE.
    pub fn authorization_url(&self, request: &AuthorizationRequest<'_>) -> Result<Url, Error> {
        let provider = &self.provider;
        if let Some(name) = request
            .extra_params
            .keys()
            .find(|name| OURS.contains(&name.as_str()))
        {
            return Err(Error::invalid(
                format!("extra_params.{name}"),
                "is set by us",
            ));
        }
        let protocol = self.protocol(None, &provider.token_endpoint)?;
        let mut built = protocol.authorize_url(|| CsrfToken::new(request.state.to_owned()));
        match (provider.pkce, request.code_verifier) {
            (Pkce::Off, _) | (Pkce::Use, None) => {}
            (Pkce::Required, None) => {
                return Err(Error::invalid(
                    "code_verifier",
                    "is required by this provider",
                ));
            }
            (_, Some(verifier)) => {
                let verifier = checked_verifier(verifier)?;
                let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
                built = built.set_pkce_challenge(challenge);
            }
        }
        let (mut url, _) = built.url();

        // The endpoint's own query stays; what the crate added is a map from here on.
        let own = Url::parse(&provider.authorization_endpoint)
            .map_err(|_| Error::invalid("authorization_endpoint", "is not a URL"))?;
        let kept = own.query_pairs().count();
        let mut params: BTreeMap<String, String> =
            url.query_pairs().into_owned().skip(kept).collect();
        self.add_scopes(request.scopes, &mut params);
        if let Some(nonce) = request.nonce.filter(|_| provider.sends_nonce) {
            params.insert("nonce".to_owned(), nonce.to_owned());
        }
        if let Some(hint) = request.login_hint {
            params.insert("login_hint".to_owned(), hint.to_owned());
        }
        let mut params = renamed(params, &provider.authorization_param_renames);
        params.extend(provider.authorization_params.clone());
        params.extend(request.extra_params.clone());
        url.set_query(own.query());
        url.query_pairs_mut().extend_pairs(&params);
        Ok(url)
    }

    /// The scopes asked for, with friendly names resolved: what to compare the granted ones with.
    pub fn requested_scopes(&self, scopes: &[String]) -> Vec<String> {
        let provider = &self.provider;
        let scopes = match scopes {
            [] => &provider.default_scopes,
            _ => scopes,
        };
        scopes
            .iter()
            .map(|scope| provider.named_scopes.get(scope).unwrap_or(scope).clone())
            .collect()
    }

    fn add_scopes(&self, scopes: &[String], params: &mut BTreeMap<String, String>) {
        let separator = &self.provider.scope_separator;
        let mut plain = self.requested_scopes(scopes);
        if let Some(additional) = &self.provider.additional_scopes {
            let prefix = additional.prefix.as_str();
            let taken: Vec<String> = plain
                .iter()
                .filter_map(|scope| scope.strip_prefix(prefix).map(str::to_owned))
                .collect();
            plain.retain(|scope| !scope.starts_with(prefix));
            if !taken.is_empty() {
                params.insert(additional.parameter.clone(), taken.join(separator));
            }
        }
        if !plain.is_empty() {
            params.insert("scope".to_owned(), plain.join(separator));
        }
    }
}

/// The crate panics on a verifier of the wrong length, so it is judged before (RFC 7636 §4.1).
pub(super) fn checked_verifier(verifier: &SecretString) -> Result<PkceCodeVerifier, Error> {
    let text = verifier.expose_secret();
    let sound = (43..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
    if sound {
        Ok(PkceCodeVerifier::new(text.to_owned()))
    } else {
        Err(Error::invalid(
            "code_verifier",
            "must be 43 to 128 unreserved characters",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::Credentials;
    use crate::oauth::catalogue_entry;

    fn client(id: &str) -> ProviderClient {
        let credentials = Credentials {
            client_id: "cid".to_owned(),
            secrets: vec![SecretString::from("hush")],
        };
        let provider = &catalogue_entry(id);
        let redirect = Some("https://broker.example/callback/app".to_owned());
        ProviderClient::new(provider, credentials, &BTreeMap::new(), redirect).unwrap()
    }

    fn params(
        id: &str,
        scopes: &[&str],
        verifier: Option<&SecretString>,
    ) -> Result<BTreeMap<String, String>, Error> {
        let scopes: Vec<String> = scopes.iter().map(|it| (*it).to_owned()).collect();
        let url = client(id).authorization_url(&AuthorizationRequest {
            scopes: &scopes,
            state: "st",
            nonce: Some("no"),
            code_verifier: verifier,
            login_hint: None,
            extra_params: &BTreeMap::new(),
        })?;
        assert!(!url.as_str().contains("hush"));
        Ok(url.query_pairs().into_owned().collect())
    }

    #[test]
    fn google_gets_its_parameters() {
        // RFC 7636 appendix B.
        let verifier = SecretString::from("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        let params = params("google", &["openid", "gmail_send"], Some(&verifier)).unwrap();
        assert_eq!(params["client_id"], "cid");
        assert_eq!(params["state"], "st");
        assert_eq!(params["nonce"], "no");
        assert_eq!(params["response_type"], "code");
        assert_eq!(params["access_type"], "offline");
        assert_eq!(
            params["scope"],
            "openid https://www.googleapis.com/auth/gmail.send"
        );
        assert_eq!(
            params["code_challenge"],
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
        assert_eq!(params["code_challenge_method"], "S256");
        assert_eq!(
            params["redirect_uri"],
            "https://broker.example/callback/app"
        );
    }

    #[test]
    fn slack_and_tiktok_get_theirs() {
        let slack = params("slack", &["a", "user:b", "c", "user:d"], None).unwrap();
        assert_eq!(slack["scope"], "a,c");
        assert_eq!(slack["user_scope"], "b,d");
        assert!(!slack.contains_key("nonce"));
        let tiktok = params("tiktok", &[], None).unwrap();
        assert_eq!(tiktok["client_key"], "cid");
        assert_eq!(tiktok["scope"], "user.info.basic");
        assert!(!tiktok.contains_key("client_id"));
    }

    #[test]
    fn pkce_is_demanded_checked_or_left_out() {
        assert!(params("x", &[], None).is_err());
        assert!(params("x", &[], Some(&SecretString::from("short"))).is_err());
        let verifier = new_code_verifier();
        assert!(params("x", &[], Some(&verifier)).is_ok());
        let linkedin = params("linkedin", &[], Some(&verifier)).unwrap();
        assert!(!linkedin.contains_key("code_challenge"));
    }

    #[test]
    fn callers_do_not_set_what_is_ours() {
        let extra = BTreeMap::from([("redirect_uri".to_owned(), "https://evil".to_owned())]);
        let outcome = client("google").authorization_url(&AuthorizationRequest {
            scopes: &[],
            state: "st",
            nonce: None,
            code_verifier: None,
            login_hint: None,
            extra_params: &extra,
        });
        assert!(outcome.is_err());
    }
}
