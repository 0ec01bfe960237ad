//! `GetAccessToken` by what the caller is known by, and by what is made of the call.

use std::net::SocketAddr;
use std::path::PathBuf;

use prost::Message as _;

use crate::callers::{self, Caller};
use crate::ground::{Engine, Ground, Server};
use crate::h2load::{Answer, Load};
use crate::process::{Cores, Process};
use crate::provider::LocalProvider;
use crate::report::Section;
use crate::spread::{self, grouped};
use crate::throughput::{self, FULL};
use crate::{Outcome, Scale, echo, issuer};

const TEXT: &str = "\
The same warm `GetAccessToken` at full load, one core each where there are several, beside the echo of \
the message in alternating rounds of this run (a JWT beside the echo that is sent the same one, since \
its length costs before anybody reads it). Limits are on and never reached; reads are counted for \
the audit trail (`audit.token_reads = \"aggregated\"`), but where a line says otherwise. All callers are \
in memory. *Client certificate*: over TLS, through a relay that encrypts for h2load, which has no \
certificates; the relay takes time of its own, so its CPU is what compares. *Refused*: a caller over \
its limit. *Each*: an entry of the audit trail is committed before each answer; measured behind the \
others, PostgreSQL's own processes wherever the system puts them.";

const HEAD: &[&str] = &[
    "Caller",
    "Calls/s",
    "Of the echo of the message",
    "CPU a call",
];

const ECHO: &str = "echo of the message";
const JWT: &str = "JWT";
/// Reading some hundred bytes more of headers takes time before anybody looks at them.
const ECHO_SENT_JWT: &str = "echo of the message, sent the JWT";

/// A server with a connection whose token is in memory.
struct Warm {
    ground: Ground,
    server: Server,
    admin: Caller,
    connection: String,
    /// The request, framed.
    body: PathBuf,
    /// The answer, encoded.
    answer: Vec<u8>,
    _provider: LocalProvider,
}

struct Contestant<'a> {
    name: &'static str,
    process: &'a Process,
    server: SocketAddr,
    body: &'a PathBuf,
    bearer: Option<String>,
    answer: Answer,
    calls: u64,
    rates: Vec<f64>,
    spent: Vec<f64>,
}

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Callers, limits and the audit trail", TEXT.to_owned(), HEAD);
    let several = std::thread::available_parallelism()?.get() > 1;
    let (serving, loading) = if several {
        (Cores::One(0), Cores::One(1))
    } else {
        (Cores::All, Cores::All)
    };

    let mut ground = Ground::new(Engine::Sqlite).await?;
    let (jwt, settings) = issuer::jwt(ground.folder())?;
    ground.set(settings);
    let plain = Warm::start(ground, serving).await?;
    let mut ground = Ground::new(Engine::Sqlite).await?;
    ground.encrypt()?;
    let encrypted = Warm::start(ground, serving).await?;
    let mut telling = Vec::new();
    for engine in Engine::ALL {
        let mut ground = Ground::new(engine).await?;
        ground.set(vec![("AUDIT__TOKEN_READS".to_owned(), "each".to_owned())]);
        telling.push(Warm::start(ground, serving).await?);
    }

    let answer = plain.ground.file("answer.bin");
    std::fs::write(&answer, &plain.answer)?;
    let env = [
        (echo::SHAPE, "message"),
        (echo::ANSWER, &*answer.to_string_lossy()),
    ];
    let (echoing, echo_address) = Process::in_role("echo", serving, &env)?;

    let calls = scale.of(80_000, 20_000);
    let key = plain.ground.key("consumer")?;
    let session = plain.admin.session().await?;
    let limited = plain.admin.limited_key().await?;
    let mut over = Caller::new(plain.server.address, &limited)?;
    over.token(&plain.connection).await?;
    if over.token(&plain.connection).await.is_ok() {
        return Err("the limited key is not over its limit".into());
    }
    let mut contestants = vec![
        Contestant {
            process: &echoing,
            server: echo_address,
            ..plain.contestant(ECHO, Some(key.clone()), calls)
        },
        plain.contestant("API key", Some(key), calls),
        plain.contestant("session token", Some(session), calls),
        Contestant {
            process: &echoing,
            server: echo_address,
            ..plain.contestant(ECHO_SENT_JWT, Some(jwt.clone()), calls)
        },
        plain.contestant(JWT, Some(jwt), calls),
        encrypted.contestant("client certificate, over TLS", None, calls),
        Contestant {
            answer: Answer::Refusal,
            ..plain.contestant("API key, refused by its limit", Some(limited), calls)
        },
    ];
    let rounds = scale.of(9, 3);
    for round in 0..=rounds {
        // Whoever comes first in a round has another machine than whoever comes last.
        contestants.rotate_left(1);
        for one in &mut contestants {
            one.run(loading, round > 0)?;
        }
    }
    // The first round and so many more: back to where they began.
    let turned = (rounds + 1) % contestants.len();
    contestants.rotate_right(turned);

    // Behind the others: what they leave to be chained would slow down whoever comes next.
    let others = contestants.len();
    for (warm, name) in telling.iter().zip([
        "API key, each read told (SQLite)",
        "API key, each read told (PostgreSQL)",
    ]) {
        let key = warm.ground.key("consumer")?;
        contestants.push(warm.contestant(name, Some(key), scale.of(1_000, 200)));
    }
    for round in 0..=rounds {
        for one in contestants.iter_mut().skip(others) {
            one.run(loading, round > 0)?;
        }
    }
    let rates_of = |name: &str| {
        let found = contestants.iter().find(|one| one.name == name);
        found.map(|one| one.rates.clone()).unwrap_or_default()
    };
    let (echoed, echoed_jwt) = (rates_of(ECHO), rates_of(ECHO_SENT_JWT));
    for one in &contestants {
        let beside = match one.name {
            JWT => &echoed_jwt,
            _ => &echoed,
        };
        section.row(vec![
            one.name.to_owned(),
            grouped(spread::median(&one.rates) as u64),
            throughput::share(&one.rates, beside),
            format!("{:.1} µs", spread::median(&one.spent)),
        ]);
    }
    drop(contestants);
    for warm in [plain, encrypted].into_iter().chain(telling) {
        warm.end().await?;
    }
    Ok(section)
}

impl Warm {
    async fn start(ground: Ground, serving: Cores) -> Outcome<Self> {
        let provider = LocalProvider::start()?;
        let server = ground.start("a", serving).await?;
        let mut admin = Caller::new(server.address, &ground.key("admin")?)?;
        let app = admin.register(&provider).await?;
        let connections = admin.import(&app, 1).await?;
        let connection = connections
            .into_iter()
            .next()
            .ok_or("nothing was imported")?;
        let body = ground.file("body.bin");
        let request = callers::token_request(&connection);
        std::fs::write(&body, throughput::frame(&request)?)?;
        let answer = admin.token(&connection).await?.encode_to_vec();
        Ok(Self {
            ground,
            server,
            admin,
            connection,
            body,
            answer,
            _provider: provider,
        })
    }

    fn contestant(&self, name: &'static str, bearer: Option<String>, calls: u64) -> Contestant<'_> {
        Contestant {
            name,
            process: &self.server.process,
            server: self.server.address,
            body: &self.body,
            bearer,
            answer: Answer::Bytes(self.answer.len() as u64 + 5),
            calls,
            rates: Vec::new(),
            spent: Vec::new(),
        }
    }

    /// The same call, checked once more after the load.
    async fn end(mut self) -> Outcome<()> {
        self.admin.token(&self.connection).await?;
        self.server.process.stop()?;
        self.ground.remove().await
    }
}

impl Contestant<'_> {
    fn run(&mut self, cores: Cores, counts: bool) -> Outcome<()> {
        let before = self.process.spent()?;
        let load = Load {
            server: self.server,
            calls: self.calls,
            clients: FULL,
            cores,
            body: self.body,
            key: self.bearer.as_deref(),
            answer: self.answer,
            log: None,
        };
        let seen = load.run()?;
        let spent = self.process.spent()?.saturating_sub(before);
        // The first round warms up.
        if counts {
            self.rates.push(seen.rate);
            let micros = spent.as_secs_f64() * 1e6;
            self.spent.push(micros / self.calls as f64);
        }
        Ok(())
    }
}
