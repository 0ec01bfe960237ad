//! A job's command: a process, with all that it starts.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdout};
use tokio::time::{Instant, sleep_until, timeout};
use zeroize::Zeroizing;

use super::lines::{Line, Lines};

/// How long what a command wrote last may take to be read. Something that it left running may hold its
/// standard output open for ever.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A command that runs. What is left of it is killed when this is dropped.
pub(super) struct Command {
    child: Child,
    group: Group,
    /// None once its standard output was closed.
    lines: Option<Lines<ChildStdout>>,
}

/// What a command does next.
pub(super) enum Next {
    Wrote(Line),
    /// None where how it ended can't be known.
    Ended(Option<ExitStatus>),
}

impl Command {
    /// Starts it, and gives it the job as the one line of its standard input.
    ///
    /// # Errors
    /// It can't be started.
    pub(super) fn start(exec: &[OsString], job: Zeroizing<Vec<u8>>) -> io::Result<Self> {
        let (program, args) = exec
            .split_first()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut command = tokio::process::Command::new(program);
        command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        // A command is not to be what the worker is: it has one job, not the key to all of them, nor
        // the keys and the database of a service that runs beside.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOKENBROKER_") {
                command.env_remove(name);
            }
        }
        // Of its own, so that Ctrl-C reaches the worker alone, and a kill all that the command started.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn()?;
        let group = Group::of(&child);
        if let Some(mut input) = child.stdin.take() {
            tokio::spawn(async move {
                // A command need not read it.
                let _ = input.write_all(&job).await;
                let _ = input.shutdown().await;
            });
        }
        let lines = child.stdout.take().map(Lines::new);
        Ok(Self {
            child,
            group,
            lines,
        })
    }

    /// What it does next. Nothing is lost when this is dropped before its end.
    pub(super) async fn next(&mut self) -> Next {
        loop {
            let Some(lines) = &mut self.lines else {
                return Next::Ended(self.child.wait().await.ok());
            };
            tokio::select! {
                biased;
                line = lines.next() => match line {
                    Ok(Some(line)) => return Next::Wrote(line),
                    Ok(None) | Err(_) => self.lines = None,
                },
                status = self.child.wait() => return Next::Ended(status.ok()),
            }
        }
    }

    /// Lets it run until then; `heard` gets what it writes. None when it runs still.
    pub(super) async fn until(
        &mut self,
        end: Instant,
        heard: &mut (impl FnMut(Line) + Send),
    ) -> Option<Option<ExitStatus>> {
        loop {
            tokio::select! {
                next = self.next() => match next {
                    Next::Wrote(line) => heard(line),
                    Next::Ended(status) => return Some(status),
                },
                () = sleep_until(end) => return None,
            }
        }
    }

    /// Asks it to end, and kills it when it has not within this time; at once when that is none.
    pub(super) async fn end(
        &mut self,
        patience: Duration,
        heard: &mut (impl FnMut(Line) + Send),
    ) -> Option<ExitStatus> {
        if !patience.is_zero() && self.group.ask() {
            let end = Instant::now() + patience;
            if let Some(status) = self.until(end, heard).await {
                return status;
            }
        }
        self.group.kill();
        // What has no group has this; an error says that it has ended.
        let _ = self.child.start_kill();
        self.child.wait().await.ok()
    }

    /// What it wrote before it ended, and is not read yet.
    pub(super) async fn last_words(&mut self, heard: &mut (impl FnMut(Line) + Send)) {
        let Some(mut lines) = self.lines.take() else {
            return;
        };
        let all = async {
            while let Ok(Some(line)) = lines.next().await {
                heard(line);
            }
        };
        // Too late is lost.
        let _ = timeout(LAST_WORDS, all).await;
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.group.kill();
    }
}

/// A command's process group, which has its name from the command's process.
#[cfg(unix)]
struct Group(Option<rustix::process::Pid>);

#[cfg(unix)]
impl Group {
    fn of(child: &Child) -> Self {
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Self(id.and_then(rustix::process::Pid::from_raw))
    }

    /// Whether it was asked to end.
    fn ask(&self) -> bool {
        self.signal(rustix::process::Signal::TERM)
    }

    fn kill(&self) {
        // An error says that nothing is left.
        let _ = self.signal(rustix::process::Signal::KILL);
    }

    /// False where nothing is left of it.
    fn signal(&self, signal: rustix::process::Signal) -> bool {
        self.0
            .is_some_and(|group| rustix::process::kill_process_group(group, signal).is_ok())
    }
}

/// Systems without groups: the process alone is killed.
#[cfg(not(unix))]
struct Group;

#[cfg(not(unix))]
impl Group {
    fn of(_: &Child) -> Self {
        Self
    }

    fn ask(&self) -> bool {
        false
    }

    fn kill(&self) {}
}
