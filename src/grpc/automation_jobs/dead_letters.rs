//! Jobs that failed for good.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::jobs::listed;
use super::wire::{KIND_MAX, REASON_MAX, given};
use super::{Answer, Context, unconstrained};
use crate::access::{Caller, Permission};
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
        states: vec![JobState::Failed],
        kind: given(kind),
        reason: given(reason),
        ..JobFilter::default()
    };
    let (jobs, next_page_token) = listed(context, caller, filter, &page).await?;
    Ok(Response::new(pb::ListDeadLettersResponse {
        jobs,
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
    let work = context.clone();
    let redriven = dead(context, (job_ids, kind, reason), |filter| async move {
        let begun = work.redrive_ended(&caller, &filter).await?;
        work.automation.redrive(&caller, &filter, begun).await
    });
    let redriven_count = redriven.await?;
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
    let automation = Arc::clone(&context.automation);
    let purged = dead(context, (job_ids, kind, reason), |filter| async move {
        automation.purge(&caller, &filter).await
    });
    let purged_count = purged.await?;
    Ok(Response::new(pb::PurgeDeadLettersResponse { purged_count }))
}

/// Does something to the dead letters that a request means, by their ids, kind and reason; to how many.
async fn dead<W>(
    context: &Context,
    (ids, kind, reason): (Vec<String>, String, String),
    work: impl FnOnce(DeadFilter) -> W,
) -> Result<i64, Status>
where
    W: Future<Output = Result<i64, Error>> + Send + 'static,
{
    let mut fields = Fields::new();
    let few = ids.len() <= NAMED_MAX;
    fields.check(few, "job_ids", format!("at most {NAMED_MAX} are allowed"));
    for (index, id) in ids.iter().take(NAMED_MAX).enumerate() {
        fields.id(&format!("job_ids[{index}]"), id, IdKind::Job);
    }
    fields.text("kind", &kind, KIND_MAX);
    fields.text("reason", &reason, REASON_MAX);
    fields.finish()?;
    let filter = DeadFilter {
        batch_id: None,
        ids,
        kind: given(kind),
        reason: given(reason),
    };
    Ok(context.tasks.run(work(filter)).await?)
}

impl Context {
    /// Begins those dead letters again, each with a new authorisation, whose own has ended; how many that
    /// were. They go before the others: whoever may not start such is refused before any is begun.
    pub(super) async fn redrive_ended(
        &self,
        caller: &Caller,
        filter: &DeadFilter,
    ) -> Result<i64, Error> {
        let automation = &self.automation;
        let mut after = String::new();
        let mut begun = 0;
        loop {
            let ids = automation.dead_authorized(caller, filter, &after).await?;
            let Some(last) = ids.last() else {
                return Ok(begun);
            };
            after.clone_from(last);
            for id in &ids {
                match self.redrive_one(caller, id, begun).await {
                    Ok(true) => begun += 1,
                    Ok(false) => {}
                    // Its owner has too many that are pending: others may have none.
                    Err(Error::ResourceExhausted { .. }) => {}
                    Err(error) if error.is_refusal() => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// `false`: its authorisation has not ended, so it is one of the others.
    async fn redrive_one(&self, caller: &Caller, id: &str, behind: i64) -> Result<bool, Error> {
        let Some(retry) = self.automation.wants_authorization(caller, id).await? else {
            return Ok(false);
        };
        // Somebody began it again meanwhile, and called it off.
        if retry.job.state != JobState::Failed {
            return Ok(false);
        }
        self.begin_anew(caller, &retry, behind).await?;
        Ok(true)
    }
}
