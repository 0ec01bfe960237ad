//! Jobs: asking for one, looking at them, calling one off, beginning one again.

use std::sync::Arc;

use prost::Message as _;
use secrecy::SecretString;
use tonic::{Request, Response, Status};

use super::asked::{self, Asked};
use super::wire::{self, KIND_MAX, NAME_MAX, from_states, given};
use super::{Answer, Context, unconstrained};
use crate::access::requests::Once;
use crate::access::{Caller, Permission};
use crate::automation::{JobFilter, Retry};
use crate::error::Error;
use crate::grpc::connections::checked;
use crate::grpc::convert::shown;
use crate::grpc::fields::Fields;
use crate::grpc::page::{Page, ROOM};
use crate::model::{IdKind, Job};
use crate::pb;

/// Most jobs that are read at once for a page.
const STEP: i64 = 100;

/// A job that was made, and its link.
type Made = (Job, Option<SecretString>);

pub(super) async fn create_job(
    context: &Context,
    request: Request<pb::CreateJobRequest>,
) -> Answer<pb::CreateJobResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let pb::CreateJobRequest { job, request_id } = request.into_inner();
    let mut fields = Fields::new();
    fields.request_id(&request_id);
    fields.check(job.is_some(), "job", "is required");
    let asked = asked::new_job(&mut fields, "job".to_owned(), job.unwrap_or_default());
    fields.finish()?;
    let work = context.clone();
    let (job, link) = context
        .tasks
        .run(async move { work.create(&caller, asked, &request_id).await })
        .await?;
    Ok(Response::new(pb::CreateJobResponse {
        job: Some(wire::job(&job)),
        connect_url: shown(link.as_ref()),
    }))
}

impl Context {
    async fn create(&self, caller: &Caller, asked: Asked, request_id: &str) -> Result<Made, Error> {
        let automation = &self.automation;
        let message = asked.fingerprint;
        let once = Once::of(&caller.tenant, "CreateJob", request_id, &message);
        // Before an authorisation is started a second time.
        if let Some(before) = self.before(caller, once.as_ref()).await? {
            return Ok(before);
        }
        let checked = match automation.check_job(caller, &asked.job).await {
            // The same request, sent again meanwhile, may have the unique key.
            Err(taken @ Error::AlreadyExists { .. }) => {
                return self.before(caller, once.as_ref()).await?.ok_or(taken);
            }
            checked => checked?,
        };
        let authorized = match &asked.authorization {
            Some(wanted) => Some(self.authorize(caller, &asked, wanted, &checked).await?),
            None => None,
        };
        automation
            .create_job(caller, asked.job, authorized, once)
            .await
    }

    /// What the same request was answered before.
    async fn before(
        &self,
        caller: &Caller,
        once: Option<&Once<'_>>,
    ) -> Result<Option<Made>, Error> {
        match once {
            Some(once) => self.automation.replayed_job(caller, once).await,
            None => Ok(None),
        }
    }
}

pub(super) async fn get_job(
    context: &Context,
    request: Request<pb::GetJobRequest>,
) -> Answer<pb::GetJobResponse> {
    let caller = unconstrained(&request, Permission::ReadJobs)?;
    let id = wire::job_id(request.into_inner().job_id)?;
    let automation = Arc::clone(&context.automation);
    let job = context.job(async move { automation.get_job(&caller, &id).await });
    let job = job.await?;
    Ok(Response::new(pb::GetJobResponse { job }))
}

pub(super) async fn list_jobs(
    context: &Context,
    request: Request<pb::ListJobsRequest>,
) -> Answer<pb::ListJobsResponse> {
    let caller = unconstrained(&request, Permission::ReadJobs)?;
    let pb::ListJobsRequest {
        page_size,
        page_token,
        batch_id,
        states,
        kind,
        authorization_id,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.text("batch_id", &batch_id, NAME_MAX);
    fields.text("kind", &kind, KIND_MAX);
    let wanted = from_states(&mut fields, "states", &states);
    if !authorization_id.is_empty() {
        fields.id("authorization_id", &authorization_id, IdKind::Authorization);
    }
    let bound_to = ("ListJobs", &batch_id, &states, &kind, &authorization_id);
    let page = Page::of(page_size, &page_token, bound_to);
    let page = checked(fields, page)?;
    let filter = JobFilter {
        batch_id: given(batch_id),
        states: wanted,
        kind: given(kind),
        reason: None,
        authorization_id: given(authorization_id),
    };
    let (jobs, next_page_token) = listed(context, caller, filter, &page).await?;
    Ok(Response::new(pb::ListJobsResponse {
        jobs,
        next_page_token,
    }))
}

/// One page of jobs, and the token of the next one.
pub(super) async fn listed(
    context: &Context,
    caller: Caller,
    filter: JobFilter,
    page: &Page,
) -> Result<(Vec<pb::Job>, String), Status> {
    let automation = Arc::clone(&context.automation);
    let (mut after, limit) = (page.after.clone(), page.limit());
    let listing = async move {
        let (mut jobs, mut left, mut bytes) = (Vec::new(), limit, 0);
        // Page by page: a thousand large ones would take far more memory than the answer has room for.
        while left > 0 && bytes <= ROOM {
            let some = left.min(STEP);
            let found = automation.list_jobs(&caller, &filter, &after, some).await?;
            left = match i64::try_from(found.len()) {
                Ok(found) if found == some => left - found,
                _ => 0,
            };
            if let Some(last) = found.last() {
                after.clone_from(&last.id);
            }
            let found = found.iter().map(wire::job);
            jobs.extend(found.inspect(|job| bytes += job.encoded_len()));
        }
        Ok(jobs)
    };
    let mut jobs: Vec<pb::Job> = context.tasks.run(listing).await?;
    let next_page_token = page.cut_messages(&mut jobs, |job| job.id.clone());
    Ok((jobs, next_page_token))
}

pub(super) async fn cancel_job(
    context: &Context,
    request: Request<pb::CancelJobRequest>,
) -> Answer<pb::CancelJobResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let id = wire::job_id(request.into_inner().job_id)?;
    let automation = Arc::clone(&context.automation);
    let job = context.job(async move { automation.cancel_job(&caller, &id).await });
    let job = job.await?;
    Ok(Response::new(pb::CancelJobResponse { job }))
}

pub(super) async fn retry_job(
    context: &Context,
    request: Request<pb::RetryJobRequest>,
) -> Answer<pb::RetryJobResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let id = wire::job_id(request.into_inner().job_id)?;
    let work = context.clone();
    let (job, link) = context
        .tasks
        .run(async move { work.begin_again(&caller, &id).await })
        .await?;
    Ok(Response::new(pb::RetryJobResponse {
        job: Some(wire::job(&job)),
        connect_url: shown(link.as_ref()),
    }))
}

impl Context {
    /// Begins a job again, with a new authorisation where its own has ended.
    async fn begin_again(&self, caller: &Caller, id: &str) -> Result<Made, Error> {
        match self.automation.wants_authorization(caller, id).await? {
            Some(retry) => self.begin_anew(caller, &retry, 0).await,
            None => Ok((self.automation.retry_job(caller, id, None, 0).await?, None)),
        }
    }

    /// Begins a job again with a new authorisation, behind so many that begin with it.
    pub(super) async fn begin_anew(
        &self,
        caller: &Caller,
        retry: &Retry,
        behind: i64,
    ) -> Result<Made, Error> {
        let Retry { job, authorization } = retry;
        let authorized = self.authorize_again(caller, job, authorization).await?;
        let link = authorized.connect_url.clone();
        let begun = self
            .automation
            .retry_job(caller, &job.id, Some(authorized), behind)
            .await?;
        Ok((begun, Some(link)))
    }
}
