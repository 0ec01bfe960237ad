//! `[automation]`: jobs of browser automation.

use std::collections::BTreeMap;
use std::time::Duration;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE, SECOND};

/// Jobs of browser automation.
#[derive(Clone, Debug)]
pub struct Automation {
    /// How long a worker has a job without a heartbeat: 3 s to 1 h.
    pub lease: Duration,
    /// How often jobs are looked through for those whose time has come and whose worker was lost: 50 ms
    /// to 5 min.
    pub scan_interval: Duration,
    /// The most jobs taken in one step of a scan: 1 to 10,000.
    pub batch: u32,
    /// How many attempts a job has where nobody says: 1 to 100.
    pub max_attempts: u32,
    /// The wait after the first failed attempt, 100 ms to 1 h; it doubles with each further one.
    pub backoff_initial: Duration,
    /// The longest wait after failed attempts: 1 s to 7 d, and not below the first.
    pub backoff_max: Duration,
    /// How long the link of a job's authorisation is good where the job has no deadline: 1 min to
    /// 30 d.
    pub authorization_ttl: Duration,
    /// The most running jobs of one tenant at one provider: up to 100,000; 0 for no limit.
    pub max_running_per_provider: u32,
    /// The same for providers by id, each up to 100,000.
    pub provider_limits: BTreeMap<String, u32>,
}

impl Automation {
    /// The most running jobs of one tenant at a provider; none for no limit.
    pub fn limit(&self, provider: &str) -> Option<u32> {
        let own = self.provider_limits.get(provider).copied();
        own.or(Some(self.max_running_per_provider))
            .filter(|most| *most > 0 && !provider.is_empty())
    }

    pub(super) fn read(reader: &mut Reader) -> Self {
        let read = Self {
            lease: reader.duration("automation.lease", 3 * SECOND..=HOUR),
            scan_interval: reader.duration(
                "automation.scan_interval",
                Duration::from_millis(50)..=5 * MINUTE,
            ),
            batch: reader.integer("automation.batch", 1..=10_000),
            max_attempts: reader.integer("automation.max_attempts", 1..=100),
            backoff_initial: reader.duration(
                "automation.backoff_initial",
                Duration::from_millis(100)..=HOUR,
            ),
            backoff_max: reader.duration("automation.backoff_max", SECOND..=7 * DAY),
            authorization_ttl: reader.duration("automation.authorization_ttl", MINUTE..=30 * DAY),
            max_running_per_provider: reader
                .integer("automation.max_running_per_provider", 0..=100_000),
            provider_limits: provider_limits(reader),
        };
        if reader.sound(&["automation.backoff_initial", "automation.backoff_max"])
            && read.backoff_initial > read.backoff_max
        {
            reader.fault(
                "automation.backoff_initial",
                "this must not exceed automation.backoff_max",
            );
        }
        read
    }
}

fn provider_limits(reader: &mut Reader) -> BTreeMap<String, u32> {
    let mut limits = BTreeMap::new();
    for (provider, text) in reader.text_map("automation.provider_limits") {
        match text.trim().parse() {
            Ok(limit) if limit <= 100_000 => {
                limits.insert(provider, limit);
            }
            _ => reader.fault(
                &format!("automation.provider_limits.{provider}"),
                format!("{text:?} is not a number from 0 to 100,000 in quotes"),
            ),
        }
    }
    limits
}
