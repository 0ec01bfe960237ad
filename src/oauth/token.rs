//! The token endpoint: code exchange (RFC 6749 §4.1.3) and refresh (§6).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HeaderValue};
use oauth2::basic::{BasicErrorResponse, BasicTokenResponse};
use oauth2::{
    AsyncHttpClient, AuthorizationCode, HttpRequest, HttpResponse, RefreshToken, RequestTokenError,
    Scope, TokenResponse,
};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::answer::{Extras, decode, denies_success, id_token_claims, normalise, refusal};
use super::authorize::checked_verifier;
use super::classify::{Failure, classify};
use super::client::ProviderClient;
use super::http::{Answer, Http};
use super::quirks::{Step, rewrite};
use crate::clock::Clock;
use crate::model::Timestamp;
use crate::model::provider::{Pkce, Provider, RefreshScopes};

/// Too little of a deadline for another attempt.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// Tokens, as the provider answered them.
#[derive(Clone, Debug)]
pub struct TokenAnswer {
    /// Access token.
    pub access_token: SecretString,
    /// Refresh token; none means that the one in use stays.
    pub refresh_token: Option<SecretString>,
    /// ID token (OpenID Connect).
    pub id_token: Option<SecretString>,
    /// Token type, `Bearer` when the answer tells none.
    pub token_type: String,
    /// Lifetime of the access token from the moment of sending, if the answer tells it.
    pub expires_in: Option<Duration>,
    /// Lifetime of the refresh token from the moment of sending, if the answer tells it.
    pub refresh_expires_in: Option<Duration>,
    /// Scopes granted; none means those that were asked for (RFC 6749 §5.1).
    pub scopes: Option<Vec<String>>,
    /// What the provider's definition wants kept of the answer.
    pub metadata: Map<String, Value>,
}

impl TokenAnswer {
    /// A token that came from elsewhere than a token endpoint, such as a pasted key.
    pub fn bare(access_token: SecretString) -> Self {
        Self {
            access_token,
            refresh_token: None,
            id_token: None,
            token_type: "Bearer".to_owned(),
            expires_in: None,
            refresh_expires_in: None,
            scopes: None,
            metadata: Map::new(),
        }
    }

    /// Lifetime of the access token: what the answer says, else the provider's default, else the
    /// claims of a token that is a JWT; within the provider's bound. None when nobody knows.
    pub fn lifetime(&self, provider: &Provider) -> Option<Duration> {
        self.expires_in
            .or(provider.default_lifetime)
            .or_else(|| jwt_lifetime(&self.access_token))
            .map(|told| provider.max_lifetime.map_or(told, |most| told.min(most)))
    }
}

/// `exp` less `iat`, or less the time now where the token does not say when it was issued.
fn jwt_lifetime(token: &SecretString) -> Option<Duration> {
    let claims = id_token_claims(token)?;
    let time = |name: &str| {
        let seconds = claims.get(name)?.as_f64()?;
        let since = Duration::try_from_secs_f64(seconds).ok()?;
        Some(Timestamp::from_micros(0).plus(since))
    };
    let issued = time("iat").unwrap_or_else(|| Clock::system().now());
    Some(time("exp")?.since(issued)).filter(|lifetime| !lifetime.is_zero())
}

/// What is presented to the token endpoint.
#[derive(Clone, Copy)]
enum Grant<'a> {
    Code {
        code: &'a SecretString,
        verifier: Option<&'a SecretString>,
    },
    Refresh {
        token: &'a SecretString,
        scopes: &'a [String],
    },
}

impl ProviderClient {
    /// Exchanges a code for tokens. Another secret is tried when the provider refuses the client,
    /// which it does before it spends the code.
    pub async fn exchange_code(
        &self,
        http: &Http,
        code: &SecretString,
        code_verifier: Option<&SecretString>,
    ) -> Result<TokenAnswer, Failure> {
        let verifier = code_verifier.filter(|_| self.provider.pkce != Pkce::Off);
        self.present(http, Grant::Code { code, verifier }).await
    }

    /// Spends a refresh token. `scopes` are the granted ones, sent to the providers that want them
    /// repeated. Sent again only after a definite refusal of something else than the token: of the
    /// client (then with the next secret) or of the `resource` parameter (then without it).
    pub async fn refresh(
        &self,
        http: &Http,
        refresh_token: &SecretString,
        scopes: &[String],
    ) -> Result<TokenAnswer, Failure> {
        let scopes = match self.provider.refresh_scopes {
            RefreshScopes::Send => scopes,
            RefreshScopes::Omit => &[],
        };
        let token = refresh_token;
        self.present(http, Grant::Refresh { token, scopes }).await
    }

    async fn present(&self, http: &Http, grant: Grant<'_>) -> Result<TokenAnswer, Failure> {
        let deadline = Instant::now() + self.total_timeout();
        let step = match grant {
            Grant::Code { .. } => Step::Exchange,
            Grant::Refresh { .. } => Step::Refresh,
        };
        let extra = match step {
            Step::Exchange => &self.provider.token_params,
            Step::Refresh => &self.provider.refresh_params,
        };
        let mut with_resource = extra.contains_key("resource");
        let mut secrets = self.secrets().into_iter().peekable();
        let mut secret = secrets.next().flatten();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let transport = Transport {
                client: self,
                http,
                step,
                with_resource,
                timeout: self.provider.http_timeout.min(left),
                sent: self.sent(grant),
                extras: Mutex::new(Extras::default()),
            };
            let failure = match self.attempt(&transport, grant, secret).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if deadline.saturating_duration_since(Instant::now()) < LEAST_TIME {
                return Err(failure);
            }
            if with_resource && refuses_resource(&failure) {
                with_resource = false;
            } else if matches!(failure, Failure::ClientMisconfigured { .. })
                && let Some(next) = secrets.next()
            {
                secret = next;
            } else {
                return Err(failure);
            }
        }
    }

    /// What must not come back in a provider's error text.
    fn sent<'a>(&'a self, grant: Grant<'a>) -> Vec<&'a str> {
        let (first, second) = match grant {
            Grant::Code { code, verifier } => (code, verifier),
            Grant::Refresh { token, .. } => (token, None),
        };
        std::iter::once(first)
            .chain(second)
            .chain(&self.credentials.secrets)
            .map(|secret| secret.expose_secret())
            .collect()
    }

    async fn attempt(
        &self,
        transport: &Transport<'_>,
        grant: Grant<'_>,
        secret: Option<&SecretString>,
    ) -> Result<TokenAnswer, Failure> {
        let unsent = |error: super::Error| Failure::NotSent {
            detail: error.to_string(),
        };
        let provider = &self.provider;
        let outcome = match grant {
            Grant::Code { code, verifier } => {
                let protocol = self
                    .protocol(secret, &provider.token_endpoint)
                    .map_err(unsent)?;
                let code = AuthorizationCode::new(code.expose_secret().to_owned());
                let mut request = protocol.exchange_code(code);
                if let Some(verifier) = verifier {
                    request =
                        request.set_pkce_verifier(checked_verifier(verifier).map_err(unsent)?);
                }
                request.request_async(transport).await
            }
            Grant::Refresh { token, scopes } => {
                let endpoint = provider.refresh_endpoint.as_ref();
                let endpoint = endpoint.unwrap_or(&provider.token_endpoint);
                let protocol = self.protocol(secret, endpoint).map_err(unsent)?;
                let token = RefreshToken::new(token.expose_secret().to_owned());
                let mut request = protocol
                    .exchange_refresh_token(&token)
                    .add_scopes(scopes.iter().cloned().map(Scope::new));
                if let Some(uri) = self
                    .redirect_uri
                    .as_deref()
                    .filter(|_| provider.refresh_redirect_uri)
                {
                    request = request.add_extra_param("redirect_uri", uri);
                }
                request.request_async(transport).await
            }
        };
        // The crate's own errors hold the raw body: they are replaced, never shown.
        let answer =
            outcome.map_err(
                |error: RequestTokenError<Failure, BasicErrorResponse>| match error {
                    RequestTokenError::Request(failure) => failure,
                    _ => unreadable(),
                },
            )?;
        Ok(transport.assemble(&answer))
    }
}

fn unreadable() -> Failure {
    Failure::Ambiguous {
        detail: "a success that is no token answer".to_owned(),
    }
}

/// RFC 8707 §2 has `invalid_target`; others say it in words.
fn refuses_resource(failure: &Failure) -> bool {
    match failure {
        Failure::Rejected { code, description } => {
            code == "invalid_target"
                || (code == "invalid_request" && description.to_lowercase().contains("resource"))
        }
        _ => false,
    }
}

/// Carries one request of the protocol crate to the provider and back.
struct Transport<'a> {
    client: &'a ProviderClient,
    http: &'a Http,
    step: Step,
    with_resource: bool,
    timeout: Duration,
    sent: Vec<&'a str>,
    /// What the answer held beside what the crate reads.
    extras: Mutex<Extras>,
}

impl<'c> AsyncHttpClient<'c> for Transport<'_> {
    type Error = Failure;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Failure>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let provider = &self.client.provider;
            let request = rewrite(provider, self.step, self.with_resource, request)
                .map_err(|detail| Failure::NotSent { detail })?;
            let sent_at = self.http.clock().now();
            let answer = self.http.send(request, self.timeout).await?;
            let (standard, extras) = read(provider, &answer, &self.sent, sent_at)?;
            *self.extras.lock().unwrap_or_else(PoisonError::into_inner) = extras;
            let mut response = HttpResponse::new(standard.to_string().into_bytes());
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            Ok(response)
        })
    }
}

impl Transport<'_> {
    fn assemble(&self, answer: &BasicTokenResponse) -> TokenAnswer {
        let extras =
            std::mem::take(&mut *self.extras.lock().unwrap_or_else(PoisonError::into_inner));
        TokenAnswer {
            access_token: SecretString::from(answer.access_token().secret().as_str()),
            refresh_token: answer
                .refresh_token()
                .map(|token| SecretString::from(token.secret().as_str())),
            id_token: extras.id_token,
            token_type: answer.token_type().as_ref().to_owned(),
            expires_in: answer.expires_in(),
            refresh_expires_in: extras.refresh_expires_in,
            scopes: answer
                .scopes()
                .map(|scopes| scopes.iter().map(|scope| scope.to_string()).collect()),
            metadata: extras.metadata,
        }
    }
}

/// The tokens in an answer, or what its refusal means.
fn read(
    provider: &Provider,
    answer: &Answer,
    sent: &[&str],
    sent_at: Timestamp,
) -> Result<(Value, Extras), Failure> {
    let body = decode(answer);
    let refused = || refusal(provider, answer, &body, sent, sent_at);
    if !answer.status.is_success() || denies_success(provider, &body) {
        return Err(classify(refused(), &provider.error_map));
    }
    if answer.truncated {
        return Err(unreadable());
    }
    normalise(provider, &body, sent_at).ok_or_else(|| {
        let refused = refused();
        // GitHub tells errors with status 200.
        if refused.code.is_empty() {
            unreadable()
        } else {
            classify(refused, &provider.error_map)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::catalogue_entry;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use http::{HeaderMap, StatusCode};
    use zeroize::Zeroizing;

    fn outcome(id: &str, status: u16, body: &str) -> Result<(Value, Extras), Failure> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: HeaderMap::new(),
            body: Zeroizing::new(body.as_bytes().to_vec()),
            truncated: false,
        };
        read(
            &catalogue_entry(id),
            &answer,
            &["rt-hidden"],
            Timestamp::default(),
        )
    }

    #[test]
    fn refusals_of_real_providers_are_understood() {
        for (id, status, body) in [
            ("github-app", 200, r#"{"error":"bad_refresh_token"}"#),
            ("github-app", 200, "error=bad_refresh_token&error_uri=x"),
            (
                "slack",
                200,
                r#"{"ok":false,"error":"invalid_refresh_token"}"#,
            ),
            ("atlassian", 403, r#"{"error":"invalid_grant"}"#),
            (
                "x",
                400,
                r#"{"error":"invalid_request","error_description":"Value passed for the token was invalid."}"#,
            ),
            (
                "hubspot",
                400,
                r#"{"status":"BAD_REFRESH_TOKEN","message":"missing"}"#,
            ),
            (
                "twitch",
                400,
                r#"{"status":400,"message":"Invalid refresh token"}"#,
            ),
        ] {
            let failure = outcome(id, status, body).unwrap_err();
            assert!(
                matches!(failure, Failure::GrantDead { .. }),
                "{id} {failure:?}"
            );
        }
        for (id, body) in [
            ("slack", r#"{"ok":false,"error":"bad_client_secret"}"#),
            ("github", r#"{"error":"incorrect_client_credentials"}"#),
        ] {
            let failure = outcome(id, 200, body).unwrap_err();
            assert!(
                matches!(failure, Failure::ClientMisconfigured { .. }),
                "{id} {failure:?}"
            );
        }
    }

    #[test]
    fn a_success_without_tokens_is_ambiguous() {
        for body in [
            "",
            "{}",
            "<html>ok</html>",
            "[1]",
            r#"{"refresh_token":"r"}"#,
        ] {
            let failure = outcome("google", 200, body).unwrap_err();
            assert!(matches!(failure, Failure::Ambiguous { .. }), "{body}");
        }
    }

    #[test]
    fn what_was_sent_does_not_come_back() {
        let body = r#"{"error":"invalid_grant","error_description":"rt-hidden is dead"}"#;
        let failure = outcome("google", 400, body).unwrap_err();
        assert!(!format!("{failure:?} {failure}").contains("rt-hidden"));
    }

    #[test]
    fn a_lifetime_is_told_assumed_or_read_from_the_token() {
        let payload = URL_SAFE_NO_PAD.encode(r#"{"iat":1000,"exp":1600}"#);
        let mut answer = TokenAnswer::bare(SecretString::from(format!("e30.{payload}.s")));
        let mut provider = Provider::default();
        let minutes = |count: u64| Some(Duration::from_secs(60 * count));
        assert_eq!(answer.lifetime(&provider), minutes(10));
        provider.default_lifetime = minutes(20);
        assert_eq!(answer.lifetime(&provider), minutes(20));
        answer.expires_in = minutes(30);
        assert_eq!(answer.lifetime(&provider), minutes(30));
        provider.max_lifetime = minutes(5);
        assert_eq!(answer.lifetime(&provider), minutes(5));
        let opaque = TokenAnswer::bare(SecretString::from("opaque"));
        assert_eq!(opaque.lifetime(&Provider::default()), None);
    }
}
