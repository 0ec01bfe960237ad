//! From asking for a job to a worker that waits for one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Stage, WORKERS, claim, complete, create_job};
use crate::callers::Caller;
use crate::ground::Engine;
use crate::process::Cores;
use crate::report::Section;
use crate::spread::{Spread, grouped, show};
use crate::{Fault, Outcome, Scale};

const TEXT: &str = "\
Workers wait in `ClaimJobs`, and nothing else is in the queue. The time runs from before `CreateJob` is \
called to the job's arrival at the worker that got it: it includes the call with its commit, what wakes \
the worker, and the claim with a commit of its own, both flushed to disk. The next job is asked for once \
the one before is completed. *CreateJob* is the time of that call itself. The measuring process shares \
the cores.";

const HEAD: &[&str] = &[
    "Engine",
    "Workers wait at",
    "Workers",
    "Jobs",
    "p50",
    "p95",
    "p99",
    "Largest",
    "CreateJob p50",
];

/// How long one job may take to a worker.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long each call of a worker waits.
const WAIT: Duration = Duration::from_secs(30);

pub async fn measure(scale: Scale) -> Outcome<Section> {
    let title = "Jobs from insert to a waiting worker";
    let mut section = Section::new(title, TEXT.to_owned(), HEAD);
    let jobs = scale.of(1_000, 100);
    for engine in Engine::ALL {
        let stage = Stage::start(engine).await?;
        let second = match engine {
            Engine::Sqlite => None,
            Engine::Postgres => Some(stage.ground.start("b", Cores::All).await?),
        };
        let places = [
            ("the same replica", Some(&stage.server)),
            ("another replica", second.as_ref()),
        ];
        for (place, server) in places {
            let Some(server) = server else { continue };
            let waiting = Waiting::begin(server.address, &stage.key)?;
            let (arrivals, calls) = waiting.follow(stage.one()?, jobs).await?;
            section.row(vec![
                engine.name().to_owned(),
                place.to_owned(),
                WORKERS.to_string(),
                grouped(jobs),
                show(arrivals.median()),
                show(arrivals.at(0.95)),
                show(arrivals.p99()),
                show(arrivals.most()),
                show(calls.median()),
            ]);
        }
        if let Some(second) = second {
            second.process.stop()?;
        }
        stage.end().await?;
    }
    Ok(section)
}

/// Workers that wait.
struct Waiting {
    tasks: JoinSet<Outcome<()>>,
    news: mpsc::UnboundedReceiver<News>,
}

enum News {
    Arrived(String, Instant),
    Completed,
}

impl Waiting {
    fn begin(address: SocketAddr, key: &str) -> Outcome<Self> {
        let (tell, news) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for _ in 0..WORKERS {
            tasks.spawn(work(Caller::new(address, key)?, tell.clone()));
        }
        Ok(Self { tasks, news })
    }

    /// Asks for jobs one by one: the times to their arrivals, and of the calls.
    async fn follow(mut self, mut caller: Caller, jobs: u64) -> Outcome<(Spread, Spread)> {
        let (mut arrivals, mut calls) = (Vec::new(), Vec::new());
        // The first jobs find workers that have only begun to wait.
        const WARMING: u64 = 20;
        for number in 0..jobs + WARMING {
            // Whoever completed the one before waits again.
            tokio::time::sleep(Duration::from_millis(5)).await;
            let began = Instant::now();
            let created = create_job(&mut caller).await?;
            let called = began.elapsed();
            let mut arrived = None;
            loop {
                match tokio::time::timeout(PATIENCE, self.news.recv()).await {
                    Err(_) => return Err("a job did not reach a waiting worker".into()),
                    Ok(None) => return Err("the workers have ended".into()),
                    Ok(Some(News::Completed)) => break,
                    Ok(Some(News::Arrived(id, at))) if id == created => arrived = Some(at),
                    Ok(Some(News::Arrived(id, _))) => {
                        return Err(format!("{id} came instead of {created}").into());
                    }
                }
            }
            let arrived = arrived.ok_or("a job was completed that did not arrive")?;
            if number >= WARMING {
                arrivals.push(arrived.duration_since(began));
                calls.push(called);
            }
        }
        self.tasks.shutdown().await;
        Ok((Spread::of(arrivals), Spread::of(calls)))
    }
}

async fn work(mut caller: Caller, tell: mpsc::UnboundedSender<News>) -> Outcome<()> {
    let gone = |_| Fault::from("nobody listens");
    loop {
        for held in claim(&mut caller, 1, WAIT).await? {
            let arrived = News::Arrived(held.id.clone(), Instant::now());
            tell.send(arrived).map_err(gone)?;
            complete(&mut caller, held).await?;
            tell.send(News::Completed).map_err(gone)?;
        }
    }
}
