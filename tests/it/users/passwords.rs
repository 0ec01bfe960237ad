//! Passwords: which are taken, what setting one ends, and what judging one costs.

use secrecy::SecretString;
use tokenbroker::Error;
use tokenbroker::access::Origin;
use tokenbroker::error::Unknown;
use tokenbroker::model::{Role, User};

use super::*;

/// Sets a password as whoever may write users; how many sessions ended.
pub async fn set(caller: &Caller, user_id: &str, password: &str) -> Result<i32, Status> {
    let request = pb::SetPasswordRequest {
        user_id: user_id.to_owned(),
        new_password: password.to_owned(),
        ..Default::default()
    };
    let answer = caller.administration.clone().set_password(request).await?;
    Ok(answer.into_inner().revoked_sessions)
}

/// Signs in, below the wire.
pub async fn sign_in(b: &Broker, email: &str, password: &str) -> Result<User, Error> {
    sign_in_from(b, email, password, "192.0.2.1").await
}

pub async fn sign_in_from(
    b: &Broker,
    email: &str,
    password: &str,
    ip: &str,
) -> Result<User, Error> {
    let origin = Origin {
        ip: Some(ip.parse().unwrap()),
        ..Default::default()
    };
    let password = SecretString::from(password);
    let users = b.running().users();
    users.sign_in("default", email, &password, &origin).await
}

#[track_caller]
pub fn assert_failed(outcome: Result<User, Error>) {
    let failed = Err(Unknown::SignInFailed);
    let outcome = outcome.map(|user| user.id).map_err(|error| match error {
        Error::Unauthenticated(unknown) => unknown,
        other => panic!("{other:?}"),
    });
    assert_eq!(outcome, failed);
}

fn computed(b: &Broker) -> u64 {
    b.running().users().passwords().computed()
}

async fn stored(b: &Broker) -> Vec<String> {
    b.ground
        .lines("SELECT password_hash AS line FROM users WHERE password_hash IS NOT NULL")
        .await
}

on_both_engines! {
    async fn easily_guessed_passwords_are_refused_without_repeating_them(engine: Engine) {
        let b = Broker::start(engine).await;
        let id = create(&b.admin, named("ada.lovelace@example.com")).await.unwrap().id;
        for bad in ["Sh0rt!", "passwordpassword", "123456789012", "aaaaaaaaaaaa", "Password123!!", "ada.lovelace rocks", &"long words ".repeat(30)] {
            let refused = set(&b.admin, &id, bad).await.unwrap_err();
            assert_eq!(violations(&refused), ["new_password"], "{bad}");
            assert!(!refused.message().contains(bad));
            let new = pb::CreateUserRequest { password: bad.to_owned(), ..named("ada.lovelace@example.org") };
            assert_eq!(violations(&create(&b.admin, new).await.unwrap_err()), ["password"], "{bad}");
        }
        assert!(!get(&b.admin, &id).await.unwrap().has_password);
        b.finish().await;
    }

    async fn a_password_is_set_and_taken_away(engine: Engine) {
        let b = Broker::start(engine).await;
        let (old, new) = (phrase(), phrase());
        let user = with_password(&b, "ada@example.com", &old).await;
        assert_eq!(sign_in(&b, "Ada@Example.com", &old).await.unwrap().id, user.id);
        set(&b.admin, &user.id, &new).await.unwrap();
        assert_failed(sign_in(&b, "ada@example.com", &old).await);
        sign_in(&b, "ada@example.com", &new).await.unwrap();
        set(&b.admin, &user.id, "").await.unwrap();
        assert!(!get(&b.admin, &user.id).await.unwrap().has_password);
        assert_failed(sign_in(&b, "ada@example.com", &new).await);
        assert_failed(sign_in(&b, "ada@example.com", "").await);
        b.finish().await;
    }

    async fn who_changes_their_own_password_proves_the_current_one(engine: Engine) {
        let b = Broker::start_with(engine, |config| config.passwords.free_failures = 2).await;
        let (old, new) = (phrase(), phrase());
        let user = with_password(&b, "ada@example.com", &old).await;
        let caller = signed_in(&user, Role::User);
        let users = b.running().users();
        let [right, wrong, wanted] = [&old, &phrase(), &new].map(|text| SecretString::from(text.as_str()));
        for current in [None, Some(&wrong), Some(&wrong), Some(&wrong)] {
            match users.set_password(&caller, "me", current, Some(&wanted)).await {
                Err(Error::InvalidArgument(faults)) => assert_eq!(faults[0].field, "current_password"),
                other => panic!("{other:?}"),
            }
        }
        let blocked = users.set_password(&caller, "me", Some(&right), Some(&wanted)).await;
        assert!(matches!(blocked, Err(Error::ResourceExhausted { .. })), "guesses are counted: {blocked:?}");
        b.clock.advance(b.config.passwords.max_delay);
        users.set_password(&caller, "me", Some(&right), Some(&wanted)).await.unwrap();
        sign_in(&b, "ada@example.com", &new).await.unwrap();
        let failed = trail(&b, "user.password_set").await;
        assert_eq!(failed.iter().filter(|line| line.ends_with("false WRONG_PASSWORD")).count(), 3);
        assert_eq!(failed.iter().filter(|line| line.ends_with("false THROTTLED")).count(), 1);
        b.finish().await;
    }

    async fn a_hash_of_another_cost_is_made_anew_at_sign_in(engine: Engine) {
        let mut b = Broker::start(engine).await;
        let password = phrase();
        let user = with_password(&b, "ada@example.com", &password).await;
        sign_in(&b, "ada@example.com", &password).await.unwrap();
        let old = stored(&b).await;
        b.stop().await;
        let b = b.replica("b", |config| config.passwords.iterations += 1).await;
        assert_failed(sign_in(&b, "ada@example.com", "a wrong password").await);
        assert_eq!(stored(&b).await, old, "only who proves the password has it hashed anew");
        sign_in(&b, "ada@example.com", &password).await.unwrap();
        let new = stored(&b).await;
        assert!(new[0].contains(",t=3,") && new != old, "{}", new[0].split('$').nth(3).unwrap());
        sign_in(&b, "ada@example.com", &password).await.unwrap();
        assert_eq!(stored(&b).await, new);
        assert_eq!(get(&b.admin, &user.id).await.unwrap().etag, user.etag);
        b.finish().await;
    }

    async fn an_unknown_user_costs_the_same_work(engine: Engine) {
        let b = Broker::start(engine).await;
        let password = phrase();
        with_password(&b, "ada@example.com", &password).await;
        let off = with_password(&b, "off@example.com", &password).await;
        deactivate(&b.admin, &off.id).await.unwrap();
        create(&b.admin, named("provider@example.com")).await.unwrap();
        for (email, password) in [
            ("nobody@example.com", password.as_str()), ("not an address", password.as_str()), ("ada@example.com", "a wrong password"),
            ("off@example.com", password.as_str()), ("off@example.com", "a wrong password"), ("provider@example.com", password.as_str()),
        ] {
            let before = computed(&b);
            assert_failed(sign_in(&b, email, password).await);
            assert_eq!(computed(&b) - before, 1, "{email}");
        }
        let reasons = ["UNKNOWN_USER", "UNKNOWN_USER", "WRONG_PASSWORD", "USER_INACTIVE", "WRONG_PASSWORD", "WRONG_PASSWORD"];
        assert_eq!(trail(&b, "session.created").await, reasons.map(|reason| format!("session.created false {reason}")));
        b.finish().await;
    }

    async fn of_two_first_passwords_at_once_one_is_refused(engine: Engine) {
        let b = Broker::start(engine).await;
        let user = create(&b.admin, named("ada@example.com")).await.unwrap();
        let caller = signed_in(&user, Role::User);
        let users = b.running().users();
        let [one, other] = [phrase(), phrase()].map(SecretString::from);
        let set = |new| users.set_password(&caller, "me", None, Some(new));
        let (first, second) = tokio::join!(set(&one), set(&other));
        assert!(first.is_ok() != second.is_ok(), "{first:?} {second:?}");
        let refused = first.and(second).unwrap_err();
        assert!(matches!(refused, Error::Conflict(..) | Error::InvalidArgument(_)), "{refused:?}");
        b.finish().await;
    }
}
