//! Who may do what to which user, beyond what their role's permissions say.

use std::borrow::Cow;

use crate::access::{Caller, Permission};
use crate::error::{Error, Resource};
use crate::model::{Constraints, Role, User};

/// The signed-in user who calls, by another name than their id.
pub const ME: &str = "me";

/// What `user_id` means: the id, or the caller's own for `me`.
///
/// # Errors
/// [`Error::InvalidArgument`] for `me` where no user is signed in; [`Error::PermissionDenied`] for
/// somebody else's without the permission.
pub(crate) fn named<'a>(
    caller: &'a Caller,
    user_id: &'a str,
    permission: Permission,
) -> Result<&'a str, Error> {
    let id = match (user_id, caller.user_id()) {
        (ME, Some(own)) => own,
        (ME, None) => {
            return Err(Error::invalid(
                "user_id",
                "`me` is a signed-in user; this caller is none",
            ));
        }
        (id, _) => id,
    };
    caller.require_own_or(id, permission)?;
    Ok(id)
}

/// The user, if there is one whom the caller is allowed.
///
/// # Errors
/// [`Error::NotFound`], hidden from a caller with constraints.
pub(crate) fn visible(
    caller: &Caller,
    name: &str,
    found: Option<User>,
    permission: Permission,
) -> Result<User, Error> {
    found.filter(|user| sees(caller, user)).ok_or_else(|| {
        let not_found = Error::NotFound(Resource::User, name.to_owned());
        caller.hidden(permission, not_found)
    })
}

/// Whether these are one.
pub(super) fn is(caller: &Caller, user: &User) -> bool {
    caller.user_id() == Some(user.id.as_str())
}

/// Whether the caller's constraints let them see this user: one of their owners, who may see nothing
/// that they may not. Themselves everybody sees.
pub(super) fn sees(caller: &Caller, user: &User) -> bool {
    is(caller, user)
        || (caller.allows_owner(&user.owner)
            && caller.encloses(&held(user.role, &user.constraints, &user.owner)))
}

/// The constraints as they hold a user: one of the role [`Role::User`] is held to their own
/// connections, whatever their constraints say.
fn held<'a>(role: Role, constraints: &'a Constraints, owner: &str) -> Cow<'a, Constraints> {
    if role != Role::User || !constraints.owners.is_empty() {
        return Cow::Borrowed(constraints);
    }
    let owners = vec![owner.to_owned()];
    Cow::Owned(Constraints {
        owners,
        ..constraints.clone()
    })
}

/// That nobody gives more than they hold: neither a role nor constraints by which the user could do
/// what the caller can't, nor an owner that is not theirs to give.
///
/// # Errors
/// [`Error::InvalidArgument`] with the field that asks too much.
pub(super) fn require_within(
    caller: &Caller,
    role: Role,
    constraints: &Constraints,
    owner: &str,
) -> Result<(), Error> {
    if !caller.allows_owner(owner) {
        return Err(Error::invalid(
            "owner",
            "is not one that the caller is allowed",
        ));
    }
    caller.require_within(role, &held(role, constraints, owner))
}

/// That the caller may do to this user what could make them that user, or keep them out: set their
/// password or address, switch them off, sign them out. Who may do less than the user may not.
///
/// # Errors
/// [`Error::PermissionDenied`].
pub(crate) fn require_over(caller: &Caller, user: &User) -> Result<(), Error> {
    if is(caller, user) {
        return Ok(());
    }
    require_within(caller, user.role, &user.constraints, &user.owner)
        .map_err(|_| Error::PermissionDenied(Permission::WriteUsers.name()))
}
