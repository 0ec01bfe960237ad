//! Where credentials are refused from: an address that sent too many that are nobody's waits, so that
//! guessing does not keep the database busy.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Error;

/// How many are kept.
const CAPACITY: usize = 10_000;

const MINUTE: Duration = Duration::from_secs(60);

/// Failures by whoever they are counted for. The generic cell rate algorithm: each failure takes a
/// sixtieth of a minute, say, and as many may be taken ahead as a minute has.
pub struct Failures<K> {
    clock: Clock,
    /// What one failure takes; zero for no limit.
    each: Duration,
    /// Until when somebody's failures have taken the time.
    taken: Mutex<HashMap<K, Duration>>,
}

impl<K: Eq + Hash> Failures<K> {
    /// With the most failures in a minute; 0 for no limit.
    pub fn new(per_minute: u32, clock: Clock) -> Self {
        Self {
            clock,
            each: MINUTE.checked_div(per_minute).unwrap_or_default(),
            taken: Mutex::default(),
        }
    }

    /// How long to wait; none where there were not too many failures.
    pub fn wait(&self, key: &K) -> Option<Duration> {
        if self.each.is_zero() {
            return None;
        }
        let now = self.clock.elapsed();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let until = taken.get(key).copied().unwrap_or_default();
        let free = until.saturating_sub(MINUTE.saturating_sub(self.each));
        (free > now).then(|| free.saturating_sub(now))
    }

    /// One failure more.
    pub fn count(&self, key: K) {
        if self.each.is_zero() {
            return;
        }
        let now = self.clock.elapsed();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.len() >= CAPACITY && !taken.contains_key(&key) {
            make_room(&mut taken, now);
        }
        let until = taken.entry(key).or_default();
        *until = (*until).max(now).saturating_add(self.each);
    }
}

/// Drops those that have waited long enough; then those with the fewest failures; all, when even
/// that leaves no room.
fn make_room<K: Eq + Hash>(taken: &mut HashMap<K, Duration>, now: Duration) {
    for spare in [Duration::ZERO, MINUTE / 2] {
        taken.retain(|_, until| *until > now.saturating_add(spare));
        if taken.len() < CAPACITY {
            return;
        }
    }
    taken.clear();
}

/// Addresses with failures.
pub struct Addresses(Failures<IpAddr>);

impl Addresses {
    /// With the most failures in a minute; 0 for no limit.
    pub fn new(failures_per_minute: u32, clock: Clock) -> Self {
        Self(Failures::new(failures_per_minute, clock))
    }

    /// Whether credentials from there are still looked up.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when too many were refused.
    pub fn admit(&self, address: Option<IpAddr>) -> Result<(), Error> {
        match address.and_then(|address| self.0.wait(&network(address))) {
            None => Ok(()),
            Some(retry_after) => Err(Error::RateLimited {
                limit: "failed_authentications_per_address",
                message: "too many credentials from this address were refused".to_owned(),
                retry_after,
            }),
        }
    }

    /// Credentials from there were refused.
    pub fn refused(&self, address: Option<IpAddr>) {
        if let Some(address) = address {
            self.0.count(network(address));
        }
    }
}

/// What one holder has of addresses: an IPv4 address, or a /64 of IPv6 (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_700_000_000_000_000))
    }

    fn address(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn an_address_waits_after_its_failures_and_others_do_not() {
        let clock = clock();
        let addresses = Addresses::new(60, clock.clone());
        let (bad, good) = (address("192.0.2.1"), address("192.0.2.2"));
        for _ in 0..60 {
            addresses.admit(bad).unwrap();
            addresses.refused(bad);
        }
        match addresses.admit(bad) {
            Err(Error::RateLimited { retry_after, .. }) => {
                assert_eq!(retry_after, Duration::from_secs(1));
            }
            other => panic!("{other:?}"),
        }
        addresses.admit(good).unwrap();
        addresses.admit(None).unwrap();
        clock.advance(Duration::from_secs(1));
        addresses.admit(bad).unwrap();
        addresses.refused(bad);
        addresses.admit(bad).unwrap_err();
        clock.advance(Duration::from_secs(60));
        for _ in 0..60 {
            addresses.admit(bad).unwrap();
            addresses.refused(bad);
        }
        addresses.admit(bad).unwrap_err();
    }

    #[test]
    fn a_network_of_ipv6_counts_as_one_address() {
        let addresses = Addresses::new(1, clock());
        addresses.refused(address("2001:db8::1"));
        addresses.admit(address("2001:db8::2")).unwrap_err();
        addresses.admit(address("2001:db8:0:1::1")).unwrap();
        addresses.refused(address("::ffff:192.0.2.1"));
        addresses.admit(address("192.0.2.1")).unwrap_err();
    }

    #[test]
    fn no_limit_means_none() {
        let addresses = Addresses::new(0, clock());
        for _ in 0..1_000 {
            addresses.refused(address("192.0.2.1"));
            addresses.admit(address("192.0.2.1")).unwrap();
        }
    }

    #[test]
    fn memory_is_bounded_and_the_worst_stay_longest() {
        let clock = clock();
        let addresses = Addresses::new(2, clock.clone());
        for number in 0..2 * u32::try_from(CAPACITY).unwrap() {
            addresses.refused(Some(IpAddr::V4(number.into())));
            if number == 0 {
                addresses.refused(Some(IpAddr::V4(number.into())));
            }
        }
        assert!(addresses.0.taken.lock().unwrap().len() <= CAPACITY);
        addresses.admit(Some(IpAddr::V4(0.into()))).unwrap_err();
    }
}
