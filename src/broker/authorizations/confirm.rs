//! Confirmation: the owner's own session says that the browser which gave consent was theirs.

use super::{Authorizations, overtaken, require_connecting, require_owner, wrong_state};
use crate::access::Caller;
use crate::access::audit::{Action, Who};
use crate::crypto::digest;
use crate::error::{Error, Precondition, Resource};
use crate::model::{Authorization, AuthorizationState, ConnectionDetails, ConnectionState};
use crate::store::{self, transact};

use super::finish::account_key;

impl Authorizations {
    /// Activates the connection that an authorisation made, or gives the tokens that wait to the
    /// one that the account had. `owner` is who is signed in at the caller's.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`]; `OWNER_MISMATCH`,
    /// `CONFIRMATION_CODE_INVALID` and `AUTHORIZATION_STATE`, after which nothing has changed; or
    /// the store's.
    pub async fn confirm(
        &self,
        caller: &Caller,
        id: &str,
        code: &str,
        owner: &str,
    ) -> Result<ConnectionDetails, Error> {
        let mut conn = self.store.read().await?;
        let authorization = self.find_allowed(&mut conn, caller, id).await?;
        drop(conn);
        let outcome = self.try_confirm(caller, &authorization, code, owner).await;
        let action = Action::AuthorizationConfirmed;
        self.record_refusal(action, caller, &authorization, &outcome)
            .await;
        outcome
    }

    async fn try_confirm(
        &self,
        caller: &Caller,
        authorization: &Authorization,
        code: &str,
        owner: &str,
    ) -> Result<ConnectionDetails, Error> {
        require_connecting(authorization)?;
        require_owner(authorization, owner)?;
        self.judge_code(authorization, code)?;
        let who = Who::from(caller);
        let flow = self.flow(authorization.clone(), who).await?;
        let staged = match &authorization.tokens {
            Some(_) => {
                let (tokens, identity) = self.staged(authorization)?;
                Some((tokens, identity.unwrap_or_default()))
            }
            None => None,
        };
        let tenant = &authorization.tenant;
        let connection_id = transact!(self.store, |tx| {
            let from = AuthorizationState::AwaitingConfirmation;
            if !store::authorizations::advance(&mut tx, authorization, from).await? {
                return Err(wrong_state("the authorization was confirmed or has lapsed"));
            }
            let held = authorization.connection_id.as_deref().unwrap_or_default();
            let connection = if let Some((tokens, identity)) = &staged {
                let mut existing = store::connections::find(&mut tx, tenant, held)
                    .await?
                    .map(|(connection, _)| connection);
                if existing.is_none() {
                    // Deleted meanwhile; another of the same account may have come.
                    let Authorization { app_id, owner, .. } = authorization;
                    let key = account_key(authorization, identity);
                    existing =
                        store::connections::find_account(&mut tx, tenant, app_id, owner, &key)
                            .await?;
                }
                self.adopt_for(
                    &mut tx,
                    &flow,
                    authorization,
                    tokens,
                    identity,
                    existing,
                    true,
                )
                .await?
            } else {
                self.activate(&mut tx, &flow.provider, tenant, held)
                    .await?
                    .filter(|connection| connection.state == ConnectionState::Active)
                    .ok_or_else(|| wrong_state("its connection was revoked or deleted"))?
            };
            let next = Authorization {
                state: AuthorizationState::Succeeded,
                connection_id: Some(connection.id.clone()),
                tokens: None,
                updated_at: self.clock.now(),
                ..authorization.clone()
            };
            if !store::authorizations::advance(&mut tx, &next, from).await? {
                return Err(overtaken());
            }
            let entry = flow
                .entry(Action::AuthorizationConfirmed)
                .detail("connection_id", &connection.id);
            self.record(&mut tx, &entry).await?;
            Ok(connection.id)
        })?;
        self.poke.notify_one();
        self.details(tenant, &connection_id).await
    }

    fn judge_code(&self, authorization: &Authorization, code: &str) -> Result<(), Error> {
        match authorization.state {
            AuthorizationState::AwaitingConfirmation if self.has_lapsed(authorization) => {
                return Err(wrong_state("the time to confirm the authorization is over"));
            }
            AuthorizationState::AwaitingConfirmation => {}
            AuthorizationState::Succeeded => {
                return Err(Error::precondition(
                    Precondition::ConfirmationCode,
                    "the confirmation code was used already",
                ));
            }
            AuthorizationState::Pending
            | AuthorizationState::Exchanged
            | AuthorizationState::Failed
            | AuthorizationState::Expired => {
                return Err(wrong_state(
                    "the authorization does not wait for confirmation",
                ));
            }
        }
        let expected = authorization.confirmation_hash.as_deref();
        let told = digest::sha256(code.as_bytes());
        if expected.is_some_and(|expected| digest::constant_time_eq(expected, &told)) {
            Ok(())
        } else {
            Err(Error::precondition(
                Precondition::ConfirmationCode,
                "the confirmation code is wrong",
            ))
        }
    }

    pub(super) async fn details(
        &self,
        tenant: &str,
        connection_id: &str,
    ) -> Result<ConnectionDetails, Error> {
        let mut conn = self.store.read().await?;
        store::connections::find_details(&mut conn, tenant, connection_id)
            .await?
            .ok_or_else(|| Error::NotFound(Resource::Connection, connection_id.to_owned()))
    }
}
