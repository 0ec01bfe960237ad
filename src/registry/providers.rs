//! Providers as callers see and change them.

use std::time::Duration;

use serde_json::{Map, Value, json};
use url::Url;

use super::{Registry, allows_provider, app_entry, definition, overtaken};
use super::{reject, require_every_app, require_every_owner};
use crate::access::audit::{Action, Entry};
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission, Principal};
use crate::error::{Error, Precondition, Resource};
use crate::model::{App, CustomProvider, EventKind, Provider};
use crate::oauth::{self, Failure};
use crate::store::{self, Conn, Tx, transact};

/// How long to wait with another discovery where the issuer does not say.
const DISCOVER_AGAIN: Duration = Duration::from_secs(30);

/// How many apps are looked at a time when a provider changes.
const BATCH: i64 = 200;

/// A provider, and where it comes from.
#[derive(Clone, Debug)]
pub enum ProviderEntry {
    /// From the catalogue.
    Builtin(&'static Provider),
    /// The tenant's own.
    Custom(Box<CustomProvider>),
}

impl ProviderEntry {
    /// What it is.
    pub fn definition(&self) -> &Provider {
        match self {
            Self::Builtin(provider) => provider,
            Self::Custom(custom) => &custom.definition,
        }
    }

    /// Its definition as data, by the names in docs/providers.md.
    ///
    /// # Errors
    /// [`Error::Internal`] when it can't be written as JSON, which none does.
    pub fn fields(&self) -> Result<Map<String, Value>, Error> {
        definition::fields(self.definition())
    }
}

/// A provider to be made.
#[derive(Clone, Debug)]
pub struct NewProvider {
    /// Its id.
    pub id: String,
    /// Where its endpoints are discovered.
    pub issuer: Option<Url>,
    /// Fields of its definition; they replace discovered ones.
    pub definition: Map<String, Value>,
    /// Makes a retry answer what the first call answered; empty for none.
    pub request_id: String,
}

impl NewProvider {
    fn message(&self) -> Vec<u8> {
        let message = json!([self.id, self.issuer, self.definition]);
        message.to_string().into_bytes()
    }
}

impl Registry {
    /// One page of the providers behind the id `after`: the catalogue's and the tenant's own, by
    /// id, as far as the caller is allowed them.
    ///
    /// # Errors
    /// The store's.
    pub async fn list_providers(
        &self,
        caller: &Principal,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ProviderEntry>, Error> {
        let catalogue = Self::catalogue()?;
        let mut found = Vec::new();
        let mut conn = self.store.read().await?;
        let mut from = after.to_owned();
        while found.len() < limit {
            let page = store::providers::list(&mut conn, &caller.tenant, &from, BATCH).await?;
            let Some(last) = page.last() else { break };
            from.clone_from(&last.definition.id);
            found.extend(
                page.into_iter()
                    // The catalogue of a newer version may have taken the id.
                    .filter(|custom| catalogue.get(&custom.definition.id).is_none())
                    .filter(|custom| allows_provider(caller, &custom.definition.id))
                    .map(|custom| ProviderEntry::Custom(Box::new(custom))),
            );
        }
        found.extend(
            catalogue
                .iter()
                .filter(|provider| provider.id.as_str() > after)
                .filter(|provider| allows_provider(caller, &provider.id))
                .map(ProviderEntry::Builtin),
        );
        found.sort_by(|one, other| one.definition().id.cmp(&other.definition().id));
        found.truncate(limit);
        Ok(found)
    }

    /// The provider of this id or alias.
    ///
    /// # Errors
    /// [`Error::NotFound`], hidden from a caller with constraints, or the store's.
    pub async fn get_provider(&self, caller: &Principal, id: &str) -> Result<ProviderEntry, Error> {
        let entry = match Self::catalogue()?.get(id) {
            Some(provider) => Some(ProviderEntry::Builtin(provider)),
            None => {
                let mut conn = self.store.read().await?;
                let custom = store::providers::find(&mut conn, &caller.tenant, id).await?;
                custom.map(|custom| ProviderEntry::Custom(Box::new(custom)))
            }
        };
        entry
            .filter(|entry| allows_provider(caller, &entry.definition().id))
            .ok_or_else(|| caller.hidden(Permission::ReadRegistry, not_found(id)))
    }

    /// Adds a provider of the tenant's own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every fault of the definition, or the issuer's;
    /// [`Error::AlreadyExists`]; [`Error::ProviderUnavailable`] when discovery failed;
    /// [`Error::PermissionDenied`] for a caller whose constraints do not admit it.
    pub async fn create_provider(
        &self,
        caller: &Caller,
        new: NewProvider,
    ) -> Result<ProviderEntry, Error> {
        require_provider(caller, &new.id)?;
        let message = new.message();
        let once = Once::of(&caller.tenant, "CreateProvider", &new.request_id, &message);
        let outcome = requests::answer(
            &self.store,
            &self.keyring,
            once.as_ref(),
            self.clock.now(),
            self.make_provider(caller, &new, once.as_ref()),
        )
        .await?;
        match outcome {
            Outcome::Made(custom) => Ok(ProviderEntry::Custom(Box::new(custom))),
            Outcome::Before(replayed) => self.get_provider(caller, &replayed.resource_id).await,
        }
    }

    async fn make_provider(
        &self,
        caller: &Caller,
        new: &NewProvider,
        once: Option<&Once<'_>>,
    ) -> Result<Option<CustomProvider>, Error> {
        if Self::catalogue()?.get(&new.id).is_some() {
            return Err(exists(&new.id, "the catalogue has it"));
        }
        let draft = match &new.issuer {
            Some(issuer) => Some(self.discover(issuer).await?),
            None => None,
        };
        let definition = self.judged(&new.id, draft, &new.definition)?;
        let now = self.clock.now();
        let custom = CustomProvider {
            tenant: caller.tenant.clone(),
            definition,
            version: 1,
            created_at: now,
            updated_at: now,
        };
        let made = transact!(self.store, |tx| {
            if let Some(once) = once
                && !requests::remember(&mut tx, &self.keyring, once, &new.id, None, now).await?
            {
                return Ok(false);
            }
            if !store::providers::insert(&mut tx, &custom).await? {
                return Err(exists(&new.id, "the tenant has one of this id"));
            }
            self.announce(&mut tx, EventKind::ProviderChanged, &custom.tenant, &new.id)
                .await?;
            let mut entry = provider_entry(Action::ProviderCreated, caller, &custom.definition);
            if let Some(issuer) = &new.issuer {
                entry = entry.detail("issuer", issuer);
            }
            self.record(&mut tx, &entry).await?;
            Ok(true)
        })?;
        self.poke.notify_one();
        Ok(made.then_some(custom))
    }

    /// Replaces the definition of a provider of the tenant's own. Apps that its old definition had
    /// the provider object to are tried again.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with every fault; `PROVIDER_BUILTIN`; `PROVIDER_IN_USE` for
    /// another kind while there are apps; [`Error::Conflict`] when `version` is not the current
    /// one; [`Error::NotFound`], hidden from a caller with constraints.
    pub async fn update_provider(
        &self,
        caller: &Caller,
        id: &str,
        definition: &Map<String, Value>,
        version: Option<i64>,
    ) -> Result<ProviderEntry, Error> {
        require_custom(caller, id)?;
        let definition = self.judged(id, None, definition)?;
        let custom = transact!(self.store, |tx| {
            let mut custom = self.own(&mut tx, caller, id, version).await?;
            if custom.definition == definition {
                return Ok(custom);
            }
            if custom.definition.kind != definition.kind {
                let apps = store::providers::app_count(&mut tx, &caller.tenant, id).await?;
                require_unused(apps, "its kind can't change")?;
            }
            let before = std::mem::replace(&mut custom.definition, definition.clone());
            custom.version += 1;
            custom.updated_at = self.clock.now();
            self.mend_apps(&mut tx, caller, id).await?;
            if !store::providers::update(&mut tx, &custom).await? {
                return Err(overtaken());
            }
            self.announce(&mut tx, EventKind::ProviderChanged, &caller.tenant, id)
                .await?;
            let entry = provider_entry(Action::ProviderUpdated, caller, &custom.definition).detail(
                "fields",
                definition::differing(&before, &custom.definition)?,
            );
            self.record(&mut tx, &entry).await?;
            Ok(custom)
        })?;
        self.poke.notify_one();
        Ok(ProviderEntry::Custom(Box::new(custom)))
    }

    /// Deletes a provider of the tenant's own.
    ///
    /// # Errors
    /// `PROVIDER_BUILTIN`; `PROVIDER_IN_USE` while it has apps; [`Error::Conflict`] when `version`
    /// is not the current one; [`Error::NotFound`], hidden from a caller with constraints.
    pub async fn delete_provider(
        &self,
        caller: &Caller,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), Error> {
        require_custom(caller, id)?;
        transact!(self.store, |tx| {
            let custom = self.own(&mut tx, caller, id, version).await?;
            // The row goes first: whoever registers an app meanwhile looks for it.
            store::providers::delete(&mut tx, &caller.tenant, id).await?;
            let apps = store::providers::app_count(&mut tx, &caller.tenant, id).await?;
            require_unused(apps, "delete them first")?;
            self.announce(&mut tx, EventKind::ProviderChanged, &caller.tenant, id)
                .await?;
            let entry = provider_entry(Action::ProviderDeleted, caller, &custom.definition);
            self.record(&mut tx, &entry).await
        })?;
        self.poke.notify_one();
        Ok(())
    }

    async fn own(
        &self,
        conn: &mut Conn,
        caller: &Principal,
        id: &str,
        version: Option<i64>,
    ) -> Result<CustomProvider, Error> {
        let custom = store::providers::find(conn, &caller.tenant, id)
            .await?
            .ok_or_else(|| caller.hidden(Permission::WriteProviders, not_found(id)))?;
        if version.is_some_and(|version| version != custom.version) {
            return Err(Error::Conflict(Resource::Provider, id.to_owned()));
        }
        Ok(custom)
    }

    async fn mend_apps(&self, tx: &mut Tx, caller: &Caller, provider: &str) -> Result<(), Error> {
        let mut after = String::new();
        loop {
            let tenant = &caller.tenant;
            let apps = store::apps::list(tx, tenant, Some(provider), &after, BATCH).await?;
            let Some(last) = apps.last() else {
                return Ok(());
            };
            after.clone_from(&last.id);
            let objected = |app: &App| !app.misconfiguration.is_empty();
            for app in apps.into_iter().filter(objected) {
                let mended = self.mend(tx, app).await?;
                let mended = self.write_app(tx, mended).await?;
                let entry = app_entry(Action::AppUpdated, caller, &mended)
                    .reason("provider_changed")
                    .detail("fields", "misconfiguration");
                self.record(tx, &entry).await?;
            }
        }
    }

    fn judged(
        &self,
        id: &str,
        draft: Option<Provider>,
        given: &Map<String, Value>,
    ) -> Result<Provider, Error> {
        let provider = definition::read(id, draft, given)?;
        let faults: Vec<_> = definition::address_faults(&provider, self.http.filter())
            .into_iter()
            .map(|(field, fault)| definition::violation(field, fault))
            .collect();
        reject(faults)?;
        Ok(provider)
    }

    async fn discover(&self, issuer: &Url) -> Result<Provider, Error> {
        if !self.http.filter().admits_url(issuer) {
            return Err(Error::invalid(
                "issuer",
                "is at an address that this server may not call (`providers` in the configuration)",
            ));
        }
        oauth::discover(&self.http, issuer)
            .await
            .map_err(|failure| match failure {
                Failure::Rejected { .. }
                | Failure::ClientMisconfigured { .. }
                | Failure::GrantDead { .. } => Error::invalid("issuer", failure.to_string()),
                Failure::Transient { retry_after, .. } => Error::ProviderUnavailable {
                    retry_after: retry_after.unwrap_or(DISCOVER_AGAIN),
                    detail: failure.to_string(),
                },
                Failure::NotSent { .. } | Failure::Ambiguous { .. } => Error::ProviderUnavailable {
                    retry_after: DISCOVER_AGAIN,
                    detail: failure.to_string(),
                },
            })
    }
}

/// What is recorded of any change of a provider.
fn provider_entry(action: Action, caller: &Caller, definition: &Provider) -> Entry {
    Entry::new(action, caller)
        .on("provider", &definition.id)
        .provider(&definition.id)
}

/// Judged before anything is looked up, so that it tells nothing of what exists.
fn require_provider(caller: &Principal, id: &str) -> Result<(), Error> {
    require_every_owner(caller, Permission::WriteProviders)?;
    require_every_app(caller, Permission::WriteProviders)?;
    if allows_provider(caller, id) {
        Ok(())
    } else {
        Err(Error::PermissionDenied(Permission::WriteProviders.name()))
    }
}

fn require_custom(caller: &Principal, id: &str) -> Result<(), Error> {
    require_provider(caller, id)?;
    if Registry::catalogue()?.get(id).is_some() {
        return Err(Error::precondition(
            Precondition::ProviderBuiltin,
            format!("{id} is of the catalogue; add a provider of your own beside it"),
        ));
    }
    Ok(())
}

fn require_unused(apps: i64, what: &str) -> Result<(), Error> {
    if apps == 0 {
        Ok(())
    } else {
        Err(Error::precondition(
            Precondition::ProviderInUse,
            format!("the provider has {apps} apps; {what}"),
        ))
    }
}

fn not_found(id: &str) -> Error {
    Error::NotFound(Resource::Provider, id.to_owned())
}

fn exists(id: &str, detail: &str) -> Error {
    Error::AlreadyExists {
        resource: Resource::Provider,
        name: id.to_owned(),
        detail: detail.to_owned(),
    }
}
