//! The queue of automation jobs, as those who fill it and its workers meet it.

mod bare;
pub mod finished;
pub mod rates;
pub mod waiting;

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::stream;
use tokenbroker::pb;

use crate::Outcome;
use crate::callers::Caller;
use crate::ground::{Engine, Ground, Server};
use crate::process::Cores;

/// Workers at once, and callers that ask for jobs.
const WORKERS: usize = 8;

/// Jobs of one claim.
const HAND: i32 = 10;

/// Jobs of one batch, where batches are measured.
const BATCH: u64 = 1_000;

/// Jobs of one message of `CreateBatch`: well below what a message may have.
const MESSAGE: u64 = 1_000;

/// Jobs are completed once all of a round are claimed, which takes a while.
const LEASE: Duration = Duration::from_secs(600);

/// A server with a queue, and a crew with a connection to it each.
struct Stage {
    ground: Ground,
    server: Server,
    key: String,
    crew: Vec<Caller>,
}

/// A job that a worker has.
struct Held {
    id: String,
    token: i64,
}

impl Stage {
    async fn start(engine: Engine) -> Outcome<Self> {
        let ground = Ground::new(engine).await?;
        let server = ground.start("a", Cores::All).await?;
        let key = ground.key("admin")?;
        let crew = crew(&server, &key)?;
        Ok(Self {
            ground,
            server,
            key,
            crew,
        })
    }

    /// One that asks for something, beside whom nobody does.
    fn one(&self) -> Outcome<Caller> {
        Ok(self.crew.first().ok_or("there is no crew")?.clone())
    }

    /// Has so many jobs more wait.
    async fn fill(&self, count: u64) -> Outcome<()> {
        const MOST: u64 = 20_000;
        let mut left = count;
        while left > 0 {
            let some = left.min(MOST);
            create_batch(self.one()?, some).await?;
            left -= some;
        }
        Ok(())
    }

    async fn end(self) -> Outcome<()> {
        self.server.process.stop()?;
        self.ground.remove().await
    }
}

fn crew(server: &Server, key: &str) -> Outcome<Vec<Caller>> {
    let one = |_| Caller::new(server.address, key);
    (0..WORKERS).map(one).collect()
}

/// A job as such jobs are: some words of what to do.
fn job() -> pb::NewJob {
    let payload = serde_json::json!({
        "site": "https://accounts.example.org/sign-in",
        "customer": "customer-4711",
        "steps": ["sign_in", "consent"],
    });
    let payload = payload
        .as_object()
        .map(tokenbroker::grpc::convert::structure);
    pb::NewJob {
        kind: "connect".to_owned(),
        payload,
        ..Default::default()
    }
}

/// Asks for a job: its id.
async fn create_job(caller: &mut Caller) -> Outcome<String> {
    let request = pb::CreateJobRequest {
        job: Some(job()),
        ..Default::default()
    };
    let made = caller.jobs.create_job(request).await?.into_inner();
    Ok(made.job.ok_or("no job was made")?.id)
}

/// Asks for a batch: its id.
async fn create_batch(mut caller: Caller, count: u64) -> Outcome<String> {
    let mut messages = Vec::new();
    for begin in (0..count).step_by(usize::try_from(MESSAGE)?) {
        let some = usize::try_from(MESSAGE.min(count - begin))?;
        messages.push(pb::CreateBatchRequest {
            jobs: vec![job(); some],
            ..Default::default()
        });
    }
    let made = caller.jobs.create_batch(stream::iter(messages)).await?;
    let batch = made.into_inner().batch.ok_or("no batch was made")?;
    let total = batch.counts.map_or(0, |counts| counts.total);
    if u64::try_from(total)? != count {
        return Err(format!("the batch has {total} jobs, not {count}").into());
    }
    Ok(batch.id)
}

/// Claims up to so many jobs, maybe waiting for some.
async fn claim(caller: &mut Caller, most: i32, wait: Duration) -> Outcome<Vec<Held>> {
    let request = pb::ClaimJobsRequest {
        worker: "bench".to_owned(),
        max_jobs: most,
        wait: prost_types::Duration::try_from(wait).ok(),
        lease: prost_types::Duration::try_from(LEASE).ok(),
        ..Default::default()
    };
    let claimed = caller.jobs.claim_jobs(request).await?.into_inner();
    let held = claimed.jobs.into_iter().map(|claimed| -> Outcome<Held> {
        let job = claimed.job.ok_or("a claim without its job")?;
        Ok(Held {
            id: job.id,
            token: claimed.lease_token,
        })
    });
    held.collect()
}

async fn complete(caller: &mut Caller, held: Held) -> Outcome<()> {
    let request = pb::CompleteJobRequest {
        job_id: held.id,
        lease_token: held.token,
        ..Default::default()
    };
    caller.jobs.complete_job(request).await?;
    Ok(())
}

/// Claims until it has so many: them, and how long each claim took.
async fn claim_share(mut caller: Caller, share: usize) -> Outcome<(Vec<Held>, Vec<Duration>)> {
    let (mut held, mut times) = (Vec::new(), Vec::new());
    while held.len() < share {
        let asked = Instant::now();
        let more = claim(&mut caller, HAND, Duration::ZERO).await?;
        times.push(asked.elapsed());
        if more.is_empty() {
            return Err("nothing is left to claim".into());
        }
        held.extend(more);
    }
    Ok((held, times))
}

/// Completes these: how long each took.
async fn complete_share(mut caller: Caller, share: Vec<Held>) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for held in share {
        let asked = Instant::now();
        complete(&mut caller, held).await?;
        times.push(asked.elapsed());
    }
    Ok(times)
}

/// Asks for so many jobs: how long each took.
async fn create_share(mut caller: Caller, share: usize) -> Outcome<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..share {
        let asked = Instant::now();
        create_job(&mut caller).await?;
        times.push(asked.elapsed());
    }
    Ok(times)
}

/// What the whole crew does at once, each its own share.
async fn together<T, F>(work: impl Iterator<Item = F>) -> Outcome<(Vec<T>, Duration)>
where
    F: Future<Output = Outcome<T>>,
{
    let began = Instant::now();
    let done = try_join_all(work).await?;
    Ok((done, began.elapsed()))
}
