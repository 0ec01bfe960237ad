//! The wire's words for users, and back.

use crate::access::users::{EMAIL_FORM, EMAIL_MAX, NAME_MAX, NewUser, UserChanges, normalised};
use crate::error::{Error, FieldViolation};
use crate::grpc::administration::convert::{self, from_constraints, from_role};
use crate::grpc::convert::{etag, from_etag, timestamp};
use crate::grpc::fields::Fields;
use crate::grpc::mask::Mask;
use crate::model::{IdKind, Role, User, UserState};
use crate::pb;

/// Longest etag, in characters.
const ETAG_MAX: usize = 32;

/// What `UpdateUser` can change, by the names of the message's fields.
const MUTABLE: [&str; 6] = [
    "email",
    "email_verified",
    "display_name",
    "role",
    "constraints",
    "owner",
];

/// A user on the wire; the hash of their password stays behind.
pub(super) fn user(user: &User) -> pb::User {
    let mut message = pb::User {
        id: user.id.clone(),
        email: user.email.clone(),
        email_verified: user.email_verified,
        display_name: user.display_name.clone(),
        role: 0,
        constraints: Some(convert::constraints(&user.constraints)),
        owner: user.owner.clone(),
        state: 0,
        has_password: user.password_hash.is_some(),
        create_time: Some(timestamp(user.created_at)),
        update_time: Some(timestamp(user.updated_at)),
        last_sign_in_time: user.last_sign_in_at.map(timestamp),
        etag: etag(user.version),
    };
    message.set_role(convert::role(user.role));
    message.set_state(match user.state {
        UserState::Active => pb::UserState::Active,
        UserState::Inactive => pb::UserState::Inactive,
    });
    message
}

/// A user to be made.
///
/// # Errors
/// [`Error::InvalidArgument`] with every field that is not as it must be.
pub(super) fn new_user(request: pb::CreateUserRequest) -> Result<NewUser, Error> {
    let mut fields = Fields::new();
    fields.request_id(&request.request_id);
    let role = from_role(&mut fields, "role", request.role);
    let constraints = from_constraints(&mut fields, "constraints", request.constraints);
    let new = NewUser {
        email: request.email,
        email_verified: request.email_verified,
        display_name: request.display_name,
        password: super::secret(request.password),
        role: role.unwrap_or(Role::User),
        constraints,
        owner: request.owner,
        request_id: request.request_id,
    };
    collect(&mut fields, new.faults());
    fields.finish()?;
    Ok(new)
}

/// Which user to change, and how.
#[derive(Debug)]
pub(super) struct Update {
    pub(super) id: String,
    pub(super) version: Option<i64>,
    pub(super) changes: UserChanges,
}

/// What an update names by its mask.
///
/// # Errors
/// [`Error::InvalidArgument`] with every field and path that is not as it must be. A user is taken as
/// it was read, so fields that the mask does not name are judged, too.
pub(super) fn update(request: pb::UpdateUserRequest) -> Result<Update, Error> {
    let mut fields = Fields::new();
    fields.check(request.user.is_some(), "user", "is required");
    let user = request.user.unwrap_or_default();
    let mask = Mask::of(&mut fields, request.update_mask, &MUTABLE);
    let named_role = mask.names("role", user.role != 0);
    let named_email = mask.names("email", !user.email.is_empty());
    let named_verified = mask.names("email_verified", user.email_verified);
    let named_display_name = mask.names("display_name", !user.display_name.is_empty());
    let named_constraints = mask.names("constraints", user.constraints.is_some());
    let named_owner = mask.names("owner", !user.owner.is_empty());
    fields.id("user.id", &user.id, IdKind::User);
    let version = version(&mut fields, "user.etag", &user.etag);
    let role = from_role(&mut fields, "user.role", user.role);
    fields.check(
        !named_role || user.role != 0,
        "user.role",
        "is named in `update_mask` and not set",
    );
    let constraints = from_constraints(&mut fields, "user.constraints", user.constraints);
    let every = UserChanges {
        email: (named_email || !user.email.is_empty()).then_some(user.email),
        email_verified: Some(user.email_verified),
        display_name: Some(user.display_name),
        role,
        constraints: Some(constraints),
        owner: Some(user.owner),
    };
    collect(&mut fields, every.faults());
    fields.finish()?;
    let changes = UserChanges {
        email: every.email.filter(|_| named_email),
        email_verified: every.email_verified.filter(|_| named_verified),
        display_name: every.display_name.filter(|_| named_display_name),
        role: every.role.filter(|_| named_role),
        constraints: every.constraints.filter(|_| named_constraints),
        owner: every.owner.filter(|_| named_owner),
    };
    Ok(Update {
        id: user.id,
        version,
        changes,
    })
}

/// An e-mail address.
pub(super) fn email(fields: &mut Fields, field: &str, email: &str) {
    fields.check(normalised(email).is_some(), field, EMAIL_FORM);
}

/// Text that is refused for another reason already, and may be anything.
pub(super) fn bounded(fields: &mut Fields, field: &str, text: &str) {
    fields.text(field, text, NAME_MAX.max(EMAIL_MAX));
}

/// The version that an etag names, if there is one.
pub(super) fn version(fields: &mut Fields, field: &str, etag: &str) -> Option<i64> {
    match from_etag(etag) {
        Ok(version) if etag.len() <= ETAG_MAX => version,
        _ => {
            fields.check(false, field, "is not an etag that this service gave");
            None
        }
    }
}

/// Adds what the domain found.
pub(super) fn collect(fields: &mut Fields, faults: Vec<FieldViolation>) {
    for fault in faults {
        fields.check(false, fault.field, fault.description);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound() -> pb::User {
        pb::User {
            id: IdKind::User.new_id(),
            email: "Ada@Example.com".to_owned(),
            role: pb::Role::Operator.into(),
            ..Default::default()
        }
    }

    fn read(user: pb::User, paths: &[&str]) -> Result<UserChanges, Vec<String>> {
        let paths = paths.iter().map(|path| (*path).to_owned()).collect();
        let request = pb::UpdateUserRequest {
            user: Some(user),
            update_mask: Some(prost_types::FieldMask { paths }),
        };
        update(request)
            .map(|it| it.changes)
            .map_err(|error| match error {
                Error::InvalidArgument(faults) => faults.into_iter().map(|it| it.field).collect(),
                other => panic!("{other:?}"),
            })
    }

    #[test]
    fn a_mask_names_what_changes_even_to_nothing() {
        let expected = UserChanges {
            display_name: Some(String::new()),
            owner: Some(String::new()),
            ..Default::default()
        };
        assert_eq!(read(sound(), &["display_name", "owner"]).unwrap(), expected);
    }

    #[test]
    fn every_mutable_field_is_reached() {
        let all = read(sound(), &["*"]).unwrap();
        assert_eq!(all, read(sound(), &MUTABLE).unwrap());
        assert!(!format!("{all:?}").contains(": None"), "{all:?}");
    }

    #[test]
    fn without_a_mask_what_is_set_changes() {
        let changes = read(sound(), &[]).unwrap();
        assert_eq!(changes.owner, None);
        let named = read(sound(), &["email", "email_verified", "role"]).unwrap();
        assert_eq!((changes.email, changes.role), (named.email, named.role));
    }

    #[test]
    fn unknown_paths_and_unset_roles_are_faults() {
        let unset = pb::User { role: 0, ..sound() };
        let faults = read(unset, &["role", "state", "has_password"]).unwrap_err();
        assert_eq!(faults, ["update_mask", "update_mask", "user.role"]);
        let nameless = pb::User {
            email: String::new(),
            ..sound()
        };
        assert_eq!(read(nameless, &["email"]).unwrap_err(), ["user.email"]);
    }

    #[test]
    fn fields_that_the_mask_leaves_out_are_judged_all_the_same() {
        let bad = pb::User {
            email: "nobody".to_owned(),
            owner: "any*".to_owned(),
            display_name: "\u{7}".to_owned(),
            etag: "mine".to_owned(),
            ..sound()
        };
        let faults = read(bad, &["role"]).unwrap_err();
        let all = ["user.etag", "user.email", "user.display_name", "user.owner"];
        assert_eq!(faults, all);
    }
}
