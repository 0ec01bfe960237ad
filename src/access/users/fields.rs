//! What a user consists of, as it is asked for and judged.

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::email::{EMAIL_FORM, normalised};
use crate::access::passwords;
use crate::error::FieldViolation;
use crate::model::{Constraints, Role, User};

/// Longest name or owner, in characters.
pub const NAME_MAX: usize = 255;

/// What a new user is to be.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// In any case.
    pub email: String,
    /// Somebody has made sure that the address is theirs.
    pub email_verified: bool,
    /// Their name for people; may be empty.
    pub display_name: String,
    /// None for who signs in through a provider.
    pub password: Option<SecretString>,
    /// What they may do.
    pub role: Role,
    /// What narrows that.
    pub constraints: Constraints,
    /// Whose connections are theirs; the user's id when empty.
    pub owner: String,
    /// The caller's id for the request, or empty.
    pub request_id: String,
}

impl NewUser {
    /// Every field that is not as it must be.
    pub fn faults(&self) -> Vec<FieldViolation> {
        let mut faults = Vec::new();
        email(&mut faults, "email", &self.email);
        display_name(&mut faults, "display_name", &self.display_name);
        owner(&mut faults, "owner", &self.owner);
        if let Some(password) = &self.password {
            faults.extend(password_faults("password", password, &self.email));
        }
        faults
    }

    /// Identifies the request; holds the password.
    pub(super) fn message(&self) -> Zeroizing<Vec<u8>> {
        let password = self.password.as_ref().map(ExposeSecret::expose_secret);
        let flags = format!(
            "{:?} {} {}",
            self.role, self.email_verified, self.constraints.link_only
        );
        let texts = [&self.email, &self.display_name, &self.owner, &flags];
        let lists = [
            &self.constraints.apps,
            &self.constraints.owners,
            &self.constraints.providers,
        ];
        let mut message = Zeroizing::new(Vec::new());
        let mut put = |part: &[u8]| {
            message.extend((part.len() as u64).to_be_bytes());
            message.extend(part);
        };
        texts.iter().for_each(|text| put(text.as_bytes()));
        put(password.unwrap_or_default().as_bytes());
        for list in lists {
            put(&(list.len() as u64).to_be_bytes());
            list.iter().for_each(|text| put(text.as_bytes()));
        }
        message
    }
}

/// What to change of a user; none leaves a field as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserChanges {
    /// In any case.
    pub email: Option<String>,
    /// A new address is not verified unless this says so.
    pub email_verified: Option<bool>,
    /// Their name for people.
    pub display_name: Option<String>,
    /// What they may do.
    pub role: Option<Role>,
    /// What narrows that.
    pub constraints: Option<Constraints>,
    /// Whose connections are theirs; the user's id when empty.
    pub owner: Option<String>,
}

impl UserChanges {
    /// Every field that is not as it must be.
    pub fn faults(&self) -> Vec<FieldViolation> {
        let mut faults = Vec::new();
        if let Some(text) = &self.email {
            email(&mut faults, "user.email", text);
        }
        if let Some(text) = &self.display_name {
            display_name(&mut faults, "user.display_name", text);
        }
        if let Some(text) = &self.owner {
            owner(&mut faults, "user.owner", text);
        }
        faults
    }

    /// Makes the changes; the names of the fields that are others now.
    pub(super) fn apply(&self, user: &mut User) -> Vec<&'static str> {
        let mut changed = Vec::new();
        if let Some(email) = self.email.as_deref().and_then(normalised)
            && set(&mut user.email, &email, "email", &mut changed)
            && user.email_verified
        {
            user.email_verified = false;
            changed.push("email_verified");
        }
        if let Some(verified) = &self.email_verified {
            changed.retain(|name| *name != "email_verified");
            set(
                &mut user.email_verified,
                verified,
                "email_verified",
                &mut changed,
            );
        }
        if let Some(name) = &self.display_name {
            set(&mut user.display_name, name, "display_name", &mut changed);
        }
        if let Some(role) = &self.role {
            set(&mut user.role, role, "role", &mut changed);
        }
        if let Some(constraints) = &self.constraints {
            set(
                &mut user.constraints,
                constraints,
                "constraints",
                &mut changed,
            );
        }
        if let Some(owner) = &self.owner {
            let owner = Some(owner).filter(|owner| !owner.is_empty());
            let owner = owner.unwrap_or(&user.id).clone();
            set(&mut user.owner, &owner, "owner", &mut changed);
        }
        changed
    }
}

/// Whether the value was another before.
fn set<T: Clone + PartialEq>(
    field: &mut T,
    value: &T,
    name: &'static str,
    changed: &mut Vec<&'static str>,
) -> bool {
    if field == value {
        return false;
    }
    field.clone_from(value);
    changed.push(name);
    true
}

/// What is wrong with a password of the user with this e-mail address.
pub fn password_faults(field: &str, password: &SecretString, email: &str) -> Vec<FieldViolation> {
    passwords::faults(password.expose_secret(), email)
        .into_iter()
        .map(|fault| FieldViolation::new(field, fault))
        .collect()
}

fn email(faults: &mut Vec<FieldViolation>, field: &str, email: &str) {
    if email.is_empty() {
        faults.push(FieldViolation::new(field, "is required"));
    } else if normalised(email).is_none() {
        faults.push(FieldViolation::new(field, EMAIL_FORM));
    }
}

fn display_name(faults: &mut Vec<FieldViolation>, field: &str, name: &str) {
    if name.chars().count() > NAME_MAX || name.chars().any(char::is_control) {
        faults.push(FieldViolation::new(
            field,
            "at most 255 characters without control characters are allowed",
        ));
    }
}

fn owner(faults: &mut Vec<FieldViolation>, field: &str, owner: &str) {
    let fine =
        owner.chars().count() <= NAME_MAX && !owner.chars().any(|c| c.is_control() || c == '*');
    if !fine {
        faults.push(FieldViolation::new(
            field,
            "at most 255 characters without `*` and control characters are allowed",
        ));
    }
}
