//! The audit trail on the wire.

use std::sync::Arc;

use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Context;
use crate::access::audit::{Delivery, Fault, Filter, NOTE_MAX, Stretch, Verification, Who};
use crate::access::{Caller, Permission};
use crate::error::Error;
use crate::grpc::caller::principal;
use crate::grpc::convert;
use crate::grpc::fields::{Fields, NAME_MAX};
use crate::grpc::page::Page;
use crate::grpc::streams;
use crate::model::{ActorKind, Chained, Checkpoint, Timestamp};
use crate::pb;

/// Longest action, in characters.
const ACTION_MAX: usize = 64;

/// Whoever reads the trail reads all of their tenant's: an entry may tell of any owner, app and
/// provider, and a chain of which some is left out can't be verified.
fn reader<T>(request: &Request<T>) -> Result<Caller, Status> {
    let caller = principal(request)?;
    caller.require_unconstrained(Permission::ReadAudit)?;
    Ok(caller)
}

pub(super) async fn list(
    context: &Context,
    request: Request<pb::ListAuditEventsRequest>,
) -> Result<Response<pb::ListAuditEventsResponse>, Status> {
    let caller = reader(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    action(&mut fields, &request.action);
    fields.text("actor_id", &request.actor_id, NAME_MAX);
    fields.text("resource_id", &request.resource_id, NAME_MAX);
    fields.text("provider", &request.provider, NAME_MAX);
    let start = time(&mut fields, "start_time", request.start_time.as_ref());
    let end = time(&mut fields, "end_time", request.end_time.as_ref());
    fields.finish()?;
    let page = Page::of(
        request.page_size,
        &request.page_token,
        (
            &caller.tenant,
            (&request.action, &request.actor_id, &request.resource_id),
            (&request.provider, request.failed_only),
            (start, end),
        ),
    )?;
    let stretch = stretch(&page)?;
    let filter = Filter {
        action: request.action,
        actor_id: request.actor_id,
        resource_id: request.resource_id,
        provider: request.provider,
        failed_only: request.failed_only,
        start,
        end,
    };
    let (trail, size) = (Arc::clone(&context.trail), page.size);
    let listed = context
        .tasks
        .run(async move {
            let who = Who::from(&caller);
            trail.list(&who, &filter, stretch, size).await
        })
        .await?;
    let next_page_token = listed.rest.map_or_else(String::new, |rest| {
        page.token(&format!("{}-{}", rest.after, rest.until))
    });
    Ok(Response::new(pb::ListAuditEventsResponse {
        events: listed.events.into_iter().map(event).collect(),
        next_page_token,
    }))
}

/// What a page's token says: the rest of the trail that the first page was to go through.
fn stretch(page: &Page) -> Result<Option<Stretch>, Error> {
    if page.after.is_empty() {
        return Ok(None);
    }
    let parsed = page.after.split_once('-').and_then(|(after, until)| {
        Some(Stretch {
            after: after.parse().ok()?,
            until: until.parse().ok()?,
        })
    });
    parsed
        .map(Some)
        .ok_or_else(|| Error::invalid("page_token", "is damaged"))
}

pub(super) async fn watch(
    context: &Context,
    request: Request<pb::WatchAuditEventsRequest>,
) -> Result<Response<super::Watching>, Status> {
    let caller = reader(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    action(&mut fields, &request.action);
    fields.check(
        request.after_position.is_none_or(|after| after >= 0),
        "after_position",
        "must not be negative",
    );
    fields.finish()?;
    let place = context.streams.place(&caller)?;
    let (trail, callers) = (Arc::clone(&context.trail), Arc::clone(&context.callers));
    let watcher = context
        .tasks
        .run(async move {
            trail
                .watch(callers, &caller, request.after_position, request.action)
                .await
        })
        .await?;
    let stream = ReceiverStream::new(watcher).map(|delivery| match delivery {
        Ok(Delivery {
            position,
            event: happened,
        }) => Ok(pb::WatchAuditEventsResponse {
            event: happened.map(event),
            position,
        }),
        Err(error) => Err(Status::from(error)),
    });
    Ok(Response::new(Box::pin(streams::holding(place, stream))))
}

pub(super) async fn verify(
    context: &Context,
    request: Request<pb::VerifyAuditLogRequest>,
) -> Result<Response<pb::VerifyAuditLogResponse>, Status> {
    let caller = reader(&request)?;
    let checkpoint = request.into_inner().checkpoint;
    let mut fields = Fields::new();
    fields.check(
        checkpoint.len() <= NOTE_MAX,
        "checkpoint",
        format!("at most {NOTE_MAX} bytes are allowed"),
    );
    fields.finish()?;
    let trail = Arc::clone(&context.trail);
    // A caller who hangs up needs no answer: dropping the guard ends the verification.
    let stop = tokio_util::sync::CancellationToken::new();
    let _guard = stop.clone().drop_guard();
    let outcome = context
        .tasks
        .run(async move {
            let external = (!checkpoint.is_empty()).then_some(checkpoint.as_str());
            let outcome = trail.verify(external, &stop).await?;
            trail.verified(Who::from(&caller), &outcome).await?;
            Ok(outcome)
        })
        .await?;
    Ok(Response::new(verification(outcome)))
}

fn verification(outcome: Verification) -> pb::VerifyAuditLogResponse {
    pb::VerifyAuditLogResponse {
        intact: outcome.findings.is_empty(),
        findings: outcome
            .findings
            .into_iter()
            .map(|finding| pb::AuditFinding {
                fault: fault(finding.fault).into(),
                position: finding.position,
                event_id: finding.event_id,
                description: finding.description,
            })
            .collect(),
        events_checked: outcome.events_checked,
        checkpoints_checked: outcome.checkpoints_checked,
        first_position: outcome.first_position,
        last_position: outcome.last_position,
        last_hash: outcome.last_hash,
    }
}

pub(super) async fn list_checkpoints(
    context: &Context,
    request: Request<pb::ListAuditCheckpointsRequest>,
) -> Result<Response<pb::ListAuditCheckpointsResponse>, Status> {
    let caller = reader(&request)?;
    let request = request.into_inner();
    let page = Page::of(
        request.page_size,
        &request.page_token,
        (&caller.tenant, "checkpoints"),
    )?;
    let after = if page.after.is_empty() {
        0
    } else {
        page.after
            .parse()
            .map_err(|_| Error::invalid("page_token", "is damaged"))?
    };
    let (trail, limit) = (Arc::clone(&context.trail), page.limit());
    let mut rows = context
        .tasks
        .run(async move {
            trail.read_by(&Who::from(&caller), "checkpoints").await?;
            trail.checkpoints(after, limit).await
        })
        .await?;
    let next_page_token = page.cut(&mut rows, |(row, _)| row.position.to_string());
    Ok(Response::new(pb::ListAuditCheckpointsResponse {
        checkpoints: rows.into_iter().map(checkpoint).collect(),
        next_page_token,
    }))
}

fn checkpoint((row, verifier_key): (Checkpoint, String)) -> pb::AuditCheckpoint {
    pb::AuditCheckpoint {
        position: row.position,
        hash: row.hash,
        create_time: Some(convert::timestamp(row.created_at)),
        note: row.note,
        verifier_key,
    }
}

/// An action, or a group of them: words of the catalogue, so nothing but these characters.
fn action(fields: &mut Fields, value: &str) {
    let name = value.strip_suffix(".*").unwrap_or(value);
    let fine = value.len() <= ACTION_MAX
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'.'))
        && (value.is_empty() || !name.is_empty());
    fields.check(
        fine,
        "action",
        "an action such as `session.created` is needed, or a group such as `session.*`",
    );
}

fn time(
    fields: &mut Fields,
    field: &str,
    value: Option<&prost_types::Timestamp>,
) -> Option<Timestamp> {
    let time = value.and_then(convert::from_timestamp);
    fields.check(
        value.is_some() == time.is_some(),
        field,
        "is no time from the year 1 to 9999",
    );
    time
}

/// An entry on the wire.
fn event(entry: Chained) -> pb::AuditEvent {
    let happened = entry.event;
    pb::AuditEvent {
        id: happened.id,
        position: entry.position.unwrap_or_default(),
        event_time: Some(convert::timestamp(happened.occurred_at)),
        action: happened.action,
        success: happened.success,
        reason: happened.reason,
        actor_kind: actor_kind(&happened.actor_kind).into(),
        actor_id: happened.actor_id,
        resource_kind: happened.resource_kind,
        resource_id: happened.resource_id,
        provider: happened.provider,
        client_ip: happened.ip,
        client_user_agent: happened.user_agent,
        trace_id: happened.trace_id,
        details: happened.details.into_iter().collect(),
        hash: entry.hash.unwrap_or_default(),
        erased: happened.salt.is_none(),
    }
}

/// What somebody wrote into the database in its place is none; verification names it.
fn actor_kind(text: &str) -> pb::ActorKind {
    match ActorKind::parse(text) {
        Some(ActorKind::ApiKey) => pb::ActorKind::ApiKey,
        Some(ActorKind::User) => pb::ActorKind::User,
        Some(ActorKind::Certificate) => pb::ActorKind::Certificate,
        Some(ActorKind::Jwt) => pb::ActorKind::Jwt,
        Some(ActorKind::Browser) => pb::ActorKind::Browser,
        Some(ActorKind::Anonymous) => pb::ActorKind::Anonymous,
        Some(ActorKind::System) => pb::ActorKind::System,
        Some(ActorKind::CommandLine) => pb::ActorKind::CommandLine,
        Some(ActorKind::Client) => pb::ActorKind::Client,
        None => pb::ActorKind::Unspecified,
    }
}

const fn fault(fault: Fault) -> pb::AuditFault {
    match fault {
        Fault::Changed => pb::AuditFault::Changed,
        Fault::Removed => pb::AuditFault::Removed,
        Fault::Reordered => pb::AuditFault::Reordered,
        Fault::Truncated => pb::AuditFault::Truncated,
        Fault::Checkpoint => pb::AuditFault::Checkpoint,
        Fault::Unchained => pb::AuditFault::Unchained,
    }
}
