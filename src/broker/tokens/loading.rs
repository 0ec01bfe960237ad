//! From a name to the rows behind it, and whether their token may be served at all.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Target, Tokens};
use crate::access::{Permission, Principal};
use crate::broker::cache::Held;
use crate::error::{Error, Precondition, Resource};
use crate::model::{App, AppState, Connection, ConnectionState, Grant, GrantState, Provider};
use crate::store;

/// A connection with everything that says whether and how its token may be served.
pub(super) struct Loaded {
    pub(super) connection: Connection,
    pub(super) grant: Grant,
    pub(super) app: App,
    pub(super) provider: Provider,
    pub(super) epoch: u64,
}

impl Target {
    /// The target as this caller means it. One that is held to an owner means that owner's
    /// connection where it names none; one that is held to several has to say which, since what
    /// others have is not for it to know.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] when the owner has to be named.
    pub(super) fn meant_by(&self, principal: &Principal) -> Result<Cow<'_, Self>, Error> {
        let Self::App { app, owner: None } = self else {
            return Ok(Cow::Borrowed(self));
        };
        match principal.constraints.owners.as_slice() {
            [] => Ok(Cow::Borrowed(self)),
            [only] if !only.ends_with('*') => Ok(Cow::Owned(Self::App {
                app: app.clone(),
                owner: Some(only.clone()),
            })),
            _ => Err(Error::invalid(
                "owner",
                "is required: the API key is held to several owners",
            )),
        }
    }
}

impl Tokens {
    /// Finds the connection and judges everything but the token's validity.
    pub(super) async fn load(
        &self,
        principal: &Principal,
        target: &Target,
        permission: Permission,
    ) -> Result<Loaded, Error> {
        let tenant = &principal.tenant;
        let names = self.cache.name_epoch(tenant);
        let mut conn = self.store.read().await?;
        let target = &*target.meant_by(principal)?;
        let id = match target {
            Target::Connection(id) => id.clone(),
            Target::App { app, owner } => {
                self.resolve(&mut conn, principal, app, owner.as_deref(), permission)
                    .await?
            }
        };
        let epoch = self.cache.epoch(&id);
        let not_found = || {
            principal.hidden(
                permission,
                Error::NotFound(Resource::Connection, id.clone()),
            )
        };
        let (connection, grant) = store::connections::find(&mut conn, tenant, &id)
            .await?
            .ok_or_else(not_found)?;
        if !principal.allows(&connection.app_id, &connection.provider, &connection.owner) {
            return Err(not_found());
        }
        let app = self
            .registry
            .app(&mut conn, tenant, &connection.app_id)
            .await?
            .ok_or_else(not_found)?;
        let provider = self
            .registry
            .provider(&mut conn, tenant, &connection.provider)
            .await?;
        drop(conn);
        usable(&connection, &grant, &app)?;
        if let Target::App { app, owner } = target {
            self.cache
                .keep_name(tenant, app, owner.as_deref(), &connection.id, names);
        }
        Ok(Loaded {
            connection,
            grant,
            app,
            provider,
            epoch,
        })
    }

    async fn resolve(
        &self,
        conn: &mut store::Conn,
        principal: &Principal,
        name: &str,
        owner: Option<&str>,
        permission: Permission,
    ) -> Result<String, Error> {
        let tenant = &principal.tenant;
        let hidden = |error| principal.hidden(permission, error);
        let app = self
            .registry
            .app(conn, tenant, name)
            .await?
            .filter(|app| principal.allows_app(&app.id, &app.provider))
            .ok_or_else(|| hidden(Error::NotFound(Resource::App, name.to_owned())))?;
        if owner.is_some_and(|owner| !principal.allows_owner(owner)) {
            return Err(Error::PermissionDenied(permission.name()));
        }
        let mut found = store::connections::ids_of_owner(conn, tenant, &app.id, owner, 100).await?;
        // One that can be used comes before those that can't: an owner who reconnected with
        // another account has left a revoked one behind.
        if found
            .iter()
            .any(|(_, state)| *state == ConnectionState::Active)
        {
            found.retain(|(_, state)| *state == ConnectionState::Active);
        }
        match found.as_slice() {
            [(id, _)] => Ok(id.clone()),
            [] => {
                let named =
                    owner.map_or_else(|| name.to_owned(), |owner| format!("{name}/{owner}"));
                Err(hidden(Error::NotFound(Resource::Connection, named)))
            }
            _ => Err(Error::precondition(
                Precondition::AmbiguousConnection,
                if owner.is_some() {
                    "the owner has several connections of this app: name one by `connection_id`"
                } else {
                    "the app has several connections: name the `owner` or the `connection_id`"
                },
            )),
        }
    }

    pub(super) fn open(&self, loaded: &Loaded) -> Result<Arc<Held>, Error> {
        let Loaded {
            connection,
            grant,
            app,
            provider,
            ..
        } = loaded;
        // Only a refresh token was imported: as good as a token that has ended.
        let (token, ended) = match self.vault.access_token(grant)? {
            Some(token) => (token, false),
            None => (String::new().into(), true),
        };
        let mut held = Held::new(
            connection,
            grant,
            app,
            provider,
            self.vault.margin(grant, provider),
            (token, self.vault.token_secret(grant)?),
            self.cache.uses(connection),
        );
        if ended {
            held.expires_at = Some(grant.issued_at);
        }
        Ok(Arc::new(held))
    }
}

/// Refuses what is not in a state to be used at all.
fn usable(connection: &Connection, grant: &Grant, app: &App) -> Result<(), Error> {
    if app.state == AppState::Inactive {
        return Err(Error::precondition(
            Precondition::AppInactive,
            "the app was switched off; an operator can switch it on again",
        ));
    }
    match connection.state {
        ConnectionState::Pending => {
            return Err(Error::precondition(
                Precondition::ConnectionPending,
                "the connection waits for ConfirmAuthorization in its owner's session",
            ));
        }
        ConnectionState::Revoked => {
            return Err(Error::precondition(
                Precondition::ConnectionRevoked,
                "the connection was revoked; connect the account again",
            ));
        }
        ConnectionState::Active => {}
    }
    match grant.state {
        GrantState::Active => Ok(()),
        GrantState::Revoked => Err(Error::precondition(
            Precondition::ConnectionRevoked,
            "the connection's tokens were revoked; connect the account again",
        )),
        GrantState::ReauthorizationRequired => Err(Error::ReauthorizationRequired {
            connection_id: connection.id.clone(),
            reason: grant.state_reason.clone(),
        }),
    }
}
