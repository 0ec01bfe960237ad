//! Apps that the configuration declares: made or changed at start-up, by tenant and client id.

use secrecy::{ExposeSecret as _, SecretString};

use super::apps::{DEFAULT_OVERLAP, require_free};
use super::registration::{AppFields, NewApp};
use super::{Registry, app_entry, overtaken, reject};
use crate::access::audit::{Action, Who};
use crate::config::DeclaredApp;
use crate::crypto::{Purpose, digest};
use crate::error::{Error, Resource};
use crate::model::{App, AppState, ConnectionKind, EventKind, Provider};
use crate::store::{self, Tx, transact};

impl Registry {
    /// Makes the declared apps, and changes those that are there where they differ. Nothing is
    /// written when nothing differs, and whatever a declaration does not name is left alone: a text
    /// or secret that is missing, a list or map that is empty, an app that is not declared.
    ///
    /// A secret that differs is a rotation: the one before it is tried for a day longer. One that
    /// the current secret replaced is not taken back.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the faults of one app as `apps.<index>.<field>`,
    /// [`Error::AlreadyExists`] when its client id or external key is another app's, or the
    /// store's. The apps before it are declared by then.
    pub async fn declare(&self, apps: &[DeclaredApp]) -> Result<(), Error> {
        for (index, declared) in apps.iter().enumerate() {
            let prefix = format!("apps.{index}.");
            let changed = transact!(self.store, |tx| {
                self.declare_one(&mut tx, declared, &prefix).await
            })?;
            if changed {
                self.poke.notify_one();
            }
        }
        Ok(())
    }

    async fn declare_one(
        &self,
        tx: &mut Tx,
        declared: &DeclaredApp,
        prefix: &str,
    ) -> Result<bool, Error> {
        let provider = match self
            .provider(tx, &declared.tenant, &declared.provider)
            .await
        {
            Err(Error::NotFound(..)) => {
                let field = format!("{prefix}provider");
                return Err(Error::invalid(field, "is no provider that is known"));
            }
            other => other?,
        };
        if provider.kind == ConnectionKind::ApiKey && declared.client_secret.is_some() {
            let field = format!("{prefix}client_secret");
            let text = "apps of a provider of API keys have none";
            return Err(Error::invalid(field, text));
        }
        match store::apps::find(tx, &declared.tenant, &declared.client_id).await? {
            None => self.make_declared(tx, declared, &provider, prefix).await,
            Some(app) if app.client_id.as_ref() != Some(&declared.client_id) => {
                Err(Error::AlreadyExists {
                    resource: Resource::App,
                    name: declared.client_id.clone(),
                    detail: format!("app {} has it as its external key", app.id),
                })
            }
            Some(app) => {
                self.change_declared(tx, declared, app, &provider, prefix)
                    .await
            }
        }
    }

    async fn make_declared(
        &self,
        tx: &mut Tx,
        declared: &DeclaredApp,
        provider: &Provider,
        prefix: &str,
    ) -> Result<bool, Error> {
        let mut fields = AppFields {
            client_id: Some(declared.client_id.clone()),
            external_key: None,
            display_name: String::new(),
            default_scopes: Vec::new(),
            allowed_return_urls: Vec::new(),
            redirect_uris: Vec::new(),
            variables: std::collections::BTreeMap::new(),
            workspace_email: String::new(),
            workspace_name: String::new(),
            state: AppState::Active,
        };
        overlay(&mut fields, declared);
        reject(self.faults(provider, &fields, prefix))?;
        let new = NewApp {
            provider: provider.id.clone(),
            fields,
            client_secret: None,
            request_id: String::new(),
        };
        let mut app = new.into_app(&declared.tenant, provider, self.clock.now());
        if let Some(secret) = &declared.client_secret {
            self.set_secret(&mut app, secret, DEFAULT_OVERLAP)?;
        }
        require_free(tx, &app).await?;
        if !store::apps::insert(tx, &app).await? {
            // Another replica declares the same: the next attempt finds its app.
            return Err(overtaken());
        }
        self.announce(tx, EventKind::AppChanged, &app.tenant, &app.id)
            .await?;
        let mut entry = app_entry(Action::AppCreated, configuration(&app), &app);
        if let Some(secret) = &declared.client_secret {
            entry = entry.detail("client_secret", self.name_of(&app, secret));
        }
        self.record(tx, &entry).await?;
        Ok(true)
    }

    async fn change_declared(
        &self,
        tx: &mut Tx,
        declared: &DeclaredApp,
        mut app: App,
        provider: &Provider,
        prefix: &str,
    ) -> Result<bool, Error> {
        if app.provider != provider.id {
            let field = format!("{prefix}provider");
            let text = format!("the app is one of {}, which can't change", app.provider);
            return Err(Error::invalid(field, text));
        }
        let before = AppFields::of(&app);
        let mut fields = before.clone();
        overlay(&mut fields, declared);
        let rotated = self.rotate_declared(&mut app, declared.client_secret.as_ref())?;
        if fields == before && !rotated {
            return Ok(false);
        }
        reject(self.faults(provider, &fields, prefix))?;
        if rotated || fields.mends(&before) {
            app = self.mend(tx, app).await?;
        }
        let changed = fields.differing(&before).join(" ");
        fields.set(&mut app);
        require_free(tx, &app).await?;
        let app = self.write_app(tx, app).await?;
        if !changed.is_empty() {
            let entry = app_entry(Action::AppUpdated, configuration(&app), &app);
            self.record(tx, &entry.detail("fields", changed)).await?;
        }
        if let Some(secret) = declared.client_secret.as_ref().filter(|_| rotated) {
            let entry = app_entry(Action::AppSecretRotated, configuration(&app), &app)
                .detail("client_secret", self.name_of(&app, secret))
                .detail("overlap_seconds", DEFAULT_OVERLAP.as_secs());
            self.record(tx, &entry).await?;
        }
        Ok(true)
    }

    /// A declared secret that is the one before the current one was rotated away from through the
    /// API, or by a newer configuration than this: going back would undo that at every start.
    fn rotate_declared(
        &self,
        app: &mut App,
        declared: Option<&SecretString>,
    ) -> Result<bool, Error> {
        let Some(declared) = declared else {
            return Ok(false);
        };
        if let Some(sealed) = &app.previous_secret {
            let previous = self.open(app, Purpose::AppPreviousSecret, sealed)?;
            let (previous, text) = (previous.expose_secret(), declared.expose_secret());
            if digest::constant_time_eq(previous.as_bytes(), text.as_bytes()) {
                tracing::warn!(
                    app = app.id,
                    "the configuration declares the client secret that was rotated away from; the \
                     newer one is kept"
                );
                return Ok(false);
            }
        }
        self.set_secret(app, declared, DEFAULT_OVERLAP)
    }
}

/// Who declares: whoever writes the configuration.
fn configuration(app: &App) -> Who {
    Who::system("configuration", &app.tenant)
}

/// Puts what the declaration names in its place.
fn overlay(fields: &mut AppFields, declared: &DeclaredApp) {
    if declared.external_key.is_some() {
        fields.external_key.clone_from(&declared.external_key);
    }
    if let Some(name) = &declared.display_name {
        fields.display_name.clone_from(name);
    }
    if !declared.scopes.is_empty() {
        fields.default_scopes.clone_from(&declared.scopes);
    }
    if !declared.allowed_return_urls.is_empty() {
        let urls = &declared.allowed_return_urls;
        fields.allowed_return_urls.clone_from(urls);
    }
    if !declared.variables.is_empty() {
        fields.variables.clone_from(&declared.variables);
    }
}
