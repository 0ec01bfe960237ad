//! `[authorizations]`: authorisations in progress.

use std::time::Duration;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE, SECOND};

/// Authorisations in progress.
#[derive(Clone, Debug)]
pub struct Authorizations {
    /// How long a `connect_url` works.
    pub ttl: Duration,
    /// How long one visit may take from the redirect to the callback.
    pub state_ttl: Duration,
    /// How long the caller may take to confirm after the callback.
    pub confirmation_ttl: Duration,
    /// The most authorisations in progress for one owner.
    pub max_pending_per_owner: u32,
    /// The most sign-ins that are begun for one app within a minute and wait.
    pub max_pending_sign_ins_per_app: u32,
    /// How often strays are finished and expired ones closed.
    pub sweep_interval: Duration,
    /// How long finished authorisations are kept.
    pub retention: Duration,
}

impl Authorizations {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            ttl: reader.duration("authorizations.ttl", MINUTE..=7 * DAY),
            state_ttl: reader.duration("authorizations.state_ttl", MINUTE..=HOUR),
            confirmation_ttl: reader.duration("authorizations.confirmation_ttl", MINUTE..=DAY),
            max_pending_per_owner: reader
                .integer("authorizations.max_pending_per_owner", 1..=1_000),
            max_pending_sign_ins_per_app: reader
                .integer("authorizations.max_pending_sign_ins_per_app", 1..=1_000_000),
            sweep_interval: reader.duration("authorizations.sweep_interval", SECOND..=HOUR),
            retention: reader.duration("authorizations.retention", HOUR..=3_650 * DAY),
        }
    }
}
