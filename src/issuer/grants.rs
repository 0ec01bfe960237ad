//! What people gave to clients, as they themselves and the operator see it and take it back.

use super::Issuer;
use super::redeem::on_grant;
use crate::access::audit::{self, Action};
use crate::access::{Caller, Permission, users};
use crate::error::{Error, Resource};
use crate::model::{IssuedGrant, IssuedToken};
use crate::store::issuer::grants::GrantQuery;
use crate::store::{self, transact};

/// Which grants to list.
#[derive(Clone, Debug, Default)]
pub struct GrantFilter {
    /// Only this user's; `me` for who calls.
    pub user_id: Option<String>,
    /// Only this client's.
    pub client_id: Option<String>,
    /// Also those that ended, as long as they are kept.
    pub ended: bool,
}

impl Issuer {
    /// One page of grants behind the id `after`, each with its client's name. Who may not read others'
    /// sees their own.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`] for others' grants and a caller with
    /// constraints; [`Error::InvalidArgument`] where `me` is nobody; or the store's.
    pub async fn list_grants(
        &self,
        caller: &Caller,
        filter: &GrantFilter,
        after: &str,
        limit: i64,
    ) -> Result<Vec<(IssuedGrant, String)>, Error> {
        let permission = Permission::ReadGrants;
        let user_id = match &filter.user_id {
            Some(user_id) => Some(users::named(caller, user_id, permission)?),
            None if caller.may(permission) => None,
            None => {
                let denied = Error::PermissionDenied(permission.name());
                Some(caller.user_id().ok_or(denied)?)
            }
        };
        if user_id.is_none() || user_id != caller.user_id() {
            caller.require_unconstrained(permission)?;
        }
        let query = GrantQuery {
            user_id,
            client_id: filter.client_id.as_deref(),
            ended: filter.ended,
            now: self.parts.clock.now(),
            after,
            limit,
        };
        let mut conn = self.parts.store.read().await?;
        Ok(store::issuer::grants::list(&mut conn, &caller.tenant, &query).await?)
    }

    /// Takes back what a person gave, with all tokens that came of it; one that had ended stays so. The
    /// grant with its client's name.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for whoever may revoke only their own, whether or not there is such a
    /// grant; [`Error::Constrained`]; [`Error::NotFound`]; or the store's.
    pub async fn revoke_grant(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
    ) -> Result<(IssuedGrant, String), Error> {
        let permission = Permission::RevokeGrants;
        let tenant = &caller.tenant;
        let found = {
            let mut conn = self.parts.store.read().await?;
            store::issuer::grants::find(&mut conn, tenant, id).await?
        };
        let owner = found.as_ref().map(|grant| grant.user_id.as_str());
        let own = owner.is_some() && owner == caller.user_id();
        if !own {
            caller.require(permission)?;
            caller.require_unconstrained(permission)?;
        }
        let why = match (reason, own) {
            ("", true) => "revoked_by_user",
            ("", false) => "revoked",
            (reason, _) => reason,
        };
        let now = self.parts.clock.now();
        let missing = || Error::NotFound(Resource::IssuedGrant, id.to_owned());
        let revoked = transact!(self.parts.store, |tx| {
            let locked = store::issuer::grants::lock(&mut tx, tenant, id).await?;
            let mut grant = locked.ok_or_else(missing)?;
            if store::issuer::grants::revoke(&mut tx, tenant, id, why, now).await? {
                let entry = on_grant(Action::IssuedGrantRevoked, caller.into(), &grant).reason(why);
                audit::record(&mut tx, &entry, now).await?;
                grant.revoked_at = Some(now);
                why.clone_into(&mut grant.revoke_reason);
            }
            let client = store::clients::find(&mut tx, tenant, &grant.client_id).await?;
            let name = client.map_or_else(String::new, |client| client.settings.name);
            Ok((grant, name))
        })?;
        self.forget_now(id);
        Ok(revoked)
    }

    /// One page of tokens behind the id `after`, of one client or grant where it is given.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`] for a caller with constraints; or the
    /// store's.
    pub async fn list_tokens(
        &self,
        caller: &Caller,
        client_id: Option<&str>,
        grant_id: Option<&str>,
        after: &str,
        limit: i64,
    ) -> Result<Vec<IssuedToken>, Error> {
        caller.require(Permission::ReadGrants)?;
        caller.require_unconstrained(Permission::ReadGrants)?;
        let mut conn = self.parts.store.read().await?;
        let tenant = &caller.tenant;
        let found =
            store::issuer::tokens::list(&mut conn, tenant, client_id, grant_id, after, limit);
        Ok(found.await?)
    }
}
