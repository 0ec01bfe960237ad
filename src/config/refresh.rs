//! `[refresh]`: refreshing access tokens.

use std::time::Duration;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE, SECOND};

/// What a lease must last beyond the provider's HTTP deadline: the time to write the result.
pub const LEASE_SPARE: Duration = Duration::from_secs(5);

/// Refreshing access tokens.
#[derive(Clone, Debug)]
pub struct Refresh {
    /// How long one holder may refresh a grant before the lease expires.
    pub lease: Duration,
    /// The deadline of one HTTP exchange with a provider. Fits in `lease` with [`LEASE_SPARE`]
    /// to spare.
    pub http_timeout: Duration,
    /// How long before its expiry a token is refreshed where the provider sets no margin.
    pub default_margin: Duration,
    /// The most that a margin may take of a token's lifetime, 0.01 to 0.9.
    pub margin_share: f64,
    /// By which share of itself a planned time is moved at random, 0 to 0.5.
    pub jitter: f64,
    /// How often the worker looks for grants that are due.
    pub scan_interval: Duration,
    /// The most grants taken in one scan.
    pub batch: u32,
    /// The most refreshes at once on this replica.
    pub concurrency: usize,
    /// The wait after the first transient failure; it doubles with each further one.
    pub backoff_initial: Duration,
    /// The longest wait after transient failures.
    pub backoff_max: Duration,
    /// How long an ambiguous refresh waits for its holder's journal.
    pub ambiguous_hold: Duration,
    /// What "used lately" means for connections that are refreshed only then.
    pub recently_used: Duration,
    /// After which share of its refresh token's lifetime an idle grant is kept alive, 0.1 to 0.95.
    pub keep_alive_share: f64,
    /// How long before a refresh token's expiry the `expiring` event is written.
    pub expiring_notice: Duration,
    /// The least time between two refreshes of one grant on reports of rejection.
    pub rejected_report_interval: Duration,
}

impl Refresh {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let refresh = Self {
            lease: reader.duration("refresh.lease", 10 * SECOND..=10 * MINUTE),
            http_timeout: reader.duration("refresh.http_timeout", SECOND..=5 * MINUTE),
            default_margin: reader.duration("refresh.default_margin", SECOND..=DAY),
            margin_share: reader.number("refresh.margin_share", 0.01..=0.9),
            jitter: reader.number("refresh.jitter", 0.0..=0.5),
            scan_interval: reader
                .duration("refresh.scan_interval", Duration::from_millis(50)..=HOUR),
            batch: reader.integer("refresh.batch", 1..=10_000),
            concurrency: reader.integer("refresh.concurrency", 1..=1_000),
            backoff_initial: reader.duration(
                "refresh.backoff_initial",
                Duration::from_millis(100)..=10 * MINUTE,
            ),
            backoff_max: reader.duration("refresh.backoff_max", SECOND..=DAY),
            ambiguous_hold: reader.duration("refresh.ambiguous_hold", SECOND..=DAY),
            recently_used: reader.duration("refresh.recently_used", MINUTE..=365 * DAY),
            keep_alive_share: reader.number("refresh.keep_alive_share", 0.1..=0.95),
            expiring_notice: reader.duration("refresh.expiring_notice", MINUTE..=90 * DAY),
            rejected_report_interval: reader
                .duration("refresh.rejected_report_interval", SECOND..=HOUR),
        };
        if reader.sound(&["refresh.lease", "refresh.http_timeout"])
            && refresh.http_timeout + LEASE_SPARE > refresh.lease
        {
            reader.fault(
                "refresh.http_timeout",
                format!(
                    "{} does not fit into refresh.lease ({}) with {} to spare",
                    humantime::format_duration(refresh.http_timeout),
                    humantime::format_duration(refresh.lease),
                    humantime::format_duration(LEASE_SPARE),
                ),
            );
        }
        if reader.sound(&["refresh.backoff_initial", "refresh.backoff_max"])
            && refresh.backoff_initial > refresh.backoff_max
        {
            reader.fault(
                "refresh.backoff_initial",
                "this must not exceed refresh.backoff_max",
            );
        }
        refresh
    }
}
