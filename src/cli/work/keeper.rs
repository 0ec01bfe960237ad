//! Keeps a job's lease, and tells the service how far the job has come.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::calls::{Beat, Calls, Claimed, Refusal};
use super::lines::Progress;
use super::say;

/// How far apart reports are: each is an event that watchers get.
const APART: Duration = Duration::from_millis(200);

/// Why a job is not this worker's to work on any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// It was called off.
    Cancelled,
    /// Somebody else has it, or it is finished.
    Lost,
    /// The service was out of reach until the lease was over.
    Lapsed,
}

/// Keeps one job's lease.
pub(super) struct Keeper<'a> {
    calls: &'a Calls,
    job: &'a Claimed,
    news: Mutex<News>,
    heard: Notify,
}

/// What is to be told: of what comes while a report is under way, each field's last.
#[derive(Default)]
struct News {
    sending: Option<Progress>,
    waiting: Option<Progress>,
}

fn join(earlier: Option<Progress>, later: Option<Progress>) -> Option<Progress> {
    match (earlier, later) {
        (Some(earlier), Some(later)) => Some(earlier.then(later)),
        (earlier, later) => earlier.or(later),
    }
}

impl<'a> Keeper<'a> {
    pub(super) fn new(calls: &'a Calls, job: &'a Claimed) -> Self {
        Self {
            calls,
            job,
            news: Mutex::default(),
            heard: Notify::new(),
        }
    }

    /// Notes what is to be told.
    pub(super) fn tell(&self, progress: Progress) {
        let mut news = self.lock();
        news.waiting = join(news.waiting.take(), Some(progress));
        drop(news);
        self.heard.notify_one();
    }

    /// What is to be told now. It stays noted until [`Self::told`], since an answer may never come.
    fn untold(&self) -> Option<Progress> {
        let mut news = self.lock();
        let sending = join(news.sending.take(), news.waiting.take());
        news.sending.clone_from(&sending);
        sending
    }

    /// What was told last needs no telling again.
    fn told(&self) {
        self.lock().sending = None;
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the lease, counted from `since`, for as long as it can be kept.
    pub(super) async fn keep(&self, since: Instant) -> Over {
        let mut lasts = self.job.lasts;
        let mut until = since + lasts;
        let mut next = since + third(lasts);
        loop {
            tokio::select! {
                () = sleep_until(next.min(until)) => {}
                () = self.heard.notified() => {}
            }
            let progress = self.untold();
            let sent = Instant::now();
            let Ok(answer) = timeout_at(until, self.beat(progress.as_ref())).await else {
                return Over::Lapsed;
            };
            match answer {
                Ok(Beat { cancel: true, .. }) => return Over::Cancelled,
                Ok(beat) => {
                    self.told();
                    lasts = beat.lasts;
                    until = sent + lasts;
                    next = sent + third(lasts);
                    sleep(APART.min(lasts / 10)).await;
                }
                Err(Refusal::LeaseLost) => return Over::Lost,
                // What is refused for its own sake is not worth the job.
                Err(Refusal::Final(text)) if progress.is_some() => {
                    self.told();
                    say(self.job, &format!("progress left out: {text}"));
                }
                Err(refusal) => {
                    if let Refusal::Passing(text) | Refusal::Final(text) = refusal {
                        say(self.job, &text);
                    }
                    let pause = (lasts / 12).clamp(APART, Duration::from_secs(5));
                    sleep_until((Instant::now() + jittered(pause)).min(until)).await;
                    next = Instant::now();
                }
            }
            if Instant::now() >= until {
                return Over::Lapsed;
            }
        }
    }

    async fn beat(&self, progress: Option<&Progress>) -> Result<Beat, Refusal> {
        match progress {
            Some(progress) => self.calls.report(&self.job.lease, progress).await,
            None => self.calls.heartbeat(&self.job.lease).await,
        }
    }

    /// Tells what was not told yet, before the job ends.
    pub(super) async fn tell_last(&self) {
        if let Some(progress) = self.untold()
            && let Err(Refusal::Passing(text) | Refusal::Final(text)) =
                self.beat(Some(&progress)).await
        {
            say(self.job, &format!("progress left out: {text}"));
        }
    }
}

/// Three heartbeats a lease, and not all workers' at once.
fn third(lasts: Duration) -> Duration {
    jittered(lasts / 3)
}

/// Up to a tenth less.
pub(super) fn jittered(pause: Duration) -> Duration {
    pause.mul_f64(1.0 - fastrand::f64() / 10.0)
}
