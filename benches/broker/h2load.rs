//! The load generator, and what it says.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crate::Outcome;
use crate::process::Cores;
use crate::spread::Spread;

/// The call that most sections measure.
pub const GET_ACCESS_TOKEN: Call = Call::Rpc("/tokenbroker.v1.TokenBroker/GetAccessToken");

/// What is called.
#[derive(Clone, Copy)]
pub enum Call {
    /// An RPC, by its path: over HTTP/2.
    Rpc(&'static str),
    /// A path that a form is posted to: over HTTP/1.1, where a connection carries one call at a time.
    Form(&'static str),
}

/// One run.
#[derive(Clone)]
pub struct Load<'a> {
    /// What is called.
    pub call: Call,
    /// The server.
    pub server: SocketAddr,
    /// Calls in all.
    pub calls: u64,
    /// Connections, and calls at once on each.
    pub clients: (u32, u32),
    /// Where the generator runs.
    pub cores: Cores,
    /// The request: a framed message, or a form.
    pub body: &'a Path,
    /// What is sent as a bearer token, such as an API key; none where a certificate is known.
    pub key: Option<&'a str>,
    /// What each call is answered with.
    pub answer: Answer,
    /// Whether to take the time of each call. It costs the generator a write a call.
    pub log: Option<&'a Path>,
}

/// What calls are answered with: anything else ends the run.
#[derive(Clone, Copy)]
pub enum Answer {
    /// So many bytes; of a message, framed.
    Bytes(u64),
    /// None: a limit refuses all calls but those few that it lets through while the run lasts.
    Refusal,
}

/// What a run showed.
pub struct Seen {
    /// Calls a second.
    pub rate: f64,
    /// Of each call, if it was logged.
    pub times: Option<Spread>,
}

impl Load<'_> {
    /// The same for another server.
    pub fn to(&self, server: SocketAddr) -> Self {
        Self {
            server,
            ..self.clone()
        }
    }

    /// Runs it.
    ///
    /// gRPC answers every call with HTTP 200; one that failed carries no data, so the bytes received
    /// tell whether all succeeded. A token that is not good is told of with fewer bytes, too.
    pub fn run(&self) -> Outcome<Seen> {
        let (clients, streams) = self.clients;
        let mut command = self.cores.command("h2load");
        command
            .args(["-n", &self.calls.to_string(), "-c", &clients.to_string()])
            .args(["-m", &streams.to_string(), "-t", "1"])
            .arg("-d")
            .arg(self.body);
        let path = match self.call {
            Call::Rpc(path) => {
                command.args(["-H", "te: trailers"]);
                command.args(["-H", "content-type: application/grpc"]);
                path
            }
            Call::Form(path) => {
                let form = "content-type: application/x-www-form-urlencoded";
                command.args(["--h1", "-H", form]);
                path
            }
        };
        if let Some(key) = self.key {
            command.args(["-H", &format!("authorization: Bearer {key}")]);
        }
        if let Some(log) = self.log {
            let _ = std::fs::remove_file(log);
            command.arg("--log-file").arg(log);
        }
        command.arg(format!("http://{}{path}", self.server));
        let output = command.stdin(Stdio::null()).output()?;
        let text = String::from_utf8(output.stdout)?;
        let odd = |what: &str| format!("{what} in what h2load says:\n{text}");
        let line = |begins: &str| text.lines().find_map(|line| line.strip_prefix(begins));
        let requests = line("requests: ").ok_or_else(|| odd("no requests"))?;
        let wanted = format!("{} succeeded, 0 failed, 0 errored, 0 timeout", self.calls);
        if !requests.contains(&wanted) {
            return Err(odd("failures").into());
        }
        let traffic = line("traffic: ").ok_or_else(|| odd("no traffic"))?;
        let data = traffic
            .rsplit('(')
            .next()
            .and_then(|rest| rest.split(')').next());
        let data = data.and_then(|data| data.parse().ok());
        let data: u64 = data.ok_or_else(|| odd("no data"))?;
        let as_told = match self.answer {
            Answer::Bytes(answer) => data == self.calls * answer,
            // An answer is longer than 100 bytes: fewer than one call in a hundred had one.
            Answer::Refusal => data < self.calls,
        };
        if !as_told {
            return Err(odd("answers of another size").into());
        }
        let finished = line("finished in ").ok_or_else(|| odd("no end"))?;
        let rate = finished
            .split(", ")
            .find_map(|part| part.strip_suffix(" req/s"))
            .ok_or_else(|| odd("no rate"))?;
        Ok(Seen {
            rate: rate.parse()?,
            times: self.log.map(times).transpose()?,
        })
    }
}

/// The third column is a call's time in microseconds.
fn times(log: &Path) -> Outcome<Spread> {
    let text = std::fs::read_to_string(log)?;
    let mut times = Vec::new();
    for line in text.lines() {
        let micros = line.split('\t').nth(2).ok_or("a line without a time")?;
        times.push(Duration::from_micros(micros.trim().parse()?));
    }
    Ok(Spread::of(times))
}
