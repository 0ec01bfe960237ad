//! Credentials: sealed, and given to nobody but the worker that has the account's job.

use super::*;
use crate::fixture::leaks::Secrets;

/// An account with credentials, and a job of it.
async fn set_up(f: &Farm) -> (pb::Account, pb::AccountCredentials, pb::Job) {
    let app = f.b.app().await;
    let made = f.account(&app, "ada").await;
    let known = credentials("ada");
    let account = f
        .set_credentials(&made.id, known.clone(), false)
        .await
        .unwrap();
    let job = f
        .create(pb::NewJob {
            account_id: made.id,
            ..job("connect")
        })
        .await;
    (account, known, job)
}

fn password(text: &str) -> pb::AccountCredentials {
    Secrets::register_as("account's password", text);
    pb::AccountCredentials {
        password: text.to_owned(),
        ..Default::default()
    }
}

on_both_engines! {
    async fn the_worker_of_a_job_is_given_what_its_account_signs_in_with(engine: Engine) {
        let f = Farm::new(engine).await;
        let (account, known, _) = set_up(&f).await;
        assert!(account.has_password && account.has_totp && account.has_client_secret);
        assert_eq!(micros(account.credentials_time), f.b.clock.now().micros());
        let claimed = f.claim().await;
        let given = f.credentials(&claimed).await.unwrap();
        assert_eq!((given.username.as_str(), &given.password, &given.client_secret), ("ada", &known.password, &known.client_secret));
        assert_eq!(given.totp_code, code(&known.totp_secret, f.b.clock.now()));
        let ends = micros(given.totp_expire_time);
        let step = 30_000_000;
        assert_eq!((ends % step, (ends - f.b.clock.now().micros() - 1) / step), (0, 0));
        f.b.clock.advance(30 * SECOND);
        let later = f.credentials(&claimed).await.unwrap();
        assert_eq!(later.totp_code, code(&known.totp_secret, f.b.clock.now()));
        f.finish().await;
    }

    async fn a_worker_without_the_lease_is_refused_and_told_of(engine: Engine) {
        // Nobody rescues the job meanwhile.
        let f = Farm::with(engine, |config| config.automation.scan_interval = 5 * MINUTE).await;
        set_up(&f).await;
        let claimed = f.claim().await;
        let mut stale = claimed.clone();
        stale.lease_token += 1;
        assert_refused(f.credentials(&stale).await, REFUSED, "LEASE_LOST");
        f.credentials(&claimed).await.unwrap();
        f.lapse(&job_of(&claimed).id).await;
        assert_refused(f.credentials(&claimed).await, REFUSED, "LEASE_LOST");
        // A heartbeat has it again: nobody else got the job meanwhile.
        f.beat(&claimed).await.unwrap();
        f.credentials(&claimed).await.unwrap();
        f.complete(&claimed).await.unwrap();
        assert_refused(f.credentials(&claimed).await, REFUSED, "LEASE_LOST");
        let told = f.told("account.credentials_read").await;
        assert_eq!(told, ["0 LEASE_LOST", "1 ", "0 LEASE_LOST", "1 ", "0 LEASE_LOST"]);
        assert_eq!(f.told("account.credentials_set").await, ["1 "]);
        f.finish().await;
    }

    async fn without_credentials_none_are_given(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account_id = f.account(&app, "ada").await.id;
        f.create(pb::NewJob { account_id, ..job("connect") }).await;
        f.create(job("without an account")).await;
        for _ in 0..2 {
            let claimed = f.claim().await;
            assert_refused(f.credentials(&claimed).await, REFUSED, "NO_CREDENTIALS");
        }
        f.finish().await;
    }

    async fn what_is_not_given_stays_unless_all_is_replaced(engine: Engine) {
        let f = Farm::new(engine).await;
        let (account, known, _) = set_up(&f).await;
        let another = password("another uncommon phrase of words");
        let kept = f.set_credentials(&account.id, another.clone(), false).await.unwrap();
        assert!(kept.has_password && kept.has_totp && kept.has_client_secret);
        let claimed = f.claim().await;
        let given = f.credentials(&claimed).await.unwrap();
        assert_eq!((&given.password, &given.client_secret), (&another.password, &known.client_secret));
        let left = f.set_credentials(&account.id, another, true).await.unwrap();
        assert!(left.has_password && !left.has_totp && !left.has_client_secret);
        let given = f.credentials(&claimed).await.unwrap();
        assert_eq!((given.totp_code.as_str(), given.totp_expire_time, given.client_secret.as_str()), ("", None, ""));
        f.finish().await;
    }

    async fn older_systems_text_is_taken(engine: Engine) {
        let f = Farm::new(engine).await;
        let (account, known, _) = set_up(&f).await;
        let phrase = "a pass: with a colon";
        let seed = known.totp_secret.to_lowercase();
        let text = format!("CSV_PASSWORD:{phrase}|2FA_SECRET:{} {}", &seed[..16], &seed[16..]);
        let mut from_text = pb::AccountCredentials { text, ..Default::default() };
        Secrets::register_as("account's password", phrase);
        f.set_credentials(&account.id, from_text.clone(), true).await.unwrap();
        let given = f.credentials(&f.claim().await).await.unwrap();
        assert_eq!(given.password, phrase);
        assert_eq!(given.totp_code, code(&known.totp_secret, f.b.clock.now()));
        // Instead of them, not besides.
        from_text.password = phrase.to_owned();
        let refused = f.set_credentials(&account.id, from_text, false).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        let seed = pb::AccountCredentials { totp_secret: "not base 32!".to_owned(), ..Default::default() };
        let refused = f.set_credentials(&account.id, seed, false).await.unwrap_err();
        assert_eq!(violations(&refused), ["credentials.totp_secret"]);
        f.finish().await;
    }

    async fn the_credentials_of_somebody_who_is_erased_are_gone(engine: Engine) {
        let f = Farm::new(engine).await;
        let (account, ..) = set_up(&f).await;
        let claimed = f.claim().await;
        let person = pb::erase_person_request::Person::Owner(account.owner.clone());
        let request = pb::ErasePersonRequest { person: Some(person), validate_only: false };
        f.b.admin.administration.clone().erase_person(request).await.unwrap();
        let left = f.account_now(&account.id).await;
        assert!(!left.has_password && !left.has_totp && !left.has_client_secret);
        assert_refused(f.credentials(&claimed).await, REFUSED, "NO_CREDENTIALS");
        f.finish().await;
    }

    async fn credentials_are_in_no_event_row_or_dead_letter(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, _, job) = set_up(&f).await;
        let claimed = f.claim().await;
        f.credentials(&claimed).await.unwrap();
        f.fail(&claimed, true).await.unwrap();
        let events = f.history(|event| event.r#type() == Told::Failed).await;
        let answers = format!("{:?} {events:?} {:?}", f.job(&job.id).await, f.dead_letters().await);
        assert_eq!(leaks::scan(answers.as_bytes()), Vec::<String>::new());
        // It looks at the files, the tables and the log.
        f.finish().await;
    }
}
