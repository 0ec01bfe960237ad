//! The command line, as a script sees it: the real binary, its output and its exit codes.

mod demo;
mod work;

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long one command may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(60);

/// An installation of its own: a data folder and the variables that lead there.
struct Home {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

/// A process that is ended with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn end(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            pause();
        }
        panic!("process {} has not ended within {PATIENCE:?}", self.0.id());
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "there is no runtime here to block"
)]
fn pause() {
    std::thread::sleep(Duration::from_millis(20));
}

impl Home {
    fn new() -> Self {
        let home = Self {
            folder: tempfile::tempdir().unwrap(),
            variables: Vec::new(),
        };
        let data = home.data().to_str().unwrap().to_owned();
        home.with("DATA_DIR", &data)
            .with("GRPC__LISTEN", "127.0.0.1:0")
            .with("WEB__LISTEN", "127.0.0.1:0")
    }

    fn with(mut self, key: &str, value: &str) -> Self {
        let name = format!("TOKENBROKER__{key}");
        self.variables.push((name, value.to_owned()));
        self
    }

    fn data(&self) -> std::path::PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tokenbroker"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("TOKENBROKER") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.folder.path())
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Answer {
        // To files, not pipes: a pipe that fills up would stop what is waited for.
        let file = || tempfile::tempfile_in(self.folder.path()).unwrap();
        let (mut out, mut err) = (file(), file());
        let child = self
            .command(args)
            .stdout(out.try_clone().unwrap())
            .stderr(err.try_clone().unwrap())
            .spawn()
            .unwrap();
        let code = Running(child).end().code();
        let text = |file: &mut std::fs::File| {
            use std::io::Seek as _;
            let mut text = String::new();
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            text
        };
        Answer {
            code,
            out: text(&mut out),
            err: text(&mut err),
        }
    }

    /// Starts `serve` and waits for the API key of its first start.
    fn serve(&self) -> (Running, String) {
        let child = self
            .command(&["serve"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut serving = Running(child);
        let file = self.data().join("first-api-key");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(key) = std::fs::read_to_string(&file)
                && key.ends_with('\n')
            {
                return (serving, key.trim().to_owned());
            }
            let ended = serving.0.try_wait().unwrap();
            assert!(ended.is_none(), "serve ended early: {ended:?}");
            assert!(Instant::now() < deadline, "no first API key");
            pause();
        }
    }
}

impl Answer {
    #[track_caller]
    fn code(self, code: i32) -> Self {
        let shown = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, Some(code), "{shown}");
        self
    }

    /// Every word stands on standard error.
    #[track_caller]
    fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.err.contains(word), "no {word:?} in {}", self.err);
        }
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

fn terminate(process: &Child) {
    let sent = Command::new("kill")
        .args(["-TERM", &process.id().to_string()])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(sent.success());
}

#[cfg(unix)]
fn assert_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{}", path.display());
}

#[test]
fn check_config_reports_every_fault_with_its_key() {
    let home = Home::new();
    let told = home.run(&["check-config"]).code(0);
    assert!(told.out.contains("no faults"), "{}", told.out);

    let file = home.folder.path().join("broken.toml");
    std::fs::write(
        &file,
        "[refresh]\nlease = \"soon\"\n[grpc]\nlisten = \"0.0.0.0:7480\"\n[nonsense]\nkey = 1\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let home = home.with("CACHE__CAPACITY", "none");
    for command in ["check-config", "serve"] {
        let faults = ["refresh.lease", "nonsense.key", "cache.capacity"];
        home.run(&["--config", file, command])
            .code(3)
            .says(&faults)
            .says(&["soon", "unknown"]);
    }
    // The variable that replaces --config.
    home.command(&["check-config"])
        .env("TOKENBROKER_CONFIG", file)
        .stderr(Stdio::null())
        .status()
        .map(|status| assert_eq!(status.code(), Some(3)))
        .unwrap();
}

#[test]
fn what_is_no_command_is_refused_with_usage() {
    let home = Home::new();
    home.run(&["serv"]).code(2).says(&["serv"]);
    home.run(&["migrate", "down"]).code(2).says(&["--yes"]);
    let args = ["api-key", "create", "--name", "x", "--role", "root"];
    home.run(&args).code(2).says(&["admin", "consumer"]);
    assert!(!home.data().exists(), "a refused command made something");

    let version = home.run(&["version"]).code(0).out;
    assert!(version.starts_with("tokenbroker 0."), "{version}");
    let help = home.run(&["--help"]).code(0).out;
    assert!(help.contains("Exit codes"), "{help}");
}

#[test]
fn api_keys_are_made_listed_and_revoked() {
    let home = Home::new();
    home.run(&["api-key", "list"]).code(4).says(&["serve"]);

    let made = home
        .run(&[
            "api-key",
            "create",
            "--name=billing",
            "--role=consumer",
            "--tenant=acme",
            "--owner=customer-*",
            "--provider=github",
            "--link-only",
            "--expires-in=90d",
        ])
        .code(0)
        .says(&["key_", "keys.toml"]);
    let key = made.out.trim().to_owned();
    assert_eq!((key.len(), made.out.len()), (53, 54), "only the key");
    assert!(!made.err.contains(&key));
    assert_private(&home.data().join("keys.toml"));
    assert_private(&home.data().join("tokenbroker.db"));

    let listed = home.run(&["api-key", "list", "--json"]).code(0);
    assert!(!listed.out.contains(&key));
    let listed = listed.json();
    let one = &listed["api_keys"][0];
    assert_eq!(one["tenant"], "acme");
    assert_eq!(one["state"], "active");
    assert_eq!(one["constraints"]["owners"][0], "customer-*");
    assert_eq!(one["constraints"]["link_only"], true);
    assert!(one["expires_at"].is_string());
    let id = one["id"].as_str().unwrap();

    let table = home.run(&["api-key", "list", "--tenant=acme"]).code(0).out;
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.contains("owner=customer-* provider=github link-only"));
    let others = home.run(&["api-key", "list", "--tenant=other"]).code(0).out;
    assert_eq!(others.lines().count(), 1, "{others}");

    // A pasted key is not repeated.
    let pasted = home.run(&["api-key", "revoke", &key]).code(2);
    assert!(!pasted.err.contains(&key[12..]));
    home.run(&["api-key", "revoke", id]).code(0);
    home.run(&["api-key", "revoke", id]).code(1).says(&[id]);
    let listed = home.run(&["api-key", "list", "--json"]).code(0).json();
    assert_eq!(listed["api_keys"][0]["state"], "revoked");
}

#[test]
fn api_keys_are_rotated_and_limited() {
    let home = Home::new();
    let args = [
        "api-key",
        "create",
        "--name=ci",
        "--role=issuer_ui",
        "--rate-limit=5:20",
    ];
    let old = home.run(&args).code(0).out;
    let listed = home.run(&["api-key", "list", "--json"]).code(0).json();
    let one = &listed["api_keys"][0];
    assert_eq!(
        (&one["rate_limit"]["burst"], &one["role"]),
        (&20.into(), &"issuer_ui".into())
    );
    let id = one["id"].as_str().unwrap();

    let pasted = home.run(&["api-key", "rotate", old.trim()]).code(2);
    assert!(!pasted.err.contains(&old[12..52]));
    home.run(&["api-key", "rotate", id, "--overlap=8d"])
        .code(2)
        .says(&["7d"]);
    let new = home
        .run(&["api-key", "rotate", id, "--overlap=2h"])
        .code(0)
        .says(&[id]);
    assert_eq!(new.out.len(), 54, "only the key");
    assert_ne!(new.out, old);
    home.run(&["api-key", "rotate", id])
        .code(1)
        .says(&["successor"]);

    let listed = home.run(&["api-key", "list", "--json"]).code(0).json();
    let (old, new) = (&listed["api_keys"][0], &listed["api_keys"][1]);
    assert_eq!(
        (&old["replaced_by"], &new["name"]),
        (&new["id"], &"ci".into())
    );
    assert!(old["expires_at"].is_string() && new["expires_at"].is_null());
    let table = home.run(&["api-key", "list"]).code(0).out;
    assert!(
        table.contains("rate=5:20") && table.contains("REPLACED BY"),
        "{table}"
    );
    home.run(&["api-key", "create", "--name=x", "--role=user"])
        .code(2);
    home.run(&[
        "api-key",
        "create",
        "--name=x",
        "--role=admin",
        "--rate-limit=0",
    ])
    .code(2);
}

#[test]
fn migrations_go_up_and_down_and_up() {
    up_down_up(&Home::new().with("ENVIRONMENT", "production"));
}

#[test]
fn migrations_go_up_and_down_and_up_on_postgres() {
    up_down_up(&on_postgres(Home::new(), "cli_migrate"));
}

/// In a schema of the test's own.
fn on_postgres(home: Home, schema: &str) -> Home {
    let url = std::env::var("TEST_POSTGRES_URL").expect("run this through `make test`");
    let sql = format!("DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}");
    let made = Command::new("psql")
        .args(["-X", "-q", "-d", &url, "-c", &sql])
        .status();
    assert!(made.unwrap().success());
    home.with("DATABASE__URL", &url)
        .with("DATABASE__SCHEMA", schema)
}

#[track_caller]
fn up_down_up(home: &Home) {
    let up = home.run(&["migrate", "up"]).code(0).out;
    let count = up.lines().count();
    assert!(up.starts_with("applied 0001_"), "{up}");
    let status = home.run(&["migrate", "status", "--json"]).code(0).json();
    assert_eq!(status["sound"], true);
    assert_eq!(status["migrations"].as_array().unwrap().len(), count);

    let all = count.to_string();
    let down = home.run(&["migrate", "down", "--yes"]).code(0).out;
    assert_eq!(down.lines().count(), 1, "{down}");
    let status = home.run(&["migrate", "status"]).code(1).out;
    assert_eq!(status.matches("pending").count(), 1, "{status}");
    home.run(&["api-key", "list"]).code(4).says(&["migrate up"]);
    let down = home.run(&["migrate", "down", "--steps", &all, "--yes"]);
    assert_eq!(down.code(0).out.lines().count(), count - 1);

    assert_eq!(home.run(&["migrate", "up"]).code(0).out, up);
    home.run(&["migrate", "status"]).code(0);
    let again = home.run(&["migrate", "up"]).code(0).out;
    assert!(again.contains("nothing to apply"), "{again}");
    let args = ["api-key", "create", "--name=x", "--role=admin"];
    home.run(&args).code(0);
}

#[test]
fn postgres_is_not_served_without_keys_or_schema() {
    let home = on_postgres(Home::new(), "cli_serve");
    home.run(&["serve"])
        .code(5)
        .says(&["openssl rand -base64 32", "TOKENBROKER__KEYS__ENTRIES"]);
    let home = home.with(
        "KEYS__ENTRIES",
        "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    );
    home.run(&["serve"]).code(4).says(&["migrate up"]);
}

#[test]
fn a_database_that_cannot_be_reached_is_named_without_its_password() {
    // It accepts and never answers, so no other test's server can be there by chance.
    let silent = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
    let port = silent.local_addr().unwrap().port();
    let url = format!("postgres://someone:hunter2@127.0.0.1:{port}/nowhere");
    let home = Home::new()
        .with("DATABASE__URL", &url)
        .with("DATABASE__ACQUIRE_TIMEOUT", "500ms");
    let told = home.run(&["migrate", "status"]).code(4);
    assert!(told.err.contains("127.0.0.1"), "{}", told.err);
    assert!(!told.err.contains("hunter2"), "{}", told.err);
}

#[test]
fn one_serve_has_a_sqlite_database_and_commands_work_beside_it() {
    let home = Home::new();
    let (mut serving, key) = home.serve();
    assert_eq!(key.len(), 53);
    assert_private(&home.data().join("first-api-key"));

    home.run(&["serve"])
        .code(1)
        .says(&["another tokenbroker", &serving.0.id().to_string()]);

    let listed = home.run(&["api-key", "list", "--json"]).code(0).json();
    assert_eq!(listed["api_keys"][0]["name"], "first");
    let args = ["api-key", "create", "--name=y", "--role=operator"];
    home.run(&args).code(0);
    let id = listed["api_keys"][0]["id"].as_str().unwrap();
    home.run(&["api-key", "revoke", id]).code(0);
    home.run(&["migrate", "status"]).code(0);

    terminate(&serving.0);
    assert_eq!(serving.end().code(), Some(0));
}

#[test]
fn a_database_whose_keys_are_gone_is_not_given_new_ones() {
    let home = Home::new();
    home.run(&["migrate", "up"]).code(0);
    let keys = home.data().join("keys.toml");
    std::fs::remove_file(&keys).unwrap();
    home.run(&["serve"]).code(5).says(&["Restore the key file"]);
    assert!(!keys.exists());
}
