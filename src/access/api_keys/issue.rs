//! API keys are made, listed and revoked.

use secrecy::SecretString;

use super::ApiKeys;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::bearer::{BearerSecret, Prefix};
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission, Principal};
use crate::crypto::Keyring;
use crate::error::{Error, Resource};
use crate::model::{ApiKey, Constraints, EventKind, IdKind, NewEvent, RateLimit, Role, Timestamp};
use crate::store::{self, Tx, transact};

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
    /// Its own limit; none for the role's.
    pub rate_limit: Option<RateLimit>,
    /// Who makes it.
    pub created_by: String,
    /// When it ends; none for never.
    pub expires_at: Option<Timestamp>,
}

/// A key with its secret: made just now, or by the same request before.
#[derive(Debug)]
pub struct Issued {
    /// The key.
    pub key: ApiKey,
    /// Its secret.
    pub secret: SecretString,
}

/// One page of keys.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The keys, by id.
    pub keys: Vec<ApiKey>,
    /// The id behind which the next page begins; none on the last page. A page may be short, even
    /// empty, and still have a next one.
    pub next: Option<String>,
}

impl NewApiKey {
    fn check(&self) -> Result<(), Error> {
        if self.name.is_empty() || self.name.chars().count() > 128 {
            return Err(Error::invalid("name", "1 to 128 characters are needed"));
        }
        if !is_tenant(&self.tenant) {
            return Err(Error::invalid(
                "tenant",
                "1 to 63 lower-case letters, digits and hyphens are needed",
            ));
        }
        if self.role == Role::User {
            return Err(Error::invalid("role", "is for users only, who sign in"));
        }
        Ok(())
    }

    /// The key, and its secret.
    pub(super) fn into_key(self, now: Timestamp) -> (ApiKey, BearerSecret) {
        let secret = BearerSecret::generate(Prefix::ApiKey);
        let key = ApiKey {
            id: IdKind::ApiKey.new_id(),
            tenant: self.tenant,
            name: self.name,
            hash: secret.hash().to_vec(),
            prefix: secret.display_prefix().to_owned(),
            role: self.role,
            constraints: self.constraints,
            rate_limit: self.rate_limit,
            replaced_by: None,
            created_by: self.created_by,
            created_at: now,
            expires_at: self.expires_at,
            revoked_at: None,
            last_used_at: None,
        };
        (key, secret)
    }
}

impl ApiKeys {
    /// Makes a key, for the command line. The secret is in the answer and nowhere else.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] or the store's.
    pub async fn create(&self, new: NewApiKey) -> Result<(ApiKey, BearerSecret), Error> {
        let who = Who::command_line(&new.tenant);
        self.create_as(&who, new).await
    }

    /// The same, for somebody else.
    ///
    /// # Errors
    /// As [`ApiKeys::create`].
    pub async fn create_as(
        &self,
        who: &Who,
        new: NewApiKey,
    ) -> Result<(ApiKey, BearerSecret), Error> {
        new.check()?;
        let (key, secret) = new.into_key(self.clock.now());
        transact!(self.store, |tx| { self.insert(&mut tx, who, &key).await })?;
        Ok((key, secret))
    }

    /// Makes a key for a caller, of their tenant. A retry with the same `request_id` and `message`
    /// answers the same key.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`], also for a key that may more than the caller, or for a request
    /// id of another request; [`Error::AlreadyExists`] for a retry after ten minutes; or the
    /// store's.
    pub async fn issue(
        &self,
        caller: &Caller,
        new: NewApiKey,
        request_id: &str,
        message: &[u8],
    ) -> Result<Issued, Error> {
        new.check()?;
        caller.require_within(new.role, &new.constraints)?;
        let message = own_message(caller, message);
        let once = Once::of(&caller.tenant, "CreateApiKey", request_id, &message);
        let (key, secret) = new.into_key(self.clock.now());
        let create = async {
            let made = transact!(self.store, |tx| {
                if !self.remember(&mut tx, once.as_ref(), &key, &secret).await? {
                    return Ok(false);
                }
                self.insert(&mut tx, &caller.into(), &key).await?;
                Ok(true)
            })?;
            Ok::<_, Error>(made.then_some(()))
        };
        let outcome = self.answer(once.as_ref(), create).await?;
        self.issued(&caller.tenant, outcome, key, &secret).await
    }

    async fn insert(&self, tx: &mut Tx, who: &Who, key: &ApiKey) -> Result<(), Error> {
        store::api_keys::insert(tx, key).await?;
        let entry = Entry::new(Action::ApiKeyCreated, who)
            .on("api_key", &key.id)
            .detail("role", key.role.as_str());
        audit::record(tx, &entry, self.clock.now()).await?;
        self.announce(tx, &key.tenant, &key.id).await
    }

    /// Keeps the answer for retries; `false` when one was first.
    pub(super) async fn remember(
        &self,
        tx: &mut Tx,
        once: Option<&Once<'_>>,
        key: &ApiKey,
        secret: &BearerSecret,
    ) -> Result<bool, Error> {
        use secrecy::ExposeSecret as _;
        let Some(once) = once else { return Ok(true) };
        let text = secret.text().expose_secret();
        let keyring = self.keyring()?;
        requests::remember(tx, keyring, once, &key.id, Some(text), self.clock.now()).await
    }

    pub(super) async fn answer<T>(
        &self,
        once: Option<&Once<'_>>,
        create: impl Future<Output = Result<Option<T>, Error>>,
    ) -> Result<Outcome<T>, Error> {
        let now = self.clock.now();
        requests::answer(&self.store, self.keyring()?, once, now, create).await
    }

    /// The key that was made now, or before.
    pub(super) async fn issued(
        &self,
        tenant: &str,
        outcome: Outcome<()>,
        key: ApiKey,
        secret: &BearerSecret,
    ) -> Result<Issued, Error> {
        match outcome {
            Outcome::Made(()) => Ok(Issued {
                key,
                secret: secret.text().clone(),
            }),
            Outcome::Before(replayed) => {
                let id = replayed.resource_id.clone();
                let secret = replayed.into_secret()?;
                let key = self
                    .find(tenant, &id)
                    .await?
                    .ok_or_else(|| not_found(&id))?;
                Ok(Issued { key, secret })
            }
        }
    }

    fn keyring(&self) -> Result<&Keyring, Error> {
        self.keyring
            .as_ref()
            .ok_or_else(|| Error::internal("requests are repeated on servers only"))
    }

    /// Revokes a key of any tenant, for the command line.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, or it was revoked before.
    pub async fn revoke(&self, id: &str) -> Result<(), Error> {
        transact!(self.store, |tx| {
            let now = self.clock.now();
            let tenant = store::api_keys::any_tenant_revoke(&mut tx, id, now)
                .await?
                .ok_or_else(|| Error::NotFound(Resource::ApiKey, id.to_owned()))?;
            let who = Who::command_line(&tenant);
            self.record_revocation(&mut tx, &who, &tenant, id).await
        })?;
        self.forget();
        Ok(())
    }

    /// Revokes a key of the caller's tenant, on every replica within the stated bound; the key as it
    /// is then. One that was revoked before stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], hidden from a caller with constraints; [`Error::PermissionDenied`] for a
    /// key that may more than the caller; or the store's.
    pub async fn revoke_own(&self, caller: &Caller, id: &str) -> Result<ApiKey, Error> {
        let key = transact!(self.store, |tx| {
            let found = store::api_keys::find(&mut tx, &caller.tenant, id).await?;
            let mut key = found.ok_or_else(|| hidden(caller, id))?;
            require_above(caller, &key)?;
            let now = self.clock.now();
            let revoked = store::api_keys::any_tenant_revoke(&mut tx, id, now).await?;
            if revoked.is_some() {
                key.revoked_at = Some(now);
                self.record_revocation(&mut tx, &caller.into(), &key.tenant, id)
                    .await?;
            }
            Ok(key)
        })?;
        self.forget();
        Ok(key)
    }

    async fn record_revocation(
        &self,
        tx: &mut Tx,
        who: &Who,
        tenant: &str,
        id: &str,
    ) -> Result<(), Error> {
        let entry = Entry::new(Action::ApiKeyRevoked, who).on("api_key", id);
        audit::record(tx, &entry, self.clock.now()).await?;
        self.announce(tx, tenant, id).await
    }

    /// Every key, of one tenant or of all.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self, tenant: Option<&str>) -> Result<Vec<ApiKey>, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::api_keys::list(&mut conn, tenant).await?)
    }

    /// One page of the keys of the caller's tenant, oldest first, behind the id `after`; without those
    /// that have ended, unless asked for, and without those that a caller with constraints may not see:
    /// whose own are wider.
    ///
    /// # Errors
    /// The store's.
    pub async fn page(
        &self,
        caller: &Caller,
        show_ended: bool,
        after: &str,
        limit: usize,
    ) -> Result<Listed, Error> {
        let active_at = (!show_ended).then(|| self.clock.now());
        let rows = i64::try_from(limit.saturating_add(1)).unwrap_or(i64::MAX);
        let mut keys = {
            let mut conn = self.store.read().await?;
            store::api_keys::page(&mut conn, &caller.tenant, active_at, after, rows).await?
        };
        let more = keys.len() > limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| more).map(|last| last.id.clone());
        keys.retain(|key| caller.encloses(&key.constraints));
        Ok(Listed { keys, next })
    }

    /// A key of the tenant.
    pub(super) async fn find(&self, tenant: &str, id: &str) -> Result<Option<ApiKey>, Error> {
        let mut conn = self.store.read().await?;
        Ok(store::api_keys::find(&mut conn, tenant, id).await?)
    }

    pub(super) async fn announce(&self, tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
        let event = NewEvent::internal(EventKind::ApiKeyChanged, tenant, id, self.clock.now());
        Ok(store::events::append(tx, &event).await?)
    }
}

pub(super) fn not_found(id: &str) -> Error {
    Error::NotFound(Resource::ApiKey, id.to_owned())
}

/// The error for a key that is not there: to a caller with constraints it looks like one that may
/// more than they.
pub(super) fn hidden(caller: &Principal, id: &str) -> Error {
    caller.hidden(Permission::WriteApiKeys, not_found(id))
}

/// That the caller holds all that a key has: nobody replaces or ends one that may more.
pub(super) fn require_above(caller: &Principal, key: &ApiKey) -> Result<(), Error> {
    caller
        .require_within(key.role, &key.constraints)
        .map_err(|_| Error::PermissionDenied(Permission::WriteApiKeys.name()))
}

/// The request as this caller's: its answer holds a secret, which nobody else gets by repeating it.
pub(super) fn own_message(caller: &Principal, message: &[u8]) -> Vec<u8> {
    let mut own = caller.id.as_bytes().to_vec();
    own.push(0);
    own.extend_from_slice(message);
    own
}

/// Whether this can be a tenant's name.
pub fn is_tenant(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
