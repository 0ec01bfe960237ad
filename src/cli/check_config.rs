//! `tokenbroker check-config`.

use clap::Args;

use super::{Failure, print};
use crate::config::{Config, Environment};
use crate::{app, bootstrap};

/// Check the configuration without starting anything
///
/// Reads all its sources as `serve` would and reports every fault, each with its key, on standard
/// error (exit code 3). Neither the database nor the keys are touched.
#[derive(Args, Debug)]
#[command(after_long_help = "\
Examples:
  tokenbroker check-config
  tokenbroker --config new.toml check-config && mv new.toml /etc/tokenbroker.toml")]
pub(super) struct CheckConfig {}

impl CheckConfig {
    /// On a configuration that was loaded little is left to find fault with.
    pub(super) fn run(self, config: &Config) -> Result<(), Failure> {
        app::check(config)?;
        let environment = match config.environment {
            Environment::Development => "development",
            Environment::Production => "production",
        };
        let keys = match (&config.keys.file, config.keys.inline.len()) {
            (Some(file), _) => format!("in {}", file.display()),
            (None, 0) => "none given; `serve` will refuse to start".to_owned(),
            (None, count) => format!("{count} in the configuration"),
        };
        let encryption = match &config.grpc.tls {
            Some(tls) if tls.client_ca_file.is_some() => "TLS, with client certificates",
            Some(_) => "TLS",
            None => "plaintext",
        };
        print(&format!(
            "The configuration has no faults.\n  \
             environment  {environment}\n  \
             database     {}\n  \
             keys         {keys}\n  \
             gRPC         {}, {encryption}\n  \
             browser      {}, reached as {}\n  \
             journal      {}\n  \
             apps         {} declared\n",
            bootstrap::place(&config.database),
            config.grpc.listen,
            config.web.listen,
            config.web.public_url,
            config.journal.dir.display(),
            config.apps.len(),
        ))
    }
}
