//! API keys are given successors: a new secret with the same rights, while the old one works for a
//! stated time.

use std::time::Duration;

use super::issue::{Issued, NewApiKey, hidden, not_found, own_message, require_above};
use super::{ApiKeys, BearerSecret};
use crate::access::Caller;
use crate::access::audit::{self, Action, Entry, Who};
use crate::access::requests::Once;
use crate::error::{Error, Precondition};
use crate::model::{ApiKey, Timestamp};
use crate::store::{self, Tx, transact};

/// How long the old key works still when nothing else is asked for.
pub const DEFAULT_OVERLAP: Duration = Duration::from_secs(60 * 60);

/// The longest that it may.
pub const MAX_OVERLAP: Duration = Duration::from_secs(7 * 24 * 60 * 60);

impl ApiKeys {
    /// Makes the successor of a key of the caller's tenant. A retry with the same `request_id` and
    /// `message` answers the same key.
    ///
    /// # Errors
    /// [`Error::NotFound`], hidden from a caller with constraints; [`Error::PermissionDenied`] for a
    /// key that may more than the caller; `API_KEY_ENDED` for one that has ended or has a successor;
    /// [`Error::InvalidArgument`] for a request id of another request; [`Error::AlreadyExists`] for
    /// a retry after ten minutes; or the store's.
    pub async fn rotate(
        &self,
        caller: &Caller,
        id: &str,
        overlap: Duration,
        request_id: &str,
        message: &[u8],
    ) -> Result<Issued, Error> {
        let old = self.find(&caller.tenant, id).await?;
        let old = old.ok_or_else(|| hidden(caller, id))?;
        require_above(caller, &old)?;
        let message = own_message(caller, message);
        let once = Once::of(&caller.tenant, "RotateApiKey", request_id, &message);
        let now = self.clock.now();
        let (key, secret) = successor(&old, &caller.id, now);
        let rotate = async {
            let made = transact!(self.store, |tx| {
                if !self.remember(&mut tx, once.as_ref(), &key, &secret).await? {
                    return Ok(false);
                }
                let who = Who::from(caller);
                self.supersede(&mut tx, &who, id, &key, overlap).await?;
                Ok(true)
            })?;
            Ok::<_, Error>(made.then_some(()))
        };
        let outcome = self.answer(once.as_ref(), rotate).await?;
        self.forget();
        self.issued(&caller.tenant, outcome, key, &secret).await
    }

    /// Makes the successor of a key of any tenant, for the command line: it, its secret, and when
    /// the old key ends.
    ///
    /// # Errors
    /// [`Error::NotFound`], `API_KEY_ENDED`, or the store's.
    pub async fn any_tenant_rotate(
        &self,
        id: &str,
        created_by: &str,
        overlap: Duration,
    ) -> Result<(ApiKey, BearerSecret, Timestamp), Error> {
        let old = {
            let mut conn = self.store.read().await?;
            store::api_keys::any_tenant_find(&mut conn, id).await?
        };
        let old = old.ok_or_else(|| not_found(id))?;
        let who = Who::command_line(&old.tenant);
        let (key, secret) = successor(&old, created_by, self.clock.now());
        let ends_at = transact!(self.store, |tx| {
            self.supersede(&mut tx, &who, id, &key, overlap).await
        })?;
        self.forget();
        Ok((key, secret, ends_at))
    }

    /// Puts a key in the place of another; when that ends.
    async fn supersede(
        &self,
        tx: &mut Tx,
        who: &Who,
        id: &str,
        successor: &ApiKey,
        overlap: Duration,
    ) -> Result<Timestamp, Error> {
        let tenant = &successor.tenant;
        // Read again: it may have ended since.
        let old = store::api_keys::find(tx, tenant, id)
            .await?
            .ok_or_else(|| not_found(id))?;
        let now = self.clock.now();
        if old.revoked_at.is_some() || old.expires_at.is_some_and(|end| end <= now) {
            return Err(ended("the key has ended; make a new one"));
        }
        let in_time = now.plus(overlap);
        let ends_at = old.expires_at.map_or(in_time, |end| end.min(in_time));
        if !store::api_keys::supersede(tx, tenant, id, &successor.id, ends_at).await? {
            return Err(ended("the key was rotated before; rotate its successor"));
        }
        store::api_keys::insert(tx, successor).await?;
        let entry = Entry::new(Action::ApiKeyRotated, who)
            .on("api_key", id)
            .detail("successor", &successor.id)
            .detail("overlap_seconds", overlap.as_secs());
        audit::record(tx, &entry, now).await?;
        self.announce(tx, tenant, id).await?;
        Ok(ends_at)
    }
}

fn ended(message: &str) -> Error {
    Error::precondition(Precondition::ApiKeyEnded, message)
}

/// A key with the rights of another, which lives as long as that was to live when it was made.
fn successor(old: &ApiKey, created_by: &str, now: Timestamp) -> (ApiKey, BearerSecret) {
    let new = NewApiKey {
        tenant: old.tenant.clone(),
        name: old.name.clone(),
        role: old.role,
        constraints: old.constraints.clone(),
        rate_limit: old.rate_limit,
        created_by: created_by.to_owned(),
        expires_at: old
            .expires_at
            .map(|end| now.plus(end.since(old.created_at))),
    };
    new.into_key(now)
}
