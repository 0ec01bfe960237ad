//! `tokenbroker work`: claims jobs and runs a command for each.

mod attempt;
mod calls;
mod command;
mod keeper;
mod lines;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use secrecy::SecretString;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use zeroize::Zeroizing;

use self::attempt::{Attempt, PAUSE_FIRST, PAUSE_MOST};
use self::calls::{Ask, Calls, Claimed, Refusal};
use self::keeper::jittered;
use super::serve::Signals;
use super::{Failure, note};
use crate::pb;

/// The variable that holds the API key, where no file does.
const API_KEY: &str = "TOKENBROKER_API_KEY";

/// The most jobs that one claim hands out.
const CLAIM_MAX: usize = 100;

/// How long the answer to a claim that is under way is waited for when the worker is to stop.
const LATE: Duration = Duration::from_secs(2);

/// Claim automation jobs and run a command for each
///
/// The command gets its job as one line of JSON on standard input: `id`, `kind`, `payload`,
/// `attempt`, `connect_url` and whatever else is set of it. It tells how far it has come by lines
/// of JSON on standard output:
///
///   {"step": "login_form", "percent": 40, "message": "…", "checkpoint": {…}, "captcha": "detected"}
///
/// and how the job ends by one of
///
///   {"result": {…}}
///   {"fail": {"reason": "WRONG_PASSWORD", "message": "…", "permanent": true, "retry_seconds": 60}}
///   {"snooze_seconds": 300}
///
/// Without those, exit status 0 completes the job, 75 hands it back for a minute without spending
/// an attempt, and any other fails the attempt (EXIT_STATUS). Standard error, and lines that are no
/// such JSON, are passed on to standard error and sent nowhere.
///
/// The lease is renewed while the command runs. A job that was lost to another worker has its
/// command killed at once, with all that it started; one that is called off has it ended (SIGTERM,
/// 2 s later SIGKILL). A command that runs for longer than --timeout is ended likewise, and the
/// attempt fails (TIMEOUT). At SIGTERM or SIGINT no more jobs are claimed; commands may end within
/// --grace, then they are ended likewise and their jobs handed back without spending an attempt. A
/// second signal kills them at once.
///
/// The API key (role worker) comes from --api-key-file or the variable TOKENBROKER_API_KEY. No
/// variable that begins with TOKENBROKER_ is passed on to commands.
#[derive(Args, Debug)]
#[command(
    verbatim_doc_comment,
    after_long_help = "\
Examples:
  tokenbroker work --api-key-file worker.key --exec ./sign-in.py
  tokenbroker work --kind connect --concurrency 4 --credentials --exec node worker.mjs --headless
  tokenbroker work --address https://broker.example:7480 --ca-file ca.pem --exec ./sign-in.py
  tokenbroker work --drain --exec ./sign-in.py     until there is nothing left to do"
)]
pub(super) struct Work {
    /// The command and its arguments; takes all that follows, so it comes last
    #[arg(long, value_name = "CMD [ARGS]", num_args = 1.., allow_hyphen_values = true, required = true)]
    exec: Vec<OsString>,
    /// Where the service's gRPC is: http://, or https:// for TLS
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:7480")]
    address: String,
    /// Certificates of the authorities that may certify the service, as PEM; the system's when not given
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The file with the API key; the variable TOKENBROKER_API_KEY when not given
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// What the worker is called, 1 to 200 characters; host and process when not given
    #[arg(long, value_name = "NAME")]
    worker: Option<String>,
    /// Claim only jobs of this kind; repeatable
    #[arg(long = "kind", value_name = "KIND")]
    kinds: Vec<String>,
    /// Claim only jobs that may run there
    #[arg(long, value_name = "MODE")]
    execution_mode: Option<ExecutionMode>,
    /// How many commands run at a time, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    concurrency: u16,
    /// How long a job is had without a heartbeat, 3s to 1h; the service's automation.lease when not given
    #[arg(long, value_name = "DURATION", value_parser = lease)]
    lease: Option<Duration>,
    /// How long a claim waits for jobs, 0s to 1m
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = wait)]
    wait: Duration,
    /// Give commands what the job's account signs in with, as `credentials`
    #[arg(long)]
    credentials: bool,
    /// End with 0 once a claim has waited in vain and nothing runs
    #[arg(long)]
    drain: bool,
    /// How long a command may run, 1s to 24h; until the job's deadline when not given
    #[arg(long, value_name = "DURATION", value_parser = limit)]
    timeout: Option<Duration>,
    /// How long commands may run on after the first signal, 0s to 7d
    #[arg(long, value_name = "DURATION", default_value = "25s", value_parser = span)]
    grace: Duration,
    /// How long the service may be out of reach before the worker gives up with 1, 0s to 7d
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = span)]
    patience: Duration,
}

/// Where a job's browser runs.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExecutionMode {
    /// At the vendor of the profiles
    Cloud,
    /// On this machine
    Local,
}

fn lease(text: &str) -> Result<Duration, String> {
    within(text, "3s", "1h")
}

fn wait(text: &str) -> Result<Duration, String> {
    within(text, "0s", "1m")
}

fn limit(text: &str) -> Result<Duration, String> {
    within(text, "1s", "24h")
}

fn span(text: &str) -> Result<Duration, String> {
    within(text, "0s", "7d")
}

fn within(text: &str, least: &str, most: &str) -> Result<Duration, String> {
    let read = |text: &str| {
        humantime::parse_duration(text).map_err(|_| "write a duration such as 90s or 5m".to_owned())
    };
    let given = read(text)?;
    let fits = read(least)? <= given && given <= read(most)?;
    fits.then_some(given)
        .ok_or_else(|| format!("{least} to {most} can be given"))
}

/// What every attempt needs to know.
struct Settings {
    exec: Vec<OsString>,
    credentials: bool,
    /// How long a command may run.
    timeout: Option<Duration>,
    grace: Duration,
    patience: Duration,
}

/// What the worker is about.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Working,
    /// No more jobs; commands may run until then.
    Stopping(Instant),
    /// No more of anything.
    Now,
}

impl Work {
    pub(super) async fn run(self) -> Result<(), Failure> {
        let signals = Signals::new().map_err(|error| Failure::Failed(error.to_string()))?;
        let key = api_key(self.api_key_file)?;
        let authority = match &self.ca_file {
            None => None,
            Some(file) => Some(std::fs::read(file).map_err(|error| {
                Failure::Usage(format!("{} can't be read: {error}", file.display()))
            })?),
        };
        let calls = Calls::new(&self.address, authority, &key).map_err(Failure::Usage)?;
        let worker = self.worker.unwrap_or_else(own_name);
        if worker.is_empty() || worker.chars().count() > 200 {
            return Err(Failure::Usage("--worker: 1 to 200 characters".to_owned()));
        }
        note(&format!("working as {worker} for {}", self.address));
        let (phase, _) = watch::channel(Phase::Working);
        let working = Working {
            calls,
            ask: Ask {
                worker,
                kinds: self.kinds,
                execution_mode: match self.execution_mode {
                    None => pb::ExecutionMode::Unspecified,
                    Some(ExecutionMode::Cloud) => pb::ExecutionMode::Cloud,
                    Some(ExecutionMode::Local) => pb::ExecutionMode::Local,
                },
                wait: self.wait,
                lease: self.lease,
            },
            settings: Arc::new(Settings {
                exec: self.exec,
                credentials: self.credentials,
                timeout: self.timeout,
                grace: self.grace,
                patience: self.patience,
            }),
            phase,
            concurrency: usize::from(self.concurrency),
            drain: self.drain,
            claiming: None,
            running: JoinSet::new(),
        };
        working.work(signals).await
    }
}

/// A worker at work.
struct Working {
    calls: Calls,
    ask: Ask,
    settings: Arc<Settings>,
    phase: watch::Sender<Phase>,
    concurrency: usize,
    drain: bool,
    /// The claim under way. Its jobs may be on their way here when the worker is to stop.
    claiming: Option<BoxFuture<'static, Result<Vec<Claimed>, Refusal>>>,
    running: JoinSet<Result<(), String>>,
}

impl Working {
    async fn work(mut self, mut signals: Signals) -> Result<(), Failure> {
        let claimed = tokio::select! {
            claimed = self.claim_all() => claimed,
            signal = signals.next() => {
                note(&format!("{signal}: no more jobs are claimed; a second signal ends it at once"));
                Ok(())
            }
        };
        // Those whose claiming failed end as those that were stopped do.
        let end = Instant::now() + self.settings.grace;
        self.phase.send_replace(Phase::Stopping(end));
        let phase = self.phase.clone();
        let hurry = async {
            signals.next().await;
            phase.send_replace(Phase::Now);
        };
        let ended = async {
            self.return_late().await;
            let mut trouble = None;
            while let Some(ended) = self.running.join_next().await {
                trouble = trouble.or(failed(ended));
            }
            trouble
        };
        let (trouble, hurried) = both(ended, hurry).await;
        match claimed.err().or(trouble) {
            Some(trouble) => Err(Failure::Failed(trouble)),
            None if hurried => Err(Failure::Failed("ended by a second signal".to_owned())),
            None => Ok(()),
        }
    }

    /// Claims and begins jobs, until there are none where the worker is to end then.
    async fn claim_all(&mut self) -> Result<(), String> {
        let mut unreachable = Unreachable::default();
        loop {
            while let Some(ended) = self.running.try_join_next() {
                failed(ended).map_or(Ok(()), Err)?;
            }
            if self.running.len() >= self.concurrency {
                if let Some(ended) = self.running.join_next().await {
                    failed(ended).map_or(Ok(()), Err)?;
                }
                continue;
            }
            let idle = self.running.is_empty();
            let free = (self.concurrency - self.running.len()).min(CLAIM_MAX);
            match self.claim(free).await {
                Ok(jobs) => {
                    unreachable.is_reached();
                    if jobs.is_empty() && idle && self.drain {
                        return Ok(());
                    }
                    for job in jobs {
                        self.begin(job);
                    }
                }
                Err(Refusal::Passing(text)) => {
                    let pause = unreachable.again(text, self.settings.patience)?;
                    sleep(pause).await;
                }
                Err(Refusal::Final(text)) => return Err(text),
                Err(refusal) => return Err(format!("ClaimJobs was refused: {refusal:?}")),
            }
            if self.ask.wait.is_zero() {
                // Without a wait nothing else keeps this from asking all the time.
                sleep(jittered(PAUSE_FIRST)).await;
            }
        }
    }

    /// Up to so many jobs. The claim is kept where this is dropped before its end.
    async fn claim(&mut self, most: usize) -> Result<Vec<Claimed>, Refusal> {
        let (calls, ask) = (self.calls.clone(), self.ask.clone());
        let claiming = async move { calls.claim(&ask, most).await }.boxed();
        let claimed = self.claiming.insert(claiming).await;
        self.claiming = None;
        claimed
    }

    /// Hands back what the claim brings that was under way. Given up after that it brings nothing:
    /// the service takes back what nobody waits for.
    async fn return_late(&mut self) {
        let Some(claiming) = self.claiming.take() else {
            return;
        };
        let mut phase = self.phase.subscribe();
        let claimed = tokio::select! {
            biased;
            claimed = timeout(LATE, claiming) => claimed,
            _ = phase.wait_for(|phase| matches!(phase, Phase::Now)) => return,
        };
        let Ok(Ok(jobs)) = claimed else {
            return;
        };
        for job in jobs {
            let attempt = self.attempt(job);
            self.running.spawn(async move {
                attempt.hand_back().await;
                Ok(())
            });
        }
    }

    fn begin(&mut self, job: Claimed) {
        let attempt = self.attempt(job);
        self.running.spawn(attempt.run());
    }

    fn attempt(&self, job: Claimed) -> Attempt {
        Attempt {
            calls: self.calls.clone(),
            settings: self.settings.clone(),
            phase: self.phase.subscribe(),
            job,
        }
    }
}

/// Why the worker had better end, where an attempt says so.
fn failed(ended: Result<Result<(), String>, tokio::task::JoinError>) -> Option<String> {
    match ended {
        Ok(outcome) => outcome.err(),
        Err(error) => Some(format!("an attempt broke off: {error}")),
    }
}

/// What comes of `work`, and whether `hurry` came before its end.
async fn both<T>(work: impl Future<Output = T>, hurry: impl Future<Output = ()>) -> (T, bool) {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        done = &mut work => return (done, false),
        () = hurry => {}
    }
    (work.await, true)
}

/// For how long the service has been out of reach.
#[derive(Default)]
struct Unreachable {
    since: Option<Instant>,
    pause: Duration,
}

impl Unreachable {
    fn is_reached(&mut self) {
        if self.since.take().is_some() {
            note("the service is reached again");
        }
    }

    /// How long to wait before the next try.
    ///
    /// # Errors
    /// It has been too long.
    fn again(&mut self, text: String, patience: Duration) -> Result<Duration, String> {
        let now = Instant::now();
        if self.since.is_none() {
            self.pause = PAUSE_FIRST;
        }
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= patience {
            return Err(text);
        }
        note(&text);
        let pause = self.pause;
        self.pause = (pause * 2).min(PAUSE_MOST);
        // Half of it at random: the workers of a service that comes back don't come all at once.
        Ok(pause.mul_f64(0.5 + fastrand::f64() / 2.0))
    }
}

/// The API key, from the file or the variable.
fn api_key(file: Option<PathBuf>) -> Result<SecretString, Failure> {
    let text = match file {
        Some(file) => Zeroizing::new(std::fs::read_to_string(&file).map_err(|error| {
            Failure::Usage(format!("{} can't be read: {error}", file.display()))
        })?),
        None => Zeroizing::new(std::env::var(API_KEY).map_err(|_| {
            Failure::Usage(format!(
                "an API key is needed: name its file with --api-key-file, or set {API_KEY}"
            ))
        })?),
    };
    let key = text.trim();
    if key.is_empty() {
        return Err(Failure::Usage("the API key is empty".to_owned()));
    }
    Ok(SecretString::from(key))
}

/// A name that tells this process from others.
fn own_name() -> String {
    #[cfg(unix)]
    let host = {
        let system = rustix::system::uname();
        system.nodename().to_string_lossy().into_owned()
    };
    #[cfg(not(unix))]
    let host = std::env::var("COMPUTERNAME").unwrap_or_else(|_| "worker".to_owned());
    let host: String = host.chars().take(150).collect();
    format!("{host}:{}", std::process::id())
}

/// A line about a job, for people.
fn say(job: &Claimed, text: &str) {
    let line = format!(
        "{} {} attempt {}: {text}",
        job.lease.job, job.kind, job.attempt
    );
    note(&line.replace(char::is_control, "\u{fffd}"));
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::{Cli, Command};

    #[test]
    fn the_command_takes_all_that_follows() {
        let line = "tokenbroker work --kind a --exec ./run --kind b -- --drain --help";
        let Ok(Cli {
            command: Command::Work(work),
            ..
        }) = Cli::try_parse_from(line.split(' '))
        else {
            panic!("that is a way to work");
        };
        let exec = ["./run", "--kind", "b", "--", "--drain", "--help"];
        assert_eq!(work.exec, exec);
        assert_eq!(work.kinds, ["a"]);
        assert!(!work.drain);
        assert!(Cli::try_parse_from(["tokenbroker", "work"]).is_err());
    }

    #[test]
    fn a_command_may_be_given_a_second_to_a_day() {
        for (span, fits) in [("0s", false), ("1s", true), ("24h", true), ("25h", false)] {
            let line = ["tokenbroker", "work", "--timeout", span, "--exec", "true"];
            assert_eq!(Cli::try_parse_from(line).is_ok(), fits, "{span}");
        }
    }
}
