//! `[sessions]`: sessions of users.

use std::time::Duration;

use super::reader::Reader;
use super::{DAY, HOUR, MINUTE};
use crate::model::Role;

/// Sessions of users.
#[derive(Clone, Debug)]
pub struct Sessions {
    /// How long a session token lives without use.
    pub idle_timeout: Duration,
    /// How long a session token lives in any case.
    pub lifetime: Duration,
    /// How long after the sign-in a session can be refreshed.
    pub refresh_lifetime: Duration,
    /// The most sessions of one user.
    pub max_per_user: u32,
    /// Roles of users that may sign in through a provider.
    pub provider_sign_in_roles: Vec<Role>,
}

impl Sessions {
    pub(super) fn read(reader: &mut Reader) -> Self {
        let idle_timeout = reader.duration("sessions.idle_timeout", MINUTE..=30 * DAY);
        let lifetime = reader.duration("sessions.lifetime", MINUTE..=30 * DAY);
        let refresh_lifetime = reader.duration("sessions.refresh_lifetime", HOUR..=365 * DAY);
        if reader.sound(&["sessions.idle_timeout", "sessions.lifetime"]) && idle_timeout > lifetime
        {
            reader.fault(
                "sessions.idle_timeout",
                "this must not be longer than sessions.lifetime",
            );
        }
        if reader.sound(&["sessions.lifetime", "sessions.refresh_lifetime"])
            && lifetime > refresh_lifetime
        {
            reader.fault(
                "sessions.lifetime",
                "this must not be longer than sessions.refresh_lifetime",
            );
        }
        let mut provider_sign_in_roles = Vec::new();
        for name in reader.texts("sessions.provider_sign_in_roles") {
            match Role::parse(&name) {
                Some(role) => provider_sign_in_roles.push(role),
                None => reader.fault(
                    "sessions.provider_sign_in_roles",
                    format!("{name:?} is no role"),
                ),
            }
        }
        Self {
            idle_timeout,
            lifetime,
            refresh_lifetime,
            max_per_user: reader.integer("sessions.max_per_user", 1..=10_000),
            provider_sign_in_roles,
        }
    }
}
