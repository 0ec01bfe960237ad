//! From kept tokens to a connection. May be begun again by anybody, at any time, by any replica:
//! the authorisation leaves its state once.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::adopt::Adoption;
use super::trail;
use super::{Authorizations, Flow};
use crate::access::audit::Action;
use crate::broker::token_set::TokenSet;
use crate::crypto::{digest, random};
use crate::error::{Error, Resource};
use crate::model::{
    App, Authorization, AuthorizationFailure, AuthorizationMode, AuthorizationState, Connection,
    ConnectionKind, ConnectionState, IdKind,
};
use crate::oauth::{Failure, Identity, ProviderClient, TokenAnswer};
use crate::store::{self, Tx, transact};

/// How often the account is asked for. Without it a reconnection would make a second connection.
const IDENTITY_ATTEMPTS: u32 = 2;
const IDENTITY_PAUSE: Duration = Duration::from_millis(250);

/// An authorisation that has come as far as it can without its owner.
pub(super) struct Finished {
    pub(super) authorization: Authorization,
    /// For its confirmation, told once.
    pub(super) code: Option<SecretString>,
    /// The account's name.
    pub(super) account: Option<String>,
}

impl Finished {
    pub(super) fn without_code(authorization: Authorization) -> Self {
        Self {
            authorization,
            code: None,
            account: None,
        }
    }
}

impl Authorizations {
    /// Makes the connection of an authorisation whose tokens are kept. Whoever comes second gets
    /// what the first made, without the code.
    ///
    /// # Errors
    /// The store's, or [`Error::Internal`]; the sweeper then tries again.
    pub(super) async fn finish(
        &self,
        flow: &Flow,
        exchanged: Authorization,
    ) -> Result<Finished, Error> {
        let (tokens, _) = self.staged(&exchanged)?;
        let identity = self
            .identity(&flow.client, &tokens)
            .await
            .unwrap_or_default();
        let code = random::random_token(32);
        let settled = transact!(self.store, |tx| {
            self.settle(&mut tx, flow, &exchanged, &tokens, &identity, &code)
                .await
        })?;
        let Some(settled) = settled else {
            let Authorization { tenant, id, .. } = &exchanged;
            let mut conn = self.store.read().await?;
            let found = store::authorizations::find(&mut conn, tenant, id).await?;
            let found =
                found.ok_or_else(|| Error::NotFound(Resource::Authorization, id.clone()))?;
            return Ok(Finished::without_code(found));
        };
        self.poke.notify_one();
        if settled.state == AuthorizationState::Failed {
            self.discard_stranger(flow, &tokens, &identity).await;
        }
        let waits = settled.state == AuthorizationState::AwaitingConfirmation;
        Ok(Finished {
            authorization: settled,
            code: waits.then_some(code),
            account: identity.display_name,
        })
    }

    /// The account behind tokens; `None` when it can't be learnt.
    pub(super) async fn identity(
        &self,
        client: &ProviderClient,
        tokens: &TokenSet,
    ) -> Option<Identity> {
        let answer = TokenAnswer {
            refresh_token: tokens.refresh_token.clone(),
            id_token: tokens.id_token.clone(),
            token_type: tokens.token_type.clone(),
            metadata: tokens.metadata.clone(),
            ..TokenAnswer::bare(tokens.access_token.clone()?)
        };
        let mut attempt = 0;
        loop {
            attempt += 1;
            let asked = client.identity(&self.http, &answer);
            let failure = match tokio::time::timeout(client.total_timeout(), asked).await {
                Ok(Ok(identity)) => return Some(identity),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Ambiguous {
                    detail: "no answer within the deadline".to_owned(),
                },
            };
            let passing = matches!(
                failure,
                Failure::NotSent { .. } | Failure::Ambiguous { .. } | Failure::Transient { .. }
            );
            if !passing || attempt >= IDENTITY_ATTEMPTS {
                tracing::warn!(error = %failure, "the account behind new tokens is not known");
                return None;
            }
            tokio::time::sleep(IDENTITY_PAUSE).await;
        }
    }

    /// The one step out of the state `Exchanged`; `None` when somebody else took it.
    async fn settle(
        &self,
        tx: &mut Tx,
        flow: &Flow,
        exchanged: &Authorization,
        tokens: &TokenSet,
        identity: &Identity,
        code: &SecretString,
    ) -> Result<Option<Authorization>, Error> {
        let from = AuthorizationState::Exchanged;
        // Written as it is: the lock of both engines, and the question whether it is our turn.
        if !store::authorizations::advance(tx, exchanged, from).await? {
            return Ok(None);
        }
        let existing = match self.existing(tx, exchanged, identity).await? {
            Ok(existing) => existing,
            Err(mismatch) => {
                let entry = flow.entry(Action::AuthorizationCompleted);
                let entry = trail::failed(entry, &mismatch);
                let failed = self.failed(exchanged, mismatch);
                store::authorizations::advance(tx, &failed, from).await?;
                self.record(tx, &entry).await?;
                return Ok(Some(failed));
            }
        };
        let now = self.clock.now();
        let mut next = Authorization {
            updated_at: now,
            ..exchanged.clone()
        };
        // Who owns the redirect URI has told the owner already.
        let confirmed =
            exchanged.mode == AuthorizationMode::LinkOnly || !exchanged.redirect_uri.is_empty();
        if confirmed {
            let connection = self
                .adopt_for(tx, flow, exchanged, tokens, identity, existing, true)
                .await?;
            next.connection_id = Some(connection.id);
            next.state = AuthorizationState::Succeeded;
            next.tokens = None;
        } else {
            next.state = AuthorizationState::AwaitingConfirmation;
            next.expires_at = now.plus(self.config.confirmation_ttl);
            next.confirmation_hash = Some(digest::sha256(code.expose_secret().as_bytes()).to_vec());
            if let Some(existing) = existing {
                // Untouched until its owner confirms: the tokens wait here.
                next.tokens = Some(self.stage(exchanged, tokens, Some(identity))?);
                next.connection_id = Some(existing.id);
            } else {
                let connection = self
                    .adopt_for(tx, flow, exchanged, tokens, identity, None, false)
                    .await?;
                next.connection_id = Some(connection.id);
                next.tokens = None;
            }
        }
        store::authorizations::advance(tx, &next, from).await?;
        let entry = flow
            .entry(Action::AuthorizationCompleted)
            .detail("state", next.state.as_str())
            .detail(
                "connection_id",
                next.connection_id.as_deref().unwrap_or_default(),
            );
        self.record(tx, &entry).await?;
        Ok(Some(next))
    }

    /// The connection that the account has already: the one to renew, which must be the same
    /// account's, or the one found by the account.
    async fn existing(
        &self,
        tx: &mut Tx,
        authorization: &Authorization,
        identity: &Identity,
    ) -> Result<Result<Option<Connection>, AuthorizationFailure>, Error> {
        let tenant = &authorization.tenant;
        if let Some(id) = &authorization.renews
            && let Some((connection, _)) = store::connections::find(tx, tenant, id).await?
        {
            let told = identity.account_id.as_deref();
            return Ok(same_account(&connection, told).map(|()| Some(connection)));
        }
        let key = account_key(authorization, identity);
        let Authorization { app_id, owner, .. } = authorization;
        let found = store::connections::find_account(tx, tenant, app_id, owner, &key).await?;
        Ok(Ok(found))
    }

    /// Gives an authorisation's tokens their connection.
    #[allow(clippy::too_many_arguments, reason = "one call from two places")]
    pub(super) async fn adopt_for(
        &self,
        tx: &mut Tx,
        flow: &Flow,
        authorization: &Authorization,
        tokens: &TokenSet,
        identity: &Identity,
        existing: Option<Connection>,
        confirmed: bool,
    ) -> Result<Connection, Error> {
        let adoption = Adoption {
            app: &flow.app,
            provider: &flow.provider,
            kind: ConnectionKind::Oauth2,
            owner: &authorization.owner,
            tokens,
            identity,
            account_key: account_key(authorization, identity),
            requested_scopes: &authorization.scopes,
            policy: authorization.refresh_policy,
            state: if confirmed {
                ConnectionState::Active
            } else {
                ConnectionState::Pending
            },
            existing: existing.map(|connection| connection.id),
            new_id: IdKind::Connection.new_id(),
            display_name: "",
            labels: None,
            who: &flow.who,
            authorization: Some(&authorization.id),
        };
        self.adopt(tx, &adoption).await
    }

    /// Revokes the tokens of an account that was not the one wanted, unless somebody has connected
    /// it here: some providers end the whole consent with one token.
    async fn discard_stranger(&self, flow: &Flow, tokens: &TokenSet, identity: &Identity) {
        let Some(account_id) = &identity.account_id else {
            return;
        };
        if !self.is_connected(&flow.app, account_id).await {
            self.discard(&flow.client, tokens).await;
        }
    }

    /// Revokes tokens that their owner may not use any more, unless another owner has connected the
    /// account, for the same reason. Whether none is left alive as far as this owner is concerned.
    pub(super) async fn discard_owned(
        &self,
        flow: &Flow,
        tokens: &TokenSet,
        identity: Option<Identity>,
    ) -> bool {
        let identity = match identity {
            Some(identity) => Some(identity),
            None => self.identity(&flow.client, tokens).await,
        };
        let owner = &flow.authorization.owner;
        if let Some(account_id) = identity.and_then(|identity| identity.account_id)
            && self.is_anothers(&flow.app, &account_id, owner).await
        {
            return true;
        }
        self.discard(&flow.client, tokens).await
    }

    /// Whether an account is in use through an app, whoever its owner is. In doubt it is.
    pub(super) async fn is_connected(&self, app: &App, account_id: &str) -> bool {
        self.is_anothers(app, account_id, "").await
    }

    /// Whether another owner than this one uses an account through an app. In doubt one does.
    pub(super) async fn is_anothers(&self, app: &App, account_id: &str, but: &str) -> bool {
        let asked = async {
            let mut conn = self.store.read().await?;
            store::accounts::is_connected(&mut conn, &app.tenant, &app.id, account_id, but).await
        };
        asked.await.unwrap_or(true)
    }
}

/// What makes a connection unique for its owner: the account, or the authorisation where the
/// provider does not tell.
pub(super) fn account_key(authorization: &Authorization, identity: &Identity) -> String {
    identity
        .account_id
        .clone()
        .unwrap_or_else(|| authorization.id.clone())
}

fn same_account(connection: &Connection, told: Option<&str>) -> Result<(), AuthorizationFailure> {
    let known = connection.account_id.as_str();
    let message = match told {
        _ if known.is_empty() => return Ok(()),
        Some(told) if told == known => return Ok(()),
        Some(_) => "another account was chosen at the provider than the connection's",
        None => "the provider did not tell whose account was chosen",
    };
    Err(AuthorizationFailure {
        reason: "ACCOUNT_MISMATCH".to_owned(),
        message: message.to_owned(),
        ..AuthorizationFailure::default()
    })
}
