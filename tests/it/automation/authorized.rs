//! Jobs that bring an authorisation about: they end as it does.

use super::*;
use crate::fixture::browser::Browser;

/// A job of an account that is to have the account's connection authorised.
async fn set_up(f: &Farm) -> (pb::Account, pb::NewJob) {
    let app = f.b.app().await;
    f.b.provider.sign_in_as(Account::named("ada"));
    let account = f.account(&app, "ada").await;
    let asked = pb::NewJob {
        account_id: account.id.clone(),
        authorization: Some(pb::JobAuthorization::default()),
        ..job("connect")
    };
    (account, asked)
}

/// Opens a job's link and goes all the way, as its worker does.
async fn consent(connect_url: &str) -> crate::fixture::browser::Page {
    Browser::new().follow_all(connect_url).await
}

async fn authorization(f: &Farm, job: &pb::Job) -> pb::Authorization {
    let request = pb::GetAuthorizationRequest {
        authorization_id: job.authorization_id.clone(),
    };
    let found =
        f.b.admin
            .broker
            .clone()
            .get_authorization(request)
            .await
            .unwrap();
    found.into_inner().authorization.unwrap()
}

on_both_engines! {
    async fn a_job_completes_with_the_connection_that_came_of_it(engine: Engine) {
        let f = Farm::new(engine).await;
        let (account, asked) = set_up(&f).await;
        let made = f.try_create(asked).await.unwrap();
        let job = made.job.unwrap();
        assert!(job.authorization_id.starts_with("auth_") && !made.connect_url.is_empty());
        let claimed = f.claim().await;
        assert_eq!(claimed.connect_url, made.connect_url);
        assert_refused(f.complete(&claimed).await, REFUSED, "JOB_STATE");
        let page = consent(&claimed.connect_url).await;
        assert_eq!(page.status, 200, "{}", page.body);
        let done = f.becomes(&job.id, State::Completed).await;
        let connection = f.b.connection(&done.connection_id).await;
        assert_eq!((connection.owner.as_str(), &connection.app_id), ("ada", &account.app));
        let account = f.account_now(&account.id).await;
        assert_eq!(account.connection_id, done.connection_id);
        // The worker says so, too, and is told the same.
        assert_eq!(f.complete(&claimed).await.unwrap(), done);
        assert!(f.b.token(&done.connection_id).await.is_ok());
        f.finish().await;
    }

    async fn a_callback_completes_its_job_and_batch_without_a_scan(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.scan_interval = 5 * MINUTE).await;
        let (_, asked) = set_up(&f).await;
        f.batch("links", vec![asked]).await;
        let claimed = f.claim().await;
        consent(&claimed.connect_url).await;
        f.becomes(&job_of(&claimed).id, State::Completed).await;
        assert_eq!(f.batch_finishes("links").await.counts.unwrap().completed, 1);
        f.finish().await;
    }

    async fn a_job_fails_for_the_reason_of_its_authorisation(engine: Engine) {
        let f = Farm::new(engine).await;
        let (account, asked) = set_up(&f).await;
        let job = f.create(asked).await;
        let claimed = f.claim().await;
        f.b.provider.deny_next("access_denied", "not today");
        consent(&claimed.connect_url).await;
        let failed = f.becomes(&job.id, State::Failed).await;
        assert_eq!((failed.failure_reason.as_str(), failed.connection_id.as_str()), ("PROVIDER_ERROR", ""));
        assert_eq!(f.dead_letters().await, [failed]);
        assert_eq!(f.account_now(&account.id).await.connection_id, "");
        assert!(f.beat(&claimed).await.is_err());
        f.finish().await;
    }

    async fn a_job_whose_link_lapses_fails(engine: Engine) {
        let f = Farm::with(engine, |config| {
            config.automation.authorization_ttl = HOUR;
            config.authorizations.sweep_interval = std::time::Duration::from_millis(50);
        })
        .await;
        let (_, asked) = set_up(&f).await;
        let waits = f.create(asked.clone()).await;
        let runs = f.create(asked).await;
        let claimed = f.claim().await;
        assert_eq!(job_of(&claimed).id, waits.id);
        // Who opened it in time may still come back for a minute.
        f.b.clock.advance(HOUR + MINUTE);
        for id in [&waits.id, &runs.id] {
            let failed = f.becomes(id, State::Failed).await;
            assert_eq!(failed.failure_reason, "AUTHORIZATION_EXPIRED");
        }
        f.finish().await;
    }

    async fn a_link_is_good_until_the_jobs_deadline(engine: Engine) {
        let f = Farm::with(engine, |config| config.automation.authorization_ttl = HOUR).await;
        let (_, asked) = set_up(&f).await;
        let job = f.create(pb::NewJob { deadline: time(f.b.clock.now().plus(2 * HOUR)), ..asked }).await;
        f.b.clock.advance(HOUR + MINUTE);
        let claimed = f.claim().await;
        consent(&claimed.connect_url).await;
        f.becomes(&job.id, State::Completed).await;
        f.finish().await;
    }

    async fn a_job_that_is_called_off_calls_its_link_off(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let made = f.try_create(asked).await.unwrap();
        let job = made.job.unwrap();
        f.cancel(&job.id).await.unwrap();
        assert_eq!(authorization(&f, &job).await.state(), pb::AuthorizationState::Expired);
        assert_eq!(Browser::new().get(&made.connect_url).await.status, 410);
        assert_eq!(f.job(&job.id).await.state(), State::Cancelled);
        f.finish().await;
    }

    async fn a_job_that_is_given_up_calls_its_link_off(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let job = f.create(asked).await;
        let claimed = f.claim().await;
        f.fail(&claimed, true).await.unwrap();
        assert_eq!(authorization(&f, &job).await.state(), pb::AuthorizationState::Expired);
        assert_eq!(Browser::new().get(&claimed.connect_url).await.status, 410);
        f.finish().await;
    }

    async fn the_next_attempt_has_the_same_link(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let job = f.create(asked).await;
        let first = f.claim().await;
        f.fail(&first, false).await.unwrap();
        f.b.clock.advance(HOUR);
        let second = f.next().await;
        assert_eq!(second.connect_url, first.connect_url);
        consent(&second.connect_url).await;
        f.becomes(&job.id, State::Completed).await;
        f.finish().await;
    }

    async fn a_job_begun_again_has_a_new_link(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let first = f.try_create(asked).await.unwrap();
        let job = first.job.unwrap();
        f.cancel(&job.id).await.unwrap();
        let again = f.retry(&job.id).await.unwrap();
        assert!(!again.connect_url.is_empty() && again.connect_url != first.connect_url);
        let again_id = again.job.unwrap().authorization_id;
        assert_ne!(again_id, job.authorization_id);
        for (authorization_id, found) in [(again_id, 1), (job.authorization_id, 0)] {
            let of = pb::ListJobsRequest { authorization_id, ..Default::default() };
            assert_eq!(f.list(of).await.len(), found);
        }
        let claimed = f.claim().await;
        assert_eq!(claimed.connect_url, again.connect_url);
        consent(&claimed.connect_url).await;
        assert_eq!(f.becomes(&job.id, State::Completed).await.attempt, 1);
        f.finish().await;
    }

    async fn a_link_is_not_good_for_years(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let late = time(f.b.clock.now().plus(91 * DAY));
        let refused = f.try_create(pb::NewJob { deadline: late, ..asked }).await.unwrap_err();
        assert_eq!(violations(&refused), ["job.deadline"]);
        f.finish().await;
    }

    async fn links_need_their_own_permission(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let request = pb::CreateJobRequest { job: Some(asked), ..Default::default() };
        let plain = f.b.caller(Role::Consumer, Constraints::default()).await;
        let refused = plain.automation.clone().create_job(request.clone()).await.unwrap_err();
        let info = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
        assert_eq!((refused.code(), info.metadata["permission"].as_str()), (Code::PermissionDenied, "authorizations.link_only"));
        assert!(f.list(pb::ListJobsRequest::default()).await.is_empty());
        let widened = f.b.caller(Role::Consumer, Constraints { link_only: true, ..Default::default() }).await;
        let made = widened.automation.clone().create_job(request).await.unwrap().into_inner();
        leaks::Secrets::register_as("ticket of a job", made.connect_url.rsplit('/').next().unwrap());
        f.finish().await;
    }

    async fn a_retried_request_answers_the_same_link(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        let request = pb::CreateJobRequest { job: Some(asked), request_id: "0193c5a0-0000-7000-8000-000000000003".to_owned() };
        let first = f.jobs().create_job(request.clone()).await.unwrap().into_inner();
        leaks::Secrets::register_as("ticket of a job", first.connect_url.rsplit('/').next().unwrap());
        let again = f.jobs().create_job(request).await.unwrap().into_inner();
        assert_eq!((again.job.unwrap().id, again.connect_url), (first.job.unwrap().id, first.connect_url));
        assert_eq!(f.list(pb::ListJobsRequest::default()).await.len(), 1);
        f.finish().await;
    }

    async fn a_job_without_an_authorisation_may_name_its_connection(engine: Engine) {
        let f = Farm::new(engine).await;
        let c = f.b.connected().await;
        let app = pb::App { id: c.app_id.clone(), ..Default::default() };
        let account = f.account(&app, "ada").await;
        f.create(pb::NewJob { account_id: account.id.clone(), ..job("connect") }).await;
        let claimed = f.claim().await;
        let mut request = pb::CompleteJobRequest {
            job_id: job_of(&claimed).id.clone(),
            lease_token: claimed.lease_token,
            connection_id: tokenbroker::model::IdKind::Connection.new_id(),
            ..Default::default()
        };
        assert_refused(f.complete_with(request.clone()).await, Code::NotFound, "CONNECTION_NOT_FOUND");
        request.connection_id.clone_from(&c.id);
        assert_eq!(f.complete_with(request.clone()).await.unwrap().connection_id, c.id);
        assert_eq!(f.account_now(&account.id).await.connection_id, c.id);
        let elsewhere = pb::Account { provider: "github".to_owned(), username: "ada".to_owned(), ..Default::default() };
        let account_id = f.try_account(elsewhere).await.unwrap().id;
        f.create(pb::NewJob { account_id, ..job("connect") }).await;
        let claimed = f.claim().await;
        (request.job_id, request.lease_token) = (job_of(&claimed).id.clone(), claimed.lease_token);
        let refused = f.complete_with(request).await.unwrap_err();
        assert_eq!(violations(&refused), ["connection_id"]);
        assert_eq!(f.told("account.connected").await, ["1 "]);
        f.finish().await;
    }

    async fn a_batch_may_have_links(engine: Engine) {
        let f = Farm::new(engine).await;
        let (_, asked) = set_up(&f).await;
        f.batch("links", vec![asked.clone(), asked]).await;
        for _ in 0..2 {
            let claimed = f.claim().await;
            consent(&claimed.connect_url).await;
            f.becomes(&job_of(&claimed).id, State::Completed).await;
        }
        assert_eq!(f.batch_finishes("links").await.counts.unwrap().completed, 2);
        f.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_callback_at_one_server_completes_the_job_of_another() {
    let f = Farm::new(Engine::Postgres).await;
    let other = f.replica("b").await;
    let (_, asked) = set_up(&f).await;
    let job = f.create(asked).await;
    let claimed = other.claim().await;
    let page = consent(&claimed.connect_url).await;
    assert_eq!(page.status, 200, "{}", page.body);
    other.becomes(&job.id, State::Completed).await;
    other.finish().await;
    f.finish().await;
}
