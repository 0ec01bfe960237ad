//! A person's data on the wire.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::Context;
use crate::broker::persons::Subject;
use crate::error::Error;
use crate::grpc::caller::principal;
use crate::grpc::convert::structure;
use crate::grpc::fields::{Fields, NAME_MAX};
use crate::model::IdKind;
use crate::pb;
use crate::pb::{erase_person_request, export_person_request};

pub(super) async fn export(
    context: &Context,
    request: Request<pb::ExportPersonRequest>,
) -> Result<Response<pb::ExportPersonResponse>, Status> {
    let caller = principal(&request)?;
    let subject = subject(request.into_inner().person.map(|person| match person {
        export_person_request::Person::UserId(id) => Subject::User(id),
        export_person_request::Person::Owner(owner) => Subject::Owner(owner),
    }))?;
    let persons = Arc::clone(&context.persons);
    let document = context
        .tasks
        .run(async move { persons.export(&caller, &subject).await })
        .await?;
    Ok(Response::new(pb::ExportPersonResponse {
        document: Some(structure(&document)),
    }))
}

pub(super) async fn erase(
    context: &Context,
    request: Request<pb::ErasePersonRequest>,
) -> Result<Response<pb::ErasePersonResponse>, Status> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let subject = subject(request.person.map(|person| match person {
        erase_person_request::Person::UserId(id) => Subject::User(id),
        erase_person_request::Person::Owner(owner) => Subject::Owner(owner),
    }))?;
    let validate_only = request.validate_only;
    let persons = Arc::clone(&context.persons);
    let erased = context
        .tasks
        .run(async move { persons.erase(&caller, &subject, validate_only).await })
        .await?;
    let number = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
    Ok(Response::new(pb::ErasePersonResponse {
        connections: number(erased.connections),
        unrevoked_at_provider: number(erased.unrevoked),
        sessions: number(erased.sessions),
        log_rows: number(erased.log_rows),
        user: erased.user,
    }))
}

/// Who is meant, judged.
fn subject(wanted: Option<Subject>) -> Result<Subject, Error> {
    let mut fields = Fields::new();
    match &wanted {
        Some(Subject::User(id)) => fields.id("user_id", id, IdKind::User),
        Some(Subject::Owner(owner)) => fields.required("owner", owner, NAME_MAX),
        None => fields.check(false, "person", "a user's id or an owner is required"),
    }
    fields.finish()?;
    wanted.ok_or_else(|| Error::invalid("person", "is required"))
}
