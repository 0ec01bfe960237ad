//! The one source of the time of day. Leases alone do not use it: they are judged by the
//! database's clock, since several replicas compare them.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::Timestamp;

/// Tells the time: the system's, the system's moved ahead, or one that a test moves by hand.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    /// How far ahead, in microseconds.
    Shifted(Arc<AtomicI64>),
    Manual(Arc<AtomicI64>),
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that runs as the system's does and can be moved ahead: the demo's, which has no time to
    /// wait for a token to end. Clones share the shift.
    pub fn shifted() -> Self {
        Self(Source::Shifted(Arc::default()))
    }

    /// A clock that stands at `start` until it is advanced. Clones share it.
    pub fn manual(start: Timestamp) -> Self {
        Self(Source::Manual(Arc::new(AtomicI64::new(start.micros()))))
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => system_now(),
            Source::Shifted(shift) => {
                let shift = shift.load(Ordering::SeqCst);
                Timestamp::from_micros(system_now().micros().saturating_add(shift))
            }
            Source::Manual(micros) => Timestamp::from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// How long ago some fixed moment was. It never goes back, as the time of day may when somebody
    /// sets it: for what must not stand still then.
    pub fn elapsed(&self) -> Duration {
        static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
        match &self.0 {
            Source::System => ORIGIN.elapsed(),
            Source::Shifted(shift) => ORIGIN.elapsed().saturating_add(duration(shift)),
            Source::Manual(micros) => duration(micros),
        }
    }

    /// Moves a manual or shifted clock forward. The system's is not ours to move: nothing happens.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual(micros) | Source::Shifted(micros) = &self.0 {
            let by = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
            micros.fetch_add(by, Ordering::SeqCst);
        }
    }
}

fn duration(micros: &AtomicI64) -> Duration {
    let micros = micros.load(Ordering::SeqCst);
    Duration::from_micros(u64::try_from(micros).unwrap_or_default())
}

#[allow(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else asks"
)]
fn system_now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_clock_runs_ahead_of_the_systems() {
        let (clock, hour) = (Clock::shifted(), Duration::from_secs(3_600));
        let (shared, elapsed) = (clock.clone(), clock.elapsed());
        clock.advance(hour);
        let ahead = shared.now().micros() - Clock::system().now().micros();
        assert!((3_590_000_000..=3_600_000_000).contains(&ahead), "{ahead}");
        assert!(shared.elapsed() >= elapsed + hour);
    }
}
