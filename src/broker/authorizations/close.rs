//! Closing an owner's open authorisations: their person is being erased.

use super::{Authorizations, trail};
use crate::access::audit::{Action, Who};
use crate::error::Error;
use crate::model::{Authorization, AuthorizationState};
use crate::store::{self, transact};

/// Taken at a time.
const BATCH: i64 = 100;

/// What closing came to.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::broker) struct Closed {
    /// How many were closed.
    pub(in crate::broker) authorizations: i64,
    /// Of how many of those the provider could not be told to revoke the tokens.
    pub(in crate::broker) unrevoked: i64,
}

impl Authorizations {
    /// Closes the authorisations of an owner that are not finished, and revokes at the provider what
    /// they hold. One that somebody takes a step further meanwhile is left for the next call; what a
    /// step has made of it by then is a connection.
    ///
    /// # Errors
    /// The store's. A provider that could not be told to revoke is none: it is in the answer.
    pub(in crate::broker) async fn close_all_of(
        &self,
        who: &Who,
        tenant: &str,
        owner: &str,
    ) -> Result<Closed, Error> {
        let mut closed = Closed::default();
        let mut after = String::new();
        loop {
            let mut conn = self.store.read().await?;
            let open =
                store::authorizations::open_of_owner(&mut conn, tenant, owner, &after, BATCH)
                    .await?;
            drop(conn);
            let Some(last) = open.last() else {
                return Ok(closed);
            };
            after.clone_from(&last.id);
            for one in &open {
                // First: a crash behind it leaves the tokens where they are found again.
                let revoked = self.revoke_held(one, who).await?;
                if self.close(one, who).await? {
                    closed.authorizations += 1;
                    closed.unrevoked += i64::from(!revoked);
                }
            }
        }
    }

    /// Revokes the tokens that wait on an authorisation; whether none is left alive as far as this
    /// owner is concerned.
    async fn revoke_held(&self, open: &Authorization, who: &Who) -> Result<bool, Error> {
        if open.tokens.is_none() {
            return Ok(true);
        }
        let held = match self.flow(open.clone(), who.clone()).await {
            Ok(flow) => self.staged(open).map(|staged| (flow, staged)),
            Err(error) => Err(error),
        };
        let (flow, (tokens, identity)) = match held {
            Ok(held) => held,
            Err(Error::Store(error)) => return Err(Error::Store(error)),
            // No reason to keep them: the provider alone is not told.
            Err(error) => {
                tracing::warn!(%error, authorization = %open.id, "its tokens are not revoked");
                return Ok(false);
            }
        };
        Ok(self.discard_owned(&flow, &tokens, identity).await)
    }

    async fn close(&self, open: &Authorization, who: &Who) -> Result<bool, Error> {
        let action = match open.state {
            AuthorizationState::AwaitingConfirmation => Action::AuthorizationConfirmed,
            _ => Action::AuthorizationCompleted,
        };
        let entry = trail::entry(action, who, open).failed("ERASED");
        let closed = self.expired(open);
        transact!(self.store, |tx| {
            let ended = store::authorizations::advance(&mut tx, &closed, open.state).await?;
            if ended {
                self.record(&mut tx, &entry).await?;
            }
            Ok(ended)
        })
    }
}
