//! The brake on failed sign-ins and refreshes: failures are counted by account and by address, in the
//! database, so that it does not matter which replica is asked.
//!
//! An attempt counts as failed from the moment that it is admitted: of a thousand guesses sent at
//! once, no more are judged than of those sent one after the other.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::Mutex;

use super::limits::network;
use crate::config;
use crate::crypto::digest;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::sign_in_failures::{self as failures, Count};
use crate::store::{Store, Tx, transact};

/// Frozen while rows live: what is counted under other names begins at zero.
const ACCOUNT_TAG: &[u8] = b"tokenbroker.sign_in.account.v1";
const ADDRESS_TAG: &[u8] = b"tokenbroker.sign_in.address.v1";
const REFRESH_TAG: &[u8] = b"tokenbroker.refresh.address.v1";

/// How long after the last failure all are forgotten.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(24 * 60 * 60);

/// How many times as often an address may fail: many people share one.
const ADDRESS_FACTOR: u32 = 10;

/// Refused attempts whose block has been told of, at once.
const TOLD_MAX: u64 = 10_000;

/// Turns that accounts share, by the first byte of their hash.
const TURNS: usize = 256;

/// SHA-256 of what is counted.
type Subject = [u8; 32];

/// Whose attempt it is, by what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// None where it is nobody's.
    account: Option<Subject>,
    /// None where the transport does not tell.
    address: Option<Subject>,
}

impl Attempt {
    /// To prove to be the account of this e-mail address, whether or not there is one.
    pub fn new(tenant: &str, email: &str, ip: Option<IpAddr>) -> Self {
        let account = subject(ACCOUNT_TAG, &[tenant.as_bytes(), email.as_bytes()]);
        Self {
            account: Some(account),
            address: address(ADDRESS_TAG, ip),
        }
    }

    /// To refresh a session by a token that is nobody's. Counted apart from sign-ins: the stale tokens
    /// of an application's users come from its one address, and must not keep them from signing in.
    pub fn refresh_from(ip: Option<IpAddr>) -> Self {
        Self {
            account: None,
            address: address(REFRESH_TAG, ip),
        }
    }

    /// The account before the address, always: so no two wait for each other.
    fn subjects(&self) -> impl Iterator<Item = Subject> + use<> {
        self.account.into_iter().chain(self.address)
    }
}

/// Of an IPv6 address its first 64 bits count, which is the least that one customer has.
fn address(tag: &[u8], ip: Option<IpAddr>) -> Option<Subject> {
    ip.map(|ip| match network(ip) {
        IpAddr::V4(ip) => subject(tag, &[&ip.octets()]),
        IpAddr::V6(ip) => subject(tag, &[&ip.octets()]),
    })
}

fn subject(tag: &[u8], parts: &[&[u8]]) -> Subject {
    let mut bytes = Vec::from(tag);
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(*part);
    }
    digest::sha256(&bytes)
}

/// An attempt that may be judged. It counts as failed until [`Throttle::succeeded`] or
/// [`Throttle::withdrawn`] has it back.
#[derive(Clone, Debug)]
#[must_use]
pub struct Admission {
    attempt: Attempt,
    /// What it is counted by, and until when that is blocked on account of this attempt.
    counted: Vec<(Subject, Timestamp)>,
}

/// Why an attempt is not judged.
#[derive(Debug)]
pub enum Refusal {
    /// Too many failed before.
    Blocked {
        /// How long to wait.
        retry_after: Duration,
        /// The first such refusal of this block, as far as this replica knows: the one to record, lest
        /// whoever sends a million of them fills the trail.
        first: bool,
    },
    /// The count could not be had.
    Failed(Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Failed(error) => error,
            Refusal::Blocked { retry_after, .. } => Self::ResourceExhausted {
                message:
                    "too many attempts at this account or session, or from this address, failed"
                        .to_owned(),
                retry_after,
            },
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<crate::store::Error> for Refusal {
    fn from(error: crate::store::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Counts failures and says when to wait.
pub struct Throttle {
    store: Store,
    config: config::Passwords,
    /// Which block of a subject was told of.
    told: moka::sync::Cache<Subject, Timestamp>,
    /// Of the attempts at one account one at a time goes to the database, so that a thousand at once
    /// find the block that the first of them set, rather than queue for its lock.
    turns: Vec<Mutex<()>>,
}

impl Throttle {
    /// On a store, as configured.
    pub fn new(store: Store, config: config::Passwords) -> Self {
        Self {
            store,
            config,
            told: moka::sync::Cache::new(TOLD_MAX),
            turns: (0..TURNS).map(|_| Mutex::default()).collect(),
        }
    }

    /// Admits an attempt, before anything is judged, or says how long to wait.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn admit(&self, attempt: Attempt, now: Timestamp) -> Result<Admission, Refusal> {
        let turn = attempt.subjects().next().map_or(0, |[first, ..]| first);
        let _turn = match self.turns.get(usize::from(turn)) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        // Most refusals need no lock of the database's.
        {
            let mut conn = self.store.read().await?;
            for subject in attempt.subjects() {
                if let Some(count) = failures::find(&mut conn, &subject).await? {
                    self.judge(&subject, &count, now)?;
                }
            }
        }
        let admitted = transact!(self.store, |tx| {
            let mut failed = Vec::new();
            for subject in attempt.subjects() {
                let count = failures::lock(&mut tx, &subject, now).await?;
                if count.blocked_until > now {
                    return Ok(Err((subject, count)));
                }
                let factor = match attempt.account {
                    Some(account) if account == subject => 1,
                    _ => ADDRESS_FACTOR,
                };
                let free = self.config.free_failures.saturating_mul(factor);
                failed.push((subject, self.next(count, free, now)));
            }
            let mut counted = Vec::new();
            for (subject, count) in failed {
                failures::set(&mut tx, &subject, count).await?;
                counted.push((subject, count.blocked_until));
            }
            Ok(Ok(Admission { attempt, counted }))
        })?;
        match admitted {
            Ok(admission) => Ok(admission),
            Err((subject, count)) => {
                self.judge(&subject, &count, now)?;
                Err(Refusal::Failed(Error::internal("a block that is none")))
            }
        }
    }

    /// An admitted attempt was right: the account begins anew, and the attempt no longer counts for the
    /// address. What failed from there before still does, or whoever has an account of their own
    /// could guess others' for ever.
    ///
    /// # Errors
    /// The store's.
    pub async fn succeeded(&self, admission: Admission, now: Timestamp) -> Result<(), Error> {
        transact!(self.store, |tx| {
            for (subject, blocked_until) in &admission.counted {
                if admission.attempt.account == Some(*subject) {
                    failures::clear(&mut tx, subject).await?;
                } else {
                    give_back(&mut tx, subject, *blocked_until, now).await?;
                }
            }
            Ok(())
        })
    }

    /// An admitted attempt could not be judged: nobody learned anything from it, so it does not count.
    /// Where that can't be stored either, it stays counted; a guess too many is worse than a wait.
    pub async fn withdrawn(&self, admission: Admission, now: Timestamp) {
        let given_back: Result<(), Error> = transact!(self.store, |tx| {
            for (subject, blocked_until) in &admission.counted {
                give_back(&mut tx, subject, *blocked_until, now).await?;
            }
            Ok(())
        });
        if let Err(error) = given_back {
            tracing::warn!(%error, "an attempt that was not judged stays counted as failed");
        }
    }

    fn judge(&self, subject: &Subject, count: &Count, now: Timestamp) -> Result<(), Refusal> {
        if count.blocked_until <= now {
            return Ok(());
        }
        let first = self.told.get(subject) != Some(count.blocked_until);
        self.told.insert(*subject, count.blocked_until);
        Err(Refusal::Blocked {
            retry_after: count.blocked_until.since(now),
            first,
        })
    }

    /// How a subject stands with one failure more.
    fn next(&self, count: Count, free: u32, now: Timestamp) -> Count {
        let forgotten = now.since(count.last_at) >= FORGOTTEN_AFTER;
        let before = if forgotten { 0 } else { count.failures };
        let failures = before.saturating_add(1);
        let beyond = u32::try_from(failures)
            .unwrap_or_default()
            .saturating_sub(free);
        let delay = self.delay(beyond);
        Count {
            failures,
            last_at: now,
            // Without a wait nothing is blocked, not until now either: another attempt's now may be
            // an earlier one.
            blocked_until: if delay.is_zero() {
                count.blocked_until
            } else {
                now.plus(delay)
            },
        }
    }

    /// The wait after so many failures beyond the free ones.
    fn delay(&self, beyond: u32) -> Duration {
        let Some(doublings) = beyond.checked_sub(1) else {
            return Duration::ZERO;
        };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        let delay = self.config.base_delay.saturating_mul(factor);
        delay.min(self.config.max_delay)
    }
}

/// Counts one failure less. A block that a later attempt set is not this one's to lift.
async fn give_back(
    tx: &mut Tx,
    subject: &Subject,
    blocked_until: Timestamp,
    now: Timestamp,
) -> Result<(), Error> {
    let mut count = failures::lock(tx, subject, now).await?;
    count.failures = (count.failures - 1).max(0);
    if count.blocked_until == blocked_until {
        count.blocked_until = now.min(blocked_until);
    }
    failures::set(tx, subject, count).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(tenant: &str, email: &str, ip: &str) -> Attempt {
        Attempt::new(tenant, email, Some(ip.parse().unwrap()))
    }

    #[test]
    fn accounts_of_different_tenants_are_different() {
        let of = |tenant, email| attempt(tenant, email, "192.0.2.1").account;
        assert_eq!(of("t", "a@b.c"), of("t", "a@b.c"));
        assert_ne!(of("t", "a@b.c"), of("u", "a@b.c"));
        assert_ne!(of("ta", "@b.c"), of("t", "a@b.c"));
    }

    #[test]
    fn an_ipv6_customer_has_one_count_for_all_addresses() {
        let of = |ip| attempt("t", "a@b.c", ip).address;
        assert_eq!(of("2001:db8:1:2::1"), of("2001:db8:1:2:ffff::9"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
