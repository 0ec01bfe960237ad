//! Guessing passwords: slowed down by account and by address, on whatever replica.

use std::time::Duration;

use tokenbroker::Error;
use tokenbroker::access::throttle::{Attempt, Throttle};

use super::passwords::{assert_failed, sign_in, sign_in_from};
use super::*;

/// How long to wait, where an attempt was not judged.
#[track_caller]
fn wait<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Duration {
    match outcome {
        Err(Error::ResourceExhausted { retry_after, .. }) => retry_after,
        other => panic!("must be refused unjudged: {other:?}"),
    }
}

fn computed(b: &Broker) -> u64 {
    b.running().users().passwords().computed()
}

on_both_engines! {
    async fn guesses_are_slowed_by_account_and_by_address(engine: Engine) {
        let b = Broker::start(engine).await;
        let password = phrase();
        with_password(&b, "ada@example.com", &password).await;
        // Five are free; then each waits twice as long as the one before, whether the account exists.
        for email in ["ada@example.com", "nobody@example.com"] {
            for guess in 0..5 {
                assert_failed(sign_in_from(&b, email, "a wrong password", &format!("198.51.100.{guess}")).await);
            }
            for delay in [1, 2, 4, 8] {
                assert_failed(sign_in_from(&b, email, "a wrong password", "198.51.100.9").await);
                let before = computed(&b);
                let refused = sign_in_from(&b, email, &password, "203.0.113.1").await;
                assert_eq!((wait(refused), computed(&b) - before), (Duration::from_secs(delay), 0));
                b.clock.advance(Duration::from_secs(delay));
            }
        }
        sign_in_from(&b, "ada@example.com", &password, "203.0.113.1").await.unwrap();
        assert_failed(sign_in_from(&b, "ada@example.com", "a wrong password", "203.0.113.1").await);
        sign_in_from(&b, "ada@example.com", &password, "203.0.113.1").await.unwrap();
        b.finish().await;
    }

    async fn who_asked_first_is_not_blocked_by_who_was_counted_first(engine: Engine) {
        let b = Broker::start(engine).await;
        let throttle = Throttle::new(b.ground.store().await, b.config.passwords.clone());
        let first = b.clock.now();
        let second = first.plus(Duration::from_secs(1));
        let attempt = |email| Attempt::new("default", email, Some("192.0.2.1".parse().unwrap()));
        let admitted = throttle.admit(attempt("eve@example.com"), second).await.unwrap();
        throttle.succeeded(admitted, second).await.unwrap();
        let admitted = throttle.admit(attempt("ada@example.com"), first).await.unwrap();
        throttle.succeeded(admitted, first).await.unwrap();
        b.finish().await;
    }

    async fn an_address_that_tries_many_accounts_has_to_wait(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.passwords.free_failures = 1).await;
        let password = phrase();
        with_password(&b, "ada@example.com", &password).await;
        for guess in 0..11 {
            // One customer has all addresses of an IPv6 network.
            let ip = format!("2001:db8::{guess}");
            assert_failed(sign_in_from(&b, &format!("user-{guess}@example.com"), "a wrong password", &ip).await);
        }
        assert_eq!(wait(sign_in_from(&b, "ada@example.com", &password, "2001:db8::99").await), Duration::from_secs(1));
        sign_in_from(&b, "ada@example.com", &password, "2001:db8:0:1::99").await.unwrap();
        // An account of one's own does not clear the address: the next guess waits longer.
        b.clock.advance(Duration::from_secs(1));
        sign_in_from(&b, "ada@example.com", &password, "2001:db8::99").await.unwrap();
        assert_failed(sign_in_from(&b, "user-99@example.com", "a wrong password", "2001:db8::99").await);
        assert_eq!(wait(sign_in_from(&b, "ada@example.com", &password, "2001:db8::99").await), Duration::from_secs(2));
        b.finish().await;
    }

    async fn a_thousand_parallel_guesses_are_not_all_judged(engine: Engine) {
        let b = Broker::start(engine).await;
        with_password(&b, "ada@example.com", &phrase()).await;
        let other = b.ground.word("", "b");
        let before = computed(&b);
        let users = b.running().users();
        let guesses: Vec<_> = (0..1_000).map(|guess| {
            let users = users.clone();
            tokio::spawn(async move {
                let origin = access::Origin { ip: Some(format!("198.51.{}.{}", guess / 250, guess % 250).parse().unwrap()), ..Default::default() };
                let password = format!("a wrong password {guess}").into();
                users.sign_in("default", "ada@example.com", &password, &origin).await
            })
        }).collect();
        for guess in guesses {
            assert!(guess.await.unwrap().is_err());
        }
        let judged = computed(&b) - before;
        assert!((1..=6).contains(&judged), "{judged} were judged");
        // Another replica counts on.
        if !other.is_empty() {
            let replica = b.replica(other, |_| {}).await;
            wait(sign_in(&replica, "ada@example.com", "a wrong password").await);
            replica.finish().await;
        }
        b.finish().await;
    }

    async fn a_block_is_recorded_once_and_failures_are_forgotten_after_a_day(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.passwords.free_failures = 1).await;
        let password = phrase();
        with_password(&b, "ada@example.com", &password).await;
        for _ in 0..2 {
            assert_failed(sign_in(&b, "ada@example.com", "a wrong password").await);
        }
        for _ in 0..20 {
            wait(sign_in(&b, "ada@example.com", "a wrong password").await);
        }
        let expected = ["WRONG_PASSWORD", "WRONG_PASSWORD", "THROTTLED"].map(|reason| format!("session.created false {reason}"));
        assert_eq!(trail(&b, "session.created").await, expected);
        b.clock.advance(tokenbroker::access::throttle::FORGOTTEN_AFTER);
        assert_failed(sign_in(&b, "ada@example.com", "a wrong password").await);
        sign_in(&b, "ada@example.com", &password).await.unwrap();
        b.finish().await;
    }

    async fn no_list_of_tried_addresses_is_kept(engine: Engine) {
        let b = Broker::start(engine).await;
        assert_failed(sign_in(&b, "typed.by.mistake@example.com", "a wrong password").await);
        let rows = tables::rows(&b).await;
        assert_eq!(rows["sign_in_failures"].len(), 2);
        for (table, rows) in rows {
            assert!(!rows.concat().contains("typed.by.mistake"), "{table}");
        }
        b.finish().await;
    }

    async fn an_attempt_that_was_not_judged_is_no_failure(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.passwords.free_failures = 1).await;
        let password = phrase();
        with_password(&b, "ada@example.com", &password).await;
        // A hash that can't be read fails like a full queue, or a store that is away.
        let hash = b.ground.lines("SELECT password_hash AS line FROM users").await.remove(0);
        b.ground.execute("UPDATE users SET password_hash = '$argon2id$'").await;
        for _ in 0..20 {
            let failed = sign_in(&b, "ada@example.com", &password).await;
            assert!(matches!(failed, Err(Error::Internal(_))), "{failed:?}");
        }
        b.ground.execute(&format!("UPDATE users SET password_hash = '{hash}'")).await;
        assert_failed(sign_in(&b, "ada@example.com", "a wrong password").await);
        sign_in(&b, "ada@example.com", &password).await.unwrap();
        b.finish().await;
    }
}
