//! Jobs: asking for one, looking at them, calling one off, beginning one again.

use std::sync::Arc;

use secrecy::SecretString;
use tonic::{Request, Response};

use super::asked::{self, Asked};
use super::wire::{self, KIND_MAX, NAME_MAX, from_states, given};
use super::{Answer, Context, unconstrained};
use crate::access::requests::Once;
use crate::access::{Caller, Permission};
use crate::automation::JobFilter;
use crate::error::Error;
use crate::grpc::connections::checked;
use crate::grpc::convert::shown;
use crate::grpc::fields::Fields;
use crate::grpc::page::Page;
use crate::model::Job;
use crate::pb;

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
    let job = context
        .tasks
        .run(async move { automation.get_job(&caller, &id).await })
        .await?;
    let job = Some(wire::job(&job));
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
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.text("batch_id", &batch_id, NAME_MAX);
    fields.text("kind", &kind, KIND_MAX);
    let wanted = from_states(&mut fields, "states", &states);
    let bound_to = ("ListJobs", &batch_id, &states, &kind);
    let page = Page::of(page_size, &page_token, bound_to);
    let page = checked(fields, page)?;
    let filter = JobFilter {
        batch_id: given(batch_id),
        states: wanted,
        kind: given(kind),
        reason: None,
    };
    let automation = Arc::clone(&context.automation);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = context
        .tasks
        .run(async move { automation.list_jobs(&caller, &filter, &after, limit).await })
        .await?;
    let next_page_token = page.cut(&mut found, |job| job.id.clone());
    Ok(Response::new(pb::ListJobsResponse {
        jobs: found.iter().map(wire::job).collect(),
        next_page_token,
    }))
}

pub(super) async fn cancel_job(
    context: &Context,
    request: Request<pb::CancelJobRequest>,
) -> Answer<pb::CancelJobResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let id = wire::job_id(request.into_inner().job_id)?;
    let automation = Arc::clone(&context.automation);
    let job = context
        .tasks
        .run(async move { automation.cancel_job(&caller, &id).await })
        .await?;
    let job = Some(wire::job(&job));
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
        .run(async move {
            let wanted = work.automation.wants_authorization(&caller, &id).await?;
            let authorized = match &wanted {
                Some(retry) => {
                    let again = work.authorize_again(&caller, &retry.job, &retry.authorization);
                    Some(again.await?)
                }
                None => None,
            };
            let link = authorized.as_ref().map(|it| it.connect_url.clone());
            let job = work.automation.retry_job(&caller, &id, authorized).await?;
            Ok((job, link))
        })
        .await?;
    Ok(Response::new(pb::RetryJobResponse {
        job: Some(wire::job(&job)),
        connect_url: shown(link.as_ref()),
    }))
}
