//! The brake on failed sign-ins: failures are counted by account and by address, in the database, so
//! that it does not matter which replica is asked.
//!
//! An attempt counts as failed from the moment that it is admitted: of a thousand guesses sent at
//! once, no more are judged than of those sent one after the other.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use tokio::sync::Mutex;

use crate::config;
use crate::crypto::digest;
use crate::error::Error;
use crate::model::Timestamp;
use crate::store::sign_in_failures::{self as failures, Count};
use crate::store::{Store, transact};

/// Frozen while rows live: what is counted under other names begins at zero.
const ACCOUNT_TAG: &[u8] = b"tokenbroker.sign_in.account.v1";
const ADDRESS_TAG: &[u8] = b"tokenbroker.sign_in.address.v1";

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
    account: Subject,
    /// None where the transport does not tell.
    address: Option<Subject>,
}

impl Attempt {
    /// To prove to be the account of this e-mail address, whether or not there is one. Of an IPv6
    /// address its first 64 bits count, which is the least that one customer has.
    pub fn new(tenant: &str, email: &str, ip: Option<IpAddr>) -> Self {
        let address = ip.map(|ip| match ip.to_canonical() {
            IpAddr::V4(ip) => subject(ADDRESS_TAG, &[&ip.octets()]),
            IpAddr::V6(ip) => {
                let network = ip.to_bits() & (u128::MAX << 64);
                subject(ADDRESS_TAG, &[&Ipv6Addr::from_bits(network).octets()])
            }
        });
        Self {
            account: subject(ACCOUNT_TAG, &[tenant.as_bytes(), email.as_bytes()]),
            address,
        }
    }
}

fn subject(tag: &[u8], parts: &[&[u8]]) -> Subject {
    let mut bytes = Vec::from(tag);
    for part in parts {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(*part);
    }
    digest::sha256(&bytes)
}

/// An attempt that may be judged. It counts as failed until [`Throttle::succeeded`] has it back.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Admission {
    attempt: Attempt,
    /// Until when the address is blocked on account of this attempt.
    address_blocked_until: Timestamp,
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
                message: "too many sign-ins of this account or from this address failed".to_owned(),
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
        let [first, ..] = attempt.account;
        let _turn = match self.turns.get(usize::from(first)) {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        // Most refusals need no lock of the database's.
        {
            let mut conn = self.store.read().await?;
            for subject in [Some(attempt.account), attempt.address]
                .into_iter()
                .flatten()
            {
                if let Some(count) = failures::find(&mut conn, &subject).await? {
                    self.judge(&subject, &count, now)?;
                }
            }
        }
        let admitted = transact!(self.store, |tx| {
            // The account before the address, always: so no two wait for each other.
            let account = failures::lock(&mut tx, &attempt.account, now).await?;
            if account.blocked_until > now {
                return Ok(Err((attempt.account, account)));
            }
            let next = self.next(account, self.config.free_failures, now);
            failures::set(&mut tx, &attempt.account, next).await?;
            let mut address_blocked_until = now;
            if let Some(subject) = attempt.address {
                let address = failures::lock(&mut tx, &subject, now).await?;
                if address.blocked_until > now {
                    failures::set(&mut tx, &attempt.account, account).await?;
                    return Ok(Err((subject, address)));
                }
                let free = self.config.free_failures.saturating_mul(ADDRESS_FACTOR);
                let next = self.next(address, free, now);
                failures::set(&mut tx, &subject, next).await?;
                address_blocked_until = next.blocked_until;
            }
            Ok(Ok(Admission {
                attempt,
                address_blocked_until,
            }))
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
        let Admission {
            attempt,
            address_blocked_until,
        } = admission;
        transact!(self.store, |tx| {
            failures::clear(&mut tx, &attempt.account).await?;
            if let Some(subject) = attempt.address {
                let mut count = failures::lock(&mut tx, &subject, now).await?;
                count.failures = (count.failures - 1).max(0);
                // A block that a later attempt set is not this one's to lift.
                if count.blocked_until == address_blocked_until {
                    count.blocked_until = now.min(address_blocked_until);
                }
                failures::set(&mut tx, &subject, count).await?;
            }
            Ok(())
        })
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
        Count {
            failures,
            last_at: now,
            blocked_until: now.plus(self.delay(beyond)),
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
