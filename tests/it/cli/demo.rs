//! `tokenbroker demo`: it tells its story to the end and leaves nothing behind.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::{Home, PATIENCE, Running, pause};

/// An installation whose temporary folder is its own.
fn home() -> Home {
    let mut home = Home::new();
    let temporary = home.folder.path().join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let temporary = temporary.to_str().unwrap().to_owned();
    home.variables.push(("TMPDIR".to_owned(), temporary));
    home
}

#[test]
fn the_demo_ends_well_on_ports_that_are_free_and_leaves_nothing() {
    // Taken, here or by somebody else: the demo has to look for others.
    let _taken = TcpListener::bind(("127.0.0.1", 7480));
    let home = home().with("NO_SUCH_SECTION", "not read");
    let answer = home.run(&["demo", "--once"]).code(0);
    for line in [
        "her browser shows: Sign in",
        "then: Allow Calendar?",
        "Know who you are here",
        "ACTIVATED",
        "the provider says with it: Ada Lovelace, ada@example.com",
        "100 callers, 1 new token",
        "REFRESHED",
        "1 refresh at the provider",
        "on demand): generation 1 became 2",
        "tokenbroker.v1.TokenBroker/GetAccessToken",
    ] {
        assert!(answer.out.contains(line), "no {line:?} in {}", answer.out);
    }
    assert!(!answer.err.contains("ERROR"), "{}", answer.err);
    assert!(!answer.out.contains('\u{1b}'), "colours in a file");
    for secret in ["Bearer tbk_", "tbc_"] {
        assert!(!answer.out.contains(secret), "{}", answer.out);
    }
    let left = std::fs::read_dir(home.folder.path().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
    assert!(!home.data().exists(), "variables are not read");
}

#[test]
fn a_folder_serves_several_demos_and_none_but_demos() {
    let home = home();
    for _ in 0..2 {
        let args = ["demo", "--once", "--data-dir", "kept"];
        let answer = home.run(&args).code(0);
        assert!(answer.out.contains("1 refresh at the provider"));
    }
    let kept = home.folder.path().join("kept");
    std::fs::remove_file(kept.join("demo-api-key")).unwrap();
    let args = ["demo", "--once", "--data-dir", "kept"];
    home.run(&args).code(2).says(&["give an empty folder"]);
}

#[test]
fn the_demo_serves_until_it_is_interrupted() {
    let home = home();
    let told = home.folder.path().join("told");
    let out = std::fs::File::create(&told).unwrap();
    let mut command = home.command(&["demo"]);
    let child = command.stdout(out).stderr(Stdio::null()).spawn().unwrap();
    let mut demo = Running(child);
    let deadline = Instant::now() + PATIENCE;
    while !std::fs::read_to_string(&told)
        .unwrap()
        .contains("Now it is yours")
    {
        assert!(demo.0.try_wait().unwrap().is_none(), "it ended early");
        assert!(Instant::now() < deadline, "the story has no end");
        pause();
    }
    let pid = demo.0.id().to_string();
    let sent = Command::new("kill").args(["-INT", &pid]).status();
    assert!(sent.unwrap().success());
    assert_eq!(demo.end().code(), Some(0));
    let left = std::fs::read_dir(home.folder.path().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
}
