//! Revocation at the provider (RFC 7009) and the ways that some have instead.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use url::form_urlencoded;
use zeroize::Zeroizing;

use super::answer::{decode, denies_success, refusal};
use super::classify::{Failure, classify};
use super::client::{ProviderClient, url_encoded};
use super::http::Http;
use super::quirks::method;
use crate::model::provider::{
    ClientAuthentication, RevocationEndpoint, RevocationStyle, RevokedTokens, expand_template,
};

/// Outcome of a revocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// The provider revoked the tokens, or did not know them any more.
    Done,
    /// The provider has no way to revoke, or none for the tokens at hand.
    Unsupported,
}

/// A token to revoke.
struct Doomed<'a> {
    token: &'a SecretString,
    hint: &'static str,
}

impl ProviderClient {
    /// Revokes what is given of a grant at the provider. Safe to repeat.
    pub async fn revoke(
        &self,
        http: &Http,
        access: Option<&SecretString>,
        refresh: Option<&SecretString>,
    ) -> Result<Revocation, Failure> {
        let Some(endpoint) = &self.provider.revocation else {
            return Ok(Revocation::Unsupported);
        };
        let doomed = doomed(endpoint, access, refresh);
        if doomed.is_empty() {
            return Ok(Revocation::Unsupported);
        }
        let deadline = Instant::now() + self.total_timeout();
        for token in &doomed {
            self.revoke_one(http, endpoint, token, deadline).await?;
        }
        Ok(Revocation::Done)
    }

    async fn revoke_one(
        &self,
        http: &Http,
        endpoint: &RevocationEndpoint,
        doomed: &Doomed<'_>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut last = None;
        for secret in self.secrets() {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = self
                .revocation(endpoint, doomed, secret)
                .map_err(|detail| Failure::NotSent { detail })?;
            let timeout = self.provider.http_timeout.min(left);
            let answer = http.send(request, timeout).await?;
            let body = decode(&answer);
            if answer.status.is_success() && !denies_success(&self.provider, &body) {
                return Ok(());
            }
            let sent: Vec<&str> = std::iter::once(doomed.token)
                .chain(&self.credentials.secrets)
                .map(|secret| secret.expose_secret())
                .collect();
            let refused = refusal(&self.provider, &answer, &body, &sent, http.clock().now());
            if is_gone(endpoint.style, refused.status, &refused.code) {
                return Ok(());
            }
            match classify(refused, &self.provider.error_map) {
                failure @ Failure::ClientMisconfigured { .. } => last = Some(failure),
                // Of one token, not of the grant's: the caller asked for its end.
                Failure::GrantDead { code, description } => {
                    return Err(Failure::Rejected { code, description });
                }
                failure => return Err(failure),
            }
        }
        Err(last.unwrap_or_else(|| Failure::NotSent {
            detail: "no client secret".to_owned(),
        }))
    }

    fn revocation(
        &self,
        endpoint: &RevocationEndpoint,
        doomed: &Doomed<'_>,
        secret: Option<&SecretString>,
    ) -> Result<Request<Vec<u8>>, String> {
        let token = doomed.token.expose_secret();
        let url = expand_template(&endpoint.endpoint, |name| {
            (name == "token").then(|| url_encoded(token))
        })?;
        let mut request = Request::builder()
            .method(method(endpoint.method))
            .uri(url)
            .header(ACCEPT, "application/json");
        let mut body = Vec::new();
        match endpoint.style {
            RevocationStyle::Rfc7009 => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("token", token);
                form.append_pair("token_type_hint", doomed.hint);
                let authentication = endpoint
                    .client_authentication
                    .unwrap_or(self.provider.client_authentication);
                match (authentication, secret) {
                    (ClientAuthentication::Basic, Some(secret)) => {
                        request = request.header(AUTHORIZATION, self.basic(secret).as_str());
                    }
                    (authentication, secret) => {
                        form.append_pair(self.client_id_name(), &self.credentials.client_id);
                        if let Some(secret) =
                            secret.filter(|_| authentication != ClientAuthentication::None)
                        {
                            form.append_pair("client_secret", secret.expose_secret());
                        }
                    }
                }
                request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                body = form.finish().into_bytes();
            }
            RevocationStyle::JsonBasic => {
                if let Some(secret) = secret {
                    request = request.header(AUTHORIZATION, self.basic(secret).as_str());
                }
                request = request.header(CONTENT_TYPE, "application/json");
                body = json!({ "access_token": token }).to_string().into_bytes();
            }
            RevocationStyle::Bearer => {
                let header = &self.provider.token_header;
                let value = Zeroizing::new(format!("{}{token}", header.prefix));
                request = request.header(header.name.as_str(), value.as_str());
            }
            RevocationStyle::PathToken => {}
        }
        request
            .body(body)
            .map_err(|_| "the revocation cannot be built".to_owned())
    }

    fn client_id_name(&self) -> &str {
        let renames = &self.provider.token_param_renames;
        renames.get("client_id").map_or("client_id", String::as_str)
    }

    /// HTTP Basic as RFC 6749 §2.3.1 wants it: both halves form-encoded first.
    fn basic(&self, secret: &SecretString) -> Zeroizing<String> {
        let encode =
            |text: &str| -> String { form_urlencoded::byte_serialize(text.as_bytes()).collect() };
        let pair = Zeroizing::new(format!(
            "{}:{}",
            encode(&self.credentials.client_id),
            encode(secret.expose_secret())
        ));
        Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())))
    }
}

fn doomed<'a>(
    endpoint: &RevocationEndpoint,
    access: Option<&'a SecretString>,
    refresh: Option<&'a SecretString>,
) -> Vec<Doomed<'a>> {
    let access = access.map(|token| Doomed {
        token,
        hint: "access_token",
    });
    let refresh = refresh.map(|token| Doomed {
        token,
        hint: "refresh_token",
    });
    // The other styles name one kind of token only.
    let any = endpoint.style == RevocationStyle::Rfc7009;
    match endpoint.tokens {
        RevokedTokens::Access => access.or(refresh.filter(|_| any)).into_iter().collect(),
        RevokedTokens::Refresh => refresh.or(access.filter(|_| any)).into_iter().collect(),
        RevokedTokens::Both => refresh.into_iter().chain(access).collect(),
    }
}

/// Whether a refusal says that the token is gone already.
fn is_gone(style: RevocationStyle, status: u16, code: &str) -> bool {
    if ["invalid_token", "token_revoked"].contains(&code) {
        // A bearer that merely expired leaves its refresh token alive.
        return style != RevocationStyle::Bearer || code == "token_revoked";
    }
    match style {
        RevocationStyle::JsonBasic => matches!(status, 404 | 422),
        RevocationStyle::PathToken => matches!(status, 404 | 410),
        RevocationStyle::Rfc7009 | RevocationStyle::Bearer => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::Credentials;
    use crate::oauth::catalogue_entry;
    use std::collections::BTreeMap;

    fn built(id: &str) -> Request<Vec<u8>> {
        let credentials = Credentials {
            client_id: "c id".to_owned(),
            secrets: vec![SecretString::from("s:s")],
        };
        let provider = &catalogue_entry(id);
        let client = ProviderClient::new(provider, credentials, &BTreeMap::new(), None).unwrap();
        let endpoint = client.provider.revocation.clone().unwrap();
        let access = SecretString::from("at/1");
        let refresh = SecretString::from("rt/1");
        let doomed = doomed(&endpoint, Some(&access), Some(&refresh));
        client
            .revocation(&endpoint, doomed.first().unwrap(), client.secrets()[0])
            .unwrap()
    }

    fn body(request: &Request<Vec<u8>>) -> &str {
        std::str::from_utf8(request.body()).unwrap()
    }

    #[test]
    fn each_style_is_built_as_its_provider_wants() {
        let google = built("google");
        assert_eq!(
            body(&google),
            "token=rt%2F1&token_type_hint=refresh_token&client_id=c+id"
        );
        let vercel = built("vercel");
        // "c+id:s%3As"
        assert_eq!(vercel.headers()[AUTHORIZATION], "Basic YytpZDpzJTNBcw==");
        let github = built("github");
        assert_eq!(github.method(), http::Method::DELETE);
        assert_eq!(github.uri().path(), "/applications/c%20id/token");
        assert_eq!(body(&github), r#"{"access_token":"at/1"}"#);
        let slack = built("slack");
        assert_eq!(slack.headers()[AUTHORIZATION], "Bearer at/1");
        let hubspot = built("hubspot");
        assert_eq!(hubspot.uri().path(), "/oauth/v1/refresh-tokens/rt%2F1");
    }

    #[test]
    fn gone_is_as_good_as_revoked() {
        assert!(is_gone(RevocationStyle::JsonBasic, 404, ""));
        assert!(is_gone(RevocationStyle::PathToken, 404, ""));
        assert!(is_gone(RevocationStyle::Rfc7009, 400, "invalid_token"));
        assert!(!is_gone(RevocationStyle::Rfc7009, 404, ""));
        assert!(!is_gone(RevocationStyle::Bearer, 401, "invalid_token"));
    }
}
