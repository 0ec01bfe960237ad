//! Visits of a link. Each mints what it needs for itself, so that whoever follows a link before
//! the person does (a scanner, a preview, another tab) spends nothing of theirs.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::callback::browser_key;
use super::{Authorizations, require_active};
use crate::access::Origin;
use crate::access::audit::Who;
use crate::crypto::{Context, Purpose, digest, random};
use crate::error::{Error, Precondition};
use crate::model::provider::Pkce;
use crate::model::{Authorization, AuthorizationState, Sealed, Timestamp, Visit};
use crate::oauth::{AuthorizationRequest, ProviderClient, new_code_verifier};
use crate::store::{self, transact};

/// Most visits of one link: enough for every scanner on the way, too few to fill the table.
const VISITS_MAX: i64 = 50;

/// Characters of a ticket: 32 bytes in base64url.
const TICKET_CHARS: usize = 43;

/// What a visit of a link leads to.
pub enum Visited {
    /// The provider's consent page.
    Redirect {
        /// Where to. Holds the state: not to be logged.
        url: Url,
        /// The cookie that ties this browser to the callback.
        tie: BrowserTie,
    },
    /// The link worked once.
    Gone(Gone),
    /// There is no such link.
    Unknown,
}

/// Why a link no longer works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its time is over.
    Expired,
    /// It was finished.
    Used,
}

/// What a browser must bring back with the callback.
#[derive(Clone, Debug)]
pub struct BrowserTie {
    /// Names the visit, as [`browser_key`] does from the callback's state. Not secret.
    pub key: String,
    /// The secret to bring back.
    pub value: SecretString,
    /// How long it is of use.
    pub max_age: Duration,
}

/// What a visit mints.
pub(super) struct Minted {
    pub(super) url: Url,
    pub(super) visit: Visit,
    pub(super) tie: Option<BrowserTie>,
}

impl Authorizations {
    /// Takes part in an authorisation by its link.
    ///
    /// # Errors
    /// `APP_INACTIVE`, `APP_MISCONFIGURED`; [`Error::ResourceExhausted`] when the link was visited
    /// too often; or the store's.
    pub async fn visit(&self, ticket: &str) -> Result<Visited, Error> {
        if ticket.len() != TICKET_CHARS {
            return Ok(Visited::Unknown);
        }
        let mut conn = self.store.read().await?;
        let hash = digest::sha256(ticket.as_bytes());
        let found = store::authorizations::any_tenant_find_ticket(&mut conn, &hash).await?;
        let Some(authorization) = found else {
            return Ok(Visited::Unknown);
        };
        if let Some(gone) = gone(&authorization, self.clock.now()) {
            return Ok(Visited::Gone(gone));
        }
        if store::authorizations::visit_count(&mut conn, &authorization.id).await? >= VISITS_MAX {
            return Err(Error::ResourceExhausted {
                message: "the link was opened too often".to_owned(),
                retry_after: self.config.ttl,
            });
        }
        drop(conn);
        // A visit changes nothing that the audit trail tells of.
        let who = Who::browser(&authorization.id, &authorization.tenant, &Origin::default());
        let flow = self.flow(authorization, who).await?;
        require_active(&flow.app)?;
        let now = self.clock.now();
        let until = now
            .plus(self.config.state_ttl)
            .min(flow.authorization.expires_at);
        let minted = self.mint(&flow.authorization, &flow.client, true, until)?;
        transact!(self.store, |tx| {
            Ok(store::authorizations::insert_visit(&mut tx, &minted.visit).await?)
        })?;
        match minted.tie {
            Some(tie) => Ok(Visited::Redirect {
                url: minted.url,
                tie,
            }),
            None => Err(Error::internal("a visit without a cookie")),
        }
    }

    /// Mints state, PKCE verifier and nonce, and a cookie where the browser is ours to tie.
    pub(super) fn mint(
        &self,
        authorization: &Authorization,
        client: &ProviderClient,
        with_browser: bool,
        expires_at: Timestamp,
    ) -> Result<Minted, Error> {
        let now = self.clock.now();
        let provider = client.provider();
        let state = random::random_token(32);
        let state_hash = digest::sha256(state.expose_secret().as_bytes());
        let verifier = (provider.pkce != Pkce::Off).then(new_code_verifier);
        let nonce = provider.sends_nonce.then(|| random::random_token(32));
        let tie = with_browser.then(|| BrowserTie {
            key: browser_key(state.expose_secret()),
            value: random::random_token(32),
            max_age: expires_at.since(now),
        });
        let hint = authorization.login_hint.as_str();
        let url = client
            .authorization_url(&AuthorizationRequest {
                scopes: &authorization.scopes,
                state: state.expose_secret(),
                nonce: nonce.as_ref().map(|nonce| nonce.expose_secret()),
                code_verifier: verifier.as_ref(),
                login_hint: Some(hint).filter(|hint| !hint.is_empty()),
                extra_params: &authorization.parameters,
            })
            .map_err(|error| {
                Error::precondition(
                    Precondition::AppMisconfigured,
                    format!("the app's provider can't be asked: {error}"),
                )
            })?;
        let row = digest::hex(&state_hash);
        let seal = |purpose, secret: &Option<SecretString>| -> Result<Option<Sealed>, Error> {
            let Some(secret) = secret else {
                return Ok(None);
            };
            let context = Context {
                tenant: &authorization.tenant,
                purpose,
                row: &row,
            };
            let plaintext = secret.expose_secret().as_bytes();
            Ok(Some(self.vault.keyring().seal(&context, plaintext)?))
        };
        let visit = Visit {
            state_hash: state_hash.to_vec(),
            tenant: authorization.tenant.clone(),
            authorization_id: authorization.id.clone(),
            verifier: seal(Purpose::AuthorizationVerifier, &verifier)?,
            nonce: seal(Purpose::AuthorizationNonce, &nonce)?,
            cookie_hash: tie
                .as_ref()
                .map(|tie| digest::sha256(tie.value.expose_secret().as_bytes()).to_vec()),
            created_at: now,
            expires_at,
        };
        Ok(Minted { url, visit, tie })
    }
}

fn gone(authorization: &Authorization, now: Timestamp) -> Option<Gone> {
    match authorization.state {
        AuthorizationState::Pending => (authorization.expires_at <= now).then_some(Gone::Expired),
        AuthorizationState::Expired => Some(Gone::Expired),
        AuthorizationState::Exchanged
        | AuthorizationState::AwaitingConfirmation
        | AuthorizationState::Succeeded
        | AuthorizationState::Failed => Some(Gone::Used),
    }
}
