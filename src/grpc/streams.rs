//! Streams that run on and on: how many there may be, in all and of one caller.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::{Stream, StreamExt as _};

use crate::access::Principal;
use crate::access::limits::StreamPlace;
use crate::error::Error;
use crate::telemetry::Metrics;

/// How long to wait for a stream to end.
const FULL_FOR: Duration = Duration::from_secs(5);

/// The places for streams on this replica. Clones share them.
#[derive(Clone)]
pub struct Streams {
    all: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// A stream's place, of all and among its caller's.
pub struct Place {
    _all: OwnedSemaphorePermit,
    _own: StreamPlace,
}

impl Streams {
    /// So many places in all.
    pub fn new(most: usize, metrics: Arc<Metrics>) -> Self {
        Self {
            all: Arc::new(Semaphore::new(most)),
            metrics,
        }
    }

    /// A place for one stream more.
    ///
    /// # Errors
    /// [`Error::RateLimited`] when the caller holds as many as it may, and
    /// [`Error::ResourceExhausted`] when all are taken.
    pub fn place(&self, caller: &Principal) -> Result<Place, Error> {
        let own = caller.limiter.stream().inspect_err(|_| {
            self.metrics.rate_limited("streams_per_caller");
        })?;
        let Ok(all) = Arc::clone(&self.all).try_acquire_owned() else {
            return Err(full());
        };
        Ok(Place {
            _all: all,
            _own: own,
        })
    }
}

fn full() -> Error {
    Error::ResourceExhausted {
        message: "this replica has as many event streams as `grpc.max_streams_watching` allows; \
                  another may have room"
            .to_owned(),
        retry_after: FULL_FOR,
    }
}

/// The stream, which gives its place back when it is dropped.
pub fn holding<T>(place: Place, stream: impl Stream<Item = T>) -> impl Stream<Item = T> {
    stream.map(move |item| {
        let _ = &place;
        item
    })
}
