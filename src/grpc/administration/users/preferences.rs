//! Preferences on the wire.

use prost_types::value::Kind;
use tonic::{Request, Response, Status};

use super::wire;
use crate::access::users::preference_faults;
use crate::grpc::administration::Context;
use crate::grpc::caller::principal;
use crate::grpc::convert::{etag, from_structure, structure, timestamp};
use crate::grpc::fields::Fields;
use crate::model::Preferences;
use crate::pb;

pub(in super::super) async fn get(
    context: &Context,
    request: Request<pb::GetPreferencesRequest>,
) -> Result<Response<pb::GetPreferencesResponse>, Status> {
    let caller = principal(&request)?;
    let user_id = request.into_inner().user_id;
    let mut fields = Fields::new();
    fields.own_or_id("user_id", &user_id);
    fields.finish()?;
    let users = context.users.clone();
    let (id, found) = context
        .tasks
        .run(async move { users.preferences(&caller, &user_id).await })
        .await?;
    Ok(Response::new(pb::GetPreferencesResponse {
        preferences: Some(preferences(id, &found)),
    }))
}

pub(in super::super) async fn update(
    context: &Context,
    request: Request<pb::UpdatePreferencesRequest>,
) -> Result<Response<pb::UpdatePreferencesResponse>, Status> {
    let caller = principal(&request)?;
    let pb::UpdatePreferencesRequest { preferences, merge } = request.into_inner();
    let mut fields = Fields::new();
    fields.check(preferences.is_some(), "preferences", "is required");
    let wanted = preferences.unwrap_or_default();
    fields.own_or_id("preferences.user_id", &wanted.user_id);
    let version = wire::version(&mut fields, "preferences.etag", &wanted.etag);
    let values = wanted.values.unwrap_or_default();
    // JSON has no such numbers: they would turn into nulls, which a merge takes for deletions.
    fields.check(
        values.fields.values().all(is_finite),
        "preferences.values",
        "holds a number that JSON does not have",
    );
    let values = from_structure(values);
    wire::collect(&mut fields, preference_faults(&values));
    fields.finish()?;
    let users = context.users.clone();
    let (id, set) = context
        .tasks
        .run(async move {
            users
                .set_preferences(&caller, &wanted.user_id, &values, merge, version)
                .await
        })
        .await?;
    Ok(Response::new(pb::UpdatePreferencesResponse {
        preferences: Some(self::preferences(id, &set)),
    }))
}

fn preferences(user_id: String, preferences: &Preferences) -> pb::Preferences {
    pb::Preferences {
        user_id,
        values: Some(structure(&preferences.values)),
        update_time: preferences.updated_at.map(timestamp),
        etag: etag(preferences.version),
    }
}

/// As deep as the decoder lets a message be.
fn is_finite(value: &prost_types::Value) -> bool {
    match &value.kind {
        Some(Kind::NumberValue(number)) => number.is_finite(),
        Some(Kind::ListValue(list)) => list.values.iter().all(is_finite),
        Some(Kind::StructValue(inner)) => inner.fields.values().all(is_finite),
        _ => true,
    }
}
