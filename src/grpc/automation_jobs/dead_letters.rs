//! Jobs that failed for good.

use std::sync::Arc;

use tonic::{Request, Response};

use super::wire::{self, KIND_MAX, REASON_MAX, given};
use super::{Answer, Context, unconstrained};
use crate::access::Permission;
use crate::automation::{DeadFilter, JobFilter};
use crate::error::Error;
use crate::grpc::connections::checked;
use crate::grpc::fields::Fields;
use crate::grpc::page::Page;
use crate::model::{IdKind, JobState};
use crate::pb;

/// Most jobs that a request names.
const NAMED_MAX: usize = 1_000;

pub(super) async fn list_dead_letters(
    context: &Context,
    request: Request<pb::ListDeadLettersRequest>,
) -> Answer<pb::ListDeadLettersResponse> {
    let caller = unconstrained(&request, Permission::ReadJobs)?;
    let pb::ListDeadLettersRequest {
        page_size,
        page_token,
        kind,
        reason,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.text("kind", &kind, KIND_MAX);
    fields.text("reason", &reason, REASON_MAX);
    let page = Page::of(page_size, &page_token, ("ListDeadLetters", &kind, &reason));
    let page = checked(fields, page)?;
    let filter = JobFilter {
        batch_id: None,
        states: vec![JobState::Failed],
        kind: given(kind),
        reason: given(reason),
    };
    let automation = Arc::clone(&context.automation);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = context
        .tasks
        .run(async move { automation.list_jobs(&caller, &filter, &after, limit).await })
        .await?;
    let next_page_token = page.cut(&mut found, |job| job.id.clone());
    Ok(Response::new(pb::ListDeadLettersResponse {
        jobs: found.iter().map(wire::job).collect(),
        next_page_token,
    }))
}

pub(super) async fn redrive_dead_letters(
    context: &Context,
    request: Request<pb::RedriveDeadLettersRequest>,
) -> Answer<pb::RedriveDeadLettersResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let pb::RedriveDeadLettersRequest {
        job_ids,
        kind,
        reason,
    } = request.into_inner();
    let filter = dead(job_ids, kind, reason)?;
    let automation = Arc::clone(&context.automation);
    let redriven_count = context
        .tasks
        .run(async move { automation.redrive(&caller, &filter).await })
        .await?;
    Ok(Response::new(pb::RedriveDeadLettersResponse {
        redriven_count,
    }))
}

pub(super) async fn purge_dead_letters(
    context: &Context,
    request: Request<pb::PurgeDeadLettersRequest>,
) -> Answer<pb::PurgeDeadLettersResponse> {
    let caller = unconstrained(&request, Permission::WriteJobs)?;
    let pb::PurgeDeadLettersRequest {
        job_ids,
        kind,
        reason,
    } = request.into_inner();
    let filter = dead(job_ids, kind, reason)?;
    let automation = Arc::clone(&context.automation);
    let purged_count = context
        .tasks
        .run(async move { automation.purge(&caller, &filter).await })
        .await?;
    Ok(Response::new(pb::PurgeDeadLettersResponse { purged_count }))
}

/// Which dead letters are meant.
fn dead(ids: Vec<String>, kind: String, reason: String) -> Result<DeadFilter, Error> {
    let mut fields = Fields::new();
    let few = ids.len() <= NAMED_MAX;
    fields.check(few, "job_ids", format!("at most {NAMED_MAX} are allowed"));
    for (index, id) in ids.iter().take(NAMED_MAX).enumerate() {
        fields.id(&format!("job_ids[{index}]"), id, IdKind::Job);
    }
    fields.text("kind", &kind, KIND_MAX);
    fields.text("reason", &reason, REASON_MAX);
    fields.finish()?;
    Ok(DeadFilter {
        ids,
        kind: given(kind),
        reason: given(reason),
    })
}
