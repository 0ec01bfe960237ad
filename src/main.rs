//! The `tokenbroker` command; what it can do is in `cli`.

use std::process::ExitCode;
use std::time::Duration;

use tokenbroker::cli::{self, Cli};

/// Tokens are many small allocations from many threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long threads that are still inside a blocking call may finish it.
const RUNTIME_END: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return cli::refuse(&format!("the runtime can't be started: {error}"), 1),
    };
    let code = runtime.block_on(cli.run());
    runtime.shutdown_timeout(RUNTIME_END);
    code
}
