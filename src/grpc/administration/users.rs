//! Users on the wire.

mod preferences;
mod wire;

use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Request, Response, Status};

pub(super) use preferences::{get as get_preferences, update as update_preferences};

use super::Context;
use crate::access::passwords;
use crate::access::users::{UserFilter, UserName};
use crate::grpc::caller::principal;
use crate::grpc::fields::{Fields, NAME_MAX};
use crate::grpc::page::Page;
use crate::model::{IdKind, UserState};
use crate::pb;

/// Longest text to search for, in characters.
const QUERY_MAX: usize = 128;

pub(super) async fn create(
    context: &Context,
    request: Request<pb::CreateUserRequest>,
) -> Result<Response<pb::CreateUserResponse>, Status> {
    let caller = principal(&request)?;
    let new = wire::new_user(request.into_inner())?;
    let users = context.users.clone();
    let user = context
        .tasks
        .run(async move { users.create(&caller, new).await })
        .await?;
    Ok(Response::new(pb::CreateUserResponse {
        user: Some(wire::user(&user)),
    }))
}

pub(super) async fn get(
    context: &Context,
    request: Request<pb::GetUserRequest>,
) -> Result<Response<pb::GetUserResponse>, Status> {
    let caller = principal(&request)?;
    let pb::GetUserRequest { user_id, email } = request.into_inner();
    let mut fields = Fields::new();
    let name = match (user_id.is_empty(), email.is_empty()) {
        (false, true) => {
            fields.own_or_id("user_id", &user_id);
            UserName::Id(user_id)
        }
        (true, false) => {
            wire::email(&mut fields, "email", &email);
            UserName::Email(email)
        }
        (both_empty, _) => {
            let text = if both_empty {
                "this or `email` is required"
            } else {
                "this or `email` is to be given, not both"
            };
            fields.check(false, "user_id", text);
            wire::bounded(&mut fields, "user_id", &user_id);
            wire::bounded(&mut fields, "email", &email);
            UserName::Id(user_id)
        }
    };
    fields.finish()?;
    let users = context.users.clone();
    let user = context
        .tasks
        .run(async move { users.get(&caller, &name).await })
        .await?;
    Ok(Response::new(pb::GetUserResponse {
        user: Some(wire::user(&user)),
    }))
}

pub(super) async fn list(
    context: &Context,
    request: Request<pb::ListUsersRequest>,
) -> Result<Response<pb::ListUsersResponse>, Status> {
    let caller = principal(&request)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let state = match pb::UserState::try_from(request.state) {
        Ok(pb::UserState::Unspecified) => None,
        Ok(pb::UserState::Active) => Some(UserState::Active),
        Ok(pb::UserState::Inactive) => Some(UserState::Inactive),
        Err(_) => {
            fields.check(false, "state", "is no state of users");
            None
        }
    };
    fields.text("query", &request.query, QUERY_MAX);
    fields.finish()?;
    let bound_to = ("users", request.state, &request.query);
    let page = Page::of(request.page_size, &request.page_token, bound_to)?;
    let filter = UserFilter {
        state,
        query: request.query,
    };
    let (users, after, size) = (context.users.clone(), page.after.clone(), page.size);
    let listed = context
        .tasks
        .run(async move { users.list(&caller, &filter, &after, size).await })
        .await?;
    Ok(Response::new(pb::ListUsersResponse {
        users: listed.users.iter().map(wire::user).collect(),
        next_page_token: listed.next.map_or_else(String::new, |key| page.token(&key)),
    }))
}

pub(super) async fn update(
    context: &Context,
    request: Request<pb::UpdateUserRequest>,
) -> Result<Response<pb::UpdateUserResponse>, Status> {
    let caller = principal(&request)?;
    let wire::Update {
        id,
        version,
        changes,
    } = wire::update(request.into_inner())?;
    let users = context.users.clone();
    let user = context
        .tasks
        .run(async move { users.update(&caller, &id, &changes, version).await })
        .await?;
    Ok(Response::new(pb::UpdateUserResponse {
        user: Some(wire::user(&user)),
    }))
}

pub(super) async fn deactivate(
    context: &Context,
    request: Request<pb::DeactivateUserRequest>,
) -> Result<Response<pb::DeactivateUserResponse>, Status> {
    let caller = principal(&request)?;
    let pb::DeactivateUserRequest { user_id, reason } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("user_id", &user_id, IdKind::User);
    fields.text("reason", &reason, NAME_MAX);
    fields.finish()?;
    let users = context.users.clone();
    let user = context
        .tasks
        .run(async move { users.deactivate(&caller, &user_id, &reason).await })
        .await?;
    Ok(Response::new(pb::DeactivateUserResponse {
        user: Some(wire::user(&user)),
    }))
}

pub(super) async fn reactivate(
    context: &Context,
    request: Request<pb::ReactivateUserRequest>,
) -> Result<Response<pb::ReactivateUserResponse>, Status> {
    let caller = principal(&request)?;
    let user_id = request.into_inner().user_id;
    let mut fields = Fields::new();
    fields.id("user_id", &user_id, IdKind::User);
    fields.finish()?;
    let users = context.users.clone();
    let user = context
        .tasks
        .run(async move { users.reactivate(&caller, &user_id).await })
        .await?;
    Ok(Response::new(pb::ReactivateUserResponse {
        user: Some(wire::user(&user)),
    }))
}

pub(super) async fn delete(
    context: &Context,
    request: Request<pb::DeleteUserRequest>,
) -> Result<Response<pb::DeleteUserResponse>, Status> {
    let caller = principal(&request)?;
    let pb::DeleteUserRequest { user_id, etag } = request.into_inner();
    let mut fields = Fields::new();
    fields.id("user_id", &user_id, IdKind::User);
    let version = wire::version(&mut fields, "etag", &etag);
    fields.finish()?;
    let users = context.users.clone();
    context
        .tasks
        .run(async move { users.delete(&caller, &user_id, version).await })
        .await?;
    Ok(Response::new(pb::DeleteUserResponse {}))
}

pub(super) async fn set_password(
    context: &Context,
    request: Request<pb::SetPasswordRequest>,
) -> Result<Response<pb::SetPasswordResponse>, Status> {
    let caller = principal(&request)?;
    let pb::SetPasswordRequest {
        user_id,
        current_password,
        new_password,
    } = request.into_inner();
    let (current, new) = (secret(current_password), secret(new_password));
    let mut fields = Fields::new();
    fields.own_or_id("user_id", &user_id);
    if let Some(current) = &current {
        let text = current.expose_secret();
        fields.text("current_password", text, passwords::LENGTH_MAX);
    }
    if let Some(new) = &new {
        // Whose address it may not hold is judged where the user is known.
        for fault in passwords::faults(new.expose_secret(), "") {
            fields.check(false, "new_password", fault);
        }
    }
    fields.finish()?;
    let users = context.users.clone();
    let revoked = context
        .tasks
        .run(async move {
            users
                .set_password(&caller, &user_id, current.as_ref(), new.as_ref())
                .await
        })
        .await?;
    Ok(Response::new(pb::SetPasswordResponse {
        revoked_sessions: i32::try_from(revoked).unwrap_or(i32::MAX),
    }))
}

/// A password of the wire; none where it is empty.
fn secret(text: String) -> Option<SecretString> {
    (!text.is_empty()).then(|| text.into())
}
