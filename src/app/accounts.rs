//! What connects accounts and ends that, of the service and of the command line.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::access::audit::Trail;
use crate::bootstrap::{self, StartError};
use crate::broker::{Authorizations, Connections, Persons, TokenCache, Vault};
use crate::clock::Clock;
use crate::config::Config;
use crate::crypto::Keyring;
use crate::freshness::Freshness;
use crate::oauth::{Http, HttpConfig};
use crate::registry::Registry;
use crate::store::Store;

/// How providers are reached.
fn http(config: &Config, clock: &Clock) -> Result<Http, StartError> {
    let http = Http::new(HttpConfig {
        timeout: config.refresh.http_timeout,
        connect_timeout: config.providers.connect_timeout,
        allow_private_networks: config.providers.allow_private_networks,
        allowed_networks: config.providers.allowed_networks.clone(),
    });
    let http = http.map_err(|error| StartError::Other(error.into()))?;
    Ok(http.with_clock(clock.clone()))
}

/// What connects accounts and ends that, of the service and of the command line.
pub(super) struct Accounts {
    pub(super) http: Http,
    pub(super) registry: Arc<Registry>,
    pub(super) vault: Vault,
    pub(super) authorizations: Arc<Authorizations>,
    pub(super) connections: Arc<Connections>,
}

impl Accounts {
    pub(super) fn new(
        config: &Config,
        store: &Store,
        keyring: &Keyring,
        clock: &Clock,
        cache: &Arc<TokenCache>,
        poke: &Arc<Notify>,
    ) -> Result<Self, StartError> {
        let http = http(config, clock)?;
        let vault = Vault::new(keyring.clone(), config.refresh.clone());
        let registry = Arc::new(Registry::new(
            store.clone(),
            keyring.clone(),
            clock.clone(),
            http.clone(),
            config.web.public_url.clone(),
            Arc::clone(poke),
        ));
        let authorizations = Arc::new(Authorizations::new(
            store.clone(),
            vault.clone(),
            clock.clone(),
            http.clone(),
            Arc::clone(&registry),
            config.authorizations.clone(),
            config.web.public_url.clone(),
            Arc::clone(poke),
        ));
        let connections = Arc::new(Connections::new(
            store.clone(),
            vault.clone(),
            clock.clone(),
            http.clone(),
            Arc::clone(&registry),
            Arc::clone(cache),
            Arc::clone(poke),
        ));
        Ok(Self {
            http,
            registry,
            vault,
            authorizations,
            connections,
        })
    }
}

/// What is held about persons, for the command line: connections end as they do in the service, which
/// hears of it where it runs beside.
///
/// # Errors
/// [`StartError`] when the keys can't be read.
pub fn persons(config: &Config, store: &Store, clock: &Clock) -> Result<Persons, StartError> {
    let keyring = bootstrap::keyring(config)?;
    let poke = Arc::new(Notify::new());
    let freshness = Arc::new(Freshness::new(config.cache.max_staleness));
    let cache = Arc::new(TokenCache::new(1, freshness));
    let accounts = Accounts::new(config, store, &keyring, clock, &cache, &poke)?;
    let stopping = CancellationToken::new();
    let trail = Trail::new(store.clone(), keyring, clock.clone(), config, stopping);
    Ok(Persons::new(
        store.clone(),
        clock.clone(),
        accounts.authorizations,
        accounts.connections,
        Arc::new(trail),
    ))
}
