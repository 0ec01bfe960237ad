//! Revoking and deleting connections, here and at the provider.
//!
//! Here comes first, in one transaction: from its commit on nobody gets a token, whatever the
//! provider does. The tokens are opened before they leave the row, for the provider to be asked
//! afterwards. A refresh that is under way meanwhile loses: it compares the generation, which
//! grows by one, and what it brought is revoked by whoever brought it.

use futures_util::StreamExt as _;
use secrecy::SecretString;

use super::changes::require_version;
use super::{Connections, Locked, entry, lock, overtaken};
use crate::access::audit::{self, Action};
use crate::access::{Caller, Permission, Principal};
use crate::error::{Error, Resource};
use crate::model::{
    Connection, ConnectionDetails, ConnectionState, EventKind, Grant, GrantState, NewEvent,
    Timestamp,
};
use crate::oauth::Revocation;
use crate::store::{self, Tx, transact};

/// Why a connection was revoked, where the caller does not say.
const BY_CALLER: &str = "revoked";

/// The connections of an app that are taken at a time.
const APP_PAGE: i64 = 200;

/// How many providers' answers are waited for at once when an app's connections are revoked.
const AT_ONCE: usize = 8;

/// What became of tokens at the provider when they were revoked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderRevocation {
    /// The provider confirmed, or did not know them any more.
    Done,
    /// The provider offers no revocation: they live there until they expire.
    Unsupported,
    /// The provider did not confirm.
    Failed,
    /// Not tried: the caller asked so, another connection still uses the grant, or nothing was
    /// held.
    Skipped,
}

/// What came of revoking an app's connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppRevocation {
    /// How many connections were revoked.
    pub revoked: i64,
    /// How many of their grants the provider did not confirm as revoked.
    pub provider_failures: i64,
}

/// Tokens that left their row, for the provider to hear of.
struct Doomed {
    tenant: String,
    app_id: String,
    grant_id: String,
    tokens: Result<Opened, Error>,
}

struct Opened {
    access: Option<SecretString>,
    refresh: Option<SecretString>,
}

/// What one transaction ended.
#[derive(Default)]
struct Ended {
    /// By id.
    connections: Vec<String>,
    doomed: Option<Doomed>,
}

impl Connections {
    /// Revokes a connection and all that share its grant, here and then at the provider. Once more
    /// does nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`] for what the caller is not allowed, or the
    /// store's. The provider's failure is none: it is in the answer.
    pub async fn revoke(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
    ) -> Result<(ConnectionDetails, ProviderRevocation), Error> {
        let ended = self.end(caller, id, reason).await?;
        let outcome = self.revoke_at_provider(ended.doomed).await;
        let details = self
            .details(caller, id, Permission::WriteConnections)
            .await?;
        Ok((details, outcome))
    }

    /// Deletes a connection if its version is still the one expected (any when not said). Its
    /// grant goes with it unless another connection uses that; then, unless they are to be kept
    /// alive there, the tokens are revoked at the provider.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::PermissionDenied`] for what the caller is not allowed,
    /// [`Error::Conflict`] when the version is another, or the store's. The provider's failure is
    /// none: it is in the answer.
    pub async fn delete(
        &self,
        caller: &Caller,
        id: &str,
        expected: Option<i64>,
        keep_at_provider: bool,
    ) -> Result<ProviderRevocation, Error> {
        let doomed = transact!(self.store, |tx| {
            let now = self.clock.now();
            let Locked {
                connection,
                mut all,
                grant,
            } = lock(&mut tx, caller, id, Permission::WriteConnections).await?;
            require_version(&connection, expected)?;
            let event = NewEvent::of(EventKind::Deleted, &connection, &grant, "", now);
            store::events::append(&mut tx, &event).await?;
            let entry = entry(Action::ConnectionDeleted, caller, &connection)
                .detail("account_id", &connection.account_id)
                .detail("keep_at_provider", keep_at_provider);
            audit::record(&mut tx, &entry, now).await?;
            store::connections::delete(&mut tx, &connection.tenant, id, now).await?;
            all.retain(|sharing| sharing.id != connection.id);
            if all.iter().any(uses_grant) {
                self.follow_policies(&mut tx, grant, &all, now).await?;
                return Ok(None);
            }
            let doomed = self.doomed(&grant);
            if all.is_empty() {
                store::grants::delete(&mut tx, &grant.tenant, &grant.id).await?;
            } else {
                write_ended(&mut tx, grant, BY_CALLER, now).await?;
            }
            Ok(doomed)
        })?;
        self.told(&[id.to_owned()]);
        Ok(self
            .revoke_at_provider(doomed.filter(|_| !keep_at_provider))
            .await)
    }

    /// Revokes every connection of an app, or those of one owner, as far as the caller is allowed.
    /// Those that share a grant with them are revoked with them. Safe to repeat after an error.
    ///
    /// # Errors
    /// [`Error::NotFound`] for the app, [`Error::PermissionDenied`] for what the caller is not
    /// allowed, or the store's: then some are revoked and some are not.
    pub async fn revoke_app(
        &self,
        caller: &Caller,
        app: &str,
        owner: Option<&str>,
        reason: &str,
    ) -> Result<AppRevocation, Error> {
        let permission = Permission::WriteConnections;
        if owner.is_some_and(|owner| !caller.allows_owner(owner)) {
            return Err(Error::PermissionDenied(permission.name()));
        }
        let mut conn = self.store.read().await?;
        let app = self
            .registry
            .app(&mut conn, &caller.tenant, app)
            .await?
            .filter(|found| caller.allows_app(&found.id, &found.provider))
            .ok_or_else(|| {
                let missing = Error::NotFound(Resource::App, app.to_owned());
                caller.hidden(permission, missing)
            })?;
        drop(conn);
        let mut total = AppRevocation::default();
        let mut after = String::new();
        loop {
            let ids = self.page_of_app(caller, &app.id, owner, &after).await?;
            let Some(last) = ids.last() else {
                return Ok(total);
            };
            after.clone_from(last);
            let each: Vec<_> = ids
                .iter()
                .map(|id| self.revoke_one(caller, id, reason))
                .collect();
            // To their end even when one fails: a provider that was not told now never is.
            let outcomes: Vec<_> = futures_util::stream::iter(each)
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            for outcome in outcomes {
                let (revoked, provider) = outcome?;
                total.revoked += revoked;
                total.provider_failures += i64::from(provider == ProviderRevocation::Failed);
            }
        }
    }

    async fn page_of_app(
        &self,
        principal: &Principal,
        app_id: &str,
        owner: Option<&str>,
        after: &str,
    ) -> Result<Vec<String>, Error> {
        let mut conn = self.store.read().await?;
        let tenant = &principal.tenant;
        Ok(
            store::connections::ids_of_app(&mut conn, tenant, app_id, owner, after, APP_PAGE)
                .await?,
        )
    }

    /// One of many: what is gone or not the caller's is passed over.
    async fn revoke_one(
        &self,
        caller: &Caller,
        id: &str,
        reason: &str,
    ) -> Result<(i64, ProviderRevocation), Error> {
        match self.end(caller, id, reason).await {
            Ok(ended) => {
                let outcome = self.revoke_at_provider(ended.doomed).await;
                let count = i64::try_from(ended.connections.len()).unwrap_or(i64::MAX);
                Ok((count, outcome))
            }
            Err(Error::NotFound(..) | Error::PermissionDenied(_)) => {
                Ok((0, ProviderRevocation::Skipped))
            }
            Err(error) => Err(error),
        }
    }

    /// Revokes a connection and all that share its grant, here.
    async fn end(&self, caller: &Caller, id: &str, reason: &str) -> Result<Ended, Error> {
        let reason = if reason.is_empty() { BY_CALLER } else { reason };
        let ended = transact!(self.store, |tx| {
            let now = self.clock.now();
            let Locked {
                connection,
                all,
                grant,
            } = lock(&mut tx, caller, id, Permission::WriteConnections).await?;
            if connection.state == ConnectionState::Revoked {
                return Ok(Ended::default());
            }
            let doomed = self.doomed(&grant);
            let grant = write_ended(&mut tx, grant, reason, now).await?;
            let mut connections = Vec::new();
            for mut sharing in all.into_iter().filter(uses_grant) {
                sharing.state = ConnectionState::Revoked;
                reason.clone_into(&mut sharing.state_reason);
                sharing.version += 1;
                sharing.updated_at = now;
                if !store::connections::update(&mut tx, &sharing).await? {
                    return Err(overtaken());
                }
                let event = NewEvent::of(EventKind::Revoked, &sharing, &grant, reason, now);
                store::events::append(&mut tx, &event).await?;
                let entry = entry(Action::ConnectionRevoked, caller, &sharing)
                    .reason(reason)
                    .detail("asked_for", id);
                audit::record(&mut tx, &entry, now).await?;
                connections.push(sharing.id);
            }
            Ok(Ended {
                connections,
                doomed,
            })
        })?;
        self.told(&ended.connections);
        Ok(ended)
    }

    /// The tokens of a grant, opened; none where nothing is held. What does not open is no reason
    /// to keep it: the provider alone is not told.
    fn doomed(&self, grant: &Grant) -> Option<Doomed> {
        if grant.access_token.is_none() && grant.refresh_token.is_none() {
            return None;
        }
        let open = || -> Result<Opened, Error> {
            Ok(Opened {
                access: self.vault.access_token(grant)?,
                refresh: self.vault.refresh_token(grant)?,
            })
        };
        Some(Doomed {
            tenant: grant.tenant.clone(),
            app_id: grant.app_id.clone(),
            grant_id: grant.id.clone(),
            tokens: open(),
        })
    }

    async fn revoke_at_provider(&self, doomed: Option<Doomed>) -> ProviderRevocation {
        let Some(doomed) = doomed else {
            return ProviderRevocation::Skipped;
        };
        let grant_id = doomed.grant_id.clone();
        match self.tell_provider(doomed).await {
            Ok(Revocation::Done) => ProviderRevocation::Done,
            Ok(Revocation::Unsupported) => ProviderRevocation::Unsupported,
            Err(cause) => {
                tracing::warn!(
                    grant = %grant_id,
                    %cause,
                    "revoked here, but the provider did not confirm"
                );
                ProviderRevocation::Failed
            }
        }
    }

    /// The cause of a failure is for the log, and holds no secret.
    async fn tell_provider(&self, doomed: Doomed) -> Result<Revocation, String> {
        let text = |error: Error| error.to_string();
        let tokens = doomed.tokens.map_err(text)?;
        let mut conn = self.store.read().await.map_err(|error| error.to_string())?;
        let app = self
            .registry
            .app(&mut conn, &doomed.tenant, &doomed.app_id)
            .await
            .map_err(text)?
            .ok_or_else(|| "its app is gone".to_owned())?;
        let provider = self
            .registry
            .provider(&mut conn, &doomed.tenant, &app.provider)
            .await
            .map_err(text)?;
        // No connection of the pool is held while the provider takes its time.
        drop(conn);
        if provider.revocation.is_none() {
            return Ok(Revocation::Unsupported);
        }
        let client = self.registry.client(&app, &provider, None).map_err(text)?;
        client
            .revoke(&self.http, tokens.access.as_ref(), tokens.refresh.as_ref())
            .await
            .map_err(|failure| failure.to_string())
    }
}

/// Whether a connection keeps its grant alive.
fn uses_grant(connection: &Connection) -> bool {
    connection.state != ConnectionState::Revoked
}

/// Writes a locked grant as revoked and without its tokens, and returns what was written.
async fn write_ended(
    tx: &mut Tx,
    grant: Grant,
    reason: &str,
    now: Timestamp,
) -> Result<Grant, Error> {
    let spent = grant.generation;
    let ended = ended(grant, reason, now);
    if store::grants::replace(tx, &ended, spent).await? {
        Ok(ended)
    } else {
        Err(overtaken())
    }
}

/// The grant without tokens, of the next generation: nobody who compares it with the one before
/// can write any more.
fn ended(mut grant: Grant, reason: &str, now: Timestamp) -> Grant {
    grant.state = GrantState::Revoked;
    reason.clone_into(&mut grant.state_reason);
    grant.generation += 1;
    grant.access_token = None;
    grant.refresh_token = None;
    grant.token_secret = None;
    grant.refresh_fingerprint = None;
    grant.expires_at = None;
    grant.refresh_expires_at = None;
    grant.absolute_expires_at = None;
    grant.next_refresh_at = None;
    grant.notice_at = None;
    grant.not_before = None;
    grant.lease_holder = None;
    grant.lease_until = None;
    grant.attempt_generation = None;
    grant.attempt_started_at = None;
    grant.attempt_retried = false;
    grant.updated_at = now;
    grant
}
