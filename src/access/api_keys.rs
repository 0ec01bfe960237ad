//! API keys: made, rotated, revoked, and recognised from memory.

mod issue;
mod rotation;

pub use issue::{Issued, Listed, NewApiKey, is_tenant};
pub use rotation::{DEFAULT_OVERLAP, MAX_OVERLAP};

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use super::Principal;
use super::bearer::{BearerSecret, Prefix};
use super::known::{KeyHash, Known, KnownKeys};
use super::limits::Limits;
use super::principal::Credential;
use crate::clock::Clock;
use crate::crypto::Keyring;
use crate::error::{Error, Unknown};
use crate::freshness::{Epochs, Freshness};
use crate::model::Timestamp;
use crate::store::{self, Store, Tx};

/// The keys of this database.
pub struct ApiKeys {
    store: Store,
    clock: Clock,
    freshness: Arc<Freshness>,
    limits: Arc<Limits>,
    /// Seals answers that may be repeated; none where nobody repeats requests.
    keyring: Option<Keyring>,
    known: KnownKeys,
    /// Uses that are not stored yet, of keys that memory has dropped; by id.
    left: Mutex<BTreeMap<String, i64>>,
    epochs: Epochs,
}

impl ApiKeys {
    /// On a store; `freshness` is the hub's.
    pub fn new(store: Store, clock: Clock, freshness: Arc<Freshness>) -> Self {
        Self {
            store,
            limits: Arc::new(Limits::none(clock.clone())),
            keyring: None,
            clock,
            freshness,
            known: KnownKeys::default(),
            left: Mutex::default(),
            epochs: Epochs::default(),
        }
    }

    /// For a server: callers have limits, and retried requests are answered alike.
    #[must_use]
    pub fn serving(mut self, keyring: Keyring, limits: Arc<Limits>) -> Self {
        self.keyring = Some(keyring);
        self.limits = limits;
        self
    }

    /// Whom a key stands for, if memory knows: the hot path, without the database.
    pub fn recognise(&self, text: &str) -> Option<Arc<Principal>> {
        let hash = BearerSecret::parse(Prefix::ApiKey, text).ok()?.hash();
        self.recognise_hash(&hash)
    }

    fn recognise_hash(&self, hash: &KeyHash) -> Option<Arc<Principal>> {
        if !self.freshness.holds() {
            return None;
        }
        self.known.used(hash, self.clock.now())
    }

    /// Whom a key stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or the store's.
    pub async fn authenticate(&self, text: &str) -> Result<Arc<Principal>, Error> {
        let secret = BearerSecret::parse(Prefix::ApiKey, text)
            .map_err(|_| Error::Unauthenticated(Unknown::Invalid))?;
        self.authenticate_hash(secret.hash()).await
    }

    /// Judges a caller again, for streams that outlive their first judgement.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the key of this hash has ended or was revoked, or the store's.
    pub async fn reauthenticate(&self, hash: &KeyHash) -> Result<(), Error> {
        self.authenticate_hash(*hash).await.map(drop)
    }

    async fn authenticate_hash(&self, hash: KeyHash) -> Result<Arc<Principal>, Error> {
        if let Some(principal) = self.recognise_hash(&hash) {
            return Ok(principal);
        }
        let epoch = self.epochs.at(());
        let key = {
            let mut conn = self.store.read().await?;
            store::api_keys::any_tenant_find_hash(&mut conn, &hash).await?
        };
        let key = key.ok_or(Error::Unauthenticated(Unknown::Invalid))?;
        let now = self.clock.now();
        if key.revoked_at.is_some() {
            return Err(Error::Unauthenticated(Unknown::Revoked));
        }
        if key.expires_at.is_some_and(|end| end <= now) {
            return Err(Error::Unauthenticated(Unknown::Expired));
        }
        let principal = Arc::new(Principal {
            limiter: self.limits.of(&key.id, key.role, key.rate_limit),
            id: key.id.clone(),
            name: key.name,
            tenant: key.tenant,
            role: key.role,
            constraints: key.constraints,
            credential: Credential::ApiKey { hash },
            expires_at: key.expires_at,
        });
        let known = Known {
            id: key.id,
            principal: Arc::clone(&principal),
            used: AtomicI64::new(now.micros()),
            stored: AtomicI64::new(key.last_used_at.map_or(0, Timestamp::micros)),
        };
        self.leave(&self.known.insert(hash, known));
        // A revocation heard while the row was being read must win.
        if self.epochs.at(()) != epoch {
            self.leave(self.known.remove(&hash).as_slice());
        }
        Ok(principal)
    }

    /// Forgets what memory knows: a key was made or revoked somewhere.
    pub fn forget(&self) {
        self.epochs.advance(());
        self.leave(&self.known.clear());
    }

    /// Stores when keys were last used.
    ///
    /// # Errors
    /// The store's; what was not stored is stored the next time.
    pub async fn flush_use(&self) -> Result<(), Error> {
        self.leave(&self.known.all());
        let uses = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        // In the order of their ids, so that two replicas can't lock each other out.
        let uses: Vec<_> = uses.into_iter().collect();
        let touch = async |tx: &mut Tx, chunk: &[(String, i64)]| {
            for (id, used) in chunk {
                store::api_keys::touch(tx, id, Timestamp::from_micros(*used)).await?;
            }
            Ok(())
        };
        let (done, stored) = store::write_in_chunks(&self.store, &uses, touch).await;
        self.keep_for_later(uses.into_iter().skip(done));
        stored
    }

    /// Takes the uses that are not stored yet.
    fn leave(&self, known: &[Arc<Known>]) {
        self.keep_for_later(known.iter().filter_map(|known| known.take_use()));
    }

    fn keep_for_later(&self, uses: impl IntoIterator<Item = (String, i64)>) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, used) in uses {
            let latest = left.entry(id).or_insert(used);
            *latest = used.max(*latest);
        }
    }

    /// Whether nobody can call yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn none_exist(&self) -> Result<bool, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::api_keys::any_tenant_count(&mut conn).await? == 0)
    }
}
