//! Tokens in the open: between a provider's answer and the seal.

use std::fmt;
use std::io;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::model::{Provider, Timestamp};
use crate::oauth::TokenAnswer;

/// One set of tokens, as it came. Never stored but sealed.
#[derive(Clone)]
pub struct TokenSet {
    /// When it was asked for; expiry counts from here, so that the way back costs nothing.
    pub sent_at: Timestamp,
    /// The access token, API key or OAuth 1.0a token. None where only a refresh token was
    /// imported.
    pub access_token: Option<SecretString>,
    /// The refresh token; none when the old one stays in use, or there is none.
    pub refresh_token: Option<SecretString>,
    /// The ID token, where the provider sent one. Used at once, never kept with a grant.
    pub id_token: Option<SecretString>,
    /// The OAuth 1.0a token's secret.
    pub token_secret: Option<SecretString>,
    /// How the token is sent.
    pub token_type: String,
    /// When the access token ends, where known.
    pub expires_at: Option<Timestamp>,
    /// When the refresh token ends, where the answer says.
    pub refresh_expires_at: Option<Timestamp>,
    /// The scopes granted, where the answer says.
    pub scopes: Option<Vec<String>>,
    /// What else of the answer is kept. Holds no secret.
    pub metadata: Map<String, Value>,
}

impl TokenSet {
    /// From a provider's answer to a request sent at `sent_at`.
    pub fn of_answer(answer: TokenAnswer, provider: &Provider, sent_at: Timestamp) -> Self {
        let after = |lifetime: Duration| sent_at.plus(lifetime);
        Self {
            sent_at,
            expires_at: answer.lifetime(provider).map(after),
            refresh_expires_at: answer.refresh_expires_in.map(after),
            access_token: Some(answer.access_token),
            refresh_token: answer.refresh_token,
            id_token: answer.id_token,
            token_secret: None,
            token_type: canonical(answer.token_type),
            scopes: answer.scopes,
            metadata: answer.metadata,
        }
    }

    /// As JSON to be sealed, wiped when dropped.
    ///
    /// # Errors
    /// Never for what a provider can answer.
    pub fn to_json(&self) -> serde_json::Result<Zeroizing<Vec<u8>>> {
        fn text(token: &Option<SecretString>) -> Option<&str> {
            token.as_ref().map(|token| token.expose_secret())
        }
        let body = Outgoing {
            sent_at: self.sent_at.micros(),
            access_token: text(&self.access_token),
            refresh_token: text(&self.refresh_token),
            id_token: text(&self.id_token),
            token_secret: text(&self.token_secret),
            token_type: &self.token_type,
            expires_at: self.expires_at.map(Timestamp::micros),
            refresh_expires_at: self.refresh_expires_at.map(Timestamp::micros),
            scopes: self.scopes.as_deref(),
            metadata: &self.metadata,
        };
        // Measured first: a buffer that grows leaves copies of the tokens behind.
        let mut length = Length(0);
        serde_json::to_writer(&mut length, &body)?;
        let mut bytes = Zeroizing::new(Vec::with_capacity(length.0));
        serde_json::to_writer(&mut *bytes, &body)?;
        Ok(bytes)
    }

    /// From [`TokenSet::to_json`]. Fields that a newer release added are skipped: a set must
    /// survive a step back to the release before.
    ///
    /// # Errors
    /// When the bytes are none.
    pub fn from_json(bytes: &[u8]) -> serde_json::Result<Self> {
        let body: Incoming = serde_json::from_slice(bytes)?;
        Ok(Self {
            sent_at: Timestamp::from_micros(body.sent_at),
            access_token: body.access_token.map(|token| token.0),
            refresh_token: body.refresh_token.map(|token| token.0),
            id_token: body.id_token.map(|token| token.0),
            token_secret: body.token_secret.map(|token| token.0),
            token_type: body.token_type,
            expires_at: body.expires_at.map(Timestamp::from_micros),
            refresh_expires_at: body.refresh_expires_at.map(Timestamp::from_micros),
            scopes: body.scopes,
            metadata: body.metadata,
        })
    }
}

/// Token types know no case (RFC 6749 section 5.1), but HTTP clients that send it as a scheme are
/// used to this one.
fn canonical(token_type: String) -> String {
    if token_type.eq_ignore_ascii_case("bearer") {
        "Bearer".to_owned()
    } else {
        token_type
    }
}

/// Shows no token, and of the metadata only what it is called.
impl fmt::Debug for TokenSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenSet")
            .field("sent_at", &self.sent_at)
            .field("expires_at", &self.expires_at)
            .field("scopes", &self.scopes)
            .field("metadata", &self.metadata.keys())
            .finish_non_exhaustive()
    }
}

/// Borrows, so that nothing is copied on its way out. Times are microseconds since the epoch.
#[derive(Serialize)]
struct Outgoing<'a> {
    sent_at: i64,
    access_token: Option<&'a str>,
    refresh_token: Option<&'a str>,
    id_token: Option<&'a str>,
    token_secret: Option<&'a str>,
    token_type: &'a str,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    scopes: Option<&'a [String]>,
    metadata: &'a Map<String, Value>,
}

#[derive(Deserialize)]
struct Incoming {
    sent_at: i64,
    access_token: Option<Token>,
    refresh_token: Option<Token>,
    id_token: Option<Token>,
    token_secret: Option<Token>,
    token_type: String,
    expires_at: Option<i64>,
    refresh_expires_at: Option<i64>,
    scopes: Option<Vec<String>>,
    metadata: Map<String, Value>,
}

/// A token, wiped when dropped.
struct Token(SecretString);

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(SecretString::from(text)))
    }
}

/// Counts what is written to it.
struct Length(usize);

impl io::Write for Length {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
