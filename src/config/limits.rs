//! `[limits]`: how often callers may call.

use super::reader::Reader;

/// Highest rate and burst.
const MOST: u32 = 1_000_000;

/// How often callers may call, and how many streams they may hold.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most streams of one caller; 0 for no limit.
    pub streams_per_caller: u32,
    /// The most connections to a listener from one address; 0 for no limit.
    pub connections_per_address: usize,
    /// The most refused credentials from one address in a minute; 0 for no limit.
    pub failed_authentications_per_address: u32,
    /// By the role's name.
    pub roles: Vec<(&'static str, RoleLimit)>,
}

/// How often each caller of a role may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoleLimit {
    /// Calls a second in the long run; 0 for no limit.
    pub requests_per_second: u32,
    /// Calls at once.
    pub burst: u32,
}

impl Limits {
    /// The roles, as keys of the configuration.
    const ROLES: [&'static str; 7] = [
        "admin",
        "operator",
        "auditor",
        "consumer",
        "worker",
        "issuer_ui",
        "user",
    ];

    pub(super) fn read(reader: &mut Reader) -> Self {
        let roles = Self::ROLES.map(|role| {
            let of = |name: &str| format!("limits.roles.{role}.{name}");
            let limit = RoleLimit {
                requests_per_second: reader.integer(&of("requests_per_second"), 0..=MOST),
                burst: reader.integer(&of("burst"), 1..=MOST),
            };
            (role, limit)
        });
        Self {
            streams_per_caller: reader.integer("limits.streams_per_caller", 0..=100_000),
            connections_per_address: reader
                .integer("limits.connections_per_address", 0..=1_000_000),
            failed_authentications_per_address: reader
                .integer("limits.failed_authentications_per_address", 0..=MOST),
            roles: roles.to_vec(),
        }
    }

    /// The limit of a role of this name; none where it has none.
    pub fn of_role(&self, role: &str) -> Option<RoleLimit> {
        let found = self.roles.iter().find(|(name, _)| *name == role);
        found
            .map(|(_, limit)| *limit)
            .filter(|limit| limit.requests_per_second > 0)
    }

    /// Sets the limit of a role of this name.
    pub fn set_role(&mut self, role: &str, limit: RoleLimit) {
        for (name, current) in &mut self.roles {
            if *name == role {
                *current = limit;
            }
        }
    }
}
