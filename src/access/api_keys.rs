//! API keys: made, revoked, and recognised from memory.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, PoisonError};

use super::Principal;
use super::api_key::ApiKeySecret;
use super::known_keys::{KeyHash, Known, KnownKeys};
use crate::clock::Clock;
use crate::error::{Error, Resource, Unknown};
use crate::freshness::{Epochs, Freshness};
use crate::model::{ApiKey, Constraints, EventKind, IdKind, NewEvent, Role, Timestamp};
use crate::store::{self, Store, Tx, transact};

/// Keys whose last use is stored in one transaction.
const FLUSH_CHUNK: usize = 500;

/// What a new key is to be.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// The tenant it acts in.
    pub tenant: String,
    /// What it is called.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// Who makes it.
    pub created_by: String,
    /// When it ends; none for never.
    pub expires_at: Option<Timestamp>,
}

/// The keys of this database.
pub struct ApiKeys {
    store: Store,
    clock: Clock,
    freshness: Arc<Freshness>,
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
            clock,
            freshness,
            known: KnownKeys::default(),
            left: Mutex::default(),
            epochs: Epochs::default(),
        }
    }

    /// Whom a key stands for, if memory knows: the hot path, without the database.
    pub fn recognise(&self, text: &str) -> Option<Arc<Principal>> {
        let hash = ApiKeySecret::parse(text).ok()?.hash();
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
        let secret =
            ApiKeySecret::parse(text).map_err(|_| Error::Unauthenticated(Unknown::Invalid))?;
        self.authenticate_hash(secret.hash()).await
    }

    /// Judges a caller again, for streams that outlive their first judgement.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when its key has ended or was revoked, or the store's.
    pub async fn reauthenticate(&self, principal: &Principal) -> Result<(), Error> {
        self.authenticate_hash(principal.key_hash).await.map(drop)
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
            id: key.id,
            name: key.name,
            tenant: key.tenant,
            role: key.role,
            constraints: key.constraints,
            key_hash: hash,
            expires_at: key.expires_at,
        });
        let known = Known {
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
        for chunk in uses.chunks(FLUSH_CHUNK) {
            let stored: Result<(), Error> = transact!(self.store, |tx| {
                for (id, used) in chunk {
                    store::api_keys::touch(&mut tx, id, Timestamp::from_micros(*used)).await?;
                }
                Ok(())
            });
            if stored.is_err() {
                self.keep_for_later(uses);
                return stored;
            }
        }
        Ok(())
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

    /// Makes a key. The secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] or the store's.
    pub async fn create(&self, new: NewApiKey) -> Result<(ApiKey, ApiKeySecret), Error> {
        if new.name.is_empty() || new.name.chars().count() > 128 {
            return Err(Error::invalid("name", "1 to 128 characters are needed"));
        }
        if !is_tenant(&new.tenant) {
            return Err(Error::invalid(
                "tenant",
                "1 to 63 lower-case letters, digits and hyphens are needed",
            ));
        }
        let secret = ApiKeySecret::generate();
        let key = ApiKey {
            id: IdKind::ApiKey.new_id(),
            tenant: new.tenant,
            name: new.name,
            hash: secret.hash().to_vec(),
            prefix: secret.display_prefix().to_owned(),
            role: new.role,
            constraints: new.constraints,
            created_by: new.created_by,
            created_at: self.clock.now(),
            expires_at: new.expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        transact!(self.store, |tx| {
            store::api_keys::insert(&mut tx, &key).await?;
            self.announce(&mut tx, &key.tenant, &key.id).await
        })?;
        Ok((key, secret))
    }

    /// Revokes a key, on every replica within the stated bound.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, or it was revoked before.
    pub async fn revoke(&self, id: &str) -> Result<(), Error> {
        transact!(self.store, |tx| {
            let now = self.clock.now();
            let tenant = store::api_keys::any_tenant_revoke(&mut tx, id, now)
                .await?
                .ok_or_else(|| Error::NotFound(Resource::ApiKey, id.to_owned()))?;
            self.announce(&mut tx, &tenant, id).await
        })?;
        self.forget();
        Ok(())
    }

    /// Every key, of one tenant or of all.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::api_keys::list(&mut conn, tenant).await?)
    }

    /// Whether nobody can call yet.
    ///
    /// # Errors
    /// The store's.
    pub async fn none_exist(&self) -> Result<bool, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::api_keys::any_tenant_count(&mut conn).await? == 0)
    }

    async fn announce(&self, tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
        let event = NewEvent::internal(EventKind::ApiKeyChanged, tenant, id, self.clock.now());
        Ok(store::events::append(tx, &event).await?)
    }
}

/// Whether this can be a tenant's name.
pub fn is_tenant(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
