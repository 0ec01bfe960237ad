//! Many measurements of one thing.

use std::time::Duration;

/// Measurements, in order of size.
pub struct Spread(Vec<Duration>);

impl Spread {
    /// Of at least one measurement.
    pub fn of(mut measured: Vec<Duration>) -> Self {
        measured.sort_unstable();
        Self(measured)
    }

    /// The measurement that this share of all does not exceed.
    pub fn at(&self, share: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let place = (share * self.0.len() as f64).ceil() as usize;
        let place = place.saturating_sub(1).min(last);
        self.0.get(place).copied().unwrap_or_default()
    }

    /// Half are smaller.
    pub fn median(&self) -> Duration {
        self.at(0.5)
    }

    /// One in a hundred is larger.
    pub fn p99(&self) -> Duration {
        self.at(0.99)
    }

    /// The largest.
    pub fn most(&self) -> Duration {
        self.at(1.0)
    }
}

/// The middle one of some figures; of an even number of them, what is between the middle two.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        return at(half).midpoint(at(half.wrapping_sub(1)));
    }
    at(half)
}

/// A duration for people: three digits or so.
pub fn show(duration: Duration) -> String {
    let micros = duration.as_secs_f64() * 1e6;
    match micros {
        ..1_000.0 => format!("{micros:.0} µs"),
        ..10_000.0 => format!("{:.2} ms", micros / 1e3),
        ..100_000.0 => format!("{:.1} ms", micros / 1e3),
        ..1_000_000.0 => format!("{:.0} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// KiB as MiB.
pub fn mebibytes(kibibytes: u64) -> String {
    format!("{:.1} MiB", kibibytes as f64 / 1024.0)
}
