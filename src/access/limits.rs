//! How often a caller may call, and how many streams it may hold.

mod addresses;
mod registry;

pub use addresses::{Addresses, Failures, network};
pub use registry::Limits;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use crate::clock::Clock;
use crate::error::Error;
use crate::model::RateLimit;

/// How long a caller with too many streams should wait: they end by themselves or not at all.
const STREAMS_FULL_FOR: Duration = Duration::from_secs(5);

const SECOND: Duration = Duration::from_secs(1);

/// Tells the limiter the time: a duration since some fixed moment.
#[derive(Clone, Debug)]
struct Ticks(Clock);

impl governor::clock::Clock for Ticks {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Governor = RateLimiter<NotKeyed, InMemoryState, Ticks, NoOpMiddleware<Duration>>;

/// So many in a period, given back evenly.
#[derive(Debug)]
pub struct Bucket {
    governor: Governor,
    ticks: Ticks,
}

impl Bucket {
    /// Full: `burst` at once, and `most` again in each `period`.
    pub fn new(most: NonZeroU32, period: Duration, burst: NonZeroU32, clock: &Clock) -> Self {
        // A period too short to be shared out has no limit worth the name: a nanosecond each.
        let each = (period / most.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(each).unwrap_or(Quota::per_second(most));
        let ticks = Ticks(clock.clone());
        Self {
            governor: RateLimiter::direct_with_clock(quota.allow_burst(burst), ticks.clone()),
            ticks,
        }
    }

    /// One more.
    ///
    /// # Errors
    /// The time until the next one, when there is none left.
    pub fn take(&self) -> Result<(), Duration> {
        let taken = self.governor.check();
        taken.map_err(|until| until.wait_time_from(self.ticks.now()))
    }
}

/// The limits of one caller. Charging it is one atomic exchange: no lock, no allocation.
#[derive(Debug)]
pub struct Limiter {
    bucket: Option<(Bucket, RateLimit)>,
    streams: Arc<Streams>,
}

/// The streams of one caller. They outlive a change of its rate.
#[derive(Debug)]
struct Streams {
    open: AtomicU32,
    most: u32,
}

/// A stream's place among its caller's; given back when dropped.
#[derive(Debug)]
pub struct StreamPlace(Arc<Streams>);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Limiter {
    /// No limit.
    pub fn unlimited() -> Self {
        Self {
            bucket: None,
            streams: Arc::new(Streams {
                open: AtomicU32::new(0),
                most: 0,
            }),
        }
    }

    fn new(limit: Option<RateLimit>, clock: &Clock, streams: Arc<Streams>) -> Self {
        let bucket = limit.and_then(|limit| {
            let rate = NonZeroU32::new(limit.requests_per_second)?;
            let burst = NonZeroU32::new(limit.burst)?;
            Some((Bucket::new(rate, SECOND, burst, clock), limit))
        });
        Self { bucket, streams }
    }

    /// One call more.
    ///
    /// # Errors
    /// [`Error::RateLimited`] with the time until the next call has a chance.
    pub fn charge(&self) -> Result<(), Error> {
        let Some((bucket, limit)) = &self.bucket else {
            return Ok(());
        };
        bucket.take().map_err(|retry_after| Error::RateLimited {
            limit: "requests_per_second",
            message: format!(
                "the caller may call {} times a second, and {} times at once",
                limit.requests_per_second, limit.burst
            ),
            retry_after,
        })
    }

    /// One stream more, until the place is dropped.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when the caller holds as many as it may.
    pub fn stream(&self) -> Result<StreamPlace, Error> {
        let Streams { open, most } = &*self.streams;
        let taken = open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| {
            (*most == 0 || open < *most).then(|| open.saturating_add(1))
        });
        match taken {
            Ok(_) => Ok(StreamPlace(Arc::clone(&self.streams))),
            Err(_) => Err(Error::RateLimited {
                limit: "streams_per_caller",
                message: format!(
                    "the caller holds {most} streams on this replica, as many as \
                     `limits.streams_per_caller` allows"
                ),
                retry_after: STREAMS_FULL_FOR,
            }),
        }
    }

    /// What its rate is limited to.
    fn limit(&self) -> Option<RateLimit> {
        self.bucket.as_ref().map(|(_, limit)| *limit)
    }

    /// How long without a call makes any bucket of this limit full again.
    fn refilled_after(&self) -> Duration {
        self.limit().map_or(Duration::ZERO, |limit| {
            SECOND.mul_f64(f64::from(limit.burst) / f64::from(limit.requests_per_second.max(1)))
        })
    }

    fn has_streams(&self) -> bool {
        self.streams.open.load(Ordering::Acquire) > 0
    }
}
