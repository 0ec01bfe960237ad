//! Ending what nobody finished. Every replica may sweep at the same time: each step is a
//! conditional update.

use std::time::Duration;

use super::adopt::lock_connection;
use super::{Authorizations, Flow, trail};
use crate::access::audit::{Action, Entry, Who};
use crate::broker::connections;
use crate::broker::token_set::TokenSet;
use crate::error::Error;
use crate::model::{
    Authorization, AuthorizationFailure, AuthorizationIntent, AuthorizationState, ConnectionState,
    EventKind, Grant, NewEvent, Timestamp,
};
use crate::store::{self, transact};

/// How long whoever redeemed the code has to finish it themselves; also how long a link stays open
/// past its time for a code that is being redeemed.
const IN_WORK: Duration = Duration::from_secs(60);

/// When an authorisation that can't be finished is given up, counted from the end of its time.
const GIVE_UP: Duration = Duration::from_secs(24 * 60 * 60);

/// How long visits are kept past their time.
const VISITS_KEPT: Duration = Duration::from_secs(60 * 60);

/// Tokens that nobody may use any more, and whose they are.
struct Doomed {
    tokens: TokenSet,
    account_id: String,
}

impl Authorizations {
    /// Ends up to `limit` authorisations whose time is over, finishes those that a crash left, and
    /// forgets as many of the long finished ones; answers how many it changed. One that can't be
    /// ended is logged and left to the next sweep.
    ///
    /// # Errors
    /// The store's.
    pub async fn sweep(&self, limit: i64) -> Result<usize, Error> {
        let now = self.clock.now();
        let in_work = now.minus(IN_WORK);
        let mut conn = self.store.read().await?;
        let strays =
            store::authorizations::any_tenant_stray(&mut conn, now, in_work, limit).await?;
        drop(conn);
        let mut changed = 0;
        for stray in strays {
            let id = stray.id.clone();
            match self.end(stray, now).await {
                Ok(ended) => changed += usize::from(ended),
                Err(error) => {
                    tracing::warn!(%error, authorization = %id, "a stray authorization stays open");
                }
            }
        }
        let kept_since = now.minus(self.config.retention);
        let visits_since = now.minus(VISITS_KEPT);
        let mut conn = self.store.write().await?;
        changed += store::authorizations::any_tenant_prune(&mut conn, kept_since, limit).await?;
        changed +=
            store::authorizations::any_tenant_prune_visits(&mut conn, visits_since, limit).await?;
        Ok(changed)
    }

    /// Whether anything changed.
    async fn end(&self, stray: Authorization, now: Timestamp) -> Result<bool, Error> {
        match stray.state {
            AuthorizationState::Pending if stray.expires_at <= now.minus(IN_WORK) => {
                self.expire(&stray).await
            }
            AuthorizationState::Exchanged if stray.updated_at <= now.minus(IN_WORK) => {
                self.finish_stray(stray, now).await
            }
            AuthorizationState::AwaitingConfirmation if stray.expires_at <= now => {
                match stray.intent {
                    AuthorizationIntent::Connect => self.lapse(stray).await,
                    // It made nothing.
                    AuthorizationIntent::SignIn => self.expire(&stray).await,
                }
            }
            AuthorizationState::Pending
            | AuthorizationState::Exchanged
            | AuthorizationState::AwaitingConfirmation
            | AuthorizationState::Succeeded
            | AuthorizationState::Failed
            | AuthorizationState::Expired => Ok(false),
        }
    }

    async fn expire(&self, unfinished: &Authorization) -> Result<bool, Error> {
        let expired = self.expired(unfinished);
        transact!(self.store, |tx| {
            let ended = store::authorizations::advance(&mut tx, &expired, unfinished.state).await?;
            if ended {
                self.record(&mut tx, &nobody_came(unfinished)).await?;
            }
            Ok(ended)
        })
    }

    pub(super) fn expired(&self, authorization: &Authorization) -> Authorization {
        Authorization {
            state: AuthorizationState::Expired,
            tokens: None,
            confirmation_hash: match authorization.intent {
                AuthorizationIntent::Connect => None,
                // Still tells a code that came too late from one that was never right. No state but
                // the one that waits for a code takes it.
                AuthorizationIntent::SignIn => authorization.confirmation_hash.clone(),
            },
            updated_at: self.clock.now(),
            ..authorization.clone()
        }
    }

    async fn finish_stray(&self, stray: Authorization, now: Timestamp) -> Result<bool, Error> {
        let finished = match self.flow(stray.clone(), sweeper(&stray)).await {
            Ok(flow) => self.finish(&flow, stray.clone()).await.map(drop),
            Err(error) => Err(error),
        };
        match finished {
            Ok(()) => Ok(true),
            Err(Error::Store(error)) => Err(Error::Store(error)),
            Err(error) if stray.expires_at <= now.minus(GIVE_UP) => {
                tracing::error!(%error, authorization = %stray.id, "an authorization is given up");
                let failure = AuthorizationFailure {
                    reason: "EXCHANGE_FAILED".to_owned(),
                    message: "the tokens were kept, but no connection could be made".to_owned(),
                    ..AuthorizationFailure::default()
                };
                let from = AuthorizationState::Exchanged;
                let action = Action::AuthorizationCompleted;
                let entry = trail::entry(action, sweeper(&stray), &stray);
                self.fail(&stray, from, failure, entry).await?;
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    /// Nobody confirmed it: what it made is taken back.
    async fn lapse(&self, unconfirmed: Authorization) -> Result<bool, Error> {
        let who = sweeper(&unconfirmed);
        let flow = self.flow(unconfirmed.clone(), who).await?;
        let (lapsed, doomed) = transact!(self.store, |tx| {
            let from = AuthorizationState::AwaitingConfirmation;
            if !store::authorizations::advance(&mut tx, &unconfirmed, from).await? {
                return Ok((false, None));
            }
            let mut next = self.expired(&unconfirmed);
            let doomed = if unconfirmed.tokens.is_some() {
                self.staged(&unconfirmed)
                    .inspect_err(|error| tracing::warn!(%error, "tokens that do not open"))
                    .ok()
                    .map(|(tokens, identity)| Doomed {
                        tokens,
                        account_id: identity.and_then(|it| it.account_id).unwrap_or_default(),
                    })
            } else {
                let made = unconfirmed.connection_id.as_deref().unwrap_or_default();
                let (taken_back, doomed) = self.take_back(&mut tx, &flow, made).await?;
                if taken_back {
                    next.connection_id = None;
                }
                doomed
            };
            store::authorizations::advance(&mut tx, &next, from).await?;
            let entry = nobody_came(&unconfirmed).provider(&flow.provider.id);
            self.record(&mut tx, &entry).await?;
            Ok((true, doomed))
        })?;
        self.poke.notify_one();
        if let Some(doomed) = doomed {
            // Some providers end the whole consent with one token: an account that somebody uses
            // here is left alone.
            let Doomed { tokens, account_id } = &doomed;
            if account_id.is_empty() || !self.is_connected(&flow.app, account_id).await {
                self.discard(&flow.client, tokens).await;
            }
        }
        Ok(lapsed)
    }

    /// Deletes a connection that is still pending, and its grant if nobody shares it.
    async fn take_back(
        &self,
        tx: &mut store::Tx,
        flow: &Flow,
        connection_id: &str,
    ) -> Result<(bool, Option<Doomed>), Error> {
        let now = self.clock.now();
        let tenant = &flow.authorization.tenant;
        let Some((connection, grant)) = lock_connection(tx, tenant, connection_id).await? else {
            return Ok((false, None));
        };
        if connection.state != ConnectionState::Pending {
            return Ok((false, None));
        }
        let reason = "confirmation_expired";
        let event = NewEvent::of(EventKind::Deleted, &connection, &grant, reason, now);
        store::events::append(tx, &event).await?;
        let action = Action::ConnectionDeleted;
        let entry = connections::entry(action, &flow.who, &connection).reason(reason);
        self.record(tx, &entry).await?;
        store::connections::delete(tx, tenant, &connection.id, now).await?;
        let shared = store::connections::of_grant(tx, &grant.tenant, &grant.id).await?;
        if !shared.is_empty() {
            return Ok((true, None));
        }
        store::grants::delete(tx, tenant, &grant.id).await?;
        let doomed = self.opened(&grant).map(|tokens| Doomed {
            tokens,
            account_id: connection.account_id,
        });
        Ok((true, doomed))
    }

    /// A grant's tokens, as far as they open.
    fn opened(&self, grant: &Grant) -> Option<TokenSet> {
        let access_token = self.vault.access_token(grant).ok().flatten();
        let refresh_token = self.vault.refresh_token(grant).ok().flatten();
        (access_token.is_some() || refresh_token.is_some()).then(|| TokenSet {
            sent_at: grant.issued_at,
            access_token,
            refresh_token,
            id_token: None,
            token_secret: None,
            token_type: grant.token_type.clone(),
            expires_at: grant.expires_at,
            refresh_expires_at: grant.refresh_expires_at,
            scopes: None,
            metadata: serde_json::Map::new(),
        })
    }
}

fn sweeper(authorization: &Authorization) -> Who {
    Who::system("sweep", &authorization.tenant)
}

/// The browser did not come back, or nobody confirmed.
fn nobody_came(authorization: &Authorization) -> Entry {
    let action = match authorization.state {
        AuthorizationState::Pending => Action::AuthorizationCompleted,
        _ => Action::AuthorizationConfirmed,
    };
    trail::entry(action, sweeper(authorization), authorization).failed("EXPIRED")
}
