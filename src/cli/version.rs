//! `tokenbroker version`.

use clap::Args;

use super::{Failure, print};

/// The version of this build.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Print the version of this program, and what it was built for
#[derive(Args, Debug)]
#[command(after_long_help = "\
Example:
  tokenbroker version      tokenbroker 0.1.0 (linux x86_64)")]
pub(super) struct Version {}

impl Version {
    pub(super) fn run(self) -> Result<(), Failure> {
        let (system, machine) = (std::env::consts::OS, std::env::consts::ARCH);
        print(&format!("tokenbroker {VERSION} ({system} {machine})\n"))
    }
}
