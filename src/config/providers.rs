//! `[providers]`: which addresses providers may have, and how they are connected to.

use std::time::Duration;

use ipnet::IpNet;

use super::MINUTE;
use super::reader::Reader;

/// Which addresses providers may have, and how they are connected to.
#[derive(Clone, Debug)]
pub struct Providers {
    /// Whether any private, loopback or link-local address may be a provider's.
    pub allow_private_networks: bool,
    /// Private networks that may hold providers though others may not.
    pub allowed_networks: Vec<IpNet>,
    /// How long opening a connection to a provider may take.
    pub connect_timeout: Duration,
}

impl Providers {
    pub(super) fn read(reader: &mut Reader) -> Self {
        Self {
            allow_private_networks: reader.boolean("providers.allow_private_networks"),
            allowed_networks: reader.list(
                "providers.allowed_networks",
                "a network such as \"10.1.0.0/16\"",
            ),
            connect_timeout: reader.duration(
                "providers.connect_timeout",
                Duration::from_millis(100)..=MINUTE,
            ),
        }
    }
}
