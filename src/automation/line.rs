//! Claims in line: those that come while another is served are served together by the next, in one
//! transaction with one commit. A database flushes only so many commits a second.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Mutex as Turn, MutexGuard as TurnGuard, oneshot};

use super::claims::{Claim, Taken};

/// Most jobs that are claimed in one transaction; a claim that asks for more is served alone.
const TOGETHER: usize = 100;

/// Claims of a tenant that ask for the same, as far as they don't rest.
#[derive(Default)]
pub(super) struct Line {
    turn: Turn<()>,
    asking: Mutex<Vec<Ask>>,
}

/// Somebody in line.
pub(super) struct Ask {
    pub(super) claim: Claim,
    /// Dropped unused, it has the one who asks try alone.
    pub(super) answer: oneshot::Sender<Taken>,
}

impl Line {
    /// Gets in line. Whoever does then takes a turn, unless the answer comes before.
    pub(super) fn enter(&self, claim: &Claim) -> oneshot::Receiver<Taken> {
        let (answer, answered) = oneshot::channel();
        self.asking().push(Ask {
            claim: claim.clone(),
            answer,
        });
        answered
    }

    /// The turn to serve, in the order of asking.
    pub(super) async fn turn(&self) -> TurnGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The first in line, in their order, as far as they are served together. Whoever has hung up is
    /// answered with nothing.
    pub(super) fn next(&self) -> Vec<Ask> {
        let mut asking = self.asking();
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
        let line = Line::default();
        let _here = [60, 40, 1, 100].map(|max| line.enter(&claim(max)));
        let gone = claim(7);
        gone.gone.cancel();
        let mut answered = line.enter(&gone);
        let next = || Vec::from_iter(line.next().iter().map(|ask| ask.claim.max));
        assert_eq!(
            [next(), next(), next(), next()],
            [vec![60, 40], vec![1], vec![100], vec![]]
        );
        assert!(answered.try_recv().is_ok());
    }
}
