//! Revocation by the client that has the token (RFC 7009).

use super::introspection::hash_of;
use super::redeem::on_grant;
use super::{Credentials, Issuer};
use crate::access::Origin;
use crate::access::audit::{self, Action, Entry, Who};
use crate::error::Error;
use crate::model::{IssuedToken, IssuedTokenKind, OauthClient};
use crate::store::{self, transact};

/// Why a token, or a grant, ended that its client did not need any more.
const BY_CLIENT: &str = "revoked_by_client";

impl Issuer {
    /// Revokes a client's token: an access token by itself, a refresh token with all that came of the
    /// consent. A token that is nobody's, or another client's, is none to speak of.
    ///
    /// # Errors
    /// `invalid_client`, or the store's: then the token may still be good.
    pub async fn revoke_token(
        &self,
        credentials: &Credentials,
        token: &str,
        origin: &Origin,
    ) -> Result<(), Error> {
        let client = self.authenticate(credentials, origin).await?;
        let Some(hash) = hash_of(token) else {
            return Ok(());
        };
        let found = {
            let mut conn = self.parts.store.read().await?;
            store::issuer::tokens::any_tenant_find(&mut conn, &hash).await?
        };
        let Some(token) = found.filter(|token| token.client_id == client.id) else {
            return Ok(());
        };
        match (token.kind, &token.grant_id) {
            (IssuedTokenKind::Refresh, Some(grant_id)) => {
                self.revoke_all_of(&client, grant_id, origin).await
            }
            _ => self.revoke_one(&client, &token, origin).await,
        }
    }

    async fn revoke_all_of(
        &self,
        client: &OauthClient,
        grant_id: &str,
        origin: &Origin,
    ) -> Result<(), Error> {
        transact!(self.parts.store, |tx| {
            let locked = store::issuer::grants::lock(&mut tx, &client.tenant, grant_id).await?;
            if let Some(grant) = locked {
                let who = Who::client(&client.id, &client.tenant, origin);
                self.revoke_family(&mut tx, who, &grant, BY_CLIENT).await?;
            }
            Ok(())
        })?;
        self.forget_now(grant_id);
        Ok(())
    }

    async fn revoke_one(
        &self,
        client: &OauthClient,
        token: &IssuedToken,
        origin: &Origin,
    ) -> Result<(), Error> {
        let now = self.parts.clock.now();
        let IssuedToken { tenant, id, .. } = token;
        transact!(self.parts.store, |tx| {
            let grant = match &token.grant_id {
                Some(grant_id) => store::issuer::grants::lock(&mut tx, tenant, grant_id).await?,
                None => None,
            };
            if store::issuer::tokens::revoke(&mut tx, tenant, id, BY_CLIENT, now).await? {
                let who = Who::client(&client.id, tenant, origin);
                let action = Action::IssuedTokenRevoked;
                let entry = match &grant {
                    Some(grant) => on_grant(action, who, grant),
                    None => Entry::new(action, who).on("client", &client.id),
                };
                let entry = entry.detail("token_id", id).reason(BY_CLIENT);
                audit::record(&mut tx, &entry, now).await?;
            }
            Ok(())
        })?;
        self.forget_now(id);
        Ok(())
    }
}
