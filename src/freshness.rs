//! What keeps a memory cache honest across replicas: when this process last heard of every change
//! there is, and which keys changed while a value for them was being read.

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// When everything committed was last heard of. Cached values are served only while that is less
/// than the stated bound ago; beyond it the database is asked.
#[derive(Debug)]
pub struct Freshness {
    origin: Instant,
    /// Microseconds after `origin`; zero for never.
    heard: AtomicU64,
    bound: u64,
}

impl Freshness {
    /// With the bound on staleness; nothing was heard yet.
    pub fn new(bound: Duration) -> Self {
        Self {
            origin: Instant::now(),
            heard: AtomicU64::new(0),
            bound: micros(bound),
        }
    }

    /// Everything committed before `at` has been heard of.
    pub fn heard(&self, at: Instant) {
        let at = micros(at.saturating_duration_since(self.origin));
        self.heard.fetch_max(at, Ordering::Release);
    }

    /// Whether cached values may be served now.
    pub fn holds(&self) -> bool {
        let heard = self.heard.load(Ordering::Acquire);
        heard != 0 && micros(self.origin.elapsed()).saturating_sub(heard) <= self.bound
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

const SHARDS: usize = 1024;

/// Counts changes by key, so that a value read before a change is not cached after it. Keys share
/// counters: a collision costs one more read, never a stale value.
#[derive(Debug)]
pub struct Epochs {
    hasher: RandomState,
    shards: Vec<AtomicU64>,
}

impl Default for Epochs {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            shards: (0..SHARDS).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Epochs {
    fn shard(&self, key: impl Hash) -> Option<&AtomicU64> {
        let hash = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        self.shards.get(hash)
    }

    /// Where the key's counter stands. Take it before reading the value from the database.
    pub fn at(&self, key: impl Hash) -> u64 {
        self.shard(key)
            .map_or(0, |shard| shard.load(Ordering::SeqCst))
    }

    /// The key changed.
    pub fn advance(&self, key: impl Hash) {
        if let Some(shard) = self.shard(key) {
            shard.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Every key may have changed.
    pub fn advance_all(&self) {
        for shard in &self.shards {
            shard.fetch_add(1, Ordering::SeqCst);
        }
    }
}
