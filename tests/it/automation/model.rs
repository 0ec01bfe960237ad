//! Jobs under random interleavings of all that can be done to them, beside a model so small that it
//! can be read: after each step both say the same.

use fastrand::Rng;
use tonic::Status;

use super::*;

const SEEDS: u64 = 30;
const STEPS: usize = 60;

/// What a job should be.
struct Expected {
    id: String,
    state: State,
    attempt: i32,
    max_attempts: i32,
    /// Every token that a claim of it was given; the last one is good while it runs.
    tokens: Vec<i64>,
    called_off: bool,
}

/// What is done to a job.
#[derive(Clone, Copy, Debug)]
enum Step {
    Claim,
    Beat,
    Complete,
    Fail { permanent: bool },
    Snooze { later: bool },
    Cancel,
    Retry,
    Lapse,
    Wait,
}

impl Step {
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(0..20) {
            0..=5 => Self::Claim,
            6..=7 => Self::Beat,
            8 => Self::Complete,
            9..=10 => Self::Fail { permanent: false },
            11 => Self::Fail { permanent: true },
            12 => Self::Snooze { later: false },
            13 => Self::Snooze { later: true },
            14 => Self::Cancel,
            15..=16 => Self::Retry,
            17..=18 => Self::Lapse,
            _ => Self::Wait,
        }
    }
}

impl Expected {
    fn new(job: &pb::Job) -> Self {
        Self {
            id: job.id.clone(),
            state: State::Pending,
            attempt: 0,
            max_attempts: job.max_attempts,
            tokens: Vec::new(),
            called_off: false,
        }
    }

    /// A token that somebody might present: mostly the last one.
    fn some_token(&self, rng: &mut Rng) -> i64 {
        let last = self.tokens.last().copied().unwrap_or_default();
        match rng.u8(0..10) {
            0..=6 => last.max(1),
            7 => last + 1,
            _ => rng.choice(&self.tokens).copied().unwrap_or(1),
        }
    }

    fn is_held_by(&self, token: i64) -> bool {
        self.state == State::Running && self.tokens.last() == Some(&token)
    }

    /// An attempt ended without success.
    fn failed(&mut self, permanent: bool) {
        self.state = if self.called_off {
            State::Cancelled
        } else if permanent || self.attempt >= self.max_attempts {
            State::Failed
        } else {
            State::Retryable
        };
    }

    fn snoozed(&mut self, later: bool) {
        if self.called_off {
            self.state = State::Cancelled;
            return;
        }
        self.attempt -= 1;
        self.state = if later {
            State::Snoozed
        } else {
            State::Pending
        };
    }

    /// What comes of a step by whoever presents a token, or by its owner.
    fn take(&mut self, step: Step, token: i64) -> Result<State, &'static str> {
        let held = self.is_held_by(token);
        match step {
            Step::Complete
                if self.state == State::Completed && self.tokens.last() == Some(&token) => {}
            Step::Beat | Step::Complete | Step::Fail { .. } | Step::Snooze { .. } if !held => {
                return Err("LEASE_LOST");
            }
            Step::Complete => self.state = State::Completed,
            Step::Fail { permanent } => self.failed(permanent),
            Step::Snooze { later } => self.snoozed(later),
            Step::Cancel => match self.state {
                State::Completed | State::Failed => return Err("JOB_STATE"),
                State::Running => self.called_off = true,
                _ => self.state = State::Cancelled,
            },
            Step::Retry => match self.state {
                State::Failed | State::Cancelled => {
                    (self.state, self.attempt, self.called_off) = (State::Pending, 0, false);
                }
                _ => return Err("JOB_STATE"),
            },
            Step::Lapse if self.state == State::Running => self.failed(false),
            Step::Beat | Step::Lapse => {}
            Step::Claim | Step::Wait => unreachable!("`run` does these"),
        }
        Ok(self.state)
    }
}

/// A run, which tells how it went when it fails.
struct Run {
    seed: u64,
    steps: Vec<String>,
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("TOKENBROKER_TEST_SEED={}: {:#?}", self.seed, self.steps);
        }
    }
}

fn presented(job: &Expected, lease_token: i64) -> pb::ClaimedJob {
    pb::ClaimedJob {
        job: Some(pb::Job {
            id: job.id.clone(),
            ..Default::default()
        }),
        lease_token,
        ..Default::default()
    }
}

/// Does a step; the state that the service answers.
async fn act(f: &Farm, step: Step, job: &Expected, token: i64) -> Result<State, Status> {
    let held = presented(job, token);
    let answer = match step {
        Step::Complete => f.complete(&held).await?,
        Step::Fail { permanent } => f.fail(&held, permanent).await?,
        Step::Snooze { later } => f.snooze(&held, later.then_some(HOUR)).await?,
        Step::Cancel => f.cancel(&job.id).await?,
        Step::Retry => f.retry(&job.id).await?.job.unwrap(),
        Step::Beat => {
            let beat = f.beat(&held).await?;
            assert_eq!(beat.cancel, job.called_off, "{}", job.id);
            f.job(&job.id).await
        }
        Step::Lapse => {
            f.lapse(&job.id).await;
            f.job(&job.id).await
        }
        Step::Claim | Step::Wait => unreachable!("`run` does these"),
    };
    Ok(answer.state())
}

/// Claims one of the jobs: any that waits, with a token that none of its claims had.
async fn claim(f: &Farm, kind: &str, all: &mut [Expected]) -> String {
    let Some(claimed) = f.claims(ask_for(kind)).await.pop() else {
        assert!(
            all.iter().all(|it| it.state != State::Pending),
            "a job waits and is not handed out"
        );
        return "claims nothing".to_owned();
    };
    let job = all
        .iter_mut()
        .find(|it| it.id == job_of(&claimed).id)
        .unwrap();
    assert_eq!(job.state, State::Pending, "{} is handed out", job.id);
    assert!(
        job.tokens.iter().all(|it| *it < claimed.lease_token),
        "an old token"
    );
    job.tokens.push(claimed.lease_token);
    (job.state, job.attempt) = (State::Running, job.attempt + 1);
    format!("claims {} with {}", job.id, claimed.lease_token)
}

/// Lets so much time pass that whatever waits for its time waits for a worker.
async fn wait(f: &Farm, all: &mut [Expected]) {
    f.b.clock.advance(2 * HOUR);
    for job in all {
        if matches!(job.state, State::Retryable | State::Snoozed) {
            job.state = State::Pending;
            f.becomes(&job.id, State::Pending).await;
        }
    }
}

async fn assert_same(f: &Farm, all: &[Expected]) {
    for job in all {
        let found = f.job(&job.id).await;
        let told = (
            found.state(),
            found.attempt,
            found.cancel_request_time.is_some(),
            found.finish_time.is_some(),
        );
        let finished = matches!(
            job.state,
            State::Completed | State::Failed | State::Cancelled
        );
        let expected = (job.state, job.attempt, job.called_off, finished);
        assert_eq!(told, expected, "{}", job.id);
    }
}

async fn run(f: &Farm, seed: u64) {
    let (mut run, mut rng) = (
        Run {
            seed,
            steps: Vec::new(),
        },
        Rng::with_seed(seed),
    );
    let kind = format!("seed-{seed}");
    let mut all = Vec::new();
    for max_attempts in [1, 2, rng.i32(2..5)] {
        let made = f
            .create(pb::NewJob {
                max_attempts,
                ..job(&kind)
            })
            .await;
        all.push(Expected::new(&made));
    }
    for _ in 0..STEPS {
        let step = Step::any(&mut rng);
        let at = rng.usize(0..all.len());
        let token = all[at].some_token(&mut rng);
        run.steps.push(format!("{step:?} {} {token}", all[at].id));
        match step {
            Step::Claim => run.steps.push(claim(f, &kind, &mut all).await),
            Step::Wait => wait(f, &mut all).await,
            Step::Lapse => {
                act(f, step, &all[at], token).await.unwrap();
                let state = all[at].take(step, token).unwrap();
                f.becomes(&all[at].id, state).await;
            }
            _ => {
                let answer = act(f, step, &all[at], token).await;
                let answer = answer.map_err(|status| reason(&status));
                let expected = all[at].take(step, token).map_err(str::to_owned);
                assert_eq!(answer, expected, "{step:?} with {token}");
            }
        }
        assert_same(f, &all).await;
    }
}

/// One that failed before, or others each time.
fn seeds() -> Vec<u64> {
    match std::env::var("TOKENBROKER_TEST_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => std::iter::repeat_with(|| fastrand::u64(..))
            .take(usize::try_from(SEEDS).unwrap())
            .collect(),
    }
}

on_both_engines! {
    async fn jobs_do_as_the_model_says(engine: Engine) {
        let f = Farm::with(engine, |config| {
            config.retention.jobs = 3_650 * DAY;
            config.retention.dead_letters = 3_650 * DAY;
        }).await;
        for seed in seeds() {
            run(&f, seed).await;
        }
        f.finish().await;
    }

    async fn of_many_who_end_a_job_at_once_one_does(engine: Engine) {
        let f = Farm::new(engine).await;
        for _ in 0..10 {
            let made = f.create(pb::NewJob { max_attempts: 1, ..job("connect") }).await;
            let held = f.claim().await;
            let (done, failed, back, off) = tokio::join!(f.complete(&held), f.fail(&held, false), f.snooze(&held, Some(HOUR)), f.cancel(&made.id));
            let ends = [done.is_ok(), failed.is_ok(), back.is_ok()];
            assert_eq!(ends.iter().filter(|ended| **ended).count(), 1, "{ends:?} {off:?}");
            let left = f.job(&made.id).await;
            assert!(ends[0] == (left.state() == State::Completed), "{ends:?} {left:?}");
            let finished = Told::Completed as i32..=Told::Cancelled as i32;
            // Told of once, whoever was first.
            f.cancel(&made.id).await.ok();
            let mark = f.create(job("mark")).await;
            let events = f.history(|event| event.job_id == mark.id).await;
            let ended = events.iter().filter(|event| event.job_id == made.id && finished.contains(&event.r#type));
            assert_eq!(ended.count(), 1, "{ends:?}");
            f.cancel(&mark.id).await.unwrap();
        }
        f.finish().await;
    }
}
