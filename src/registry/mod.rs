//! ClientRegistry's domain: which providers there are, and our registrations (apps) at them; and
//! which clients our own authorisation server has.
//!
//! [`Registry`] is what the broker asks; `apps`, `providers` and `clients` are what callers may
//! change of it, `declared` is what the configuration says of it.

mod apps;
mod catalogue;
mod clients;
mod declared;
mod definition;
mod providers;
mod registration;

use std::sync::Arc;

use secrecy::SecretString;
use tokio::sync::Notify;
use url::Url;

use crate::access::audit::{self, Action, Entry, Who};
use crate::access::{Permission, Principal};
use crate::clock::Clock;
use crate::crypto::{Context, Keyring, Purpose};
use crate::error::{Error, FieldViolation, Precondition, Resource};
use crate::model::{App, EventKind, NewEvent, Provider, Sealed};
use crate::oauth::{self, Credentials, Http, ProviderClient};
use crate::store::{self, Conn, Store, Tx};

pub use apps::MAX_OVERLAP;
pub use catalogue::Catalogue;
pub use clients::{
    ClientChanges, DEFAULT_ACCESS_LIFETIME, DEFAULT_REFRESH_LIFETIME, IssuedClient,
    MAX_SECRET_LIFETIME, MAX_SECRET_OVERLAP, MIN_SECRET_LIFETIME, NewClient, RegisteredClient,
    Rotation, client_faults, default_responses,
};
pub use providers::{NewProvider, ProviderEntry};
pub use registration::{AppChanges, AppFields, NewApp};

/// Providers, apps and clients. Shared behind an `Arc`.
pub struct Registry {
    store: Store,
    keyring: Keyring,
    clock: Clock,
    http: Http,
    public_url: Url,
    poke: Arc<Notify>,
}

impl Registry {
    /// On a store. `public_url` is where browsers reach us (its path ends in a slash); `poke` wakes
    /// the relay of events after a commit.
    pub fn new(
        store: Store,
        keyring: Keyring,
        clock: Clock,
        http: Http,
        public_url: Url,
        poke: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            keyring,
            clock,
            http,
            public_url,
            poke,
        }
    }

    /// The catalogue of this binary. A test sees to it that it is sound.
    fn catalogue() -> Result<&'static Catalogue, Error> {
        Catalogue::embedded().map_err(Error::internal)
    }

    /// The provider of this id or alias: the catalogue's, else the tenant's own.
    ///
    /// # Errors
    /// [`Error::NotFound`], or the store's.
    pub async fn provider(
        &self,
        conn: &mut Conn,
        tenant: &str,
        id: &str,
    ) -> Result<Provider, Error> {
        if let Some(provider) = Self::catalogue()?.get(id) {
            return Ok(provider.clone());
        }
        store::providers::find(conn, tenant, id)
            .await?
            .map(|custom| custom.definition)
            .ok_or_else(|| Error::NotFound(Resource::Provider, id.to_owned()))
    }

    /// The app of this id, client id or external key.
    ///
    /// # Errors
    /// The store's.
    pub async fn app(
        &self,
        conn: &mut Conn,
        tenant: &str,
        name: &str,
    ) -> Result<Option<App>, Error> {
        Ok(store::apps::find(conn, tenant, name).await?)
    }

    /// An app at its provider, ready to be used: its secrets opened, the current one first, the one
    /// before it while its rotation lasts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a redirect URI that is no URL; `APP_MISCONFIGURED` where the
    /// app's variables do not fit the provider, whose definition may have changed since;
    /// [`Error::Internal`] when a secret does not open.
    pub fn client(
        &self,
        app: &App,
        provider: &Provider,
        redirect_uri: Option<String>,
    ) -> Result<ProviderClient, Error> {
        let mut secrets = Vec::new();
        if let Some(sealed) = &app.client_secret {
            secrets.push(self.open(app, Purpose::AppClientSecret, sealed)?);
        }
        let overlaps = app
            .previous_secret_expires_at
            .is_some_and(|end| end > self.clock.now());
        if let Some(sealed) = app.previous_secret.as_ref().filter(|_| overlaps) {
            secrets.push(self.open(app, Purpose::AppPreviousSecret, sealed)?);
        }
        let credentials = Credentials {
            client_id: app.client_id.clone().unwrap_or_default(),
            secrets,
        };
        ProviderClient::new(provider, credentials, &app.variables, redirect_uri).map_err(|error| {
            match error {
                oauth::Error::Invalid { field, reason } if field == "redirect_uri" => {
                    Error::invalid(field, reason)
                }
                oauth::Error::Invalid { .. } => Error::precondition(
                    Precondition::AppMisconfigured,
                    format!("app {} does not fit its provider: {error}", app.id),
                ),
                oauth::Error::Setup(_) => Error::internal(error),
            }
        })
    }

    /// Where the provider sends the browser back to: each app has its own path, so that one
    /// provider's code can't be fed to another.
    pub fn callback_url(&self, app_id: &str) -> String {
        format!("{}callback/{app_id}", self.public_url)
    }

    /// Records that the provider objects to the app, in the transaction that parks the grant it
    /// was noticed with. `code` is the provider's, such as `invalid_client`.
    ///
    /// `false`: the app was changed since `app` was read, and may be mended. Nothing is recorded;
    /// the grant is to be tried again soon, with the app read anew, and not to be parked.
    ///
    /// # Errors
    /// The store's.
    pub async fn mark_misconfigured(
        &self,
        tx: &mut Tx,
        app: &App,
        code: &str,
    ) -> Result<bool, Error> {
        let Some(stored) = store::apps::find(tx, &app.tenant, &app.id).await? else {
            return Ok(false);
        };
        if !stored.misconfiguration.is_empty() {
            return Ok(true);
        }
        if stored.version != app.version {
            return Ok(false);
        }
        let mut marked = stored;
        marked.misconfiguration = code.to_owned();
        marked.misconfigured_at = Some(self.clock.now());
        let marked = self.write_app(tx, marked).await?;
        self.record_objection(tx, &marked, code).await?;
        Ok(true)
    }

    /// Forgets the provider's objection after it took the app again, and has the grants that
    /// waited tried again.
    ///
    /// # Errors
    /// The store's.
    pub async fn clear_misconfiguration(&self, tx: &mut Tx, app: &App) -> Result<(), Error> {
        let stored = store::apps::find(tx, &app.tenant, &app.id).await?;
        if let Some(stored) = stored.filter(|stored| !stored.misconfiguration.is_empty()) {
            let mended = self.mend(tx, stored).await?;
            let mended = self.write_app(tx, mended).await?;
            self.record_objection(tx, &mended, "accepted").await?;
        }
        Ok(())
    }

    /// What the provider's answer changed of an app: nobody here asked for it.
    async fn record_objection(&self, tx: &mut Tx, app: &App, code: &str) -> Result<(), Error> {
        let who = Who::system("provider_answer", &app.tenant);
        let entry = app_entry(Action::AppUpdated, who, app)
            .reason(code)
            .detail("fields", "misconfiguration");
        self.record(tx, &entry).await
    }

    async fn record(&self, tx: &mut Tx, entry: &Entry) -> Result<(), Error> {
        audit::record(tx, entry, self.clock.now()).await.map(drop)
    }

    /// The app without objection, its grants back in the due index. They come first: whoever parks
    /// a grant locks grants before the app, too.
    async fn mend(&self, tx: &mut Tx, mut app: App) -> Result<App, Error> {
        store::grants::unpark(tx, &app.tenant, &app.id, self.clock.now()).await?;
        app.misconfiguration.clear();
        app.misconfigured_at = None;
        Ok(app)
    }

    /// Writes the app as its next version and tells the other replicas. Every write of an app goes
    /// through here, so that none overwrites another unseen.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when its client id or external key was taken, and a busy store when
    /// another writer was first: then the transaction is to run again.
    async fn write_app(&self, tx: &mut Tx, mut app: App) -> Result<App, Error> {
        app.version += 1;
        app.updated_at = self.clock.now();
        match store::apps::update(tx, &app).await? {
            Some(true) => {}
            Some(false) => return Err(apps::taken(&app)),
            None => return Err(overtaken()),
        }
        self.announce(tx, EventKind::AppChanged, &app.tenant, &app.id)
            .await?;
        Ok(app)
    }

    async fn announce(
        &self,
        tx: &mut Tx,
        kind: EventKind,
        tenant: &str,
        subject: &str,
    ) -> Result<(), Error> {
        let event = NewEvent::internal(kind, tenant, subject, self.clock.now());
        Ok(store::events::append(tx, &event).await?)
    }

    fn open(&self, app: &App, purpose: Purpose, sealed: &Sealed) -> Result<SecretString, Error> {
        Ok(self
            .keyring
            .open_text(&context(&app.tenant, &app.id, purpose), sealed)?)
    }

    fn seal(
        &self,
        tenant: &str,
        app_id: &str,
        purpose: Purpose,
        secret: &str,
    ) -> Result<Sealed, Error> {
        Ok(self
            .keyring
            .seal(&context(tenant, app_id, purpose), secret.as_bytes())?)
    }
}

/// What is recorded of any change of an app.
fn app_entry(action: Action, who: impl Into<Who>, app: &App) -> Entry {
    let entry = Entry::new(action, who)
        .on("app", &app.id)
        .provider(&app.provider);
    match &app.client_id {
        Some(client_id) => entry.detail("client_id", client_id),
        None => entry,
    }
}

fn context<'a>(tenant: &'a str, app_id: &'a str, purpose: Purpose) -> Context<'a> {
    Context {
        tenant,
        purpose,
        row: app_id,
    }
}

/// Somebody wrote between our reading and our writing: the transaction runs again.
fn overtaken() -> Error {
    Error::Store(store::Error::Busy("the row was changed meanwhile".into()))
}

/// Whether the caller is allowed a provider as such.
fn allows_provider(principal: &Principal, id: &str) -> bool {
    let allowed = &principal.constraints.providers;
    allowed.is_empty() || allowed.iter().any(|it| it == id)
}

/// What an app or a provider is set to concerns all of its owners: a caller that is held to some
/// owners may not set it.
fn require_every_owner(principal: &Principal, permission: Permission) -> Result<(), Error> {
    if principal.constraints.owners.is_empty() {
        Ok(())
    } else {
        Err(Error::PermissionDenied(permission.name()))
    }
}

/// The same for all apps: no list of apps holds one that is not made yet.
fn require_every_app(principal: &Principal, permission: Permission) -> Result<(), Error> {
    if principal.constraints.apps.is_empty() {
        Ok(())
    } else {
        Err(Error::PermissionDenied(permission.name()))
    }
}

fn reject(faults: Vec<FieldViolation>) -> Result<(), Error> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(Error::InvalidArgument(faults))
    }
}
