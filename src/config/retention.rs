//! `[retention]`: how long history is kept.

use std::time::Duration;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE};

/// How long history is kept.
#[derive(Clone, Debug)]
pub struct Retention {
    /// How long refresh attempts are kept.
    pub refresh_attempts: Duration,
    /// How long sync records are kept.
    pub sync_records: Duration,
    /// How long sessions are kept after their end.
    pub sessions: Duration,
    /// How long users are kept after they were deleted.
    pub deleted_users: Duration,
    /// How long OAuth clients are kept after they were deleted.
    pub deleted_clients: Duration,
    /// How long jobs and batches are kept after they were completed or cancelled.
    pub jobs: Duration,
    /// How long jobs that failed are kept, with their batches.
    pub dead_letters: Duration,
    /// How often what is too old is deleted.
    pub sweep_interval: Duration,
    /// The most rows deleted in one transaction.
    pub batch: u32,
}

impl Retention {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            refresh_attempts: reader.duration("retention.refresh_attempts", DAY..=3_650 * DAY),
            sync_records: reader.duration("retention.sync_records", DAY..=3_650 * DAY),
            sessions: reader.duration("retention.sessions", DAY..=3_650 * DAY),
            deleted_users: reader.duration("retention.deleted_users", DAY..=3_650 * DAY),
            deleted_clients: reader.duration("retention.deleted_clients", DAY..=3_650 * DAY),
            jobs: reader.duration("retention.jobs", HOUR..=3_650 * DAY),
            dead_letters: reader.duration("retention.dead_letters", HOUR..=3_650 * DAY),
            sweep_interval: reader.duration("retention.sweep_interval", MINUTE..=DAY),
            // SQLite binds at most 32,766 values in a statement.
            batch: reader.integer("retention.batch", 1..=10_000),
        }
    }
}
