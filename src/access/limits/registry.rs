//! The limiters of all callers, by who they are: what memory forgets of a caller's credentials does not
//! refill their bucket.

use std::collections::HashMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Limiter, Streams};
use crate::clock::Clock;
use crate::config;
use crate::model::{RateLimit, Role};

/// How many callers are kept before those that need not be are dropped.
const CAPACITY: usize = 100_000;

/// The limiters. Asked for when credentials are looked up in the database, not on every call.
pub struct Limits {
    clock: Clock,
    config: Option<config::Limits>,
    limiters: Mutex<HashMap<String, Kept>>,
}

struct Kept {
    limiter: Arc<Limiter>,
    /// When it was last asked for.
    asked: Duration,
}

impl Limits {
    /// By this configuration.
    pub fn new(config: &config::Limits, clock: Clock) -> Self {
        Self {
            clock,
            config: Some(config.clone()),
            limiters: Mutex::default(),
        }
    }

    /// No limits: for what serves nobody.
    pub fn none(clock: Clock) -> Self {
        Self {
            clock,
            config: None,
            limiters: Mutex::default(),
        }
    }

    /// The limiter of a caller; `own` stands for the role's limit. The same as before, unless the
    /// limit changed: then a new one begins full, and the streams count on.
    pub fn of(&self, principal_id: &str, role: Role, own: Option<RateLimit>) -> Arc<Limiter> {
        let Some(config) = &self.config else {
            return Arc::new(Limiter::unlimited());
        };
        let by_role = || {
            let limit = config.of_role(role.as_str())?;
            Some(RateLimit {
                requests_per_second: limit.requests_per_second,
                burst: limit.burst,
            })
        };
        let limit = own.or_else(by_role);
        let now = self.clock.elapsed();
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        let streams = match limiters.get_mut(principal_id) {
            Some(kept) => {
                kept.asked = now;
                if kept.limiter.limit() == limit {
                    return Arc::clone(&kept.limiter);
                }
                Arc::clone(&kept.limiter.streams)
            }
            None => Arc::new(Streams {
                open: AtomicU32::new(0),
                most: config.streams_per_caller,
            }),
        };
        if limiters.len() >= CAPACITY {
            drop_spare(&mut limiters, now);
        }
        let limiter = Arc::new(Limiter::new(limit, &self.clock, streams));
        let kept = Kept {
            limiter: Arc::clone(&limiter),
            asked: now,
        };
        limiters.insert(principal_id.to_owned(), kept);
        limiter
    }
}

/// Drops what makes no difference: limiters that no memory and no stream holds and whose bucket is
/// full again, as a new one would be. Where that is not enough, all that nobody holds.
fn drop_spare(limiters: &mut HashMap<String, Kept>, now: Duration) {
    let held = |kept: &Kept| Arc::strong_count(&kept.limiter) > 1 || kept.limiter.has_streams();
    limiters.retain(|_, kept| {
        held(kept) || now.saturating_sub(kept.asked) < kept.limiter.refilled_after()
    });
    if limiters.len() >= CAPACITY {
        limiters.retain(|_, kept| held(kept));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::model::Timestamp;

    fn limits(clock: &Clock) -> Limits {
        let folder = tempfile::tempdir().unwrap();
        let mut config = crate::config::Config::defaults(folder.path()).unwrap();
        config.limits.streams_per_caller = 2;
        Limits::new(&config.limits, clock.clone())
    }

    fn clock() -> Clock {
        Clock::manual(Timestamp::from_micros(1_700_000_000_000_000))
    }

    const FIVE: Option<RateLimit> = Some(RateLimit {
        requests_per_second: 5,
        burst: 10,
    });

    fn wait(limiter: &Limiter) -> Duration {
        match limiter.charge() {
            Err(Error::RateLimited { retry_after, .. }) => retry_after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_bucket_refuses_at_its_burst_and_tells_the_exact_wait() {
        let clock = clock();
        let limiter = limits(&clock).of("key_1", Role::Admin, FIVE);
        for _ in 0..10 {
            limiter.charge().unwrap();
        }
        assert_eq!(wait(&limiter), Duration::from_millis(200));
        clock.advance(Duration::from_millis(150));
        assert_eq!(wait(&limiter), Duration::from_millis(50));
        clock.advance(Duration::from_millis(50));
        limiter.charge().unwrap();
        assert_eq!(wait(&limiter), Duration::from_millis(200));
        clock.advance(Duration::from_secs(60));
        for _ in 0..10 {
            limiter.charge().unwrap();
        }
        assert_eq!(wait(&limiter), Duration::from_millis(200));
    }

    #[test]
    fn a_caller_keeps_its_bucket_and_a_changed_limit_makes_another() {
        let limits = limits(&clock());
        let first = limits.of("key_1", Role::Admin, FIVE);
        let stream = first.stream().unwrap();
        assert!(Arc::ptr_eq(&first, &limits.of("key_1", Role::Admin, FIVE)));
        assert!(!Arc::ptr_eq(&first, &limits.of("key_2", Role::Admin, FIVE)));
        let changed = limits.of("key_1", Role::Admin, None);
        assert!(!Arc::ptr_eq(&first, &changed));
        let second = changed.stream().unwrap();
        assert!(first.stream().is_err());
        drop((stream, second));
        first.stream().unwrap();
    }

    #[test]
    fn an_own_limit_stands_for_the_roles() {
        let limits = limits(&clock());
        assert_eq!(limits.of("a", Role::Auditor, FIVE).limit(), FIVE);
        let role = limits.of("b", Role::Auditor, None).limit();
        assert_eq!(role.map(|limit| limit.requests_per_second), Some(50));
        assert_eq!(
            Limits::none(clock()).of("c", Role::User, FIVE).limit(),
            None
        );
    }

    #[test]
    fn every_role_has_a_limit_of_its_name() {
        let limits = limits(&clock());
        for role in Role::ALL {
            assert!(limits.of(role.as_str(), role, None).limit().is_some());
        }
    }

    #[test]
    fn memory_is_bounded_and_who_is_held_or_has_called_lately_stays() {
        let clock = clock();
        let limits = limits(&clock);
        let held = limits.of("held", Role::Admin, FIVE);
        for number in 0..CAPACITY {
            limits.of(&format!("key_{number}"), Role::Admin, FIVE);
            clock.advance(Duration::from_millis(1));
        }
        let again = limits.of("held", Role::Admin, FIVE);
        assert!(Arc::ptr_eq(&held, &again));
        let kept = limits.limiters.lock().unwrap();
        assert!(kept.len() < CAPACITY);
        assert!(kept.contains_key(&format!("key_{}", CAPACITY - 2)));
        assert!(!kept.contains_key("key_0"));
    }
}
