//! `GetAccessToken` by what the caller is known by, and by what is made of the call.

use std::path::PathBuf;

use prost::Message as _;

use crate::callers::{self, Caller};
use crate::contestant::{self, Contestant};
use crate::ground::{Engine, Ground, Server};
use crate::h2load::{self, Answer, Load};
use crate::process::Cores;
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

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Callers, limits and the audit trail", TEXT.to_owned(), HEAD);
    let (serving, loading) = Cores::apart()?;

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
    let (echoing, echo_address) = echo::start("message", &answer, serving)?;

    let calls = scale.of(80_000, 20_000);
    let key = plain.ground.key("consumer")?;
    let session = plain.admin.session().await?;
    let limited = plain.admin.limited_key().await?;
    let mut over = Caller::new(plain.server.address, &limited)?;
    over.token(&plain.connection).await?;
    if over.token(&plain.connection).await.is_ok() {
        return Err("the limited key is not over its limit".into());
    }
    let by_key = plain.load(Some(&key), loading, calls);
    let by_jwt = plain.load(Some(&jwt), loading, calls);
    let refused = Load {
        answer: Answer::Refusal,
        ..plain.load(Some(&limited), loading, calls)
    };
    let serving = &plain.server.process;
    let mut contestants = vec![
        Contestant::new(ECHO, &echoing, by_key.to(echo_address)),
        Contestant::new("API key", serving, by_key),
        Contestant::new(
            "session token",
            serving,
            plain.load(Some(&session), loading, calls),
        ),
        Contestant::new(ECHO_SENT_JWT, &echoing, by_jwt.to(echo_address)),
        Contestant::new(JWT, serving, by_jwt),
        Contestant::new(
            "client certificate, over TLS",
            &encrypted.server.process,
            encrypted.load(None, loading, calls),
        ),
        Contestant::new("API key, refused by its limit", serving, refused),
    ];
    let rounds = scale.of(9, 3);
    contestant::compete(&mut contestants, rounds)?;

    // Behind the others: what they leave to be chained would slow down whoever comes next.
    let keys = telling.iter().map(|warm| warm.ground.key("consumer"));
    let keys = keys.collect::<Outcome<Vec<String>>>()?;
    let names = [
        "API key, each read told (SQLite)",
        "API key, each read told (PostgreSQL)",
    ];
    let mut behind = Vec::new();
    for ((warm, key), name) in telling.iter().zip(&keys).zip(names) {
        let load = warm.load(Some(key), loading, scale.of(1_000, 200));
        behind.push(Contestant::new(name, &warm.server.process, load));
    }
    contestant::compete(&mut behind, rounds)?;
    contestants.extend(behind);
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

    /// What it is sent by the holder of this.
    fn load<'a>(&'a self, key: Option<&'a str>, cores: Cores, calls: u64) -> Load<'a> {
        Load {
            call: h2load::GET_ACCESS_TOKEN,
            server: self.server.address,
            calls,
            clients: FULL,
            cores,
            body: &self.body,
            key,
            answer: Answer::Bytes(self.answer.len() as u64 + 5),
            log: None,
        }
    }

    /// The same call, checked once more after the load.
    async fn end(mut self) -> Outcome<()> {
        self.admin.token(&self.connection).await?;
        self.server.process.stop()?;
        self.ground.remove().await
    }
}
