//! Authorisations: from the link that a caller asks for to the connection that it makes.
//!
//! The steps in order: `start` makes the link, `visit` sends a browser to the provider,
//! `callback` takes it back and redeems the code, `finish` makes the connection, `confirm`
//! activates it. `sweep` ends what nobody finished, `close` what a person leaves who is erased,
//! `import` goes the short way, `accounts` shows the result, `sign_in` goes the same way as far as
//! the account. Each step is one conditional update, so that two browsers or two replicas can't both
//! take it. What is locked is locked in this order: the authorisation, connections by id, grants by
//! id.

mod accounts;
mod adopt;
mod answer;
mod callback;
mod close;
mod confirm;
mod finish;
mod import;
mod sign_in;
mod staged;
mod start;
mod sweep;
mod trail;
mod visit;

use std::sync::Arc;

use tokio::sync::Notify;
use url::Url;

pub use accounts::AppAccounts;
pub use callback::{CallbackOutcome, browser_key};
pub use import::{Imported, NewImport};
pub use sign_in::{NewSignIn, SignInStarted};
pub use start::{NewAuthorization, Started};
pub use visit::{BrowserTie, Gone, Visited};

use super::token_set::TokenSet;
use super::vault::Vault;
use crate::access::audit::{Entry, Who};
use crate::access::{Permission, Principal};
use crate::clock::Clock;
use crate::config;
use crate::error::{Error, Precondition, Resource};
use crate::model::{
    App, AppState, Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationState,
    Provider,
};
use crate::oauth::{Http, ProviderClient, Revocation};
use crate::registry::Registry;
use crate::store::{self, Conn, Store, transact};

/// Connects accounts. Shared behind an `Arc`.
pub struct Authorizations {
    store: Store,
    vault: Vault,
    clock: Clock,
    http: Http,
    registry: Arc<Registry>,
    config: config::Authorizations,
    public_url: Url,
    poke: Arc<Notify>,
}

/// An authorisation with what it takes to go on with it.
struct Flow {
    authorization: Authorization,
    app: App,
    /// As defined: its templates are not filled in.
    provider: Provider,
    client: ProviderClient,
    /// Whoever goes on with it.
    who: Who,
}

impl Authorizations {
    /// Over a store. `public_url` is where browsers reach us (its path ends in a slash), and
    /// `poke` wakes the relay of events after a commit.
    #[allow(clippy::too_many_arguments, reason = "wired in one place")]
    pub fn new(
        store: Store,
        vault: Vault,
        clock: Clock,
        http: Http,
        registry: Arc<Registry>,
        config: config::Authorizations,
        public_url: Url,
        poke: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            vault,
            clock,
            http,
            registry,
            config,
            public_url,
            poke,
        }
    }

    /// One authorisation. One whose time is over is shown as expired, whether or not the sweeper
    /// has been there.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`] for what the caller is not allowed, or the
    /// store's.
    pub async fn get(&self, principal: &Principal, id: &str) -> Result<Authorization, Error> {
        let mut conn = self.store.read().await?;
        let mut authorization = self.find_allowed(&mut conn, principal, id).await?;
        if self.has_lapsed(&authorization) {
            authorization.state = AuthorizationState::Expired;
        }
        Ok(authorization)
    }

    /// Whether its time is over and it still waits for somebody.
    fn has_lapsed(&self, authorization: &Authorization) -> bool {
        let waits = matches!(
            authorization.state,
            AuthorizationState::Pending | AuthorizationState::AwaitingConfirmation
        );
        waits && authorization.expires_at <= self.clock.now()
    }

    async fn find_allowed(
        &self,
        conn: &mut Conn,
        principal: &Principal,
        id: &str,
    ) -> Result<Authorization, Error> {
        let tenant = &principal.tenant;
        let mut found = store::authorizations::find(conn, tenant, id).await?;
        if let Some(authorization) = &found {
            let app = self
                .registry
                .app(conn, tenant, &authorization.app_id)
                .await?;
            let allowed = app
                .is_some_and(|app| principal.allows(&app.id, &app.provider, &authorization.owner));
            if !allowed {
                found = None;
            }
        }
        found.ok_or_else(|| {
            let missing = Error::NotFound(Resource::Authorization, id.to_owned());
            principal.hidden(Permission::Authorize, missing)
        })
    }

    /// The app of this name, if the caller is allowed it for this owner.
    async fn app_allowed(
        &self,
        conn: &mut Conn,
        principal: &Principal,
        name: &str,
        owner: &str,
        permission: Permission,
    ) -> Result<App, Error> {
        self.registry
            .app(conn, &principal.tenant, name)
            .await?
            .filter(|app| principal.allows(&app.id, &app.provider, owner))
            .ok_or_else(|| {
                let missing = Error::NotFound(Resource::App, name.to_owned());
                principal.hidden(permission, missing)
            })
    }

    /// The authorisation with its app at its provider.
    async fn flow(&self, authorization: Authorization, who: Who) -> Result<Flow, Error> {
        let mut conn = self.store.read().await?;
        let tenant = &authorization.tenant;
        let app = self
            .registry
            .app(&mut conn, tenant, &authorization.app_id)
            .await?
            .ok_or_else(|| Error::NotFound(Resource::App, authorization.app_id.clone()))?;
        let provider = self
            .registry
            .provider(&mut conn, tenant, &app.provider)
            .await?;
        drop(conn);
        let asked = match authorization.intent {
            AuthorizationIntent::Connect => provider.clone(),
            AuthorizationIntent::SignIn => sign_in::for_identity(&provider),
        };
        let client = self.registry.client(
            &app,
            &asked,
            Some(self.redirect_uri(&app, &authorization.redirect_uri)),
        )?;
        Ok(Flow {
            authorization,
            app,
            provider,
            client,
            who,
        })
    }

    /// The redirect URI sent to the provider: the caller's own, or the app's callback path.
    fn redirect_uri(&self, app: &App, own: &str) -> String {
        if own.is_empty() {
            self.registry.callback_url(&app.id)
        } else {
            own.to_owned()
        }
    }

    /// Ends an authorisation that waits in the state `from` with a failure, which `entry` tells of.
    /// Somebody else may have been first; what stands then is answered.
    async fn fail(
        &self,
        authorization: &Authorization,
        from: AuthorizationState,
        failure: AuthorizationFailure,
        entry: Entry,
    ) -> Result<Authorization, Error> {
        let entry = trail::failed(entry, &failure);
        transact!(self.store, |tx| {
            let failed = self.failed(authorization, failure.clone());
            if store::authorizations::advance(&mut tx, &failed, from).await? {
                self.record(&mut tx, &entry).await?;
                return Ok(failed);
            }
            let id = &authorization.id;
            let found = store::authorizations::find(&mut tx, &authorization.tenant, id).await?;
            found.ok_or_else(|| Error::NotFound(Resource::Authorization, id.clone()))
        })
    }

    fn failed(
        &self,
        authorization: &Authorization,
        failure: AuthorizationFailure,
    ) -> Authorization {
        Authorization {
            state: AuthorizationState::Failed,
            tokens: None,
            confirmation_hash: None,
            failure,
            updated_at: self.clock.now(),
            ..authorization.clone()
        }
    }

    /// Revokes tokens at the provider that nobody here may use. Best effort: they were never
    /// handed out. Whether the provider took it, or offers no revocation.
    async fn discard(&self, client: &ProviderClient, tokens: &TokenSet) -> bool {
        let revoked = client.revoke(
            &self.http,
            tokens.access_token.as_ref(),
            tokens.refresh_token.as_ref(),
        );
        match tokio::time::timeout(client.total_timeout(), revoked).await {
            Ok(Ok(Revocation::Done | Revocation::Unsupported)) => return true,
            Ok(Err(error)) => {
                tracing::warn!(%error, "superfluous tokens were not revoked at the provider");
            }
            Err(_) => tracing::warn!("revoking superfluous tokens took too long"),
        }
        false
    }
}

/// Refuses an app that was switched off.
fn require_active(app: &App) -> Result<(), Error> {
    match app.state {
        AppState::Active => Ok(()),
        AppState::Inactive => Err(Error::precondition(
            Precondition::AppInactive,
            "the app was switched off; an operator can switch it on again",
        )),
    }
}

/// Refuses a person who is not the authorisation's owner. Nothing is spent by that.
fn require_owner(authorization: &Authorization, owner: &str) -> Result<(), Error> {
    if authorization.owner == owner {
        Ok(())
    } else {
        Err(Error::precondition(
            Precondition::OwnerMismatch,
            "the authorization belongs to another owner",
        ))
    }
}

/// Refuses a sign-in where a connection is made.
fn require_connecting(authorization: &Authorization) -> Result<(), Error> {
    match authorization.intent {
        AuthorizationIntent::Connect => Ok(()),
        AuthorizationIntent::SignIn => Err(wrong_state(
            "the authorization is a sign-in: CreateSession takes its code",
        )),
    }
}

fn wrong_state(message: &str) -> Error {
    Error::precondition(Precondition::AuthorizationState, message)
}

/// Somebody wrote between our reading and our writing: the transaction runs again.
fn overtaken() -> Error {
    Error::Store(store::Error::Busy("a row was changed meanwhile".into()))
}
