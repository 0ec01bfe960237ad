//! Dead letters: what failed for good is kept, begun again, or deleted.

use super::batches::{assert_new_links, linked};
use super::*;

/// A job of this kind that failed for good.
async fn dead(f: &Farm, kind: &str, reason: &str) -> String {
    let made = f.create(job(kind)).await;
    let claimed = f.claims(ask_for(kind)).await.remove(0);
    let request = pb::FailJobRequest {
        job_id: made.id.clone(),
        lease_token: claimed.lease_token,
        reason: reason.to_owned(),
        permanent: true,
        ..Default::default()
    };
    f.fail_with(request).await.unwrap();
    made.id
}

async fn listed(f: &Farm, request: pb::ListDeadLettersRequest) -> Vec<String> {
    let listed = f.jobs().list_dead_letters(request).await.unwrap();
    listed
        .into_inner()
        .jobs
        .into_iter()
        .map(|job| job.id)
        .collect()
}

async fn redrive(f: &Farm, request: pb::RedriveDeadLettersRequest) -> i64 {
    let answer = f.jobs().redrive_dead_letters(request).await.unwrap();
    answer.into_inner().redriven_count
}

async fn purge(f: &Farm, request: pb::PurgeDeadLettersRequest) -> i64 {
    let answer = f.jobs().purge_dead_letters(request).await.unwrap();
    answer.into_inner().purged_count
}

on_both_engines! {
    async fn they_are_listed_by_kind_and_reason(engine: Engine) {
        let f = Farm::new(engine).await;
        let one = dead(&f, "connect", "LOCKED").await;
        let two = dead(&f, "connect", "NO_SUCH_PAGE").await;
        let three = dead(&f, "refresh", "LOCKED").await;
        f.create(job("connect")).await;
        assert_eq!(listed(&f, pb::ListDeadLettersRequest::default()).await, [one.clone(), two.clone(), three.clone()]);
        let connects = pb::ListDeadLettersRequest { kind: "connect".to_owned(), ..Default::default() };
        assert_eq!(listed(&f, connects).await, [one.clone(), two]);
        let locked = pb::ListDeadLettersRequest { reason: "LOCKED".to_owned(), ..Default::default() };
        assert_eq!(listed(&f, locked.clone()).await, [one.clone(), three]);
        let both = pb::ListDeadLettersRequest { kind: "connect".to_owned(), ..locked };
        assert_eq!(listed(&f, both).await, [one]);
        f.finish().await;
    }

    async fn they_are_listed_in_pages(engine: Engine) {
        let f = Farm::new(engine).await;
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(dead(&f, "connect", "LOCKED").await);
        }
        let mut request = pb::ListDeadLettersRequest { page_size: 2, kind: "connect".to_owned(), ..Default::default() };
        let first = f.jobs().list_dead_letters(request.clone()).await.unwrap().into_inner();
        request.page_token.clone_from(&first.next_page_token);
        let last = f.jobs().list_dead_letters(request.clone()).await.unwrap().into_inner();
        assert_eq!((first.jobs.len(), last.jobs.len(), last.next_page_token.as_str()), (2, 1, ""));
        let listed: Vec<_> = first.jobs.into_iter().chain(last.jobs).map(|job| job.id).collect();
        assert_eq!(listed, all);
        request.kind = "refresh".to_owned();
        let refused = f.jobs().list_dead_letters(request).await.unwrap_err();
        assert_eq!(violations(&refused), ["page_token"]);
        f.finish().await;
    }

    async fn those_with_a_link_are_begun_again_with_a_new_one(engine: Engine) {
        let f = Farm::new(engine).await;
        let asked = linked(&f).await;
        for asked in [asked.clone(), asked, job("plain")] {
            f.create(asked).await;
        }
        let before = f.claims(pb::ClaimJobsRequest { max_jobs: 2, ..ask_for("connect") }).await;
        for claimed in &before {
            f.fail(claimed, true).await.unwrap();
        }
        f.fail(&f.claim().await, true).await.unwrap();
        let plain = f.b.caller(Role::Consumer, Constraints::default()).await;
        let all = pb::RedriveDeadLettersRequest::default();
        let refused = plain.automation.clone().redrive_dead_letters(all.clone()).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_DENIED");
        let others = pb::RedriveDeadLettersRequest { kind: "plain".to_owned(), ..Default::default() };
        let redriven = plain.automation.clone().redrive_dead_letters(others).await.unwrap();
        assert_eq!(redriven.into_inner().redriven_count, 1);
        f.complete(&f.claim().await).await.unwrap();
        assert_eq!(redrive(&f, all).await, 2);
        assert_new_links(&f, &before).await;
        f.finish().await;
    }

    async fn one_whose_profile_is_gone_stays(engine: Engine) {
        let f = Farm::new(engine).await;
        let made = f.try_profile(profile("browser-1", "")).await.unwrap();
        let job = f.create(pb::NewJob { profile: "browser-1".to_owned(), ..job("connect") }).await;
        f.fail(&f.claim().await, true).await.unwrap();
        let delete = pb::DeleteProfileRequest { profile_id: made.id, ..Default::default() };
        f.jobs().delete_profile(delete).await.unwrap();
        assert_refused(f.retry(&job.id).await, Code::NotFound, "PROFILE_NOT_FOUND");
        assert_eq!(redrive(&f, pb::RedriveDeadLettersRequest::default()).await, 0);
        assert_eq!(f.job(&job.id).await.state(), State::Failed);
        f.finish().await;
    }

    async fn they_are_begun_again(engine: Engine) {
        let f = Farm::new(engine).await;
        let one = dead(&f, "connect", "LOCKED").await;
        let two = dead(&f, "connect", "NO_SUCH_PAGE").await;
        let three = dead(&f, "refresh", "LOCKED").await;
        let by_id = pb::RedriveDeadLettersRequest { job_ids: vec![one.clone(), three.clone()], kind: "connect".to_owned(), ..Default::default() };
        assert_eq!(redrive(&f, by_id.clone()).await, 1);
        assert_eq!(redrive(&f, by_id).await, 0);
        let again = f.job(&one).await;
        assert_eq!((again.state(), again.attempt, again.finish_time), (State::Pending, 0, None));
        assert_eq!(redrive(&f, pb::RedriveDeadLettersRequest::default()).await, 2);
        assert_eq!(ids(&f.claims(ask(5)).await), [one, two, three]);
        assert!(f.dead_letters().await.is_empty());
        assert_eq!(f.told("dead_letters.redriven").await.len(), 2);
        f.finish().await;
    }

    async fn they_are_deleted(engine: Engine) {
        let f = Farm::new(engine).await;
        let one = dead(&f, "connect", "LOCKED").await;
        dead(&f, "connect", "NO_SUCH_PAGE").await;
        let alive = f.create(job("connect")).await;
        let by_id = pb::PurgeDeadLettersRequest { job_ids: vec![one.clone(), alive.id.clone()], ..Default::default() };
        assert_eq!(purge(&f, by_id).await, 1);
        let gone = pb::GetJobRequest { job_id: one };
        assert_refused(f.jobs().get_job(gone).await, Code::NotFound, "JOB_NOT_FOUND");
        assert_eq!(purge(&f, pb::PurgeDeadLettersRequest::default()).await, 1);
        assert_eq!(f.job(&alive.id).await.state(), State::Pending);
        f.finish().await;
    }

    async fn those_of_a_batch_stay_with_it(engine: Engine) {
        let f = Farm::new(engine).await;
        f.batch("two", jobs("connect", 2)).await;
        for claimed in f.claims(ask(2)).await {
            f.fail(&claimed, true).await.unwrap();
        }
        f.batch_finishes("two").await;
        assert_eq!(purge(&f, pb::PurgeDeadLettersRequest::default()).await, 0);
        assert_eq!(f.batch_now("two").await.counts.unwrap().failed, 2);
        assert_eq!(redrive(&f, pb::RedriveDeadLettersRequest::default()).await, 2);
        let begun = f.batch_now("two").await;
        assert_eq!((begun.counts.unwrap().pending, begun.finish_time), (2, None));
        f.finish().await;
    }

    async fn another_tenants_are_left_alone(engine: Engine) {
        let f = Farm::new(engine).await;
        let one = dead(&f, "connect", "LOCKED").await;
        let mut acme = f.b.caller_in("acme", Role::Admin, Constraints::default()).await.automation;
        for job_ids in [vec![], vec![one.clone()]] {
            let again = pb::RedriveDeadLettersRequest { job_ids: job_ids.clone(), ..Default::default() };
            assert_eq!(acme.redrive_dead_letters(again).await.unwrap().into_inner().redriven_count, 0);
            let delete = pb::PurgeDeadLettersRequest { job_ids, ..Default::default() };
            assert_eq!(acme.purge_dead_letters(delete).await.unwrap().into_inner().purged_count, 0);
        }
        assert_eq!(f.job(&one).await.state(), State::Failed);
        f.finish().await;
    }
}
