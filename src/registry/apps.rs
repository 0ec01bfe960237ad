//! Apps as callers see and change them.

use std::collections::HashSet;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::registration::{AppChanges, AppFields, NewApp};
use super::{Registry, allows_provider, app_entry, reject};
use super::{require_every_app, require_every_owner};
use crate::access::audit::Action;
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission, Principal};
use crate::crypto::{Purpose, digest};
use crate::error::{Error, FieldViolation, Precondition, Resource};
use crate::model::{App, ConnectionKind, EventKind};
use crate::store::{self, Conn, transact};

/// Longest time that the secret before the last is still tried.
pub const MAX_OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// The same where a rotation does not say.
pub(super) const DEFAULT_OVERLAP: Duration = Duration::from_secs(24 * 60 * 60);

impl Registry {
    /// One page of the apps behind the id `after`, oldest first, as far as the caller is allowed
    /// them; of one provider where its id or alias is given.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_apps(
        &self,
        caller: &Principal,
        provider: Option<&str>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<App>, Error> {
        let catalogue = Self::catalogue()?;
        let provider = provider.map(|name| {
            let known = catalogue.get(name);
            known.map_or(name, |provider| provider.id.as_str())
        });
        let batch = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut conn = self.store.read().await?;
        let mut found = Vec::new();
        let mut from = after.to_owned();
        while found.len() < limit {
            let page = store::apps::list(&mut conn, &caller.tenant, provider, &from, batch).await?;
            let Some(last) = page.last() else { break };
            from.clone_from(&last.id);
            found.extend(
                page.into_iter()
                    .filter(|app| caller.allows_app(&app.id, &app.provider)),
            );
        }
        found.truncate(limit);
        Ok(found)
    }

    /// The app of this id, client id or external key.
    ///
    /// # Errors
    /// [`Error::NotFound`], hidden from a caller with constraints, or the store's.
    pub async fn get_app(&self, caller: &Principal, name: &str) -> Result<App, Error> {
        let mut conn = self.store.read().await?;
        visible(&mut conn, caller, name, Permission::ReadRegistry).await
    }

    /// The ids of the apps of these names; none for no names.
    ///
    /// # Errors
    /// [`Error::NotFound`] for any of them, hidden from a caller with constraints and judged by
    /// `permission`, or the store's.
    pub async fn app_ids(
        &self,
        caller: &Principal,
        names: &[String],
        permission: Permission,
    ) -> Result<HashSet<String>, Error> {
        let mut ids = HashSet::new();
        if names.is_empty() {
            return Ok(ids);
        }
        let mut conn = self.store.read().await?;
        for name in names {
            ids.insert(visible(&mut conn, caller, name, permission).await?.id);
        }
        Ok(ids)
    }

    /// Registers an app.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every field that does not fit the provider;
    /// [`Error::AlreadyExists`] when its client id or external key is taken; [`Error::NotFound`]
    /// for the provider; [`Error::PermissionDenied`] for a caller whose constraints do not admit
    /// it.
    pub async fn create_app(&self, caller: &Caller, new: NewApp) -> Result<App, Error> {
        require_every_owner(caller, Permission::WriteApps)?;
        require_every_app(caller, Permission::WriteApps)?;
        let message = new.message();
        let request_id = new.request_id.clone();
        let once = Once::of(&caller.tenant, "CreateApp", &request_id, &message);
        let outcome = requests::answer(
            &self.store,
            &self.keyring,
            once.as_ref(),
            self.clock.now(),
            self.make_app(caller, new, once.as_ref()),
        )
        .await?;
        match outcome {
            Outcome::Made(app) => Ok(app),
            Outcome::Before(replayed) => self.get_app(caller, &replayed.resource_id).await,
        }
    }

    async fn make_app(
        &self,
        caller: &Caller,
        new: NewApp,
        once: Option<&Once<'_>>,
    ) -> Result<Option<App>, Error> {
        let provider = {
            let mut conn = self.store.read().await?;
            self.provider(&mut conn, &caller.tenant, &new.provider)
                .await
        };
        let provider = match provider {
            Ok(provider) if allows_provider(caller, &provider.id) => provider,
            Ok(_) => return Err(Error::PermissionDenied(Permission::WriteApps.name())),
            Err(error @ Error::NotFound(..)) => {
                return Err(caller.hidden(Permission::WriteApps, error));
            }
            Err(error) => return Err(error),
        };
        let mut faults = self.faults(&provider, &new.fields, "app.");
        if provider.kind == ConnectionKind::ApiKey && new.client_secret.is_some() {
            faults.push(no_secret());
        }
        reject(faults)?;
        let now = self.clock.now();
        let secret = new.client_secret.clone();
        let mut app = new.into_app(&caller.tenant, &provider, now);
        if let Some(secret) = &secret {
            self.set_secret(&mut app, secret, Duration::ZERO)?;
        }
        let made = transact!(self.store, |tx| {
            if let Some(once) = once
                && !requests::remember(&mut tx, &self.keyring, once, &app.id, None, now).await?
            {
                return Ok(false);
            }
            require_free(&mut tx, &app).await?;
            if !store::apps::insert(&mut tx, &app).await? {
                return Err(taken(&app));
            }
            // Whoever deletes the provider waits and counts this app, or has done it.
            store::providers::lock(&mut tx, &app.tenant, &app.provider).await?;
            self.provider(&mut tx, &app.tenant, &app.provider).await?;
            self.announce(&mut tx, EventKind::AppChanged, &app.tenant, &app.id)
                .await?;
            let mut entry = app_entry(Action::AppCreated, caller, &app);
            if let Some(secret) = &secret {
                entry = entry.detail("client_secret", self.name_of(&app, secret));
            }
            self.record(&mut tx, &entry).await?;
            Ok(true)
        })?;
        self.poke.notify_one();
        Ok(made.then_some(app))
    }

    /// Changes an app. What may end an objection of the provider's makes it forgotten, and has the
    /// grants that waited tried again.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every field that does not fit the provider;
    /// [`Error::AlreadyExists`] when its client id or external key is taken; [`Error::Conflict`]
    /// when `version` is not the current one; [`Error::NotFound`], hidden from a caller with
    /// constraints.
    pub async fn update_app(
        &self,
        caller: &Caller,
        name: &str,
        changes: &AppChanges,
        version: Option<i64>,
    ) -> Result<App, Error> {
        let app = transact!(self.store, |tx| {
            let mut app = changeable(&mut tx, caller, name, version).await?;
            let before = AppFields::of(&app);
            let mut fields = before.clone();
            changes.apply(&mut fields);
            if fields == before {
                return Ok(app);
            }
            let provider = self.provider(&mut tx, &app.tenant, &app.provider).await?;
            reject(self.faults(&provider, &fields, "app."))?;
            if fields.mends(&before) {
                app = self.mend(&mut tx, app).await?;
            }
            let changed = fields.differing(&before).join(" ");
            let state = (fields.state != before.state).then_some(fields.state);
            fields.set(&mut app);
            require_free(&mut tx, &app).await?;
            let app = self.write_app(&mut tx, app).await?;
            let mut entry = app_entry(Action::AppUpdated, caller, &app).detail("fields", changed);
            if let Some(state) = state {
                entry = entry.detail("state", state.as_str());
            }
            self.record(&mut tx, &entry).await?;
            Ok(app)
        })?;
        self.poke.notify_one();
        Ok(app)
    }

    /// Deletes an app.
    ///
    /// # Errors
    /// `APP_IN_USE` while it has connections; [`Error::Conflict`] when `version` is not the
    /// current one; [`Error::NotFound`], hidden from a caller with constraints.
    pub async fn delete_app(
        &self,
        caller: &Caller,
        name: &str,
        version: Option<i64>,
    ) -> Result<(), Error> {
        transact!(self.store, |tx| {
            let app = changeable(&mut tx, caller, name, version).await?;
            let count = store::apps::connection_count(&mut tx, &app.tenant, &app.id).await?;
            if count > 0 {
                return Err(Error::precondition(
                    Precondition::AppInUse,
                    format!("the app has {count} connections; delete them first"),
                ));
            }
            store::apps::delete(&mut tx, &app.tenant, &app.id).await?;
            self.announce(&mut tx, EventKind::AppChanged, &app.tenant, &app.id)
                .await?;
            let entry = app_entry(Action::AppDeleted, caller, &app);
            self.record(&mut tx, &entry).await
        })?;
        self.poke.notify_one();
        Ok(())
    }

    /// Sets a new client secret; the one before it is tried for `overlap` longer, 24 hours when
    /// not given. With the current secret again it is a retry and leaves the one before it alone,
    /// or ends its time where `overlap` is zero.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an app of API keys; [`Error::NotFound`], hidden from a
    /// caller with constraints.
    pub async fn rotate_app_secret(
        &self,
        caller: &Caller,
        name: &str,
        secret: &SecretString,
        overlap: Option<Duration>,
    ) -> Result<App, Error> {
        let overlap = overlap.unwrap_or(DEFAULT_OVERLAP).min(MAX_OVERLAP);
        let app = transact!(self.store, |tx| {
            let mut app = changeable(&mut tx, caller, name, None).await?;
            let provider = self.provider(&mut tx, &app.tenant, &app.provider).await?;
            if provider.kind == ConnectionKind::ApiKey {
                return Err(Error::InvalidArgument(vec![no_secret()]));
            }
            self.set_secret(&mut app, secret, overlap)?;
            let app = self.mend(&mut tx, app).await?;
            let app = self.write_app(&mut tx, app).await?;
            let entry = app_entry(Action::AppSecretRotated, caller, &app)
                .detail("client_secret", self.name_of(&app, secret))
                .detail("overlap_seconds", overlap.as_secs());
            self.record(&mut tx, &entry).await?;
            Ok(app)
        })?;
        self.poke.notify_one();
        Ok(app)
    }

    /// A keyed hash: shows whether two records speak of the same secret, and nothing about it.
    pub(super) fn name_of(&self, app: &App, secret: &SecretString) -> String {
        let secret = secret.expose_secret().as_bytes();
        self.keyring.fingerprint(&app.tenant, secret)
    }

    /// Makes `secret` the app's. Answers whether it was not so before.
    pub(super) fn set_secret(
        &self,
        app: &mut App,
        secret: &SecretString,
        overlap: Duration,
    ) -> Result<bool, Error> {
        let current = match &app.client_secret {
            Some(sealed) => Some(self.open(app, Purpose::AppClientSecret, sealed)?),
            None => None,
        };
        let same = current.as_ref().is_some_and(|current| {
            let (current, secret) = (current.expose_secret(), secret.expose_secret());
            digest::constant_time_eq(current.as_bytes(), secret.as_bytes())
        });
        if same && !overlap.is_zero() {
            return Ok(false);
        }
        app.previous_secret = match current.filter(|_| !overlap.is_zero()) {
            Some(current) => {
                let purpose = Purpose::AppPreviousSecret;
                Some(self.seal(&app.tenant, &app.id, purpose, current.expose_secret())?)
            }
            None => None,
        };
        let end = self.clock.now().plus(overlap);
        app.previous_secret_expires_at = app.previous_secret.as_ref().map(|_| end);
        if !same {
            let purpose = Purpose::AppClientSecret;
            let sealed = self.seal(&app.tenant, &app.id, purpose, secret.expose_secret())?;
            app.client_secret = Some(sealed);
        }
        Ok(!same)
    }
}

fn no_secret() -> FieldViolation {
    FieldViolation::new("client_secret", "apps of a provider of API keys have none")
}

async fn visible(
    conn: &mut Conn,
    caller: &Principal,
    name: &str,
    permission: Permission,
) -> Result<App, Error> {
    store::apps::find(conn, &caller.tenant, name)
        .await?
        .filter(|app| caller.allows_app(&app.id, &app.provider))
        .ok_or_else(|| {
            let not_found = Error::NotFound(Resource::App, name.to_owned());
            caller.hidden(permission, not_found)
        })
}

async fn changeable(
    conn: &mut Conn,
    caller: &Principal,
    name: &str,
    version: Option<i64>,
) -> Result<App, Error> {
    require_every_owner(caller, Permission::WriteApps)?;
    let app = visible(conn, caller, name, Permission::WriteApps).await?;
    if version.is_some_and(|version| version != app.version) {
        return Err(Error::Conflict(Resource::App, name.to_owned()));
    }
    Ok(app)
}

/// No other app answers to the names of this one, so that a name means one app.
pub(super) async fn require_free(conn: &mut Conn, app: &App) -> Result<(), Error> {
    for (field, value) in [
        ("client id", &app.client_id),
        ("external key", &app.external_key),
    ] {
        let Some(value) = value else { continue };
        let found = store::apps::find(conn, &app.tenant, value).await?;
        if found.is_some_and(|found| found.id != app.id) {
            return Err(Error::AlreadyExists {
                resource: Resource::App,
                name: value.clone(),
                detail: format!("it is taken, and can't be this app's {field}"),
            });
        }
    }
    Ok(())
}

/// For a collision that only the database saw.
pub(super) fn taken(app: &App) -> Error {
    let name = app.client_id.clone().or_else(|| app.external_key.clone());
    Error::AlreadyExists {
        resource: Resource::App,
        name: name.unwrap_or_default(),
        detail: "the client id or the external key is taken".to_owned(),
    }
}
