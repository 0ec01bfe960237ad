//! The keys of one issuer in memory: fetched when first needed, again before they are old, and
//! when a token names one that is not known yet.

use std::io::Read as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::{Mutex, OwnedMutexGuard, Semaphore};
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::config::{JwtIssuer, JwtKeySource};
use crate::crypto::jwt::KeySet;
use crate::error::Error;
use crate::oauth::{Http, jwks};

/// The least time between two fetches for keys that are not known, and after a failed one: what
/// strangers write into tokens must not become load on the issuer.
const PAUSE: Duration = Duration::from_secs(30);

/// Most callers that wait for one issuer's keys.
const WAITING_MAX: usize = 256;

/// Longest file that is read, in bytes.
const FILE_MAX: u64 = 256 * 1_024;

/// The keys of one issuer.
pub(super) struct Keys {
    config: JwtIssuer,
    clock: Clock,
    /// Kept where the authorities are the system's; those of a file are read each time, since
    /// they are replaced in place.
    http: Option<Http>,
    state: RwLock<State>,
    /// Held by the one that fetches.
    fetching: Arc<Mutex<()>>,
    waiting: Semaphore,
}

#[derive(Clone, Default)]
struct State {
    held: Option<Held>,
    /// How many fetches there were.
    round: u64,
    /// When the last one failed, if it did.
    failed: Option<Duration>,
    /// When a key that was not known was last asked for.
    asked: Option<Duration>,
}

#[derive(Clone)]
struct Held {
    set: Arc<KeySet>,
    /// When its fetch began.
    since: Duration,
}

/// Keys, as memory had them at some moment.
pub(super) struct Seen {
    pub(super) set: Arc<KeySet>,
    /// How many fetches there were by then.
    round: u64,
    /// Whether the last of them was made for whoever asked.
    fetched: bool,
}

impl Keys {
    /// None is fetched yet.
    pub(super) fn new(config: JwtIssuer, clock: Clock, http: Option<Http>) -> Self {
        Self {
            config,
            clock,
            http,
            state: RwLock::default(),
            fetching: Arc::default(),
            waiting: Semaphore::new(WAITING_MAX),
        }
    }

    /// The keys that memory has, if they may be used without waiting. Old ones may while the
    /// issuer can't be reached. Sees to it that they are fetched anew in time.
    pub(super) fn current(self: &Arc<Self>) -> Option<Seen> {
        self.seen(|age, failed| {
            age < self.config.jwks_max_age || (failed && age < self.config.jwks_max_stale)
        })
    }

    /// The same, for who can't wait: those that are about to be fetched anew will do.
    pub(super) fn held(self: &Arc<Self>) -> Option<Seen> {
        self.seen(|age, _| age < self.config.jwks_max_stale)
    }

    fn seen(self: &Arc<Self>, may_be_used: impl Fn(Duration, bool) -> bool) -> Option<Seen> {
        let now = self.clock.elapsed();
        let state = self.state();
        let held = state.held?;
        let age = now.saturating_sub(held.since);
        let resting = state.failed.is_some_and(|failed| is_within(failed, now));
        // A quarter is left for the fetch: those who call often never wait for one.
        if age >= self.config.jwks_max_age / 4 * 3 && !resting {
            self.fetch_meanwhile(state.round);
        }
        may_be_used(age, state.failed.is_some()).then_some(Seen {
            set: held.set,
            round: state.round,
            fetched: false,
        })
    }

    /// The keys; fetches them where memory has none that may be used.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there are none.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Seen, Error> {
        if let Some(seen) = self.current() {
            return Ok(seen);
        }
        let state = self.state();
        let now = self.clock.elapsed();
        if state.failed.is_some_and(|failed| is_within(failed, now)) {
            return Err(self.unavailable());
        }
        self.fetch_once(state.round, false).await?;
        let seen = self.current().ok_or_else(|| self.unavailable())?;
        Ok(Seen {
            fetched: true,
            ..seen
        })
    }

    /// Newer keys than those seen, since a token names one that they don't have; `None` when
    /// there are none, or it is too early to ask again.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the issuer could not be asked.
    pub(super) async fn newer_than(
        self: &Arc<Self>,
        seen: &Seen,
    ) -> Result<Option<Arc<KeySet>>, Error> {
        let mut state = self.state();
        let now = self.clock.elapsed();
        let early = [state.asked, state.failed]
            .into_iter()
            .flatten()
            .any(|began| is_within(began, now));
        if state.round == seen.round && !early && !seen.fetched {
            self.fetch_once(state.round, true).await?;
            state = self.state();
        }
        if state.failed.is_some() {
            return Err(self.unavailable());
        }
        let newer = state.round > seen.round;
        Ok(state.held.filter(|_| newer).map(|held| held.set))
    }

    /// Fetches, unless somebody else has since `round`.
    async fn fetch_once(self: &Arc<Self>, round: u64, asked: bool) -> Result<(), Error> {
        let _place = self.waiting.try_acquire().map_err(|_| self.unavailable())?;
        let turn = Arc::clone(&self.fetching).lock_owned().await;
        if self.state().round == round {
            self.fetch(turn, asked).await;
        }
        Ok(())
    }

    /// Fetches on the side, unless somebody does already.
    fn fetch_meanwhile(self: &Arc<Self>, round: u64) {
        if let Ok(turn) = Arc::clone(&self.fetching).try_lock_owned()
            && self.state().round == round
        {
            let keys = Arc::clone(self);
            tokio::spawn(async move { keys.fetch(turn, false).await });
        }
    }

    async fn fetch(&self, _turn: OwnedMutexGuard<()>, asked: bool) {
        let began = self.clock.elapsed();
        let loaded = self.load().await;
        let issuer = &self.config.name;
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.round += 1;
        if asked {
            state.asked = Some(began);
        }
        match loaded {
            Ok(set) => {
                tracing::debug!(
                    issuer,
                    keys = set.len(),
                    "the keys of a JWT issuer were fetched"
                );
                state.failed = None;
                state.held = Some(Held {
                    set: Arc::new(set),
                    since: began,
                });
            }
            Err(problem) => {
                state.failed = Some(began);
                tracing::warn!(issuer, "the keys of a JWT issuer can't be had: {problem}");
            }
        }
    }

    /// Reads the keys from where they are.
    async fn load(&self) -> Result<KeySet, String> {
        let document = match &self.config.keys {
            JwtKeySource::File(path) => read(path).await?,
            JwtKeySource::Url(url) => {
                let bearer = self.bearer().await?;
                jwks::fetch(&self.http().await?, url, bearer.as_ref()).await?
            }
            JwtKeySource::Discovery(issuer) => {
                let http = self.http().await?;
                let address = jwks::address(&http, issuer, &self.config.issuer).await?;
                jwks::fetch(&http, &address, None).await?
            }
        };
        KeySet::parse(&document).map_err(|fault| fault.to_string())
    }

    async fn http(&self) -> Result<Http, String> {
        if let Some(http) = &self.http {
            return Ok(http.clone());
        }
        let pem = match &self.config.ca_file {
            Some(path) => Some(read(path).await?),
            None => None,
        };
        jwks::client(pem.as_deref()).map_err(|error| error.to_string())
    }

    async fn bearer(&self) -> Result<Option<SecretString>, String> {
        let Some(path) = &self.config.bearer_token_file else {
            return Ok(None);
        };
        let content = Zeroizing::new(read(path).await?);
        let text =
            std::str::from_utf8(&content).map_err(|_| format!("{} is not text", path.display()))?;
        Ok(Some(SecretString::from(text.trim())))
    }

    fn state(&self) -> State {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.clone()
    }

    /// The error of whoever needs them now.
    pub(super) fn unavailable(&self) -> Error {
        let what = format!(
            "the keys of the issuer {:?} can't be had at the moment",
            self.config.name
        );
        Error::Unavailable(what, None)
    }
}

fn is_within(began: Duration, now: Duration) -> bool {
    now.saturating_sub(began) < PAUSE
}

/// A file of bounded length.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display().to_string();
    let path = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let mut content = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(FILE_MAX + 1).read_to_end(&mut content)?;
        Ok::<_, std::io::Error>(content)
    });
    let content = match reading.await {
        Ok(Ok(content)) => content,
        Ok(Err(error)) => return Err(format!("{shown} can't be read: {error}")),
        Err(error) => return Err(format!("{shown} can't be read: {error}")),
    };
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > FILE_MAX {
        return Err(format!("{shown} is longer than {FILE_MAX} bytes"));
    }
    Ok(content)
}
