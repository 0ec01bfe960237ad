//! Claims in line: those that come while others are served are served together by the next, in one
//! transaction with one commit. A database flushes only so many commits a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::claims::{Claim, Taken};

/// Most jobs that are claimed in one transaction; a claim that asks for more is served alone.
const TOGETHER: usize = 100;

/// Claims of a tenant that ask for the same, as far as they don't rest.
pub(super) struct Line {
    turns: Semaphore,
    asking: Mutex<Vec<Ask>>,
    numbers: AtomicU64,
    plenty: AtomicBool,
}

/// Somebody in line.
pub(super) struct Ask {
    number: u64,
    pub(super) claim: Claim,
    /// Dropped unused, it has the one who asks try alone.
    pub(super) answer: oneshot::Sender<Taken>,
}

impl Line {
    /// A line with so many turns at a time.
    pub(super) fn new(turns: usize) -> Self {
        Self {
            turns: Semaphore::new(turns),
            asking: Mutex::default(),
            numbers: AtomicU64::new(0),
            plenty: AtomicBool::new(false),
        }
    }

    /// Whether the last who were served left something, as far as is known.
    pub(super) fn is_plenty(&self) -> bool {
        self.plenty.load(Ordering::Relaxed)
    }

    /// Says whether they did.
    pub(super) fn set_plenty(&self, plenty: bool) {
        self.plenty.store(plenty, Ordering::Relaxed);
    }

    /// Gets in line under a number. Whoever does then takes a turn, unless the answer comes before.
    pub(super) fn enter(&self, claim: &Claim) -> (u64, oneshot::Receiver<Taken>) {
        let (answer, answered) = oneshot::channel();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        self.asking().push(Ask {
            number,
            claim: claim.clone(),
            answer,
        });
        (number, answered)
    }

    /// A turn to serve, in the order of asking. Of a line that is closed there were none, and none is.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        self.turns.acquire().await.ok()
    }

    /// The first in line, in their order, as far as they are served together; nobody when the one who
    /// serves does not stand in line any more. Whoever has hung up is answered with nothing.
    pub(super) fn next(&self, server: u64) -> Vec<Ask> {
        let mut asking = self.asking();
        if asking.iter().all(|ask| ask.number != server) {
            return Vec::new();
        }
        for gone in asking.extract_if(.., |ask| ask.claim.gone.is_cancelled()) {
            let _ = gone.answer.send(Taken::default());
        }
        let mut jobs = 0_usize;
        let fits = asking.iter().take_while(|ask| {
            jobs = jobs.saturating_add(ask.claim.max);
            jobs <= TOGETHER
        });
        let fits = fits.count().max(1).min(asking.len());
        asking.drain(..fits).collect()
    }

    /// Has all who stand in line try alone.
    pub(super) fn dissolve(&self) {
        self.asking().clear();
    }

    fn asking(&self) -> MutexGuard<'_, Vec<Ask>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::model::ExecutionMode;

    fn claim(max: usize) -> Claim {
        Claim {
            worker: String::new(),
            max,
            kinds: Vec::new(),
            mode: ExecutionMode::Any,
            wait: Duration::ZERO,
            lease: None,
            gone: CancellationToken::new(),
            room: 1,
            weigh: |_| 0,
        }
    }

    #[test]
    fn those_in_line_are_served_in_order_and_in_groups_of_a_size() {
        let line = Line::new(1);
        let here = [60, 40, 1, 100].map(|max| line.enter(&claim(max)));
        let gone = claim(7);
        gone.gone.cancel();
        let (_, mut answered) = line.enter(&gone);
        let next = |server: usize| {
            let group = line.next(here[server].0);
            Vec::from_iter(group.iter().map(|ask| ask.claim.max))
        };
        assert_eq!(
            [next(0), next(1), next(3), next(2), next(3), next(3)],
            [vec![60, 40], vec![], vec![1], vec![], vec![100], vec![]]
        );
        assert!(answered.try_recv().is_ok());
    }
}
