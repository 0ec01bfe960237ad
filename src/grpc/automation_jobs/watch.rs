//! WatchJobs: what happens to jobs, as it happens.

use std::sync::Arc;

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Answer, Context, Watching, unconstrained, wire};
use crate::access::Permission;
use crate::broker::events::WatchFilter;
use crate::grpc::events::{CURSOR_MAX, names};
use crate::grpc::fields::Fields;
use crate::grpc::streams;
use crate::pb;

const JOBS_MAX: usize = 1_000;
const BATCHES_MAX: usize = 100;
const TYPES_MAX: usize = 32;

pub(super) async fn watch_jobs(
    context: &Context,
    request: Request<pb::WatchJobsRequest>,
) -> Answer<Watching> {
    let caller = unconstrained(&request, Permission::ReadJobs)?;
    let pb::WatchJobsRequest {
        cursor,
        job_ids,
        batch_ids,
        types,
    } = request.into_inner();
    let mut fields = Fields::new();
    fields.text("cursor", &cursor, CURSOR_MAX);
    names(&mut fields, "job_ids", &job_ids, JOBS_MAX, wire::NAME_MAX);
    names(
        &mut fields,
        "batch_ids",
        &batch_ids,
        BATCHES_MAX,
        wire::NAME_MAX,
    );
    let kinds: Option<Vec<_>> = types
        .iter()
        .map(|number| wire::from_kind(*number))
        .collect();
    fields.check(
        kinds.is_some() && types.len() <= TYPES_MAX,
        "types",
        "must name known types of events",
    );
    fields.finish()?;
    let filter = WatchFilter::Jobs {
        jobs: job_ids.into_iter().collect(),
        batches: batch_ids.into_iter().collect(),
        kinds: kinds.unwrap_or_default(),
    };
    let place = context.streams.place(&caller)?;
    let hub = Arc::clone(&context.hub);
    let principal = Arc::clone(caller.principal());
    let watcher = context
        .tasks
        .run(async move { hub.watch(principal, &cursor, filter).await })
        .await?;
    let stream = ReceiverStream::new(watcher).map(|delivery| {
        let message = delivery.map(|delivery| pb::WatchJobsResponse {
            cursor: delivery.cursor,
            event: delivery.event.as_ref().map(wire::event),
        });
        message.map_err(Status::from)
    });
    Ok(Response::new(Box::pin(streams::holding(place, stream))))
}
