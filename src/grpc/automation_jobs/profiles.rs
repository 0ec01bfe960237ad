//! Browser profiles on the wire.

use std::sync::Arc;

use prost_types::FieldMask;
use tonic::{Request, Response};

use super::convert::{captcha, from_captcha, from_mode, labels, mode};
use super::wire::{NAME_MAX, given};
use super::{Answer, Context, unconstrained};
use crate::access::Permission;
use crate::automation::{NewProfile, ProfileChanges, ProfileFilter};
use crate::error::Error;
use crate::grpc::client_registry::version;
use crate::grpc::convert::{etag, timestamp};
use crate::grpc::fields::Fields;
use crate::grpc::mask::Mask;
use crate::grpc::page::Page;
use crate::model::{Captcha, ExecutionMode, IdKind, Profile};
use crate::pb;

const PROXY_TYPE_MAX: usize = 63;

/// What `UpdateProfile` can change, by the names of the message's fields.
const MUTABLE: [&str; 7] = [
    "display_name",
    "execution_mode",
    "proxy_country",
    "proxy_type",
    "account_id",
    "captcha",
    "labels",
];

pub(super) async fn create_profile(
    context: &Context,
    request: Request<pb::CreateProfileRequest>,
) -> Answer<pb::CreateProfileResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let new = new_profile(request.into_inner())?;
    let automation = Arc::clone(&context.automation);
    let profile = context
        .tasks
        .run(async move { automation.create_profile(&caller, new).await })
        .await?;
    let profile = Some(wire(&profile));
    Ok(Response::new(pb::CreateProfileResponse { profile }))
}

pub(super) async fn get_profile(
    context: &Context,
    request: Request<pb::GetProfileRequest>,
) -> Answer<pb::GetProfileResponse> {
    let caller = unconstrained(&request, Permission::ReadAccounts)?;
    let name = request.into_inner().profile;
    let mut fields = Fields::new();
    fields.required("profile", &name, NAME_MAX);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    let profile = context
        .tasks
        .run(async move { automation.get_profile(&caller, &name).await })
        .await?;
    let profile = Some(wire(&profile));
    Ok(Response::new(pb::GetProfileResponse { profile }))
}

pub(super) async fn list_profiles(
    context: &Context,
    request: Request<pb::ListProfilesRequest>,
) -> Answer<pb::ListProfilesResponse> {
    let caller = unconstrained(&request, Permission::ReadAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let mode = from_mode(&mut fields, "execution_mode", request.execution_mode);
    let captcha = from_captcha(&mut fields, "captcha", request.captcha);
    fields.finish()?;
    let bound_to = ("profiles", request.execution_mode, request.captcha);
    let page = Page::of(request.page_size, &request.page_token, bound_to)?;
    let filter = ProfileFilter {
        execution_mode: Some(mode).filter(|mode| *mode != ExecutionMode::Any),
        captcha: Some(captcha).filter(|captcha| *captcha != Captcha::None),
    };
    let automation = Arc::clone(&context.automation);
    let (after, limit) = (page.after.clone(), page.limit());
    let mut found = context
        .tasks
        .run(async move {
            automation
                .list_profiles(&caller, &filter, &after, limit)
                .await
        })
        .await?;
    let next_page_token = page.cut(&mut found, |profile| profile.id.clone());
    let profiles = found.iter().map(wire).collect();
    Ok(Response::new(pb::ListProfilesResponse {
        profiles,
        next_page_token,
    }))
}

pub(super) async fn update_profile(
    context: &Context,
    request: Request<pb::UpdateProfileRequest>,
) -> Answer<pb::UpdateProfileResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    fields.check(request.profile.is_some(), "profile", "is required");
    let profile = request.profile.unwrap_or_default();
    fields.id("profile.id", &profile.id, IdKind::Profile);
    let version = version(&mut fields, "profile.etag", &profile.etag);
    let id = profile.id.clone();
    let changes = changes(&mut fields, profile, request.update_mask);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    let profile = context
        .tasks
        .run(async move {
            automation
                .update_profile(&caller, &id, &changes, version)
                .await
        })
        .await?;
    let profile = Some(wire(&profile));
    Ok(Response::new(pb::UpdateProfileResponse { profile }))
}

pub(super) async fn delete_profile(
    context: &Context,
    request: Request<pb::DeleteProfileRequest>,
) -> Answer<pb::DeleteProfileResponse> {
    let caller = unconstrained(&request, Permission::WriteAccounts)?;
    let request = request.into_inner();
    let mut fields = Fields::new();
    let id = request.profile_id;
    fields.id("profile_id", &id, IdKind::Profile);
    let version = version(&mut fields, "etag", &request.etag);
    fields.finish()?;
    let automation = Arc::clone(&context.automation);
    context
        .tasks
        .run(async move { automation.delete_profile(&caller, &id, version).await })
        .await?;
    Ok(Response::new(pb::DeleteProfileResponse {}))
}

/// A browser profile on the wire.
pub(super) fn wire(profile: &Profile) -> pb::Profile {
    let it = profile.clone();
    pb::Profile {
        id: it.id,
        external_id: it.external_id,
        display_name: it.display_name,
        execution_mode: mode(it.execution_mode).into(),
        proxy_country: it.proxy_country,
        proxy_type: it.proxy_type,
        account_id: it.account_id.unwrap_or_default(),
        captcha: captcha(it.captcha).into(),
        captcha_time: it.captcha_at.map(timestamp),
        labels: it.labels.into_iter().collect(),
        create_time: Some(timestamp(it.created_at)),
        update_time: Some(timestamp(it.updated_at)),
        etag: etag(it.version),
    }
}

/// A browser profile to be made.
fn new_profile(request: pb::CreateProfileRequest) -> Result<NewProfile, Error> {
    let mut fields = Fields::new();
    fields.request_id(&request.request_id);
    fields.check(request.profile.is_some(), "profile", "is required");
    let profile = request.profile.unwrap_or_default();
    // A new profile has none; a wrong one is a mistake all the same.
    version(&mut fields, "profile.etag", &profile.etag);
    let external_id = &profile.external_id;
    fields.required("profile.external_id", external_id, NAME_MAX);
    // Profiles are found by either.
    fields.check(
        !IdKind::Profile.matches(external_id),
        "profile.external_id",
        "must not look like a profile's id",
    );
    let set = profile.execution_mode != 0;
    fields.check(set, "profile.execution_mode", "is required");
    let execution_mode = judge(&mut fields, &profile);
    let captcha = from_captcha(&mut fields, "profile.captcha", profile.captcha);
    let labels = labels(&mut fields, "profile.labels", profile.labels);
    fields.finish()?;
    Ok(NewProfile {
        external_id: profile.external_id,
        display_name: profile.display_name,
        execution_mode,
        proxy_country: profile.proxy_country,
        proxy_type: profile.proxy_type,
        account_id: given(profile.account_id),
        captcha,
        labels,
        request_id: request.request_id,
    })
}

/// Which fields of a browser profile to change, and to what. An empty mask means those that are set,
/// `*` means all.
fn changes(fields: &mut Fields, profile: pb::Profile, mask: Option<FieldMask>) -> ProfileChanges {
    let mask = Mask::of(fields, mask, &MUTABLE);
    let execution_mode = judge(fields, &profile);
    let mode_set = profile.execution_mode != 0;
    let mode_named = mask.names("execution_mode", mode_set);
    fields.check(
        mode_set || !mode_named,
        "profile.execution_mode",
        "is named in `update_mask` and not set",
    );
    let captcha = from_captcha(fields, "profile.captcha", profile.captcha);
    let labels = labels(fields, "profile.labels", profile.labels);
    let text = |name: &str, value: String| mask.names(name, !value.is_empty()).then_some(value);
    ProfileChanges {
        display_name: text("display_name", profile.display_name),
        execution_mode: mode_named.then_some(execution_mode),
        proxy_country: text("proxy_country", profile.proxy_country),
        proxy_type: text("proxy_type", profile.proxy_type),
        account_id: text("account_id", profile.account_id).map(given),
        captcha: mask
            .names("captcha", captcha != Captcha::None)
            .then_some(captcha),
        labels: mask.names("labels", !labels.is_empty()).then_some(labels),
    }
}

/// What callers may change, but for what needs more than to be judged; the execution mode.
fn judge(fields: &mut Fields, profile: &pb::Profile) -> ExecutionMode {
    fields.text("profile.display_name", &profile.display_name, NAME_MAX);
    let country = profile.proxy_country.as_bytes();
    fields.check(
        matches!(country, [] | [b'A'..=b'Z', b'A'..=b'Z']),
        "profile.proxy_country",
        "is not two capital letters (ISO 3166-1)",
    );
    fields.text("profile.proxy_type", &profile.proxy_type, PROXY_TYPE_MAX);
    if !profile.account_id.is_empty() {
        fields.id("profile.account_id", &profile.account_id, IdKind::Account);
    }
    from_mode(fields, "profile.execution_mode", profile.execution_mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faulty<T>(outcome: Result<T, Error>) -> Vec<String> {
        match outcome {
            Err(Error::InvalidArgument(faults)) => faults.into_iter().map(|it| it.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn every_mutable_field_is_reached() {
        let mut profile = pb::Profile::default();
        profile.set_execution_mode(pb::ExecutionMode::Local);
        let mask = |paths: &[&str]| {
            let paths = paths.iter().map(|path| (*path).to_owned()).collect();
            Some(FieldMask { paths })
        };
        let mut fields = Fields::new();
        let all = changes(&mut fields, profile.clone(), mask(&["*"]));
        let each = changes(&mut fields, profile.clone(), mask(&MUTABLE));
        assert_eq!(all, each);
        assert_eq!(each.account_id, Some(None));
        assert_eq!(each.captcha, Some(Captcha::None));
        assert!(each.labels.is_some() && each.proxy_country.is_some());
        let set = changes(&mut fields, profile, None);
        let expected = ProfileChanges {
            execution_mode: Some(ExecutionMode::Local),
            ..ProfileChanges::default()
        };
        assert_eq!(set, expected);
        assert!(fields.finish().is_ok());
    }

    #[test]
    fn all_faults_of_a_profile_come_at_once() {
        let request = pb::CreateProfileRequest {
            profile: Some(pb::Profile {
                external_id: IdKind::Profile.new_id(),
                proxy_country: "de".to_owned(),
                account_id: "somebody".to_owned(),
                captcha: 9,
                ..pb::Profile::default()
            }),
            request_id: "once".to_owned(),
        };
        assert_eq!(
            faulty(new_profile(request)),
            [
                "request_id",
                "profile.external_id",
                "profile.execution_mode",
                "profile.proxy_country",
                "profile.account_id",
                "profile.captcha",
            ]
        );
        let mut fields = Fields::new();
        let paths = vec!["execution_mode".to_owned(), "external_id".to_owned()];
        changes(
            &mut fields,
            pb::Profile::default(),
            Some(FieldMask { paths }),
        );
        let expected = ["update_mask", "profile.execution_mode"];
        assert_eq!(faulty(fields.finish()), expected);
    }
}
