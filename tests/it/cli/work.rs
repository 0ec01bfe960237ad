//! `tokenbroker work`: what a command says becomes of its job, and what becomes of a command.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde_json::json;
use tokenbroker::model::{Constraints, Role};
use tokenbroker::pb::{self, JobState as State};

use super::{Home, Running, terminate};
use crate::fixture::scene::automation::farm::*;
use crate::fixture::{Engine, eventually, leaks};
use crate::on_both_engines;

/// A worker that runs a shell script for each job.
struct Worker {
    home: Home,
    process: Running,
}

impl Worker {
    async fn start(f: &Farm, script: &str, more: &[&str]) -> Self {
        let key = f.b.key(Role::Worker, Constraints::default()).await;
        let home = Home::new();
        let folder = home.folder.path();
        std::fs::write(folder.join("script.sh"), script).unwrap();
        let file = |name: &str| std::fs::File::create(folder.join(name)).unwrap();
        let address = format!("http://{}", f.b.grpc_address());
        let mut args = vec!["work", "--address", &address, "--worker", "kit"];
        if !more.contains(&"--wait") {
            args.extend(["--wait", "1s"]);
        }
        args.extend(more);
        args.extend(["--exec", "sh", "script.sh"]);
        let child = home
            .command(&args)
            .env("TOKENBROKER_API_KEY", key)
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        Self {
            home,
            process: Running(child),
        }
    }

    /// What is in a file of its folder; empty while there is none.
    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.folder.path().join(name)).unwrap_or_default()
    }

    fn said(&self) -> String {
        self.file("out") + &self.file("err")
    }

    async fn wrote(&self, name: &str) -> String {
        eventually("the command has begun", || {
            std::future::ready(self.file(name).ends_with('\n'))
        })
        .await;
        self.file(name).trim().to_owned()
    }

    async fn says(&self, words: &str) {
        eventually(words, || std::future::ready(self.said().contains(words))).await;
    }

    fn signal(&self, option: &str) {
        let mut command = std::process::Command::new("kill");
        let sent = command.args([option, &self.process.0.id().to_string()]);
        assert!(sent.status().unwrap().success());
    }

    async fn ends(&mut self) -> ExitStatus {
        let mut ended = None;
        eventually("the worker ends", || {
            ended = self.process.0.try_wait().unwrap();
            std::future::ready(ended.is_some())
        })
        .await;
        ended.unwrap()
    }
}

/// Whether a process is there.
fn lives(pid: &str) -> bool {
    let mut command = std::process::Command::new("kill");
    let asked = command.args(["-0", pid]).stderr(Stdio::null()).status();
    asked.unwrap().success()
}

/// Where a job stands, and why it failed.
async fn outcome(f: &Farm, id: &str) -> (State, String) {
    let job = f.job(id).await;
    (job.state(), job.failure_reason)
}

/// Writes its process down and does nothing for long.
const LINGERS: &str = "read -r job\necho $$ > pid\nexec sleep 600\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_tells_how_far_it_is_and_what_came_of_it() {
    let f = Farm::new(Engine::Sqlite).await;
    let payload = Some(data(json!({ "site": "example" })));
    let made = f
        .create(pb::NewJob {
            payload,
            ..job("connect")
        })
        .await;
    let script = r#"
        read -r job
        printf '%s\n' "$job" > job
        echo '{"step": "login_form", "percent": 40, "message": "signing in", "checkpoint": {"page": 2}}'
        echo 'this is no JSON'
        echo '{"result": {"ok": true}}'
    "#;
    let mut worker = Worker::start(&f, script, &["--drain"]).await;
    assert!(worker.ends().await.success(), "{}", worker.said());
    let told: serde_json::Value = serde_json::from_str(&worker.file("job")).unwrap();
    assert_eq!(
        (&told["id"], &told["kind"]),
        (&json!(made.id), &json!("connect"))
    );
    assert_eq!(
        (&told["payload"]["site"], &told["attempt"]),
        (&json!("example"), &json!(1))
    );
    let sql = format!(
        "SELECT lease_token || '' AS line FROM automation_jobs WHERE id = '{}'",
        made.id
    );
    let exact = told["lease_token"].to_string();
    assert_eq!(f.b.ground.lines(&sql).await, [exact]);
    let done = f.job(&made.id).await;
    assert_eq!(
        (done.state(), done.worker.as_str()),
        (State::Completed, "kit"),
        "{}",
        worker.said()
    );
    assert_eq!(done.result, Some(data(json!({ "ok": true }))));
    let progress = done.progress.unwrap();
    assert_eq!(
        (progress.step.as_str(), progress.message.as_str()),
        ("login_form", "signing in")
    );
    assert_eq!(progress.checkpoint, Some(data(json!({ "page": 2 }))));
    assert!(worker.file("err").contains("this is no JSON"));
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_words_and_exit_status_decide() {
    let f = Farm::new(Engine::Sqlite).await;
    let mut made = Vec::new();
    for kind in ["exits", "gives_up", "snoozes", "is_temporary", "is_well"] {
        made.push(f.create(job(kind)).await.id);
    }
    let script = r#"
        read -r job
        case "$job" in
            *'"exits"'*) exit 3 ;;
            *'"gives_up"'*) echo '{"fail": {"reason": "LOCKED", "message": "locked out", "permanent": true}}' ;;
            *'"snoozes"'*) echo '{"snooze_seconds": 300}' ;;
            *'"is_temporary"'*) exit 75 ;;
        esac
    "#;
    let mut worker = Worker::start(&f, script, &["--drain", "--concurrency", "3"]).await;
    assert!(worker.ends().await.success(), "{}", worker.said());
    let mut found = Vec::new();
    for id in &made {
        let job = f.job(id).await;
        found.push((job.state(), job.attempt, job.failure_reason));
    }
    let expected = [
        (State::Retryable, 1, "EXIT_STATUS"),
        (State::Failed, 1, "LOCKED"),
        (State::Snoozed, 0, ""),
        (State::Snoozed, 0, ""),
        (State::Completed, 1, ""),
    ];
    assert_eq!(
        found,
        expected.map(|(state, attempt, reason)| (state, attempt, reason.to_owned()))
    );
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_called_off_has_its_command_killed() {
    // Heartbeats are three a lease: the worker is told soon.
    let f = Farm::with(Engine::Sqlite, |config| {
        config.automation.lease = Duration::from_secs(3);
    })
    .await;
    let made = f.create(job("connect")).await;
    let mut worker = Worker::start(&f, LINGERS, &["--lease", "3s"]).await;
    let pid = worker.wrote("pid").await;
    assert!(lives(&pid));
    f.cancel(&made.id).await.unwrap();
    f.becomes(&made.id, State::Cancelled).await;
    assert!(!lives(&pid));
    // It works on.
    let next = f.create(job("connect")).await;
    eventually("the next command has begun", || {
        std::future::ready(worker.file("pid").ends_with('\n') && worker.file("pid").trim() != pid)
    })
    .await;
    terminate(&worker.process.0);
    worker.says("no more jobs are claimed").await;
    terminate(&worker.process.0);
    assert_eq!(worker.ends().await.code(), Some(1), "{}", worker.said());
    let back = f.job(&next.id).await;
    assert_eq!((back.state(), back.attempt), (State::Pending, 0));
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_hands_back_without_spending_an_attempt() {
    let f = Farm::new(Engine::Sqlite).await;
    let made = f.create(job("connect")).await;
    let mut worker = Worker::start(&f, LINGERS, &["--grace", "0s"]).await;
    let pid = worker.wrote("pid").await;
    terminate(&worker.process.0);
    assert!(worker.ends().await.success(), "{}", worker.said());
    let back = f.job(&made.id).await;
    assert_eq!(
        (back.state(), back.attempt),
        (State::Pending, 0),
        "{}",
        worker.said()
    );
    assert!(!lives(&pid));
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_lets_a_command_finish() {
    let f = Farm::new(Engine::Sqlite).await;
    let made = f.create(job("connect")).await;
    let script = "read -r job\necho $$ > pid\nwhile ! test -e go; do sleep 0.05; done\n";
    let mut worker = Worker::start(&f, script, &["--grace", "2m"]).await;
    worker.wrote("pid").await;
    terminate(&worker.process.0);
    std::fs::write(worker.home.folder.path().join("go"), "").unwrap();
    assert!(worker.ends().await.success(), "{}", worker.said());
    assert_eq!(f.job(&made.id).await.state(), State::Completed);
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_reach_the_command_and_nothing_else() {
    let f = Farm::new(Engine::Sqlite).await;
    let app = f.b.app().await;
    let account_id = f.account(&app, "ada").await.id;
    let known = credentials("ada");
    f.set_credentials(&account_id, known.clone(), false)
        .await
        .unwrap();
    let made = f
        .create(pb::NewJob {
            account_id,
            ..job("connect")
        })
        .await;
    // What it is given is compared, and not written anywhere.
    let script = r#"
        read -r job
        set -- key=no password=no code=no
        env | grep -q '^TOKENBROKER_' && set -- key=yes "$2" "$3"
        case "$job" in *"pass of ada"*) set -- "$1" password=yes "$3" ;; esac
        case "$job" in *'"totp_code":"'[0-9][0-9][0-9][0-9][0-9][0-9]'"'*) set -- "$1" "$2" code=yes ;; esac
        printf '{"result": {"found": "%s"}}\n' "$*"
    "#;
    let mut worker = Worker::start(&f, script, &["--drain", "--credentials"]).await;
    assert!(worker.ends().await.success(), "{}", worker.said());
    let found = data(json!({ "found": "key=no password=yes code=yes" }));
    assert_eq!(
        f.job(&made.id).await.result,
        Some(found),
        "{}",
        worker.said()
    );
    assert_eq!(leaks::scan(worker.said().as_bytes()), Vec::<String>::new());
    assert!(!worker.said().contains(known.password.as_str()));
    f.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_or_a_command_nothing_is_claimed() {
    let f = Farm::new(Engine::Sqlite).await;
    let made = f.create(job("connect")).await;
    let address = format!("http://{}", f.b.grpc_address());
    let home = Home::new();
    home.run(&["work", "--address", &address])
        .code(2)
        .says(&["--exec"]);
    home.run(&["work", "--address", &address, "--exec", "true"])
        .code(2)
        .says(&["TOKENBROKER_API_KEY"]);
    assert_eq!(f.job(&made.id).await.state(), State::Pending);
    f.finish().await;
}

#[test]
fn a_service_that_does_not_come_back_ends_the_worker() {
    let home = Home::new();
    std::fs::write(home.folder.path().join("key"), "any").unwrap();
    // Nothing listens there.
    let line = "work --address http://127.0.0.1:9 --api-key-file key --patience 1s --exec true";
    let args: Vec<&str> = line.split(' ').collect();
    home.run(&args).code(1).says(&["ClaimJobs"]);
}

on_both_engines! {
    async fn a_key_that_may_not_work_ends_the_worker(engine: Engine) {
        let f = Farm::new(engine).await;
        let home = Home::new();
        let address = format!("http://{}", f.b.grpc_address());
        let consumer = f.b.key(Role::Consumer, Constraints::default()).await;
        let refused = [("nobody's", "Unauthenticated"), (consumer.as_str(), "PermissionDenied")];
        for (key, code) in refused {
            std::fs::write(home.folder.path().join("key"), key).unwrap();
            home.run(&["work", "--address", &address, "--api-key-file", "key", "--exec", "true"])
                .code(1)
                .says(&["ClaimJobs", code]);
        }
        f.finish().await;
    }

    async fn a_lost_lease_kills_the_command_at_once(engine: Engine) {
        let f = Farm::with(engine, |config| {
            config.automation.lease = Duration::from_secs(3);
        })
        .await;
        let made = f.create(job("connect")).await;
        let script = r#"
            read -r job
            trap 'echo asked > asked' TERM
            echo $$ > pid
            while :; do sleep 0.1; done
        "#;
        let worker = Worker::start(&f, script, &["--lease", "3s"]).await;
        let pid = worker.wrote("pid").await;
        // Again where a heartbeat came before the service looked.
        eventually("the job is taken away", || async {
            f.lapse(&made.id).await;
            f.job(&made.id).await.state() == State::Retryable
        })
        .await;
        worker.says("left: somebody else has it").await;
        assert!(!lives(&pid));
        assert_eq!(worker.file("asked"), "", "SIGKILL alone was to come");
        assert_eq!(outcome(&f, &made.id).await, (State::Retryable, "LEASE_LAPSED".to_owned()));
        f.finish().await;
    }

    async fn a_command_that_runs_for_too_long_is_ended(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = [f.create(job("hangs")).await.id, f.create(job("tells")).await.id];
        let script = r#"
            read -r job
            trap 'echo asked >> asked' TERM
            case "$job" in *'"tells"'*) echo '{"fail": {"reason": "LOCKED", "permanent": true}}' ;; esac
            echo $$ >> pids
            while :; do sleep 0.1; done
        "#;
        let more = ["--drain", "--concurrency", "2", "--timeout", "3s"];
        let mut worker = Worker::start(&f, script, &more).await;
        assert!(worker.ends().await.success(), "{}", worker.said());
        let ends = [(State::Retryable, "TIMEOUT"), (State::Failed, "LOCKED")];
        for (id, (state, reason)) in made.iter().zip(ends) {
            assert_eq!(outcome(&f, id).await, (state, reason.to_owned()), "{}", worker.said());
        }
        assert_eq!(worker.file("asked"), "asked\nasked\n", "SIGTERM was to come first");
        assert!(!worker.file("pids").lines().any(lives));
        f.finish().await;
    }

    async fn commands_run_at_the_same_time(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = [f.create(job("left")).await.id, f.create(job("right")).await.id];
        // Each ends well beside the other alone.
        let script = r#"
            read -r job
            case "$job" in *'"left"'*) own=left other=right ;; *) own=right other=left ;; esac
            : > $own
            for turn in $(seq 500); do
                test -e $other && exit 0
                sleep 0.1
            done
            exit 1
        "#;
        let mut worker = Worker::start(&f, script, &["--drain", "--concurrency", "2"]).await;
        assert!(worker.ends().await.success(), "{}", worker.said());
        for id in &made {
            let done = (State::Completed, String::new());
            assert_eq!(outcome(&f, id).await, done, "{}", worker.said());
        }
        f.finish().await;
    }

    async fn no_more_commands_run_at_a_time_than_may(engine: Engine) {
        let f = Farm::new(engine).await;
        f.create(job("connect")).await;
        f.create(job("connect")).await;
        let script = "read -r job\necho begin >> log\nsleep 1\necho end >> log\n";
        let mut worker = Worker::start(&f, script, &["--drain", "--concurrency", "1"]).await;
        assert!(worker.ends().await.success(), "{}", worker.said());
        assert_eq!(worker.file("log"), "begin\nend\nbegin\nend\n", "{}", worker.said());
        f.finish().await;
    }

    async fn jobs_on_their_way_to_a_worker_that_stops_are_handed_back(engine: Engine) {
        let f = Farm::new(engine).await;
        let first = f.create(job("first")).await;
        let script = r#"
            read -r job
            case "$job" in *'"first"'*) exit 0 ;; esac
            exec sleep 600
        "#;
        let more = ["--wait", "1m", "--concurrency", "2", "--grace", "0s"];
        let mut worker = Worker::start(&f, script, &more).await;
        f.becomes(&first.id, State::Completed).await;
        // Its other claim waits. It hears of the answer and of the signal in the same moment.
        worker.signal("-STOP");
        let made = f.create(job("second")).await;
        f.becomes(&made.id, State::Running).await;
        worker.signal("-TERM");
        worker.signal("-CONT");
        assert!(worker.ends().await.success(), "{}", worker.said());
        let back = f.job(&made.id).await;
        assert_eq!((back.state(), back.attempt), (State::Pending, 0), "{}", worker.said());
        f.finish().await;
    }

    async fn a_command_that_ends_well_without_its_callback_has_failed(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account_id = f.account(&app, "ada").await.id;
        let authorization = Some(pb::JobAuthorization::default());
        let made = f.create(pb::NewJob { account_id, authorization, ..job("connect") }).await;
        // The callback has half a minute.
        let mut worker = Worker::start(&f, "exit 0", &["--drain"]).await;
        assert!(worker.ends().await.success(), "{}", worker.said());
        let missing = (State::Retryable, "CALLBACK_MISSING".to_owned());
        assert_eq!(outcome(&f, &made.id).await, missing, "{}", worker.said());
        f.finish().await;
    }

    async fn an_end_that_is_refused_fails_the_attempt(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = [f.create(job("fails")).await.id, f.create(job("completes")).await.id];
        let script = r#"
            read -r job
            case "$job" in
                *'"fails"'*) echo '{"fail": {"reason": "no such word"}}' ;;
                *) echo '{"result": {}, "connection_id": "none"}' ;;
            esac
        "#;
        let mut worker = Worker::start(&f, script, &["--drain"]).await;
        assert!(worker.ends().await.success(), "{}", worker.said());
        for id in &made {
            let refused = (State::Retryable, "END_REFUSED".to_owned());
            assert_eq!(outcome(&f, id).await, refused, "{}", worker.said());
        }
        f.finish().await;
    }

    async fn a_command_that_needs_credentials_is_not_run_without(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account_id = f.account(&app, "ada").await.id;
        let made = f.create(pb::NewJob { account_id, ..job("connect") }).await;
        let mut worker = Worker::start(&f, LINGERS, &["--drain", "--credentials"]).await;
        assert!(worker.ends().await.success(), "{}", worker.said());
        let without = (State::Failed, "NO_CREDENTIALS".to_owned());
        assert_eq!(outcome(&f, &made.id).await, without, "{}", worker.said());
        assert_eq!(worker.file("pid"), "");
        f.finish().await;
    }
}
