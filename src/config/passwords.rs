//! `[passwords]`: what hashing one costs, and the brake on failed sign-ins.

use std::time::Duration;

use super::reader::Reader;
use super::{DAY, MINUTE, SECOND};

/// What hashing a password costs, and the brake on failed sign-ins.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// Argon2id's memory, in KiB.
    pub memory: u32,
    /// Argon2id's passes.
    pub iterations: u32,
    /// Argon2id's lanes.
    pub parallelism: u32,
    /// How many sign-ins of an account may fail before it has to wait.
    pub free_failures: u32,
    /// The wait after the next failure; it doubles with each.
    pub base_delay: Duration,
    /// The longest wait.
    pub max_delay: Duration,
}

impl Passwords {
    /// The least that is taken is the first choice of OWASP's Password Storage Cheat Sheet.
    pub(super) fn read(reader: &mut Reader) -> Self {
        let passwords = Self {
            memory: reader.integer("passwords.memory", 19_456..=1_048_576),
            iterations: reader.integer("passwords.iterations", 2..=20),
            parallelism: reader.integer("passwords.parallelism", 1..=8),
            free_failures: reader.integer("passwords.free_failures", 1..=100),
            base_delay: reader
                .duration("passwords.base_delay", Duration::from_millis(100)..=MINUTE),
            max_delay: reader.duration("passwords.max_delay", SECOND..=DAY),
        };
        if reader.sound(&["passwords.base_delay", "passwords.max_delay"])
            && passwords.base_delay > passwords.max_delay
        {
            reader.fault(
                "passwords.base_delay",
                "this must not exceed passwords.max_delay",
            );
        }
        passwords
    }
}
