//! Passwords: hashed beside the runtime's threads, so many at a time as there are cores.

mod rules;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Semaphore;

pub use crate::crypto::password::Verdict;
pub use rules::{LENGTH_MAX, LENGTH_MIN, faults};

use crate::config;
use crate::crypto::password::{Cost, Hasher};
use crate::error::Error;

/// How many wait for each core. Each waits for those before it, some 30 ms each at the defaults; more
/// would only let callers wait for answers that they have given up.
const WAITING_PER_CORE: usize = 32;

/// When to try again; the queue empties within about this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Hashes and compares passwords.
pub struct Passwords {
    hasher: Arc<Hasher>,
    /// What a password is compared with where there is no hash.
    dummy: String,
    /// Those at work; each takes the configured memory.
    working: Arc<Semaphore>,
    /// Those at work and those who wait.
    admitted: Arc<Semaphore>,
    computed: AtomicU64,
}

impl Passwords {
    /// At the configured cost.
    ///
    /// # Errors
    /// [`Error::Internal`] for a cost that Argon2 does not have, which the configuration refuses.
    pub fn new(config: &config::Passwords) -> Result<Self, Error> {
        let hasher = Hasher::new(Cost {
            memory: config.memory,
            iterations: config.iterations,
            parallelism: config.parallelism,
        })?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            dummy: hasher.dummy()?,
            hasher: Arc::new(hasher),
            working: Arc::new(Semaphore::new(cores)),
            admitted: Arc::new(Semaphore::new(cores * (1 + WAITING_PER_CORE))),
            computed: AtomicU64::new(0),
        })
    }

    /// The hash of a password.
    ///
    /// # Errors
    /// [`Error::ResourceExhausted`] when too many wait already, or [`Error::Internal`].
    pub async fn hash(&self, password: &SecretString) -> Result<String, Error> {
        let password = password.clone();
        self.compute(move |hasher| hasher.hash(&password)).await
    }

    /// Compares a password with a user's hash. Without a hash (no such user, or one without a
    /// password) the same work is done, and the password is wrong.
    ///
    /// # Errors
    /// As [`Passwords::hash`].
    pub async fn verify(
        &self,
        hash: Option<&str>,
        password: &SecretString,
    ) -> Result<Verdict, Error> {
        let hash = hash.unwrap_or(&self.dummy).to_owned();
        let password = password.clone();
        self.compute(move |hasher| hasher.verify(&hash, &password))
            .await
    }

    /// How many hashes were computed so far, whether to store or to compare.
    pub fn computed(&self) -> u64 {
        self.computed.load(Ordering::Relaxed)
    }

    async fn compute<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Hasher) -> Result<T, crate::crypto::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned();
        let admitted = admitted.map_err(|_| Error::ResourceExhausted {
            message: "too many passwords are being judged at once".to_owned(),
            retry_after: RETRY_AFTER,
        })?;
        let working = Arc::clone(&self.working)
            .acquire_owned()
            .await
            .map_err(Error::internal)?;
        self.computed.fetch_add(1, Ordering::Relaxed);
        let hasher = Arc::clone(&self.hasher);
        let done = tokio::task::spawn_blocking(move || {
            // Held until the memory is given back, even where nobody waits any more.
            let _held = (admitted, working);
            work(&hasher)
        });
        Ok(done.await.map_err(Error::internal)??)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(&config::Passwords {
            memory: 64,
            iterations: 2,
            parallelism: 1,
            free_failures: 5,
            base_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(900),
        })
        .unwrap()
    }

    #[tokio::test]
    async fn without_a_hash_the_same_work_is_done_in_vain() {
        let passwords = passwords();
        let password = SecretString::from("a password of mine");
        let hash = passwords.hash(&password).await.unwrap();
        let right = passwords.verify(Some(&hash), &password).await.unwrap();
        assert_eq!(right, Verdict::Right { outdated: false });
        let before = passwords.computed();
        let wrong = passwords.verify(None, &password).await.unwrap();
        assert_eq!((wrong, passwords.computed() - before), (Verdict::Wrong, 1));
    }

    #[tokio::test]
    async fn who_would_wait_too_long_is_told_to_come_back() {
        let passwords = passwords();
        let all = u32::try_from(passwords.admitted.available_permits()).unwrap();
        let _taken = passwords.admitted.acquire_many(all).await.unwrap();
        let refused = passwords.hash(&SecretString::from("a password")).await;
        assert!(
            matches!(refused, Err(Error::ResourceExhausted { retry_after, .. }) if retry_after == RETRY_AFTER)
        );
        assert_eq!(passwords.computed(), 0);
    }
}
