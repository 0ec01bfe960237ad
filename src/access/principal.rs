//! A caller, once known.

use crate::Error;
use crate::access::policy::{self, Permission};
use crate::model::{Constraints, Role, Timestamp};

/// A known caller: whom an API key stands for. Cheap to clone behind an `Arc`.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The key's id.
    pub id: String,
    /// The key's name, for logs.
    pub name: String,
    /// The tenant it acts in.
    pub tenant: String,
    /// What it may do.
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// SHA-256 of its key, to judge it again while a stream runs.
    pub key_hash: [u8; 32],
    /// When its key ends.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// Whether its role, or a single permission of its key, allows this.
    pub fn may(&self, permission: Permission) -> bool {
        policy::permissions(self.role).contains(&permission)
            || (permission == Permission::AuthorizeLinkOnly
                && self.constraints.link_only
                && self.may(Permission::Authorize))
    }

    /// # Errors
    /// [`Error::PermissionDenied`] when it may not.
    pub fn require(&self, permission: Permission) -> Result<(), Error> {
        if self.may(permission) {
            Ok(())
        } else {
            Err(Error::PermissionDenied(permission.name()))
        }
    }

    /// Whether nothing narrows the role down: then "not found" may be told from "not allowed".
    pub fn is_unconstrained(&self) -> bool {
        self.constraints.apps.is_empty()
            && self.constraints.owners.is_empty()
            && self.constraints.providers.is_empty()
    }

    /// Whether it is allowed this app of this provider.
    pub fn allows_app(&self, app_id: &str, provider: &str) -> bool {
        allows(&self.constraints.apps, |allowed| allowed == app_id)
            && allows(&self.constraints.providers, |allowed| allowed == provider)
    }

    /// Whether it is allowed this owner.
    pub fn allows_owner(&self, owner: &str) -> bool {
        allows(&self.constraints.owners, |allowed| {
            allowed
                .strip_suffix('*')
                .map_or_else(|| allowed == owner, |prefix| owner.starts_with(prefix))
        })
    }

    /// Whether it is allowed what belongs to this app, provider and owner.
    pub fn allows(&self, app_id: &str, provider: &str, owner: &str) -> bool {
        self.allows_app(app_id, provider) && self.allows_owner(owner)
    }

    /// The error for what it is not allowed, or what does not exist: a constrained caller can't
    /// tell the two apart, so that it can't probe for what others have.
    pub fn hidden(&self, permission: Permission, not_found: Error) -> Error {
        if self.is_unconstrained() {
            not_found
        } else {
            Error::PermissionDenied(permission.name())
        }
    }
}

fn allows(list: &[String], matches: impl Fn(&str) -> bool) -> bool {
    list.is_empty() || list.iter().any(|allowed| matches(allowed))
}
