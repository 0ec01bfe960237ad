//! Workers are killed at random and servers are killed and begun again, and every job is done once.
//!
//! `TOKENBROKER_CHAOS_JOBS` says how many jobs, `TOKENBROKER_CHAOS_SEED` what is killed when.

use std::collections::{BTreeMap, HashMap};
use std::fs::OpenOptions;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokenbroker::config::Config;
use tokenbroker::model::Role;
use tokenbroker::pb::{self, JobEventType, JobState};
use tonic::{Code, Status};

use crate::fixture::process::Process;
use crate::fixture::*;
use crate::on_both_engines;

/// Worker processes, by turns at the servers.
const WORKERS: usize = 8;

/// How many jobs each of them works on at once.
const AT_ONCE: &str = "2";

/// As short as leases may be.
const LEASE: &str = "3s";

/// Two executions of a job that overlap have begun this far apart at least, in hundredths of a second:
/// the first one's lease had to lapse in between. Half of it is left to a machine that is busy.
const APART: u64 = 150;

/// With all the time that a busy machine needs, and this much more for each job; what takes longer will
/// never come to its end.
const LIMIT: Duration = Duration::from_secs(600);
const LIMIT_A_JOB: Duration = Duration::from_millis(150);

const BATCH: &str = "chaos";

/// What each server has besides.
const SETTINGS: &[(&str, &str)] = &[
    ("TOKENBROKER__AUTOMATION__LEASE", LEASE),
    ("TOKENBROKER__AUTOMATION__BACKOFF_INITIAL", "100ms"),
    ("TOKENBROKER__AUTOMATION__BACKOFF_MAX", "1s"),
    ("TOKENBROKER__DATABASE__POOL_SIZE", "8"),
    (
        "TOKENBROKER__LIMITS__ROLES__ADMIN__REQUESTS_PER_SECOND",
        "1000000",
    ),
    ("TOKENBROKER__LIMITS__ROLES__ADMIN__BURST", "1000000"),
    (
        "TOKENBROKER__LIMITS__ROLES__WORKER__REQUESTS_PER_SECOND",
        "1000000",
    ),
    ("TOKENBROKER__LIMITS__ROLES__WORKER__BURST", "1000000"),
];

/// What a worker runs for each job, cheaply, by the shell's own words: it writes down when it began and
/// ended; one that never got its job, since its worker was killed in that moment, does nothing. One in some
/// hundred takes longer than a lease lasts: heartbeats have to keep it, and where
/// its worker was killed it goes on while another one already has the job.
const SCRIPT: &str = r#"#!/bin/sh
read -r job || exit 1
id=${job#*'"id":"'} token=${job#*'"lease_token":'}
id=${id%%'"'*} token=${token%%[!0-9]*}
read -r now rest </proc/uptime
echo "begin $id $token $now" >>LOG
case $id in *[0-9]0) sleep 4 ;; esac
read -r now rest </proc/uptime
echo "end $id $token $now" >>LOG
"#;

on_both_engines! {
    async fn every_job_ends_once_whoever_is_killed(engine: Engine) {
        let mut chaos = Chaos::begin(engine).await;
        chaos.rage().await;
        chaos.judge().await;
        chaos.end().await;
    }
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}

/// A worker process; dropped, it is killed.
struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Chaos {
    b: Broker,
    jobs: usize,
    worker_key: String,
    random: fastrand::Rng,
    servers: Vec<(Config, Process)>,
    callers: Vec<Caller>,
    workers: Vec<Worker>,
}

/// One run of the command, as it wrote it down: times are hundredths of a second.
#[derive(Debug)]
struct Execution {
    token: i64,
    began: u64,
    ended: Option<u64>,
}

impl Chaos {
    /// Servers, a batch of jobs, and workers that have begun to work on it.
    async fn begin(engine: Engine) -> Self {
        let jobs = usize::try_from(number("TOKENBROKER_CHAOS_JOBS", 600)).unwrap();
        let seed = number("TOKENBROKER_CHAOS_SEED", 20_261_122);
        println!("{jobs} jobs on {engine:?}, TOKENBROKER_CHAOS_SEED={seed}");
        let mut b = Broker::start(engine).await;
        let key = b.key(Role::Admin, Default::default()).await;
        let worker_key = b.key(Role::Worker, Default::default()).await;
        b.stop().await;

        let mut configs = vec![b.config.clone()];
        if engine == Engine::Postgres {
            configs.push(b.ground.config("b"));
        }
        let (mut servers, mut callers) = (Vec::new(), Vec::new());
        for config in configs {
            let server = Process::start(&config, SETTINGS).await;
            callers.push(caller_at(server.address, &key));
            servers.push((config, server));
        }
        let mut chaos = Self {
            b,
            jobs,
            worker_key,
            random: fastrand::Rng::with_seed(seed),
            servers,
            callers,
            workers: Vec::new(),
        };
        chaos.ask().await;
        for one in 0..WORKERS {
            let log = chaos.log(one);
            let script = SCRIPT.replace("LOG", &format!("'{}'", log.display()));
            std::fs::write(chaos.script(one), script).unwrap();
            let worker = chaos.hire(one);
            chaos.workers.push(worker);
        }
        chaos
    }

    async fn ask(&self) {
        let job = pb::NewJob {
            kind: "chaos".to_owned(),
            // Each lost worker costs one.
            max_attempts: 100,
            ..Default::default()
        };
        let all = vec![job; self.jobs];
        let messages = all.chunks(500).enumerate().map(|(index, jobs)| {
            let batch_id = if index == 0 { BATCH } else { "" };
            pb::CreateBatchRequest {
                batch_id: batch_id.to_owned(),
                jobs: jobs.to_vec(),
                ..Default::default()
            }
        });
        let messages: Vec<_> = messages.collect();
        let mut client = self.callers[0].automation.clone();
        let sent = client.create_batch(futures_util::stream::iter(messages));
        let batch = sent.await.unwrap().into_inner().batch.unwrap();
        assert_eq!(batch.counts.unwrap().pending, self.jobs as i64);
    }

    fn script(&self, one: usize) -> PathBuf {
        self.b.ground.dir.path().join(format!("worker-{one}.sh"))
    }

    /// What executions of this worker wrote down.
    fn log(&self, one: usize) -> PathBuf {
        self.b.ground.dir.path().join(format!("worker-{one}.log"))
    }

    fn address(&self, one: usize) -> SocketAddr {
        self.servers[one % self.servers.len()].1.address
    }

    fn hire(&self, one: usize) -> Worker {
        // For whoever looks for what went wrong, and for secrets.
        let told = self.b.ground.dir.path().join(format!("worker-{one}.err"));
        let told = OpenOptions::new().create(true).append(true).open(told);
        let worker = Command::new(env!("CARGO_BIN_EXE_tokenbroker"))
            .arg("work")
            .args(["--address", &format!("http://{}", self.address(one))])
            .args(["--worker", &format!("worker-{one}")])
            .args(["--concurrency", AT_ONCE])
            .arg("--exec")
            .arg("sh")
            .arg(self.script(one))
            .env("TOKENBROKER_API_KEY", &self.worker_key)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(told.unwrap())
            .spawn();
        Worker(worker.unwrap())
    }

    /// Asks servers in turn until one answers: what was just begun again may refuse at first.
    async fn batch(&self) -> pb::Batch {
        let began = Instant::now();
        loop {
            let mut refused: Option<Status> = None;
            for caller in &self.callers {
                let request = pb::GetBatchRequest {
                    batch_id: BATCH.to_owned(),
                };
                match caller.automation.clone().get_batch(request).await {
                    Ok(answer) => return answer.into_inner().batch.unwrap(),
                    Err(status) => refused = Some(status),
                }
            }
            assert!(began.elapsed() < PATIENCE, "no server answers: {refused:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills, and begins again, until the batch is finished.
    async fn rage(&mut self) {
        let began = Instant::now();
        let limit = LIMIT + LIMIT_A_JOB * u32::try_from(self.jobs).unwrap();
        let (mut killed, mut restarted) = (0, 0);
        loop {
            let batch = self.batch().await;
            let counts = batch.counts.unwrap();
            let done = usize::try_from(counts.completed).unwrap();
            // The first soon, the second in the middle; both where all was done before.
            if restarted < 2 && done * 3 > self.jobs * restarted {
                self.restart(restarted).await;
                restarted += 1;
                continue;
            }
            if batch.finish_time.is_some() {
                break;
            }
            assert!(
                began.elapsed() < limit,
                "not at its end after {limit:?}, {killed} workers killed: {counts:?}"
            );
            let one = self.random.usize(..WORKERS);
            let worker = &mut self.workers[one].0;
            assert!(worker.try_wait().unwrap().is_none(), "worker {one} gave up");
            worker.kill().unwrap();
            worker.wait().unwrap();
            self.workers[one] = self.hire(one);
            killed += 1;
            let pause = self.random.u64(200..1_000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        println!("{killed} workers killed in {:?}", began.elapsed());
        assert!(
            killed > 0 && (self.jobs < 1_000 || killed >= WORKERS),
            "{killed} killed"
        );
        self.workers.clear();
    }

    /// SIGKILL for a server, and another one in its place after a while.
    async fn restart(&mut self, turn: usize) {
        let (config, server) = self.servers.remove(0);
        let address = server.address;
        server.kill();
        let pause = self.random.u64(100..1_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let server = Process::start_at(address, &config, SETTINGS).await;
        println!("server {turn} was killed and begun again");
        // Behind the other one, which is next.
        self.servers.push((config, server));
    }

    async fn judge(&self) {
        let batch = self.batch().await;
        let all = self.jobs as i64;
        let counts = pb::JobCounts {
            total: all,
            completed: all,
            ..Default::default()
        };
        assert_eq!(batch.counts, Some(counts));
        assert_eq!(batch.percent, 100);

        let jobs = self.listed().await;
        assert_eq!(jobs.len(), self.jobs);
        let events = self.events().await;
        let finished = events[""]
            .iter()
            .filter(|(kind, _)| *kind == JobEventType::BatchFinished);
        assert_eq!(finished.count(), 1, "the batch is finished once");
        assert_eq!(events.len(), self.jobs + 1);
        let executions = self.executions();
        let again = executions.values().filter(|ran| ran.len() > 1).count();
        println!("{again} jobs were begun more than once");
        assert!(again > 0, "nobody who was killed had a job");
        for (id, job) in &jobs {
            assert_eq!(job.state(), JobState::Completed, "{job:?}");
            judge_events(job, &events[id]);
            let ran = executions.get(id);
            judge_executions(id, ran.unwrap_or_else(|| panic!("nobody worked on {id}")));
        }
        self.judge_tokens(&executions).await;
    }

    /// Every job of the batch, by id.
    async fn listed(&self) -> BTreeMap<String, pb::Job> {
        let (mut jobs, mut page_token) = (BTreeMap::new(), String::new());
        loop {
            let request = pb::ListJobsRequest {
                page_size: 1_000,
                page_token,
                batch_id: BATCH.to_owned(),
                ..Default::default()
            };
            let answer = self.callers[0].automation.clone().list_jobs(request).await;
            let answer = answer.unwrap().into_inner();
            for job in answer.jobs {
                let again = jobs.insert(job.id.clone(), job);
                assert!(again.is_none(), "listed twice: {again:?}");
            }
            page_token = answer.next_page_token;
            if page_token.is_empty() {
                return jobs;
            }
        }
    }

    /// What happened to each job, told from the start; what is of the batch alone has no job's id.
    async fn events(&self) -> HashMap<String, Vec<(JobEventType, i32)>> {
        let request = pb::WatchJobsRequest {
            cursor: "START".to_owned(),
            batch_ids: vec![BATCH.to_owned()],
            ..Default::default()
        };
        let watched = self.callers[0].automation.clone().watch_jobs(request).await;
        let mut stream = watched.unwrap().into_inner();
        let mut events: HashMap<String, Vec<_>> = HashMap::new();
        loop {
            // Behind the batch's end there must be nothing: a second is waited for what is wrong.
            let patience = match events.contains_key("") {
                true => Duration::from_secs(1),
                false => PATIENCE,
            };
            let Ok(message) = tokio::time::timeout(patience, stream.message()).await else {
                assert!(events.contains_key(""), "the batch's end was not told");
                return events;
            };
            if let Some(event) = message.unwrap().unwrap().event {
                let told = (event.r#type(), event.attempt);
                events.entry(event.job_id).or_default().push(told);
            }
        }
    }

    /// What ran, by job: in the order of the tokens.
    fn executions(&self) -> HashMap<String, Vec<Execution>> {
        let mut all: HashMap<String, Vec<Execution>> = HashMap::new();
        for log in (0..WORKERS).map(|one| self.log(one)) {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            for line in text.lines() {
                let words: Vec<&str> = line.split(' ').collect();
                let &[step, id, token, time] = words.as_slice() else {
                    panic!("not what the command writes: {line}");
                };
                let token: i64 = token.parse().unwrap();
                let time: u64 = time.replace('.', "").parse().unwrap();
                let ran = all.entry(id.to_owned()).or_default();
                let known = ran.iter_mut().find(|one| one.token == token);
                match (step, known) {
                    ("begin", None) => ran.push(Execution {
                        token,
                        began: time,
                        ended: None,
                    }),
                    ("end", Some(one)) if one.ended.is_none() => one.ended = Some(time),
                    (_, known) => panic!("{line}, but it was {known:?}"),
                }
            }
        }
        for ran in all.values_mut() {
            ran.sort_unstable_by_key(|one| one.token);
        }
        all
    }

    /// Nobody can say anything of a job by a token of before; by the last one it is as it was.
    async fn judge_tokens(&self, executions: &HashMap<String, Vec<Execution>>) {
        const SOUND: usize = 50;
        let mut client = self.callers[0].automation.clone();
        let mut sound = 0;
        for (id, ran) in executions {
            let (last, stale) = ran.split_last().unwrap();
            if stale.is_empty() {
                sound += 1;
                if sound > SOUND {
                    continue;
                }
            }
            let request = |lease_token| pb::CompleteJobRequest {
                job_id: id.clone(),
                lease_token,
                ..Default::default()
            };
            for one in stale {
                let refused = client.complete_job(request(one.token)).await;
                assert_refused(refused, Code::FailedPrecondition, "LEASE_LOST");
            }
            let again = client.complete_job(request(last.token)).await.unwrap();
            assert_eq!(again.into_inner().job.unwrap().state(), JobState::Completed);
        }
    }

    async fn end(self) {
        for (_, server) in self.servers {
            assert!(server.terminate().await, "a server ended with an error");
        }
        self.b.finish().await;
    }
}

/// A job is completed once, at last, and by its last attempt. Each claim begins the next attempt; one
/// whose worker was gone before it had the answer is handed back, and its attempt with it.
fn judge_events(job: &pb::Job, events: &[(JobEventType, i32)]) {
    assert_eq!(events[0], (JobEventType::Pending, 0), "{}", job.id);
    for pair in events.windows(2) {
        let begun = pair[1].0 == JobEventType::Running;
        let next = pair[0].1 + 1;
        assert!(!begun || pair[1].1 == next, "{}: {events:?}", job.id);
    }
    let over = [
        JobEventType::Completed,
        JobEventType::Failed,
        JobEventType::Cancelled,
    ];
    let ends: Vec<_> = events
        .iter()
        .filter(|(kind, _)| over.contains(kind))
        .collect();
    let last = (JobEventType::Completed, job.attempt);
    assert_eq!(ends, [&last], "{}: {events:?}", job.id);
    assert_eq!(events.last(), Some(&last), "{}: {events:?}", job.id);
}

/// Whoever began later has a larger token, and began while another one worked only after that one's
/// lease had lapsed. Who had the last one came to the end.
fn judge_executions(id: &str, ran: &[Execution]) {
    for pair in ran.windows(2) {
        let (before, after) = (&pair[0], &pair[1]);
        assert!(
            before.began <= after.began,
            "{id}: tokens do not grow: {ran:?}"
        );
        let overlap = before.ended.is_none_or(|ended| after.began < ended);
        // Also of one that was killed: its lease had to lapse first.
        let lapsed = after.began - before.began >= APART;
        assert!(!overlap || lapsed, "{id}: two at the same time: {ran:?}");
    }
    assert!(ran.last().unwrap().ended.is_some(), "{id}: {ran:?}");
}
