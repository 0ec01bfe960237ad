//! Browser profiles: one an account, and one running job each.

use tonic::Status;

use super::*;

async fn make(f: &Farm, external_id: &str, account_id: &str) -> pb::Profile {
    f.try_profile(profile(external_id, account_id))
        .await
        .unwrap()
}

fn of(profile: &str) -> pb::NewJob {
    pb::NewJob {
        profile: profile.to_owned(),
        ..job("connect")
    }
}

/// Changes what is named of a profile.
async fn update(f: &Farm, profile: pb::Profile, paths: &[&str]) -> Result<pb::Profile, Status> {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    let request = pb::UpdateProfileRequest {
        profile: Some(profile),
        update_mask: Some(prost_types::FieldMask { paths }),
    };
    let changed = f.jobs().update_profile(request).await?.into_inner();
    Ok(changed.profile.unwrap())
}

/// Gives a profile this account, or none.
async fn give(f: &Farm, profile: &pb::Profile, account_id: &str) -> Result<pb::Profile, Status> {
    let wanted = pb::Profile {
        id: profile.id.clone(),
        account_id: account_id.to_owned(),
        ..Default::default()
    };
    update(f, wanted, &["account_id"]).await
}

on_both_engines! {
    async fn a_profile_is_of_one_account_and_known_by_one_name(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account = f.account(&app, "ada").await;
        let made = make(&f, "browser-1", &account.id).await;
        assert!(made.id.starts_with("prof_"), "{made:?}");
        for name in [&made.id, &made.external_id] {
            assert_eq!(f.profile_now(name).await, made);
        }
        for taken in [profile("browser-1", ""), profile("browser-2", &account.id)] {
            assert_refused(f.try_profile(taken).await, Code::AlreadyExists, "ALREADY_EXISTS");
        }
        let nobodys = tokenbroker::model::IdKind::Account.new_id();
        assert_refused(f.try_profile(profile("browser-3", &nobodys)).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
        make(&f, "browser-2", "").await;
        f.finish().await;
    }

    async fn a_job_has_its_accounts_profile_and_a_profile_its_account(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account = f.account(&app, "ada").await;
        let made = make(&f, "browser-1", &account.id).await;
        let by_account = f.create(pb::NewJob { account_id: account.id.clone(), ..job("connect") }).await;
        let by_profile = f.create(of("browser-1")).await;
        for job in [by_account, by_profile] {
            assert_eq!((&job.account_id, &job.profile_id), (&account.id, &made.id));
            assert_eq!((job.execution_mode(), job.provider.as_str()), (pb::ExecutionMode::Cloud, "fake"));
        }
        assert_refused(f.try_create(of("browser-9")).await, Code::NotFound, "PROFILE_NOT_FOUND");
        f.finish().await;
    }

    async fn a_profile_has_one_running_job(engine: Engine) {
        let f = Farm::new(engine).await;
        make(&f, "browser-1", "").await;
        let first = f.create(of("browser-1")).await;
        let second = f.create(of("browser-1")).await;
        let free = f.create(job("connect")).await;
        let claimed = f.claims(ask(10)).await;
        let got: BTreeSet<_> = ids(&claimed).into_iter().collect();
        assert_eq!(got, BTreeSet::from([first.id.clone(), free.id]));
        f.assert_idle(&f.claims(ask(10)).await);
        let held = claimed.iter().find(|it| job_of(it).id == first.id).unwrap();
        f.complete(held).await.unwrap();
        assert_eq!(ids(&f.claims(ask(10)).await), [second.id]);
        f.finish().await;
    }

    async fn workers_that_race_for_a_profile_get_one_job(engine: Engine) {
        let f = Farm::new(engine).await;
        make(&f, "browser-1", "").await;
        for _ in 0..8 {
            f.create(of("browser-1")).await;
        }
        let claims = (0..8).map(|_| f.claims(ask(3)));
        let claimed: Vec<_> = futures_util::future::join_all(claims).await.concat();
        assert_eq!(claimed.len(), 1, "{:?}", ids(&claimed));
        f.finish().await;
    }

    async fn a_captcha_is_recorded_on_the_job_and_on_its_profile(engine: Engine) {
        let f = Farm::new(engine).await;
        make(&f, "browser-1", "").await;
        let job = f.create(of("browser-1")).await;
        let claimed = f.claim().await;
        let mut watch = f.watch(watching("")).await.unwrap();
        for state in [pb::CaptchaState::Detected, pb::CaptchaState::Resolved] {
            f.b.clock.advance(SECOND);
            let met = pb::ReportProgressRequest { captcha: state.into(), ..Default::default() };
            f.report(&claimed, met).await.unwrap();
            assert_eq!(f.job(&job.id).await.progress.unwrap().captcha(), state);
            let profile = f.profile_now("browser-1").await;
            assert_eq!((profile.captcha(), micros(profile.captcha_time)), (state, f.b.clock.now().micros()));
            // What was done before may have had no place yet when the watch began.
            let mut told = watch.until(|event| event.r#type() == Told::Progressed).await;
            assert_eq!(told.pop().map(|event| event.captcha()), Some(state));
        }
        let resolved = pb::ListProfilesRequest { captcha: pb::CaptchaState::Resolved.into(), ..Default::default() };
        assert_eq!(f.jobs().list_profiles(resolved).await.unwrap().into_inner().profiles.len(), 1);
        let detected = pb::ListProfilesRequest { captcha: pb::CaptchaState::Detected.into(), ..Default::default() };
        assert!(f.jobs().list_profiles(detected).await.unwrap().into_inner().profiles.is_empty());
        f.finish().await;
    }

    async fn a_profile_stays_while_jobs_of_it_are_not_finished(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = make(&f, "browser-1", "").await;
        let job = f.create(of("browser-1")).await;
        let request = pb::DeleteProfileRequest { profile_id: made.id.clone(), ..Default::default() };
        assert_refused(f.jobs().delete_profile(request.clone()).await, REFUSED, "HAS_OPEN_JOBS");
        f.cancel(&job.id).await.unwrap();
        f.jobs().delete_profile(request).await.unwrap();
        assert_eq!(f.job(&job.id).await.profile_id, made.id);
        f.finish().await;
    }

    async fn a_change_is_of_what_was_read(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = make(&f, "browser-1", "").await;
        let named = pb::Profile { display_name: "One".to_owned(), ..made.clone() };
        let changed = update(&f, named.clone(), &["display_name"]).await.unwrap();
        assert_eq!((changed.display_name.as_str(), changed.execution_mode), ("One", made.execution_mode));
        assert_ne!(changed.etag, made.etag);
        assert_eq!(update(&f, named, &["display_name"]).await.unwrap_err().code(), Code::Aborted);
        let stale = pb::DeleteProfileRequest { profile_id: made.id, etag: made.etag };
        assert_eq!(f.jobs().delete_profile(stale).await.unwrap_err().code(), Code::Aborted);
        assert_eq!(f.profile_now("browser-1").await, changed);
        f.finish().await;
    }

    async fn an_account_goes_from_profile_to_profile(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let account = f.account(&app, "ada").await;
        let first = make(&f, "browser-1", &account.id).await;
        let second = make(&f, "browser-2", "").await;
        assert_refused(give(&f, &second, &account.id).await, Code::AlreadyExists, "ALREADY_EXISTS");
        assert_eq!(give(&f, &first, "").await.unwrap().account_id, "");
        let second = give(&f, &second, &account.id).await.unwrap();
        assert_eq!(second.account_id, account.id);
        let request = pb::DeleteAccountRequest { account_id: account.id, ..Default::default() };
        f.jobs().delete_account(request).await.unwrap();
        let left = f.profile_now("browser-2").await;
        assert_eq!(left.account_id, "");
        assert_ne!(left.etag, second.etag);
        f.finish().await;
    }

    async fn a_profile_keeps_its_account_while_jobs_of_it_are_not_finished(engine: Engine) {
        let f = Farm::new(engine).await;
        let app = f.b.app().await;
        let [ada, grace] = [f.account(&app, "ada").await.id, f.account(&app, "grace").await.id];
        let made = make(&f, "browser-1", &ada).await;
        let job = f.create(of("browser-1")).await;
        for another in [grace.as_str(), ""] {
            assert_refused(give(&f, &made, another).await, REFUSED, "HAS_OPEN_JOBS");
        }
        assert_eq!(give(&f, &made, &ada).await.unwrap(), made);
        f.cancel(&job.id).await.unwrap();
        assert_eq!(give(&f, &made, &grace).await.unwrap().account_id, grace);
        assert_eq!(f.job(&job.id).await.account_id, ada);
        assert_refused(f.retry(&job.id).await, REFUSED, "JOB_STATE");
        let request = pb::DeleteAccountRequest { account_id: ada, ..Default::default() };
        f.jobs().delete_account(request).await.unwrap();
        assert_refused(f.retry(&job.id).await, Code::NotFound, "ACCOUNT_NOT_FOUND");
        f.finish().await;
    }

    async fn a_retried_creation_answers_the_same(engine: Engine) {
        let f = Farm::new(engine).await;
        let mut request = pb::CreateProfileRequest {
            profile: Some(profile("browser-1", "")),
            request_id: "0193c5a0-0000-7000-8000-000000000002".to_owned(),
        };
        let made = f.jobs().create_profile(request.clone()).await.unwrap().into_inner().profile.unwrap();
        let again = f.jobs().create_profile(request.clone()).await.unwrap().into_inner().profile.unwrap();
        assert_eq!(again, made);
        request.profile = Some(profile("browser-2", ""));
        let refused = f.jobs().create_profile(request).await.unwrap_err();
        assert_eq!(violations(&refused), ["request_id"]);
        f.finish().await;
    }

    async fn a_list_has_pages(engine: Engine) {
        let f = Farm::new(engine).await;
        for number in 0..5 {
            make(&f, &format!("browser-{number}"), "").await;
        }
        let mut request = pb::ListProfilesRequest { page_size: 2, ..Default::default() };
        request.set_execution_mode(pb::ExecutionMode::Cloud);
        let mut seen = Vec::new();
        loop {
            let page = f.jobs().list_profiles(request.clone()).await.unwrap().into_inner();
            assert!(page.profiles.len() <= 2);
            seen.extend(page.profiles.into_iter().map(|profile| profile.external_id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, ["browser-0", "browser-1", "browser-2", "browser-3", "browser-4"]);
        request.set_execution_mode(pb::ExecutionMode::Local);
        assert!(f.jobs().list_profiles(request).await.unwrap().into_inner().profiles.is_empty());
        f.finish().await;
    }
}
