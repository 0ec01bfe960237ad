//! Batches: many jobs asked for at once.

use std::collections::HashSet;
use std::sync::Arc;

use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::asked::{self, Asked};
use super::wire::{self, NAME_MAX, given};
use super::{Answer, Context, unconstrained};
use crate::access::requests::fingerprint;
use crate::access::{Caller, Permission};
use crate::automation::{Authorized, DeadFilter, NewBatch, NewJob};
use crate::error::Error;
use crate::grpc::fields::Fields;
use crate::grpc::page::Page;
use crate::model::{Batch, JobCounts};
use crate::pb;

/// Largest page: the jobs of each batch are counted.
const PAGE_MAX: i32 = 100;
/// Most jobs of a batch.
const JOBS_MAX: usize = 20_000;
/// Most jobs of a batch that have an authorisation: each takes a transaction of its own.
const AUTHORIZED_MAX: usize = 1_000;
/// Largest batch as it is sent, in bytes: it is in memory as a whole.
const BYTES_MAX: usize = 64 << 20;

pub(super) async fn create_batch(
    context: &Context,
    request: Request<Streaming<pb::CreateBatchRequest>>,
) -> Answer<pb::CreateBatchResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let (batch, jobs) = read(request.into_inner()).await?;
    let work = context.clone();
    let (batch, counts) = context
        .tasks
        .run(async move { work.create_all(&caller, batch, jobs).await })
        .await?;
    Ok(Response::new(pb::CreateBatchResponse {
        batch: Some(wire::batch(&batch, &counts)),
    }))
}

/// Everything that is sent, judged.
async fn read(
    mut messages: Streaming<pb::CreateBatchRequest>,
) -> Result<(NewBatch, Vec<Asked>), Status> {
    let mut fields = Fields::new();
    let mut head = None;
    let mut jobs: Vec<Asked> = Vec::new();
    let mut bytes = 0;
    while let Some(message) = messages.message().await? {
        bytes += message.encoded_len();
        // At once, since the rest would be taken into memory too.
        let many = jobs.len() + message.jobs.len() > JOBS_MAX;
        if many || bytes > BYTES_MAX {
            let most = format!("at most {JOBS_MAX} jobs of {BYTES_MAX} bytes in all are allowed");
            return Err(Error::invalid("jobs", most).into());
        }
        let first = head.is_none();
        let named = !message.batch_id.is_empty() || !message.display_name.is_empty();
        fields.check(
            first || !named,
            "batch_id",
            "and `display_name` belong into the first message only",
        );
        head.get_or_insert((message.batch_id, message.display_name));
        for job in message.jobs {
            let field = format!("jobs[{}]", jobs.len());
            jobs.push(asked::new_job(&mut fields, field, job));
        }
    }
    let (id, display_name) = head.unwrap_or_default();
    fields.text("batch_id", &id, NAME_MAX);
    fields.text("display_name", &display_name, NAME_MAX);
    fields.check(!jobs.is_empty(), "jobs", "is required");
    let authorized = jobs.iter().filter(|it| it.authorization.is_some()).count();
    fields.check(
        authorized <= AUTHORIZED_MAX,
        "jobs",
        format!("at most {AUTHORIZED_MAX} may have an authorization"),
    );
    fields.finish()?;
    let batch = NewBatch {
        fingerprint: of_all(&display_name, &jobs),
        id: given(id),
        display_name,
    };
    Ok((batch, jobs))
}

/// Names what was asked for, however it was cut into messages.
fn of_all(display_name: &str, jobs: &[Asked]) -> [u8; 32] {
    let mut all = fingerprint(display_name.as_bytes()).to_vec();
    all.extend(jobs.iter().flat_map(|asked| asked.fingerprint));
    fingerprint(&all)
}

impl Context {
    async fn create_all(
        &self,
        caller: &Caller,
        batch: NewBatch,
        asked: Vec<Asked>,
    ) -> Result<(Batch, JobCounts), Error> {
        let starts = asked.iter().any(|it| it.authorization.is_some());
        // Before authorisations are started a second time.
        if starts && let Some(before) = self.automation.replayed_batch(caller, &batch).await? {
            return Ok(before);
        }
        let mut started: Vec<Option<Authorized>> = Vec::new();
        let mut keys = HashSet::new();
        for one in &asked {
            let key = one.job.unique_key.as_deref();
            // The others of its key are left out.
            let first = key.is_none_or(|key| keys.insert(key));
            let authorized = match first {
                true => self.authorize_one(caller, one).await,
                false => Ok(None),
            };
            match authorized {
                Ok(authorized) => started.push(authorized),
                Err(error) => {
                    let ids = started.into_iter().flatten().map(|it| it.authorization_id);
                    let ids = Vec::from_iter(ids);
                    self.automation.call_off_all(caller, &ids).await?;
                    return Err(error);
                }
            }
        }
        let jobs: Vec<(NewJob, Option<Authorized>)> =
            asked.into_iter().map(|it| it.job).zip(started).collect();
        self.automation.create_batch(caller, batch, jobs).await
    }

    /// `None` where there is nothing to start: another job has the unique key, so this one is left out.
    async fn authorize_one(
        &self,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Option<Authorized>, Error> {
        let Some(wanted) = &asked.authorization else {
            return Ok(None);
        };
        let checked = match self.automation.check_job(caller, &asked.job).await {
            Err(Error::AlreadyExists { .. }) => return Ok(None),
            checked => checked?,
        };
        Ok(Some(self.authorize(caller, asked, wanted, &checked).await?))
    }
}

pub(super) async fn get_batch(
    context: &Context,
    request: Request<pb::GetBatchRequest>,
) -> Answer<pb::GetBatchResponse> {
    let caller = unconstrained(&request, Permission::ReadJobs)?;
    let id = wire::batch_id(request.into_inner().batch_id)?;
    let automation = Arc::clone(&context.automation);
    let (batch, counts) = context
        .tasks
        .run(async move { automation.get_batch(&caller, &id).await })
        .await?;
    let batch = Some(wire::batch(&batch, &counts));
    Ok(Response::new(pb::GetBatchResponse { batch }))
}

pub(super) async fn list_batches(
    context: &Context,
    request: Request<pb::ListBatchesRequest>,
) -> Answer<pb::ListBatchesResponse> {
    let caller = unconstrained(&request, Permission::ReadJobs)?;
    let pb::ListBatchesRequest {
        page_size,
        page_token,
    } = request.into_inner();
    let page = Page::at_most(PAGE_MAX, page_size, &page_token, "ListBatches")?;
    let automation = Arc::clone(&context.automation);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = context
        .tasks
        .run(async move { automation.list_batches(&caller, &after, limit).await })
        .await?;
    let next_page_token = page.cut(&mut found, |(batch, _)| batch.id.clone());
    Ok(Response::new(pb::ListBatchesResponse {
        batches: found
            .iter()
            .map(|(it, counts)| wire::batch(it, counts))
            .collect(),
        next_page_token,
    }))
}

pub(super) async fn cancel_batch(
    context: &Context,
    request: Request<pb::CancelBatchRequest>,
) -> Answer<pb::CancelBatchResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let id = wire::batch_id(request.into_inner().batch_id)?;
    let automation = Arc::clone(&context.automation);
    let (batch, counts) = context
        .tasks
        .run(async move { automation.cancel_batch(&caller, &id).await })
        .await?;
    let batch = Some(wire::batch(&batch, &counts));
    Ok(Response::new(pb::CancelBatchResponse { batch }))
}

pub(super) async fn retry_batch(
    context: &Context,
    request: Request<pb::RetryBatchRequest>,
) -> Answer<pb::RetryBatchResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let id = wire::batch_id(request.into_inner().batch_id)?;
    let work = context.clone();
    let (batch, counts, retried_count) = context
        .tasks
        .run(async move {
            let failed = DeadFilter::of_batch(&id);
            let begun = work.redrive_ended(&caller, &failed).await?;
            work.automation.retry_batch(&caller, &id, begun).await
        })
        .await?;
    Ok(Response::new(pb::RetryBatchResponse {
        batch: Some(wire::batch(&batch, &counts)),
        retried_count,
    }))
}
