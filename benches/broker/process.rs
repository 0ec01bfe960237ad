//! Processes that are measured: started, looked at through `/proc`, and ended by their own id.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::Outcome;

/// Names what this binary is when it is started as a child.
pub const ROLE: &str = "BENCH_ROLE";

/// How long a process may take to end when it is asked to.
const END: Duration = Duration::from_secs(10);

/// A running process; dropped, it is killed.
pub struct Process(Child);

/// Where a process may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cores {
    /// Wherever the system likes.
    All,
    /// On this one.
    One(u32),
}

impl Cores {
    /// Where a server runs, and where its load comes from: apart, where there are several.
    pub fn apart() -> Outcome<(Self, Self)> {
        let several = std::thread::available_parallelism()?.get() > 1;
        Ok(if several {
            (Self::One(0), Self::One(1))
        } else {
            (Self::All, Self::All)
        })
    }

    /// Has a running process stay there, with all threads that it has.
    pub fn pin(self, pid: u32) -> Outcome<()> {
        let list = match self {
            Self::All => std::fs::read_to_string("/sys/devices/system/cpu/online")?,
            Self::One(core) => core.to_string(),
        };
        let pinned = Command::new("taskset")
            .args([
                "--all-tasks",
                "--cpu-list",
                "--pid",
                list.trim(),
                &pid.to_string(),
            ])
            .stdout(Stdio::null())
            .status()?;
        if pinned.success() {
            Ok(())
        } else {
            Err(format!("taskset could not move process {pid} to {list}").into())
        }
    }

    /// A command that runs `program` there. The process id is the program's: taskset becomes it.
    pub fn command(self, program: &str) -> Command {
        match self {
            Self::All => Command::new(program),
            Self::One(core) => {
                let mut command = Command::new("taskset");
                command.args(["-c", &core.to_string(), program]);
                command
            }
        }
    }
}

impl Process {
    /// Starts a command.
    pub fn start(command: &mut Command) -> Outcome<Self> {
        Ok(Self(command.stdin(Stdio::null()).spawn()?))
    }

    /// Starts this binary in a role; it says where it listens.
    pub fn in_role(role: &str, cores: Cores, env: &[(&str, &str)]) -> Outcome<(Self, SocketAddr)> {
        let this = std::env::current_exe()?;
        let mut child = cores
            .command(&this.to_string_lossy())
            .env(ROLE, role)
            .envs(env.iter().copied())
            // A role ends when this closes: none outlives the run, however that ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let said = child.stdout.take().ok_or("the child has no output")?;
        let process = Self(child);
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        Ok((process, line.trim().parse()?))
    }

    /// Has it stay there.
    pub fn pin(&self, cores: Cores) -> Outcome<()> {
        cores.pin(self.0.id())
    }

    /// Memory held, in KiB: all that is resident (`VmRSS`), the most that was (`VmHWM`), or only what is the process's own
    /// (`RssAnon`), without the pages of its binary.
    pub fn memory(&self, kind: &str) -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(kind)?.strip_prefix(':'))
            .ok_or("the process has ended")?;
        let number = line.trim().trim_end_matches(" kB");
        Ok(number.parse()?)
    }

    /// Has `VmHWM`, the most that was resident, count from now on.
    pub fn forget_peak(&self) -> Outcome<()> {
        // proc_pid_clear_refs(5).
        Ok(std::fs::write(
            format!("/proc/{}/clear_refs", self.0.id()),
            "5",
        )?)
    }

    /// Time spent on processors so far, by all threads.
    pub fn spent(&self) -> Outcome<Duration> {
        let mut nanos = 0_u64;
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.0.id()))? {
            let path = thread?.path().join("schedstat");
            // A thread may have ended since it was listed.
            let Ok(text) = std::fs::read_to_string(path) else {
                continue;
            };
            let ran = text.split_whitespace().next().unwrap_or("0");
            nanos += ran.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(nanos))
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) -> Outcome<()> {
        let id = self.0.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status()?;
        let began = Instant::now();
        while began.elapsed() < END {
            if self.0.try_wait()?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("the process did not end when it was asked to".into())
    }

    /// Whether it runs still.
    pub fn runs(&mut self) -> Outcome<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// For roles: answers over HTTP/1.1 until the parent is gone.
pub async fn serve_http1<A, F>(answer: A) -> Outcome<()>
where
    A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Outcome<Response<Full<Bytes>>>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(answer.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    };
    tokio::select! {
        ended = serving => ended,
        gone = announce(address) => gone,
    }
}

/// For roles: tells the parent the address, and returns when the parent is gone.
pub async fn announce(address: SocketAddr) -> Outcome<()> {
    println!("{address}");
    tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        let _ = std::io::stdin().read_line(&mut line);
    })
    .await?;
    Ok(())
}
