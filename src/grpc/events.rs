//! Token events on the wire.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::caller::principal;
use super::convert;
use super::fields::{CLIENT_ID_MAX, Fields, NAME_MAX};
use super::page::Page;
use super::streams;
use super::token_broker::Context;
use super::tokens::token;
use crate::access::{Caller, Permission, Principal};
use crate::broker::events::{Delivery, Filter, WatchFilter};
use crate::broker::tokens::Tokens;
use crate::error::{Error, Resource};
use crate::model::{Event, EventKind, IdKind};
use crate::pb;

const APPS_MAX: usize = 100;
const FILTER_MAX: usize = 1_000;
/// Longest cursor, in characters.
pub(super) const CURSOR_MAX: usize = 256;

type EventStream = Pin<Box<dyn Stream<Item = Result<pb::WatchTokenEventsResponse, Status>> + Send>>;

pub(super) async fn watch(
    context: &Context,
    request: Request<pb::WatchTokenEventsRequest>,
) -> Result<Response<EventStream>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.text("cursor", &request.cursor, CURSOR_MAX);
    names(&mut fields, "apps", &request.apps, APPS_MAX, CLIENT_ID_MAX);
    names(&mut fields, "owners", &request.owners, FILTER_MAX, NAME_MAX);
    names(
        &mut fields,
        "connection_ids",
        &request.connection_ids,
        FILTER_MAX,
        NAME_MAX,
    );
    let kinds: Vec<_> = request.types.iter().map(|number| kind(*number)).collect();
    fields.check(
        kinds.iter().all(Option::is_some) && kinds.len() <= 32,
        "types",
        "must name known types of events",
    );
    fields.finish()?;
    if request.include_access_tokens {
        principal.require(Permission::ReadTokens)?;
    }
    let registry = Arc::clone(&context.registry);
    let caller = Arc::clone(principal.principal());
    let names = request.apps;
    let apps = context
        .tasks
        .run(async move {
            registry
                .app_ids(&caller, &names, Permission::ReadEvents)
                .await
        })
        .await?;
    let filter = WatchFilter::Tokens {
        apps,
        owners: request.owners.into_iter().collect(),
        connections: request.connection_ids.into_iter().collect(),
        kinds: kinds.into_iter().flatten().collect(),
    };
    let place = context.streams.place(&principal)?;
    let hub = Arc::clone(&context.hub);
    let caller = Arc::clone(principal.principal());
    let watcher = context
        .tasks
        .run(async move { hub.watch(caller, &request.cursor, filter).await })
        .await?;
    let tokens = request
        .include_access_tokens
        .then(|| Arc::clone(&context.tokens));
    let stream = ReceiverStream::new(watcher).then(move |delivery| {
        let (tokens, principal) = (tokens.clone(), principal.clone());
        async move {
            match delivery {
                Ok(delivery) => Ok(response(delivery, tokens.as_deref(), &principal).await),
                Err(error) => Err(Status::from(error)),
            }
        }
    });
    Ok(Response::new(Box::pin(streams::holding(place, stream))))
}

pub(super) fn names(
    fields: &mut Fields,
    field: &str,
    values: &[String],
    most: usize,
    longest: usize,
) {
    fields.check(
        values.len() <= most,
        field,
        format!("at most {most} are allowed"),
    );
    for (index, value) in values.iter().take(most).enumerate() {
        fields.required(&format!("{field}[{index}]"), value, longest);
    }
}

async fn response(
    delivery: Delivery,
    tokens: Option<&Tokens>,
    caller: &Caller,
) -> pb::WatchTokenEventsResponse {
    let mut response = pb::WatchTokenEventsResponse {
        cursor: delivery.cursor,
        event: delivery.event.as_ref().map(event),
    };
    if let (Some(tokens), Some(happened), Some(shown)) =
        (tokens, &delivery.event, &mut response.event)
        && carries_token(happened.event.kind)
    {
        let held = tokens
            .of_generation(caller, &shown.connection_id, shown.generation)
            .await;
        shown.token = held.map(|held| token(&held, false));
    }
    response
}

const fn carries_token(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Created | EventKind::Activated | EventKind::Reconnected | EventKind::Refreshed
    )
}

/// An event on the wire, without its token.
fn event(event: &Event) -> pb::TokenEvent {
    let happened = &event.event;
    pb::TokenEvent {
        id: format!("evt_{}", event.id),
        r#type: wire_kind(happened.kind).into(),
        event_time: Some(convert::timestamp(happened.created_at)),
        connection_id: happened.connection_id.clone().unwrap_or_default(),
        app_id: happened.app_id.clone().unwrap_or_default(),
        owner: happened.owner.clone(),
        provider: happened.provider.clone(),
        generation: happened.generation,
        expire_time: happened.expires_at.map(convert::timestamp),
        reason: happened.reason.clone(),
        token: None,
    }
}

const fn wire_kind(kind: EventKind) -> pb::TokenEventType {
    match kind {
        EventKind::Created => pb::TokenEventType::Created,
        EventKind::Activated => pb::TokenEventType::Activated,
        EventKind::Reconnected => pb::TokenEventType::Reconnected,
        EventKind::Refreshed => pb::TokenEventType::Refreshed,
        EventKind::RefreshFailed => pb::TokenEventType::RefreshFailed,
        EventKind::ReauthorizationRequired => pb::TokenEventType::ReauthorizationRequired,
        EventKind::Revoked => pb::TokenEventType::Revoked,
        EventKind::Deleted => pb::TokenEventType::Deleted,
        EventKind::Expiring => pb::TokenEventType::Expiring,
        EventKind::Updated => pb::TokenEventType::Updated,
        // Never delivered: they are of another topic.
        EventKind::AppChanged
        | EventKind::ProviderChanged
        | EventKind::ApiKeyChanged
        | EventKind::SessionsEnded
        | EventKind::IssuedEnded
        | EventKind::AuthorizationEnded
        | EventKind::JobScheduled
        | EventKind::JobPending
        | EventKind::JobRunning
        | EventKind::JobProgressed
        | EventKind::JobRetryable
        | EventKind::JobSnoozed
        | EventKind::JobCompleted
        | EventKind::JobFailed
        | EventKind::JobCancelled
        | EventKind::JobCancelRequested
        | EventKind::BatchFinished => pb::TokenEventType::Unspecified,
    }
}

fn kind(number: i32) -> Option<EventKind> {
    match pb::TokenEventType::try_from(number).ok()? {
        pb::TokenEventType::Unspecified => None,
        pb::TokenEventType::Created => Some(EventKind::Created),
        pb::TokenEventType::Activated => Some(EventKind::Activated),
        pb::TokenEventType::Reconnected => Some(EventKind::Reconnected),
        pb::TokenEventType::Refreshed => Some(EventKind::Refreshed),
        pb::TokenEventType::RefreshFailed => Some(EventKind::RefreshFailed),
        pb::TokenEventType::ReauthorizationRequired => Some(EventKind::ReauthorizationRequired),
        pb::TokenEventType::Revoked => Some(EventKind::Revoked),
        pb::TokenEventType::Deleted => Some(EventKind::Deleted),
        pb::TokenEventType::Expiring => Some(EventKind::Expiring),
        pb::TokenEventType::Updated => Some(EventKind::Updated),
    }
}

pub(super) async fn list(
    context: &Context,
    request: Request<pb::ListTokenEventsRequest>,
) -> Result<Response<pb::ListTokenEventsResponse>, Status> {
    let principal = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    if !request.connection_id.is_empty() {
        fields.id("connection_id", &request.connection_id, IdKind::Connection);
    }
    fields.text("app", &request.app, CLIENT_ID_MAX);
    fields.text("owner", &request.owner, NAME_MAX);
    fields.finish()?;
    let page = Page::of(
        request.page_size,
        &request.page_token,
        (
            &principal.tenant,
            &request.connection_id,
            &request.app,
            &request.owner,
        ),
    )?;
    let after = if page.after.is_empty() {
        0
    } else {
        page.after
            .parse()
            .map_err(|_| Error::invalid("page_token", "is damaged"))?
    };
    let (registry, hub) = (Arc::clone(&context.registry), Arc::clone(&context.hub));
    let limit = page.limit();
    let mut events = context
        .tasks
        .run(async move {
            let mut filter = Filter {
                connection_id: request.connection_id,
                app_id: String::new(),
                owner: request.owner,
                apps: principal.constraints.apps.clone(),
                providers: principal.constraints.providers.clone(),
                jobs: false,
            };
            if !filter.owner.is_empty() && !principal.allows_owner(&filter.owner) {
                return Err(Error::PermissionDenied(Permission::ReadEvents.name()));
            }
            if !request.app.is_empty() {
                let named = [request.app.clone()];
                let ids: HashSet<String> = registry
                    .app_ids(&principal, &named, Permission::ReadEvents)
                    .await?;
                filter.app_id = ids
                    .into_iter()
                    .next()
                    .ok_or(Error::NotFound(Resource::App, request.app))?;
            }
            read_allowed(&hub, &principal, &filter, after, limit).await
        })
        .await?;
    let next_page_token = page.cut(&mut events, |event| event.position.to_string());
    Ok(Response::new(pb::ListTokenEventsResponse {
        events: events.iter().map(event).collect(),
        next_page_token,
    }))
}

/// Reads on until the page is full: owners by prefix can't be part of the query.
async fn read_allowed(
    hub: &crate::broker::Hub,
    principal: &Principal,
    filter: &Filter,
    mut after: i64,
    limit: i64,
) -> Result<Vec<Event>, Error> {
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut found = Vec::new();
    loop {
        let rows = hub.list(&principal.tenant, filter, after, limit).await?;
        let last = rows.last().map(|event| event.position);
        let short = rows.len() < wanted;
        found.extend(
            rows.into_iter()
                .filter(|event| principal.allows_owner(&event.event.owner)),
        );
        match last {
            Some(last) if found.len() < wanted && !short => after = last,
            _ => return Ok(found),
        }
    }
}
