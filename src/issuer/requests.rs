//! Authorisation requests, from a client's first word to the code: what a browser or a client begins, a
//! person signs in for and decides, here or in the operator's own application.
//!
//! A request belongs to the browser that began it, by a cookie; whoever sends somebody else a link to
//! their own request gains nothing by it. It is decided once: each step is taken only from the state
//! before it, under the lock of the request's row.

mod asked;
mod begin;
mod operator;
mod person;
mod pushed;
mod redirects;

use std::fmt;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use operator::Accepted;

pub(super) use asked::require_active;
pub(super) use person::{Held, write};
pub(super) use redirects::with_code;

use super::{Issuer, ScopeWords, scopes};
use crate::access::Origin;
use crate::crypto::{digest, random};
use crate::error::{Error, Precondition, Resource};
use crate::model::{
    AuthorizationRequest, IdKind, OauthClient, OauthError, OauthErrorCode, RequestState, Timestamp,
    User,
};
use crate::store::{self, Conn};

/// A request that a person is to decide on.
#[derive(Debug)]
pub struct Begun {
    /// Its id.
    pub id: String,
    /// What ties the browser to it.
    pub cookie: SecretString,
    /// The page to go on with.
    pub next: Url,
    /// How long there is to decide.
    pub lifetime: Duration,
}

/// Why a browser's request is not begun.
#[derive(Debug)]
pub enum NotBegun {
    /// To be shown to the person: where else to send it is not known, or not to be trusted.
    Page(OauthError),
    /// To be sent back to the client.
    Redirect(Url),
    /// Not the client's fault.
    Failed(Error),
}

impl From<Error> for NotBegun {
    fn from(error: Error) -> Self {
        match error {
            Error::Oauth(error) => Self::Page(error),
            error => Self::Failed(error),
        }
    }
}

impl From<OauthError> for NotBegun {
    fn from(error: OauthError) -> Self {
        Self::Page(error)
    }
}

/// A request that a client pushed (RFC 9126).
#[derive(Debug)]
pub struct Pushed {
    /// What the browser is to bring: good once.
    pub request_uri: SecretString,
    /// For how long.
    pub expires_in: Duration,
}

/// A request, as the person who decides on it is shown it.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The request.
    pub request: AuthorizationRequest,
    /// Who asks.
    pub client: OauthClient,
    /// For what, in words.
    pub scopes: Vec<ScopeWords>,
    /// Who signed in.
    pub user: Option<User>,
}

/// What a person says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No.
    Deny,
}

/// How a request ends.
pub enum Finish {
    /// The browser goes back to the client. May hold the code: not to be logged.
    Redirect(Url),
    /// The device learns of it by itself.
    Device {
        /// Whether it was let in.
        accepted: bool,
    },
}

impl fmt::Debug for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redirect(_) => f.write_str("Redirect(…)"),
            Self::Device { accepted } => write!(f, "Device({accepted})"),
        }
    }
}

impl Issuer {
    /// A page of the browser's listener.
    pub(super) fn page(&self, path: &str) -> Result<Url, Error> {
        let base = self.parts.web_url.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/{path}")).map_err(Error::internal)
    }

    /// A request of a client in its first state; what else it has is filled in by whoever makes it.
    pub(super) fn new_request(
        &self,
        client: &OauthClient,
        state: RequestState,
        lifetime: Duration,
        origin: &Origin,
    ) -> AuthorizationRequest {
        let now = self.parts.clock.now();
        AuthorizationRequest {
            id: IdKind::AuthorizationRequest.new_id(),
            tenant: client.tenant.clone(),
            client_id: client.id.clone(),
            device_id: None,
            redirect_uri: String::new(),
            redirect_uri_sent: false,
            scopes: Vec::new(),
            resources: Vec::new(),
            client_state: String::new(),
            nonce: String::new(),
            code_challenge: String::new(),
            dpop_jkt: String::new(),
            login_hint: String::new(),
            request_uri_hash: None,
            cookie_hash: None,
            state,
            user_id: None,
            auth_time: None,
            granted_scopes: Vec::new(),
            error: String::new(),
            error_description: String::new(),
            ip: origin.ip_text(),
            user_agent: Origin::clean_user_agent(&origin.user_agent),
            created_at: now,
            expires_at: now.plus(lifetime),
        }
    }

    /// Ties a request to a browser. It is the caller's to store.
    pub(super) fn tie(&self, request: &mut AuthorizationRequest) -> Result<Begun, Error> {
        let cookie = random::random_token(32);
        request.cookie_hash = Some(hash_of(cookie.expose_secret()).to_vec());
        let id = request.id.clone();
        let next = match &self.parts.config.interaction_url {
            Some(url) => {
                let mut url = url.clone();
                url.query_pairs_mut()
                    .append_pair("authorization_request", &id);
                url
            }
            None => self.page(&format!("oauth2/sign-in/{id}"))?,
        };
        Ok(Begun {
            id,
            cookie,
            next,
            lifetime: request.expires_at.since(self.parts.clock.now()),
        })
    }

    /// The request of this id that has not lapsed, whosever browser began it.
    async fn standing(&self, conn: &mut Conn, id: &str) -> Result<AuthorizationRequest, Error> {
        // What has another form, PostgreSQL might not even take for a text.
        if !IdKind::AuthorizationRequest.matches(id) {
            return Err(unknown(id));
        }
        let found = store::issuer::requests::any_tenant_find(conn, id).await?;
        found
            .filter(|request| is_standing(request, self.parts.clock.now()))
            .ok_or_else(|| unknown(id))
    }

    /// The request with what is shown of it.
    async fn show(&self, conn: &mut Conn, request: AuthorizationRequest) -> Result<Shown, Error> {
        let client = self.client_of(conn, &request).await?;
        let user = match &request.user_id {
            Some(id) => store::users::find(conn, &request.tenant, id).await?,
            None => None,
        };
        Ok(Shown {
            scopes: scopes::in_words(&self.parts.config.scopes, &request.scopes),
            request,
            client,
            user,
        })
    }

    /// The client that asks, as long as it may.
    async fn client_of(
        &self,
        conn: &mut Conn,
        request: &AuthorizationRequest,
    ) -> Result<OauthClient, Error> {
        let found = store::clients::find(conn, &request.tenant, &request.client_id).await?;
        let client = found.ok_or_else(|| unknown(&request.id))?;
        require_active(&client).map_err(Error::Oauth)?;
        // The address may have been taken away since.
        let registered = &client.settings.redirect_uris;
        let known = redirects::matched(registered, Some(&request.redirect_uri)).is_some();
        if request.device_id.is_none() && !known {
            return Err(Error::oauth(
                OauthErrorCode::InvalidRequest,
                "the redirect_uri is no longer one that the client registered",
            ));
        }
        Ok(client)
    }
}

fn hash_of(cookie: &str) -> [u8; 32] {
    digest::sha256(cookie.as_bytes())
}

fn is_standing(request: &AuthorizationRequest, now: Timestamp) -> bool {
    request.state != RequestState::Pushed && request.expires_at > now
}

fn unknown(id: &str) -> Error {
    Error::NotFound(Resource::AuthorizationRequest, id.to_owned())
}

pub(super) fn decided() -> Error {
    Error::precondition(
        Precondition::AuthorizationRequestState,
        "the authorization request was decided before, or is not in a state for this",
    )
}

/// Refuses another browser than the one that began the request. Nothing is changed by that.
fn require_browser(expected: Option<&[u8]>, brought: &[u8; 32]) -> Result<(), Error> {
    if expected.is_some_and(|hash| digest::constant_time_eq(hash, brought)) {
        return Ok(());
    }
    Err(Error::precondition(
        Precondition::BrowserMismatch,
        "another browser began this",
    ))
}
