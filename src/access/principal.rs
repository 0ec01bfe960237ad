//! A caller, once known.

use std::sync::Arc;

use crate::Error;
use crate::access::limits::Limiter;
use crate::access::policy::{self, Permission};
use crate::model::{Constraints, Role, Timestamp};

/// How a caller proved who they are, and what is needed to judge them again while a stream runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An API key.
    ApiKey {
        /// SHA-256 of the key.
        hash: [u8; 32],
    },
    /// A session of a user.
    Session {
        /// SHA-256 of the session token.
        hash: [u8; 32],
        /// The session's id.
        session_id: String,
    },
    /// A TLS client certificate.
    Certificate {
        /// SHA-256 of the certificate.
        fingerprint: [u8; 32],
    },
    /// A JWT of a trusted issuer.
    Jwt {
        /// SHA-256 of the token.
        hash: [u8; 32],
        /// The thumbprint of the issuer's key that signed it.
        key: [u8; 32],
    },
    /// The command line: whoever may open the database may do everything in it.
    CommandLine,
}

/// A known caller: whom an API key, a session, a certificate or a JWT stands for. Cheap to clone
/// behind an `Arc`.
#[derive(Clone, Debug)]
pub struct Principal {
    /// The key's id, the user's, or the name that the configuration gives.
    pub id: String,
    /// A name for people.
    pub name: String,
    /// The tenant it acts in.
    pub tenant: String,
    /// What it may do.
    pub role: Role,
    /// What narrows that. Of a user with the role [`Role::User`] it holds their own owner.
    pub constraints: Constraints,
    /// How it proved who it is.
    pub credential: Credential,
    /// When its credentials end.
    pub expires_at: Option<Timestamp>,
    /// How often it may call, and how many streams it may hold.
    pub limiter: Arc<Limiter>,
}

impl Principal {
    /// Whether its role, or a single permission of its key, allows this.
    pub fn may(&self, permission: Permission) -> bool {
        policy::permissions(self.role).contains(&permission)
            || (permission == Permission::AuthorizeLinkOnly
                && self.constraints.link_only
                && self.may(Permission::Authorize))
    }

    /// The user's id, where a signed-in user calls.
    pub fn user_id(&self) -> Option<&str> {
        matches!(self.credential, Credential::Session { .. }).then_some(self.id.as_str())
    }

    /// The session's id, where a signed-in user calls.
    pub fn session_id(&self) -> Option<&str> {
        match &self.credential {
            Credential::Session { session_id, .. } => Some(session_id),
            _ => None,
        }
    }

    /// That it may do this to `user_id`: by its permission, or because they are the user.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`] when neither holds.
    pub fn require_own_or(&self, user_id: &str, permission: Permission) -> Result<(), Error> {
        if self.user_id() == Some(user_id) {
            return Ok(());
        }
        self.require(permission)
    }

    /// That nobody gives away more than they hold: not a role whose permissions they lack, nor wider
    /// constraints than their own.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the field that asks too much.
    pub fn require_within(&self, role: Role, wanted: &Constraints) -> Result<(), Error> {
        let lacking = policy::permissions(role).iter().find(|p| !self.may(**p));
        if let Some(lacking) = lacking {
            return Err(Error::invalid(
                "role",
                format!("gives {}, which the caller does not have", lacking.name()),
            ));
        }
        let link_only = wanted.link_only && !self.may(Permission::AuthorizeLinkOnly);
        let wider = self
            .wider(wanted)
            .or(link_only.then_some("constraints.link_only"));
        match wider {
            Some(field) => Err(Error::invalid(field, "is wider than the caller's own")),
            None => Ok(()),
        }
    }

    /// Whether these constraints admit nothing that its own keep from it.
    pub fn encloses(&self, constraints: &Constraints) -> bool {
        self.wider(constraints).is_none()
    }

    /// Which field of these constraints admits what its own do not.
    fn wider(&self, wanted: &Constraints) -> Option<&'static str> {
        let own = &self.constraints;
        let within = |own: &[String], wanted: &[String], matches: fn(&str, &str) -> bool| {
            own.is_empty()
                || (!wanted.is_empty()
                    && wanted
                        .iter()
                        .all(|wanted| own.iter().any(|own| matches(own, wanted))))
        };
        let same = |own: &str, wanted: &str| own == wanted;
        let narrower = |own: &str, wanted: &str| {
            own == wanted
                || own
                    .strip_suffix('*')
                    .is_some_and(|prefix| wanted.starts_with(prefix))
        };
        [
            ("constraints.apps", within(&own.apps, &wanted.apps, same)),
            (
                "constraints.owners",
                within(&own.owners, &wanted.owners, narrower),
            ),
            (
                "constraints.providers",
                within(&own.providers, &wanted.providers, same),
            ),
        ]
        .into_iter()
        .find_map(|(field, fine)| (!fine).then_some(field))
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

    /// For what concerns a whole tenant: a caller that is held to a part of it has nothing to do with
    /// that.
    ///
    /// # Errors
    /// [`Error::Constrained`] when something narrows the role down.
    pub fn require_unconstrained(&self, permission: Permission) -> Result<(), Error> {
        if self.is_unconstrained() {
            Ok(())
        } else {
            Err(Error::Constrained(permission.name()))
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
