//! One attempt at a job: its command from start to end, and what the service is told of that.

use std::convert::Infallible;
use std::future;
use std::io::{self, Write as _};
use std::mem;
use std::pin::{Pin, pin};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::FusedFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use zeroize::Zeroizing;

use super::calls::{Calls, Claimed, Refusal};
use super::command::{Command, Next};
use super::keeper::{Keeper, Over, jittered};
use super::lines::{End, Failure, Line, MESSAGE_MAX, Said, read, short};
use super::{Phase, Settings, say};

/// How long a command that is asked to end has for it before it is killed.
const TERM: Duration = Duration::from_secs(2);

/// How long a worker that stops goes on telling how a job ended.
const LAST_CALLS: Duration = Duration::from_secs(5);

/// How long a command that ended well may be ahead of its authorisation's callback.
const CALLBACK: Duration = Duration::from_secs(30);

/// What says "not now, try later" (EX_TEMPFAIL of sysexits.h), and how much later that is.
const TEMPORARY: i32 = 75;
const LATER: Duration = Duration::from_secs(60);

/// The pauses between calls that failed.
pub(super) const PAUSE_FIRST: Duration = Duration::from_millis(250);
pub(super) const PAUSE_MOST: Duration = Duration::from_secs(15);

/// What is to come of a job.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// As its command says.
    End(End),
    /// The worker stops: somebody else may have it, at once.
    HandBack,
    /// It was called off.
    CalledOff,
    /// Its authorisation's callback has completed it.
    CalledBack,
    /// It is not this worker's any more.
    Left(&'static str),
}

/// A job, and what it takes to work on it.
pub(super) struct Attempt {
    pub(super) calls: Calls,
    pub(super) settings: Arc<Settings>,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) job: Claimed,
}

impl Attempt {
    /// Works on it until it is not this worker's any more, and tells how it went.
    ///
    /// # Errors
    /// The command can't be started: the job was handed back, and others would fare no better.
    pub(super) async fn run(mut self) -> Result<(), String> {
        let since = Instant::now();
        let told = mem::take(&mut self.job.told);
        let keeper = Keeper::new(&self.calls, &self.job);
        let mut keep = pin!(keeper.keep(since).fuse());
        let (verdict, outcome) = match self.drive(&keeper, keep.as_mut(), told).await {
            Ok(verdict) => (verdict, Ok(())),
            Err(error) => {
                let program = self.settings.exec.first().cloned().unwrap_or_default();
                let text = format!("{} can't be started: {error}", program.display());
                (Verdict::HandBack, Err(text))
            }
        };
        // The lease is kept meanwhile. What is heard of it is of no use now: it may be lost because
        // the job has just ended.
        let beside = async {
            keep.await;
            future::pending::<Infallible>().await
        };
        let ended = tokio::select! {
            ended = self.settle(&keeper, verdict) => ended,
            never = beside => match never {},
        };
        say(&self.job, &ended);
        outcome
    }

    /// Hands it back without having begun.
    pub(super) async fn hand_back(self) {
        let keeper = Keeper::new(&self.calls, &self.job);
        let ended = self.settle(&keeper, Verdict::HandBack).await;
        say(&self.job, &ended);
    }

    /// Runs the command.
    async fn drive(
        &self,
        keeper: &Keeper<'_>,
        mut keep: Pin<&mut (impl FusedFuture<Output = Over> + Send)>,
        mut told: serde_json::Map<String, serde_json::Value>,
    ) -> io::Result<Verdict> {
        let mut halted = pin!(halted(self.phase.clone()).fuse());
        if self.settings.credentials && self.job.has_account {
            let credentials = tokio::select! {
                credentials = self.credentials() => credentials,
                over = &mut keep => return Ok(left(over)),
                _ = &mut halted => return Ok(Verdict::HandBack),
            };
            match credentials {
                Ok(credentials) => told.insert("credentials".to_owned(), credentials),
                Err(verdict) => return Ok(verdict),
            };
        }
        let mut line = Zeroizing::new(serde_json::to_vec(&told)?);
        line.push(b'\n');
        drop(told);
        let mut command = Command::start(&self.settings.exec, line)?;
        let mut overdue = pin!(overdue(self.settings.timeout));

        let mut end = None;
        let mut heard = |line: Line| self.heed(keeper, line, &mut end);
        let (status, otherwise) = loop {
            tokio::select! {
                next = command.next() => match next {
                    Next::Wrote(line) => heard(line),
                    Next::Ended(status) => break (status, None),
                },
                over = &mut keep => {
                    if over == Over::Cancelled {
                        let status = command.end(TERM, &mut heard).await;
                        break (status, Some(Verdict::CalledOff));
                    }
                    if over == Over::Lost && self.was_called_back().await {
                        // It has seen its consent through, and may have a browser to close.
                        let end = Instant::now() + self.settings.grace;
                        tokio::select! {
                            _ = command.until(end, &mut heard) => {}
                            _ = &mut halted => {}
                            _ = &mut overdue => {}
                        }
                        command.end(TERM, &mut heard).await;
                        return Ok(Verdict::CalledBack);
                    }
                    // Another worker may have begun: nothing may be done twice.
                    command.end(Duration::ZERO, &mut heard).await;
                    return Ok(left(over));
                }
                patience = &mut halted => {
                    let status = command.end(patience, &mut heard).await;
                    break (status, Some(Verdict::HandBack));
                }
                limit = &mut overdue => {
                    let status = command.end(TERM, &mut heard).await;
                    let limit = humantime::format_duration(limit);
                    let text = format!("the command ran for longer than {limit}");
                    break (status, Some(failed("TIMEOUT", &text, false)));
                }
            }
        };
        command.last_words(&mut heard).await;
        match (otherwise, &end) {
            // What it said of its failure says more than that it took too long.
            (Some(Verdict::End(_)), Some(End::Fail(_) | End::Snooze(_))) => {}
            // Asked to end, it may have finished instead.
            (Some(otherwise), _) if !status.is_some_and(|status| status.success()) => {
                return Ok(otherwise);
            }
            _ => {}
        }
        Ok(Verdict::End(judge(status, end)))
    }

    /// What a command wrote.
    fn heed(&self, keeper: &Keeper<'_>, line: Line, end: &mut Option<End>) {
        let line = match line {
            Line::Whole(line) => line,
            Line::TooLong => return say(&self.job, "a line longer than 64 KiB was left out"),
        };
        match read(&line) {
            Said::Told(progress, told) => {
                if let Some(progress) = progress {
                    keeper.tell(progress);
                }
                if told.is_some() {
                    *end = told;
                }
            }
            Said::Faulty(column) => {
                let text = format!(
                    "a line was left out: what ends at its column {column} is not of the right sort"
                );
                say(&self.job, &text);
            }
            Said::Text => {
                let mut stderr = io::stderr().lock();
                // Nobody is left to tell when standard error is gone.
                let _ = stderr
                    .write_all(&line)
                    .and_then(|()| stderr.write_all(b"\n"));
            }
        }
    }

    async fn credentials(&self) -> Result<serde_json::Value, Verdict> {
        let mut pause = PAUSE_FIRST;
        loop {
            match self.calls.credentials(&self.job.lease).await {
                Ok(credentials) => return Ok(credentials),
                Err(Refusal::LeaseLost) => return Err(left(Over::Lost)),
                Err(Refusal::NoCredentials) => {
                    let text = "the account has no credentials";
                    return Err(failed("NO_CREDENTIALS", text, true));
                }
                Err(Refusal::Final(text)) => {
                    return Err(failed("CREDENTIALS_REFUSED", &text, false));
                }
                Err(Refusal::Passing(text)) => say(&self.job, &text),
                Err(Refusal::NotYet) => {}
            }
            // The lease bounds this.
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }

    /// Whether the lease was lost because the callback came. Completing what this claim has completed
    /// is no error, and what somebody else has can't be completed.
    async fn was_called_back(&self) -> bool {
        if !self.job.has_authorization {
            return false;
        }
        let completed = self.calls.complete(&self.job.lease, None, "");
        matches!(timeout(TERM, completed).await, Ok(Ok(_)))
    }

    /// Tells the service, and says what came of it.
    async fn settle(&self, keeper: &Keeper<'_>, verdict: Verdict) -> String {
        let end = match verdict {
            Verdict::Left(why) => return format!("left: {why}"),
            Verdict::CalledBack => return "completed by its callback".to_owned(),
            Verdict::HandBack => End::Snooze(Duration::ZERO),
            Verdict::CalledOff => End::Fail(failure("CANCELLED", "called off", true)),
            Verdict::End(end) => end,
        };
        tokio::select! {
            ended = async {
                keeper.tell_last().await;
                self.send(end).await
            } => ended,
            () = hurried(self.phase.clone()) => {
                "left: the service could not be told before the worker's end".to_owned()
            }
        }
    }

    async fn send(&self, mut end: End) -> String {
        let began = Instant::now();
        let mut pause = PAUSE_FIRST;
        let mut refused = false;
        loop {
            let answer = match &end {
                End::Complete {
                    result,
                    connection_id,
                } => {
                    let result = result.as_ref();
                    self.calls
                        .complete(&self.job.lease, result, connection_id)
                        .await
                }
                End::Fail(failure) => self.calls.fail(&self.job.lease, failure).await,
                End::Snooze(delay) => self.calls.snooze(&self.job.lease, *delay).await,
            };
            match answer {
                Ok(stands) => {
                    return match end {
                        End::Fail(failure) => format!("{stands} ({})", failure.reason),
                        End::Complete { .. } | End::Snooze(_) => stands.to_owned(),
                    };
                }
                Err(Refusal::LeaseLost) => return format!("left: {LOST}"),
                Err(Refusal::Passing(text)) if began.elapsed() < self.settings.patience => {
                    say(&self.job, &text);
                }
                Err(Refusal::NotYet) if began.elapsed() < CALLBACK => {
                    pause = pause.min(CALLBACK / 10);
                }
                Err(Refusal::Passing(text)) => return format!("left: {text}"),
                Err(Refusal::NotYet) if !refused => {
                    refused = true;
                    let text =
                        "the command ended well, but its authorisation's callback has not come";
                    end = End::Fail(failure("CALLBACK_MISSING", text, false));
                }
                // Better told so than not at all: it would wait until its lease is over.
                Err(Refusal::Final(text)) if !refused => {
                    refused = true;
                    say(&self.job, &text);
                    end = End::Fail(failure("END_REFUSED", &text, false));
                }
                Err(Refusal::Final(text)) => return format!("left: {text}"),
                Err(Refusal::NotYet | Refusal::NoCredentials) => {
                    return "left: the service refuses its end".to_owned();
                }
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(PAUSE_MOST);
        }
    }
}

const LOST: &str = "somebody else has it, or it is finished";

fn left(over: Over) -> Verdict {
    match over {
        Over::Cancelled => Verdict::CalledOff,
        Over::Lost => Verdict::Left(LOST),
        Over::Lapsed => Verdict::Left("the service was out of reach until the lease was over"),
    }
}

fn failure(reason: &str, message: &str, permanent: bool) -> Failure {
    Failure {
        reason: reason.to_owned(),
        message: short(message, MESSAGE_MAX),
        permanent,
        retry: None,
    }
}

fn failed(reason: &str, message: &str, permanent: bool) -> Verdict {
    Verdict::End(End::Fail(failure(reason, message, permanent)))
}

/// How a job ends whose command ended like this, and said so last.
fn judge(status: Option<ExitStatus>, said: Option<End>) -> End {
    match (status.and_then(|status| status.code()), said) {
        (_, Some(said @ (End::Fail(_) | End::Snooze(_)))) | (Some(0), Some(said)) => said,
        (Some(0), None) => End::Complete {
            result: None,
            connection_id: String::new(),
        },
        (Some(TEMPORARY), _) => End::Snooze(LATER),
        (_, _) => {
            let how = status.map(|status| status.to_string()).unwrap_or_default();
            let text = format!("the command ended: {how}");
            End::Fail(failure("EXIT_STATUS", &text, false))
        }
    }
}

/// Ends when commands are to end: how long they have for it.
async fn halted(mut phase: watch::Receiver<Phase>) -> Duration {
    loop {
        let now = *phase.borrow_and_update();
        let changed = async {
            if phase.changed().await.is_err() {
                future::pending::<()>().await;
            }
        };
        match now {
            Phase::Working => changed.await,
            Phase::Stopping(end) => tokio::select! {
                () = changed => {}
                () = sleep_until(end) => return TERM,
            },
            Phase::Now => return Duration::ZERO,
        }
    }
}

/// Ends when a command has run for as long as it may: that long.
async fn overdue(limit: Option<Duration>) -> Duration {
    let Some(limit) = limit else {
        return future::pending().await;
    };
    sleep(limit).await;
    limit
}

/// Ends when a worker that stops has waited long enough for the service.
async fn hurried(phase: watch::Receiver<Phase>) {
    let patience = halted(phase).await;
    sleep(patience + LAST_CALLS).await;
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    #[test]
    fn exit_status_and_last_words_decide() {
        let exit = |code: i32| Some(ExitStatus::from_raw(code << 8));
        let reason = |end: End| match end {
            End::Fail(failure) => failure.reason,
            other => panic!("{other:?} is no failure"),
        };
        let result = || End::Complete {
            result: Some(serde_json::Map::new()),
            connection_id: String::new(),
        };
        assert_eq!(judge(exit(0), Some(result())), result());
        assert_eq!(reason(judge(exit(3), Some(result()))), "EXIT_STATUS");
        assert_eq!(
            reason(judge(Some(ExitStatus::from_raw(9)), None)),
            "EXIT_STATUS"
        );
        assert_eq!(judge(exit(TEMPORARY), None), End::Snooze(LATER));
        let own = End::Fail(failure("CAPTCHA", "", false));
        assert_eq!(reason(judge(exit(0), Some(own.clone()))), "CAPTCHA");
        assert_eq!(reason(judge(exit(TEMPORARY), Some(own))), "CAPTCHA");
        let snooze = End::Snooze(Duration::from_secs(5));
        assert_eq!(judge(exit(1), Some(snooze.clone())), snooze);
    }
}
