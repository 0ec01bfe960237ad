//! Work that outlives its caller. A handler's future is dropped when the caller hangs up; what
//! writes, or spends a refresh token, must not stop half-way. So the edges run their work here,
//! and shutdown waits for it.

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::error::Error;

/// Runs work to its end. Clones share the tracker.
#[derive(Clone, Debug, Default)]
pub struct Tasks(TaskTracker);

impl Tasks {
    /// Runs work on a task of its own and answers what it did.
    ///
    /// # Errors
    /// The work's, or [`Error::Internal`] when it panicked.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let task = self.0.spawn(work.in_current_span());
        match task.await {
            Ok(outcome) => outcome,
            Err(panic) => Err(Error::internal(panic)),
        }
    }

    /// Starts work that shutdown waits for, whether or not anybody else does.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.0.spawn(work.in_current_span())
    }

    /// Waits until all work has ended. Work may still be added meanwhile, and is waited for.
    pub async fn drained(&self) {
        self.0.close();
        self.0.wait().await;
    }
}
