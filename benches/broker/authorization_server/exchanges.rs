//! Tokens for clients: for themselves, for codes, for refresh tokens.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use prost::Message as _;
use tokenbroker::pb;

use super::Stage;
use crate::callers::Caller;
use crate::ground::Engine;
use crate::process::Cores;
use crate::report::Section;
use crate::spread::{Spread, grouped, show};
use crate::{Fault, Outcome, Scale, echo};

const TEXT: &str = "\
`ExchangeToken` over one connection of gRPC, the time as the caller sees it, so many calls at once. Each \
proves who the client is by its secret, and commits tokens and an entry of the audit trail; both \
databases flush to disk. *Code*: codes of a consent each, prepared before; answered with an opaque \
access token, a refresh token and a signed ID token. *Refresh token*: those of the exchanges before, each \
of another grant; answered likewise. Beside it the same calls to tonic alone, with an answer of the same size. Before each \
row the audit trail has caught up with what was done before. The server shares its cores with caller \
and PostgreSQL.";

const HEAD: &[&str] = &[
    "Engine",
    "Exchanged",
    "At once",
    "Exchanges",
    "Exchanges/s",
    "p50",
    "p99",
    "Echo: calls/s",
    "p50",
    "p99",
];

/// What so many exchanges came to.
struct Exchanged {
    answers: Vec<pb::ExchangeTokenResponse>,
    times: Spread,
    took: Duration,
}

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let title = "Authorisation server: tokens";
    let mut section = Section::new(title, TEXT.to_owned(), HEAD);
    let (few, many): (usize, usize) = scale.of((200, 2_000), (20, 150));
    for engine in Engine::ALL {
        let stage = Stage::start(engine, Cores::All).await?;
        for (at_once, count) in [(1, few), (32, many)] {
            let codes = stage.codes(count).await?;
            let redeem = codes.into_iter().map(|code| stage.redeem(code)).collect();
            let itself = vec![stage.for_itself(); count];
            row(
                &stage,
                "client's credentials",
                at_once,
                itself,
                &mut section,
            )
            .await?;
            let answers = row(&stage, "code", at_once, redeem, &mut section).await?;
            let renew = answers
                .into_iter()
                .map(|answer| stage.renew(answer.refresh_token));
            let renew = renew.collect();
            row(&stage, "refresh token", at_once, renew, &mut section).await?;
        }
        stage.end().await?;
    }
    Ok(section)
}

async fn row(
    stage: &Stage,
    what: &str,
    at_once: usize,
    requests: Vec<pb::ExchangeTokenRequest>,
    section: &mut Section,
) -> Outcome<Vec<pb::ExchangeTokenResponse>> {
    stage.settled().await?;
    let seen = exchange(&stage.caller, &requests, at_once).await?;

    let answer = stage.ground.file("answer.bin");
    let first = seen.answers.first().ok_or("nothing was exchanged")?;
    std::fs::write(&answer, first.encode_to_vec())?;
    let (_echoing, address) = echo::start("tokens", &answer, Cores::All)?;
    let caller = Caller::new(address, &stage.key)?;
    // It warms up, as the server has.
    exchange(&caller, &requests, at_once).await?;
    let echoed = exchange(&caller, &requests, at_once).await?;

    section.row(vec![
        stage.ground.engine().name().to_owned(),
        what.to_owned(),
        at_once.to_string(),
        grouped(requests.len() as u64),
        seen.rate(),
        show(seen.times.median()),
        show(seen.times.p99()),
        echoed.rate(),
        show(echoed.times.median()),
        show(echoed.times.p99()),
    ]);
    Ok(seen.answers)
}

/// Sends every request, so many at once. A refusal ends the run.
async fn exchange(
    caller: &Caller,
    requests: &[pb::ExchangeTokenRequest],
    at_once: usize,
) -> Outcome<Exchanged> {
    let began = Instant::now();
    let told: Vec<(pb::ExchangeTokenResponse, Duration)> = stream::iter(requests)
        .map(|request| {
            let mut server = caller.authorization_server.clone();
            let request = request.clone();
            async move {
                let asked = Instant::now();
                let answer = server.exchange_token(request).await?;
                Ok::<_, Fault>((answer.into_inner(), asked.elapsed()))
            }
        })
        .buffer_unordered(at_once)
        .try_collect()
        .await?;
    let took = began.elapsed();
    let (answers, times) = told.into_iter().unzip();
    Ok(Exchanged {
        answers,
        times: Spread::of(times),
        took,
    })
}

impl Exchanged {
    fn rate(&self) -> String {
        let rate = self.answers.len() as f64 / self.took.as_secs_f64();
        grouped(rate.round() as u64)
    }
}
