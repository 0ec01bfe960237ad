//! `GetAccessToken` beside a tonic echo.

use std::path::Path;

use prost::Message as _;

use crate::callers::{self, Caller};
use crate::ground::{Engine, Ground};
use crate::h2load::{self, Answer, Load, Seen};
use crate::process::{Cores, Process};
use crate::provider::LocalProvider;
use crate::report::Section;
use crate::spread::{self, grouped, show};
use crate::{Outcome, Scale, echo};

const TEXT: &str = "\
A warm `GetAccessToken`: authenticated by API key, answered from memory, its use counted. Beside it, \
under the same load in alternating rounds, two servers that are tonic and nothing else with an answer \
of the same size: one answers a single string, the other the broker's own message with its fields. \
Same allocator, same listener settings, no logs per call in any. Medians of the rounds, shares too: \
each is of two figures of one round. Each answer's size is checked, so a call that failed would end the \
run.\n\n\
*One core each*: the server on one core, h2load on another, so that the server is what limits. \
*All cores*: both wherever the system puts them, competing. *At full load* 8 connections carry 32 \
calls each at once; *one at a time* is a single caller that waits for each answer. CPU is what the \
server's threads spent a call, system calls included.";

const HEAD: &[&str] = &[
    "Cores",
    "Server",
    "Calls/s",
    "Of the echo of one string",
    "Of the echo of the message",
    "CPU a call",
    "Full load p50",
    "p99",
    "One at a time p50",
    "p99",
];

const TEXT_ECHO: &str = "echo of one string";
const MESSAGE_ECHO: &str = "echo of the message";

/// Connections and calls at once on each, at full load.
pub const FULL: (u32, u32) = (8, 32);

struct Contestant {
    name: &'static str,
    process: Process,
    server: std::net::SocketAddr,
    rates: Vec<f64>,
    spent: Vec<f64>,
}

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Throughput of GetAccessToken", TEXT.to_owned(), HEAD);
    let several = std::thread::available_parallelism()?.get() > 1;
    if several {
        round(
            scale,
            "one core each",
            Cores::One(0),
            Cores::One(1),
            &mut section,
        )
        .await?;
    }
    round(scale, "all cores", Cores::All, Cores::All, &mut section).await?;
    Ok(section)
}

async fn round(
    scale: Scale,
    place: &str,
    serving: Cores,
    loading: Cores,
    section: &mut Section,
) -> Outcome<()> {
    let ground = Ground::new(Engine::Sqlite).await?;
    let provider = LocalProvider::start()?;
    let broker = ground.start("a", serving).await?;
    let key = ground.key("admin")?;
    let mut caller = Caller::new(broker.address, &key)?;
    let app = caller.register(&provider).await?;
    let connections = caller.import(&app, scale.of(1_000, 100)).await?;
    let connection = connections.first().ok_or("nothing was imported")?;

    let answer = caller.token(connection).await?;
    let token = answer.token.as_ref().ok_or("no token")?;
    if token.access_token.len() != crate::provider::TOKEN_LETTERS {
        return Err("the token is not the one imported".into());
    }
    let framed = answer.encoded_len() as u64 + 5;
    let answer_file = ground.file("answer.bin");
    std::fs::write(&answer_file, answer.encode_to_vec())?;
    let body = ground.file("body.bin");
    std::fs::write(&body, frame(&callers::token_request(connection))?)?;

    let mut contestants = Vec::new();
    for (name, shape) in [(TEXT_ECHO, "text"), (MESSAGE_ECHO, "message")] {
        let (process, server) = echo::start(shape, &answer_file, serving)?;
        contestants.push(Contestant::new(name, process, server));
    }
    contestants.push(Contestant::new(
        "tokenbroker",
        broker.process,
        broker.address,
    ));

    let calls = scale.of(80_000, 30_000);
    let load = |server, calls, clients, log: Option<&'static str>| {
        let log = log.map(|name| ground.file(name));
        run(
            server,
            calls,
            clients,
            loading,
            &body,
            &key,
            framed,
            log.as_deref(),
        )
    };
    for round in 0..=scale.of(21, 5) {
        // Whoever comes first in a round has another machine than whoever comes last.
        contestants.rotate_left(1);
        for one in &mut contestants {
            let before = one.process.spent()?;
            let seen = load(one.server, calls, FULL, None)?;
            let spent = one.process.spent()?.saturating_sub(before);
            // The first round warms up.
            if round > 0 {
                one.rates.push(seen.rate);
                one.spent.push(spent.as_secs_f64() * 1e6 / calls as f64);
            }
        }
    }
    contestants.sort_by_key(|one| one.name);
    let rates = |name: &str| {
        let one = contestants.iter().find(|one| one.name == name);
        one.map_or(&[] as &[f64], |one| &one.rates)
    };
    let (text, message) = (rates(TEXT_ECHO), rates(MESSAGE_ECHO));
    for one in &contestants {
        let full = load(one.server, calls, FULL, Some("times.log"))?;
        let single = load(
            one.server,
            scale.of(20_000, 4_000),
            (1, 1),
            Some("times.log"),
        )?;
        let (Some(full), Some(single)) = (full.times, single.times) else {
            return Err("h2load logged no times".into());
        };
        section.row(vec![
            place.to_owned(),
            one.name.to_owned(),
            grouped(spread::median(&one.rates) as u64),
            share(&one.rates, text),
            share(&one.rates, message),
            format!("{:.1} µs", spread::median(&one.spent)),
            show(full.median()),
            show(full.p99()),
            show(single.median()),
            show(single.p99()),
        ]);
    }
    // The same call, checked once more after the load.
    caller.token(connection).await?;
    ground.remove().await
}

#[allow(clippy::too_many_arguments, reason = "one place, one command line")]
fn run(
    server: std::net::SocketAddr,
    calls: u64,
    clients: (u32, u32),
    cores: Cores,
    body: &Path,
    key: &str,
    answer: u64,
    log: Option<&Path>,
) -> Outcome<Seen> {
    let load = Load {
        call: h2load::GET_ACCESS_TOKEN,
        server,
        calls,
        clients,
        cores,
        body,
        key: Some(key),
        answer: Answer::Bytes(answer),
        log,
    };
    load.run()
}

impl Contestant {
    fn new(name: &'static str, process: Process, server: std::net::SocketAddr) -> Self {
        Self {
            name,
            process,
            server,
            rates: Vec::new(),
            spent: Vec::new(),
        }
    }
}

/// The median of what each round's rate is of the other's.
pub fn share(rates: &[f64], of: &[f64]) -> String {
    let shares: Vec<f64> = rates.iter().zip(of).map(|(rate, of)| rate / of).collect();
    format!("{:.2}", spread::median(&shares))
}

/// A gRPC message as it stands in a DATA frame: not compressed, its length, itself.
pub fn frame(message: &impl prost::Message) -> Outcome<Vec<u8>> {
    let encoded = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(encoded.len())?.to_be_bytes());
    framed.extend_from_slice(&encoded);
    Ok(framed)
}
