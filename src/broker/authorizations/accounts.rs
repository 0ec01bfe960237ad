//! The "connected accounts" of one owner: every app there is to connect, and what is connected.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::{Authorizations, NewAuthorization};
use crate::access::{Caller, Permission, Principal};
use crate::error::Error;
use crate::model::{
    App, AppState, AuthorizationMode, ConnectionDetails, ConnectionKind, ConnectionState,
    GrantState, Provider, Timestamp,
};
use crate::store;

/// Rows read in one go.
const BATCH: i64 = 200;

/// One app, with the owner's connections through it.
#[derive(Clone, Debug)]
pub struct AppAccounts {
    /// The app.
    pub app: App,
    /// The provider's name for people.
    pub provider_display_name: String,
    /// The owner's connections, by id; empty when there is none.
    pub connections: Vec<Account>,
    /// A link to connect a first account, where one was asked for and can be had.
    pub connect_url: Option<SecretString>,
}

/// One account.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its connection.
    pub details: ConnectionDetails,
    /// Whether it can be used as it is.
    pub usable: bool,
    /// A link to connect it again, where one was asked for, is needed and can be had.
    pub connect_url: Option<SecretString>,
}

impl Authorizations {
    /// The active apps that the caller is allowed, behind the id `after`, each with the owner's
    /// connections. One app more than `size` is answered where there are more; it gets no links.
    ///
    /// With `return_url`, whoever is not connected or has to consent again gets a link that leads
    /// there, as far as their app allows it and the owner has not too many open.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] for an owner, or links, that the caller is not allowed; or the
    /// store's.
    pub async fn connected_accounts(
        &self,
        principal: &Caller,
        owner: &str,
        return_url: Option<&str>,
        after: &str,
        size: usize,
    ) -> Result<Vec<AppAccounts>, Error> {
        if !principal.allows_owner(owner) {
            let denied = Permission::ReadConnections.name();
            return Err(Error::PermissionDenied(denied));
        }
        if return_url.is_some() {
            principal.require(Permission::Authorize)?;
        }
        let apps = self.apps(principal, after, size.saturating_add(1)).await?;
        let mut connected = self.connections_of(principal, owner).await?;
        let mut rows = Vec::with_capacity(apps.len());
        for (index, (app, provider)) in apps.into_iter().enumerate() {
            let link = LinkWish {
                caller: principal,
                app: &app,
                owner,
                return_url: return_url.filter(|url| {
                    index < size
                        && provider.kind == ConnectionKind::Oauth2
                        && app.allowed_return_urls.iter().any(|allowed| allowed == url)
                }),
            };
            let mut accounts = Vec::new();
            for details in connected.remove(&app.id).unwrap_or_default() {
                let usable = is_usable(&details, self.clock.now());
                let connect_url = if usable {
                    None
                } else {
                    self.link(&link, Some(&details)).await?
                };
                accounts.push(Account {
                    details,
                    usable,
                    connect_url,
                });
            }
            let connect_url = if accounts.is_empty() {
                self.link(&link, None).await?
            } else {
                None
            };
            rows.push(AppAccounts {
                provider_display_name: provider.display_name,
                connections: accounts,
                connect_url,
                app,
            });
        }
        Ok(rows)
    }

    async fn apps(
        &self,
        principal: &Principal,
        after: &str,
        count: usize,
    ) -> Result<Vec<(App, Provider)>, Error> {
        let tenant = &principal.tenant;
        let mut conn = self.store.read().await?;
        let mut found = Vec::new();
        let mut after = after.to_owned();
        loop {
            let apps = store::apps::list(&mut conn, tenant, None, &after, BATCH).await?;
            let Some(last) = apps.last() else {
                return Ok(found);
            };
            after.clone_from(&last.id);
            for app in apps {
                let active = app.state == AppState::Active;
                if active && principal.allows_app(&app.id, &app.provider) {
                    let provider = self
                        .registry
                        .provider(&mut conn, tenant, &app.provider)
                        .await?;
                    found.push((app, provider));
                    if found.len() >= count {
                        return Ok(found);
                    }
                }
            }
        }
    }

    /// The owner's connections, by app.
    async fn connections_of(
        &self,
        principal: &Principal,
        owner: &str,
    ) -> Result<BTreeMap<String, Vec<ConnectionDetails>>, Error> {
        let filter = store::connections::Filter {
            owner: owner.to_owned(),
            ..store::connections::Filter::default()
        };
        let mut conn = self.store.read().await?;
        let mut by_app: BTreeMap<String, Vec<ConnectionDetails>> = BTreeMap::new();
        let mut after = String::new();
        loop {
            let tenant = &principal.tenant;
            let page = store::connections::list(&mut conn, tenant, &filter, &after, BATCH).await?;
            let Some(last) = page.last() else {
                return Ok(by_app);
            };
            after.clone_from(&last.connection.id);
            for details in page {
                by_app
                    .entry(details.connection.app_id.clone())
                    .or_default()
                    .push(details);
            }
        }
    }

    /// A link, where one can be had.
    async fn link(
        &self,
        wish: &LinkWish<'_>,
        renew: Option<&ConnectionDetails>,
    ) -> Result<Option<SecretString>, Error> {
        let Some(return_url) = wish.return_url else {
            return Ok(None);
        };
        // One that was never confirmed is connected anew, not renewed.
        let renew = renew
            .map(|details| &details.connection)
            .filter(|connection| connection.state != ConnectionState::Pending);
        let new = NewAuthorization {
            app: wish.app.id.clone(),
            owner: wish.owner.to_owned(),
            scopes: renew
                .map(|connection| connection.requested_scopes.clone())
                .unwrap_or_default(),
            return_url: return_url.to_owned(),
            login_hint: renew
                .map(|connection| connection.email.clone())
                .unwrap_or_default(),
            connection_id: renew.map(|connection| connection.id.clone()),
            mode: AuthorizationMode::Confirmed,
            redirect_uri: String::new(),
            parameters: BTreeMap::new(),
            refresh_policy: None,
            ttl: None,
        };
        match self.start(wish.caller, new, None).await {
            Ok(started) => Ok(started.connect_url),
            // A page that was reloaded often, or an app out of order, is shown without links
            // rather than not at all.
            Err(Error::ResourceExhausted { .. } | Error::FailedPrecondition { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whose link is wanted; none without a return URL.
struct LinkWish<'a> {
    caller: &'a Caller,
    app: &'a App,
    owner: &'a str,
    return_url: Option<&'a str>,
}

/// Whether a token can be had without the owner.
fn is_usable(details: &ConnectionDetails, now: Timestamp) -> bool {
    let ConnectionDetails {
        connection, grant, ..
    } = details;
    let alive = grant.expires_at.is_none_or(|end| end > now) || grant.refresh_token.is_some();
    connection.state == ConnectionState::Active && grant.state == GrantState::Active && alive
}
