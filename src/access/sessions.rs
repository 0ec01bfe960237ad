//! Sessions of users: made, refreshed, revoked, and recognised from memory.

mod ended;
mod issue;
mod refresh;

pub use ended::CURRENT;
pub use issue::{Issued, Visitor};

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::Principal;
use super::bearer::{BearerSecret, Prefix};
use super::known::{KeyHash, Known, KnownKeys};
use super::limits::Limits;
use super::principal::Credential;
use super::throttle::Throttle;
use crate::clock::Clock;
use crate::config;
use crate::crypto::Keyring;
use crate::error::{Error, Unknown};
use crate::freshness::{Epochs, Freshness};
use crate::model::{Constraints, Role, Session, Timestamp};
use crate::store::sessions::Holder;
use crate::store::{self, Store, Tx};

/// What sessions are made of.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// Seals answers that may be repeated.
    pub keyring: Keyring,
    /// The time.
    pub clock: Clock,
    /// The hub's.
    pub freshness: Arc<Freshness>,
    /// How often users may call.
    pub limits: Arc<Limits>,
    /// The brake on failed sign-ins.
    pub throttle: Throttle,
    /// How long sessions live.
    pub config: config::Sessions,
    /// Wakes the relay of events after a commit.
    pub poke: Arc<Notify>,
}

/// The sessions of this database.
pub struct Sessions {
    parts: Parts,
    known: KnownKeys,
    /// Uses that are not stored yet, of sessions that memory has dropped; by id.
    left: Mutex<BTreeMap<String, i64>>,
    epochs: Epochs,
}

/// Whether a look at a session counts as its use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Use,
    /// A stream is judged again: nobody did anything.
    Check,
}

impl Sessions {
    /// Of these parts.
    pub fn new(parts: Parts) -> Self {
        Self {
            parts,
            known: KnownKeys::default(),
            left: Mutex::default(),
            epochs: Epochs::default(),
        }
    }

    /// How long a session token lives without use.
    pub fn idle_timeout(&self) -> Duration {
        self.parts.config.idle_timeout
    }

    /// Whom a session token stands for, if memory knows: the hot path, without the database.
    pub fn recognise(&self, text: &str) -> Option<Arc<Principal>> {
        let hash = BearerSecret::parse(Prefix::Session, text).ok()?.hash();
        self.recognise_hash(&hash, Look::Use)
    }

    fn recognise_hash(&self, hash: &KeyHash, look: Look) -> Option<Arc<Principal>> {
        if !self.parts.freshness.holds() {
            return None;
        }
        let now = self.parts.clock.now();
        self.known.look(hash, |known| {
            if known.principal.expires_at.is_some_and(|end| end <= now) {
                return None;
            }
            // Another replica may know of a later use: the database decides.
            let used = Timestamp::from_micros(known.used.load(Ordering::Relaxed));
            if self.is_idle(used, now) {
                return None;
            }
            if look == Look::Use {
                known.used.store(now.micros(), Ordering::Relaxed);
            }
            Some(Arc::clone(&known.principal))
        })
    }

    fn is_idle(&self, used: Timestamp, now: Timestamp) -> bool {
        used.plus(self.parts.config.idle_timeout) <= now
    }

    /// Whom a session token stands for.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`], or the store's.
    pub async fn authenticate(&self, text: &str) -> Result<Arc<Principal>, Error> {
        let secret = BearerSecret::parse(Prefix::Session, text)
            .map_err(|_| Error::Unauthenticated(Unknown::Invalid))?;
        self.authenticate_hash(secret.hash(), Look::Use).await
    }

    /// Judges a caller again, for streams that outlive their first judgement. A stream by itself keeps
    /// no session from idling.
    ///
    /// # Errors
    /// [`Error::Unauthenticated`] when the session with this token's hash has ended, or the store's.
    pub async fn reauthenticate(&self, hash: &KeyHash) -> Result<(), Error> {
        self.authenticate_hash(*hash, Look::Check).await.map(drop)
    }

    async fn authenticate_hash(&self, hash: KeyHash, look: Look) -> Result<Arc<Principal>, Error> {
        if let Some(principal) = self.recognise_hash(&hash, look) {
            return Ok(principal);
        }
        let epoch = self.epochs.at(());
        let found = {
            let mut conn = self.parts.store.read().await?;
            store::sessions::any_tenant_find_token(&mut conn, &hash).await?
        };
        let (session, holder) = found.ok_or(Error::Unauthenticated(Unknown::Invalid))?;
        let now = self.parts.clock.now();
        let used = session.last_used_at.max(self.used_here(&hash, &session.id));
        if session.revoked_at.is_some() || !holder.active {
            return Err(Error::Unauthenticated(Unknown::Revoked));
        }
        if session.expires_at <= now || self.is_idle(used, now) {
            return Err(Error::Unauthenticated(Unknown::Expired));
        }
        let used = if look == Look::Use { now } else { used };
        let stored = session.last_used_at.micros();
        let id = session.id.clone();
        let principal = Arc::new(self.principal(session, holder, hash)?);
        let known = Known {
            id,
            principal: Arc::clone(&principal),
            used: AtomicI64::new(used.micros()),
            stored: AtomicI64::new(stored),
        };
        self.leave(&self.known.insert(hash, known));
        // A revocation heard while the row was being read must win.
        if self.epochs.at(()) != epoch {
            self.leave(&self.known.remove_where(|known| is_hash(known, &hash)));
        }
        Ok(principal)
    }

    /// When this replica last saw the session used, where that is not stored yet.
    fn used_here(&self, hash: &KeyHash, id: &str) -> Timestamp {
        let used = |known: &Known| Some(known.used.load(Ordering::Relaxed));
        let known = self.known.look(hash, used).unwrap_or_default();
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let left = left.get(id).copied().unwrap_or_default();
        Timestamp::from_micros(known.max(left))
    }

    fn principal(
        &self,
        session: Session,
        holder: Holder,
        hash: KeyHash,
    ) -> Result<Principal, Error> {
        let constraints = match holder.role {
            Role::User => own_alone(holder.constraints, holder.owner, &session.user_id)?,
            _ => holder.constraints,
        };
        Ok(Principal {
            limiter: self.parts.limits.of(&session.user_id, holder.role, None),
            id: session.user_id,
            name: holder.email,
            tenant: session.tenant,
            role: holder.role,
            constraints,
            credential: Credential::Session {
                hash,
                session_id: session.id,
            },
            expires_at: Some(session.expires_at),
        })
    }

    /// Forgets the session, or the user's sessions, that ended.
    pub fn forget(&self, subject: &str) {
        self.epochs.advance(());
        let ended = |known: &Known| known.id == subject || known.principal.id == subject;
        self.leave(&self.known.remove_where(ended));
    }

    /// Stores when sessions were last used.
    ///
    /// # Errors
    /// The store's; what was not stored is stored the next time.
    pub async fn flush_use(&self) -> Result<(), Error> {
        self.leave(&self.known.all());
        // Kept until they are stored: a session that memory has dropped is judged by them meanwhile.
        // In the order of their ids, so that two replicas can't lock each other out.
        let uses: Vec<(String, i64)> = {
            let left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
            left.iter().map(|(id, used)| (id.clone(), *used)).collect()
        };
        let touch = async |tx: &mut Tx, chunk: &[(String, i64)]| {
            for (id, used) in chunk {
                store::sessions::touch(tx, id, Timestamp::from_micros(*used)).await?;
            }
            Ok(())
        };
        let (done, stored) = store::write_in_chunks(&self.parts.store, &uses, touch).await;
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, used) in uses.iter().take(done) {
            // A later use that came meanwhile stays.
            if left.get(id) == Some(used) {
                left.remove(id);
            }
        }
        stored
    }

    /// Takes the uses that are not stored yet.
    fn leave(&self, known: &[Arc<Known>]) {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, used) in known.iter().filter_map(|known| known.take_use()) {
            let latest = left.entry(id).or_insert(used);
            *latest = used.max(*latest);
        }
    }
}

fn is_hash(known: &Known, hash: &KeyHash) -> bool {
    matches!(&known.principal.credential, Credential::Session { hash: own, .. } if own == hash)
}

/// The constraints of a user who is held to their own connections. An owner that would be read as
/// a prefix, or as no constraint, holds nobody to anything: no user has one, and none is let in with
/// one.
fn own_alone(constraints: Constraints, owner: String, user_id: &str) -> Result<Constraints, Error> {
    if owner.is_empty() || owner.contains('*') {
        tracing::error!(user = %user_id, "the user's owner is empty or has a `*`; they are refused");
        return Err(Error::Unauthenticated(Unknown::Invalid));
    }
    Ok(Constraints {
        owners: vec![owner],
        link_only: false,
        ..constraints
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_held_to_one_owner_to_the_letter() {
        let wide = Constraints {
            owners: vec!["*".to_owned()],
            apps: vec!["app_1".to_owned()],
            link_only: true,
            ..Constraints::default()
        };
        let held = own_alone(wide.clone(), "ada".to_owned(), "user_1").unwrap();
        assert_eq!(held.owners, ["ada"]);
        assert_eq!(held.apps, ["app_1"]);
        assert!(!held.link_only);
        for owner in ["", "*", "ada*", "a*a"] {
            own_alone(wide.clone(), owner.to_owned(), "user_1").unwrap_err();
        }
    }
}
