//! What a password costs.

use std::time::{Duration, Instant};

use futures_util::future;
use secrecy::SecretString;
use tokenbroker::crypto::password::{Cost, Hasher};

use crate::callers::{self, Caller};
use crate::ground::{Engine, Ground};
use crate::process::Cores;
use crate::report::Section;
use crate::spread::{Spread, grouped, mebibytes, show};
use crate::{Fault, Outcome, Scale};

const TEXT: &str = "\
Argon2id at the default cost. *One hash*: in the measuring process, alone. *Sign-ins*: `CreateSession` \
by password, each of the callers with a user of its own, one after the other; a session and an entry of \
the audit trail are committed for each. *Memory*: what the server's peak while it lasted was above what \
was resident before, for the first sign-in after a start and for all those at once; beside it what one \
hash is configured to take. Each core hashes one password at a time.";

const HEAD: &[&str] = &[
    "Engine",
    "One hash p50",
    "p99",
    "Memory configured",
    "By one sign-in",
    "Callers",
    "By all at once",
    "Sign-ins/s",
    "p50",
    "p99",
];

/// Callers at once.
const CROWD: usize = 8;

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let mut section = Section::new("Passwords", TEXT.to_owned(), HEAD);
    for engine in Engine::ALL {
        let mut ground = Ground::new(engine).await?;
        // The end of an older session is not what is measured.
        let most = ("SESSIONS__MAX_PER_USER".to_owned(), "10000".to_owned());
        ground.set(vec![most]);
        let config = ground.config()?.passwords;
        let hasher = Hasher::new(Cost {
            memory: config.memory,
            iterations: config.iterations,
            parallelism: config.parallelism,
        })?;
        let password = callers::random_token();
        let hashes = one_by_one(&hasher, &password, scale.of(100, 20))?;

        // Users are hashed by a server that ends: what it keeps of their memory is not measured.
        let server = ground.start("a", Cores::All).await?;
        let key = ground.key("admin")?;
        let admin = Caller::new(server.address, &key)?;
        let emails: Vec<String> = (0..CROWD)
            .map(|number| format!("p{number}@example.org"))
            .collect();
        for email in &emails {
            admin.user(email, &password).await?;
        }
        server.process.stop()?;

        let server = ground.start("a", Cores::All).await?;
        let caller = Caller::new(server.address, &key)?;
        let before = server.process.memory("VmRSS")?;
        server.process.forget_peak()?;
        let first = emails.first().ok_or("there is no user")?;
        caller.sign_in(first, &password).await?;
        let by_one = server.process.memory("VmHWM")?.saturating_sub(before);
        let each = scale.of(60, 10);
        let began = Instant::now();
        let crowd = emails
            .iter()
            .map(|email| sign_ins(server.address, &key, email, &password, each));
        let took: Vec<Vec<Duration>> = future::try_join_all(crowd).await?;
        let began = began.elapsed();
        let by_all = server.process.memory("VmHWM")?.saturating_sub(before);
        let took = Spread::of(took.into_iter().flatten().collect());
        let rate = (CROWD * each) as f64 / began.as_secs_f64();
        section.row(vec![
            engine.name().to_owned(),
            show(hashes.median()),
            show(hashes.p99()),
            mebibytes(u64::from(config.memory)),
            mebibytes(by_one),
            grouped(CROWD as u64),
            mebibytes(by_all),
            format!("{rate:.0}"),
            show(took.median()),
            show(took.p99()),
        ]);
        server.process.stop()?;
        ground.remove().await?;
    }
    Ok(section)
}

fn one_by_one(hasher: &Hasher, password: &str, times: usize) -> Outcome<Spread> {
    let password = SecretString::from(password);
    let took: Result<Vec<Duration>, Fault> = (0..times)
        .map(|_| {
            let began = Instant::now();
            hasher.hash(&password)?;
            Ok(began.elapsed())
        })
        .collect();
    Ok(Spread::of(took?))
}

async fn sign_ins(
    address: std::net::SocketAddr,
    key: &str,
    email: &str,
    password: &str,
    times: usize,
) -> Outcome<Vec<Duration>> {
    let caller = Caller::new(address, key)?;
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        caller.sign_in(email, password).await?;
        took.push(began.elapsed());
    }
    Ok(took)
}
