//! Stops asking a host that keeps failing. In memory: each replica learns for itself.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Hosts remembered at most. Only failing hosts are; beyond this the new ones go unguarded.
const MOST_HOSTS: usize = 10_000;

/// A circuit breaker per host. It opens after a run of transient failures, lets one request
/// through when its back-off is over, and closes with the first answer that is none.
#[derive(Debug)]
pub struct Breaker {
    threshold: u32,
    first: Duration,
    longest: Duration,
    hosts: Mutex<HashMap<String, State>>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Failures in a row.
    failures: u32,
    /// Requests are refused until then.
    until: Option<Instant>,
}

impl Breaker {
    /// Opens after `threshold` failures in a row, for `first` and then twice as long each time,
    /// `longest` at most.
    pub fn new(threshold: u32, first: Duration, longest: Duration) -> Self {
        Self {
            threshold: threshold.max(1),
            first,
            longest,
            hosts: Mutex::default(),
        }
    }

    /// Asks whether a request may be sent at `now`; otherwise how long to wait. Who is let
    /// through an open breaker is its probe: the others keep waiting for another back-off.
    pub fn admit(&self, host: &str, now: Instant) -> Result<(), Duration> {
        let mut hosts = self.lock();
        let Some(state) = hosts.get_mut(host) else {
            return Ok(());
        };
        match state.until {
            Some(until) if until > now => Err(until.duration_since(now)),
            Some(_) => {
                state.until = Some(now + self.back_off(state.failures));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// The host answered, be it with an error of the caller's.
    pub fn succeeded(&self, host: &str) {
        self.lock().remove(host);
    }

    /// The host failed transiently. `retry_after` is what it asked for, if it did.
    pub fn failed(&self, host: &str, now: Instant, retry_after: Option<Duration>) {
        let mut hosts = self.lock();
        if hosts.len() >= MOST_HOSTS && !hosts.contains_key(host) {
            hosts.retain(|_, state| state.until.is_some_and(|until| until > now));
            if hosts.len() >= MOST_HOSTS {
                return;
            }
        }
        let state = hosts.entry(host.to_owned()).or_insert(State {
            failures: 0,
            until: None,
        });
        state.failures = state.failures.saturating_add(1);
        if state.failures >= self.threshold {
            let asked = retry_after.unwrap_or_default().min(self.longest);
            state.until = Some(now + self.back_off(state.failures).max(asked));
        }
    }

    fn back_off(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(self.threshold).min(16);
        self.first.saturating_mul(1 << doublings).min(self.longest)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, State>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Breaker {
    /// Five failures in a row; five seconds to two minutes.
    fn default() -> Self {
        Self::new(5, Duration::from_secs(5), Duration::from_secs(120))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn it_opens_probes_and_closes() {
        let breaker = Breaker::new(2, SECOND, 4 * SECOND);
        let start = Instant::now();
        breaker.failed("a", start, None);
        assert_eq!(breaker.admit("a", start), Ok(()));
        breaker.failed("a", start, None);
        assert_eq!(breaker.admit("a", start), Err(SECOND));
        assert_eq!(breaker.admit("b", start), Ok(()));

        let later = start + SECOND;
        assert_eq!(breaker.admit("a", later), Ok(()), "the probe");
        assert_eq!(breaker.admit("a", later), Err(SECOND), "the others wait");
        breaker.failed("a", later, None);
        assert_eq!(breaker.admit("a", later), Err(2 * SECOND));

        breaker.succeeded("a");
        assert_eq!(breaker.admit("a", later), Ok(()));
    }

    #[test]
    fn a_wish_of_the_host_is_granted_within_bounds() {
        let breaker = Breaker::new(1, SECOND, 10 * SECOND);
        let start = Instant::now();
        breaker.failed("a", start, Some(3 * SECOND));
        assert_eq!(breaker.admit("a", start), Err(3 * SECOND));
        breaker.failed("b", start, Some(3600 * SECOND));
        assert_eq!(breaker.admit("b", start), Err(10 * SECOND));
    }
}
