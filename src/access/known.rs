//! Callers seen lately, by the hash of what they sent: what every call asks before the database. A general cache
//! reads the clock and keeps a log of reads to choose what to drop; that costs more than the
//! look-up, and there are few keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Principal;
use crate::model::Timestamp;

/// SHA-256 of a key.
pub(super) type KeyHash = [u8; 32];

/// Parts, each under a lock of its own.
const SHARDS: usize = 16;

/// How many keys a part holds; when one more comes, it begins anew with that one.
const SHARD_CAPACITY: usize = 1_000;

/// A key or a session, and when it was used.
pub(super) struct Known {
    /// The key's or the session's id.
    pub(super) id: String,
    /// Whom it stands for.
    pub(super) principal: Arc<Principal>,
    /// When it was last seen; microseconds.
    pub(super) used: AtomicI64,
    /// What of that is stored.
    pub(super) stored: AtomicI64,
}

impl Known {
    /// Its id and its last use, unless that was taken before.
    pub(super) fn take_use(&self) -> Option<(String, i64)> {
        let used = self.used.load(Ordering::Relaxed);
        (self.stored.swap(used, Ordering::Relaxed) != used).then(|| (self.id.clone(), used))
    }
}

/// A SHA-256 is as good as any hash of it.
#[derive(Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn write(&mut self, bytes: &[u8]) {
        // The last write is the array; the one before it is its length.
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Shard = HashMap<KeyHash, Arc<Known>, BuildHasherDefault<Itself>>;

/// The keys.
#[derive(Default)]
pub(super) struct KnownKeys([RwLock<Shard>; SHARDS]);

impl KnownKeys {
    fn shard(&self, hash: &KeyHash) -> &RwLock<Shard> {
        // The byte that places a key in its part's table is another one.
        let [first, ..] = &self.0;
        self.0.get(usize::from(hash[31]) % SHARDS).unwrap_or(first)
    }

    /// Whom the key of this hash stands for, if it is known and has not ended; it is used now. Written
    /// under the lock: whoever drops the key takes its last use along.
    pub(super) fn used(&self, hash: &KeyHash, now: Timestamp) -> Option<Arc<Principal>> {
        self.look(hash, |known| {
            if known.principal.expires_at.is_some_and(|end| end <= now) {
                return None;
            }
            known.used.store(now.micros(), Ordering::Relaxed);
            Some(Arc::clone(&known.principal))
        })
    }

    /// What `judge` makes of the key of this hash, if it is known; asked under the lock.
    pub(super) fn look<T>(
        &self,
        hash: &KeyHash,
        judge: impl FnOnce(&Known) -> Option<T>,
    ) -> Option<T> {
        judge(read(self.shard(hash)).get(hash)?)
    }

    /// Keeps a key; answers those that it drove out.
    pub(super) fn insert(&self, hash: KeyHash, known: Known) -> Vec<Arc<Known>> {
        let mut shard = write(self.shard(&hash));
        let full = shard.len() >= SHARD_CAPACITY && !shard.contains_key(&hash);
        let mut out = if full {
            drained(&mut shard)
        } else {
            Vec::new()
        };
        out.extend(shard.insert(hash, Arc::new(known)));
        out
    }

    /// Drops those of whom `ended` says so, and answers them.
    pub(super) fn remove_where(&self, ended: impl Fn(&Known) -> bool) -> Vec<Arc<Known>> {
        let mut out = Vec::new();
        for shard in &self.0 {
            write(shard).retain(|_, known| {
                let stays = !ended(known);
                if !stays {
                    out.push(Arc::clone(known));
                }
                stays
            });
        }
        out
    }

    /// Drops one key, and answers it.
    pub(super) fn remove(&self, hash: &KeyHash) -> Option<Arc<Known>> {
        write(self.shard(hash)).remove(hash)
    }

    /// Drops all keys, and answers them.
    pub(super) fn clear(&self) -> Vec<Arc<Known>> {
        let shards = self.0.iter();
        shards
            .flat_map(|shard| drained(&mut write(shard)))
            .collect()
    }

    /// All keys.
    pub(super) fn all(&self) -> Vec<Arc<Known>> {
        let copies = |shard: &RwLock<Shard>| -> Vec<_> { read(shard).values().cloned().collect() };
        self.0.iter().flat_map(copies).collect()
    }
}

fn drained(shard: &mut Shard) -> Vec<Arc<Known>> {
    shard.drain().map(|(_, known)| known).collect()
}

fn read(shard: &RwLock<Shard>) -> RwLockReadGuard<'_, Shard> {
    shard.read().unwrap_or_else(PoisonError::into_inner)
}

fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
    shard.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::limits::Limiter;
    use crate::access::principal::Credential;
    use crate::model::{Constraints, Role};

    fn known(id: usize) -> Known {
        Known {
            id: format!("key_{id}"),
            principal: Arc::new(Principal {
                id: format!("key_{id}"),
                name: String::new(),
                tenant: "default".to_owned(),
                role: Role::Admin,
                constraints: Constraints::default(),
                credential: Credential::ApiKey { hash: [0; 32] },
                expires_at: None,
                limiter: Arc::new(Limiter::unlimited()),
            }),
            used: AtomicI64::new(1),
            stored: AtomicI64::new(0),
        }
    }

    fn hash(number: usize) -> KeyHash {
        crate::crypto::digest::sha256(&number.to_le_bytes())
    }

    #[test]
    fn a_key_is_found_until_it_is_removed() {
        let keys = KnownKeys::default();
        for number in 0..100 {
            assert!(keys.insert(hash(number), known(number)).is_empty());
        }
        let now = Timestamp::from_micros(2);
        assert_eq!(keys.used(&hash(7), now).unwrap().id, "key_7");
        let found = keys.remove(&hash(7)).unwrap();
        assert_eq!(found.take_use(), Some(("key_7".to_owned(), 2)));
        assert_eq!(found.take_use(), None);
        assert!(keys.used(&hash(7), now).is_none());
        assert_eq!(keys.all().len(), 99);
        assert_eq!(keys.clear().len(), 99);
        assert!(keys.used(&hash(8), now).is_none());
    }

    #[test]
    fn no_more_are_kept_than_there_is_room_for_and_none_is_lost_silently() {
        let keys = KnownKeys::default();
        let many = 2 * SHARDS * SHARD_CAPACITY;
        let driven_out: usize = (0..many)
            .map(|number| keys.insert(hash(number), known(number)).len())
            .sum();
        let kept = keys.all().len();
        assert!(kept <= SHARDS * SHARD_CAPACITY);
        assert_eq!(kept + driven_out, many);
        let now = Timestamp::from_micros(2);
        assert!(keys.used(&hash(many - 1), now).is_some());
    }
}
