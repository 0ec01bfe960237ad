//! `[events]`: events and those who watch them.

use std::time::Duration;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE, SECOND};

/// Events and those who watch them.
#[derive(Clone, Debug)]
pub struct Events {
    /// How long events can be replayed.
    pub retention: Duration,
    /// How often the database is asked for events that no notification announced.
    pub poll_interval: Duration,
    /// How often a silent stream gets a heartbeat with its cursor.
    pub heartbeat_interval: Duration,
    /// The most events waiting for one slow watcher before it is told to resume.
    pub watcher_buffer: usize,
    /// The most events numbered (PostgreSQL) or replayed in one transaction.
    pub batch: u32,
}

impl Events {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            retention: reader.duration("events.retention", HOUR..=365 * DAY),
            poll_interval: reader
                .duration("events.poll_interval", Duration::from_millis(10)..=MINUTE),
            heartbeat_interval: reader.duration("events.heartbeat_interval", SECOND..=5 * MINUTE),
            watcher_buffer: reader.integer("events.watcher_buffer", 16..=100_000),
            batch: reader.integer("events.batch", 1..=10_000),
        }
    }
}
