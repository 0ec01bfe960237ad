//! Browser profiles, which are kept elsewhere: where their browsers run, and for which account.

use std::collections::BTreeMap;

use serde_json::json;

use super::accounts::{self, has_open_jobs};
use super::steps::overtaken;
use super::{Automation, permit};
use crate::access::audit::{self, Action, Entry};
use crate::access::requests::{self, Once, Outcome};
use crate::access::{Caller, Permission};
use crate::error::{Error, Resource};
use crate::model::{Captcha, ExecutionMode, IdKind, Profile, Timestamp, put};
use crate::store::automation::profiles::ProfileQuery;
use crate::store::{self, Conn, Tx, transact};

/// A browser profile to be made.
#[derive(Clone, Debug)]
pub struct NewProfile {
    /// Its id where it is kept: 1 to 200 characters, and not of the form of our own.
    pub external_id: String,
    /// For people: at most 200 characters.
    pub display_name: String,
    /// Where its browser runs: not [`ExecutionMode::Any`].
    pub execution_mode: ExecutionMode,
    /// The country of its proxy (ISO 3166-1 alpha-2); empty for none.
    pub proxy_country: String,
    /// What sort of proxy that is: at most 63 characters; empty for none.
    pub proxy_type: String,
    /// The account that it is for.
    pub account_id: Option<String>,
    /// What its jobs met before.
    pub captcha: Captcha,
    /// The caller's own: at most 32, each name at most 63 and each value at most 200 characters.
    pub labels: BTreeMap<String, String>,
    /// Makes a retry answer what the first call answered; empty for none.
    pub request_id: String,
}

impl NewProfile {
    fn message(&self) -> Vec<u8> {
        let message = json!([
            self.external_id,
            self.display_name,
            self.execution_mode.as_str(),
            self.proxy_country,
            self.proxy_type,
            self.account_id,
            self.captcha.as_str(),
            self.labels,
        ]);
        message.to_string().into_bytes()
    }

    fn into_profile(self, tenant: &str, now: Timestamp) -> Profile {
        Profile {
            id: IdKind::Profile.new_id(),
            tenant: tenant.to_owned(),
            external_id: self.external_id,
            display_name: self.display_name,
            execution_mode: self.execution_mode,
            proxy_country: self.proxy_country,
            proxy_type: self.proxy_type,
            account_id: self.account_id,
            captcha: self.captcha,
            captcha_at: (self.captcha != Captcha::None).then_some(now),
            labels: self.labels,
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }
}

/// Changes of a browser profile; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of NewProfile")]
pub struct ProfileChanges {
    pub display_name: Option<String>,
    pub execution_mode: Option<ExecutionMode>,
    pub proxy_country: Option<String>,
    pub proxy_type: Option<String>,
    pub account_id: Option<Option<String>>,
    pub captcha: Option<Captcha>,
    pub labels: Option<BTreeMap<String, String>>,
}

impl ProfileChanges {
    /// Makes the changes; the names of the fields that are others now, in the order of the message.
    fn apply(&self, profile: &mut Profile, now: Timestamp) -> Vec<&'static str> {
        let it = profile;
        let captcha = put("captcha", &mut it.captcha, self.captcha.as_ref());
        if captcha.is_some() {
            it.captcha_at = (it.captcha != Captcha::None).then_some(now);
        }
        [
            put(
                "display_name",
                &mut it.display_name,
                self.display_name.as_ref(),
            ),
            put(
                "execution_mode",
                &mut it.execution_mode,
                self.execution_mode.as_ref(),
            ),
            put(
                "proxy_country",
                &mut it.proxy_country,
                self.proxy_country.as_ref(),
            ),
            put("proxy_type", &mut it.proxy_type, self.proxy_type.as_ref()),
            put("account_id", &mut it.account_id, self.account_id.as_ref()),
            captcha,
            put("labels", &mut it.labels, self.labels.as_ref()),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Which browser profiles to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProfileFilter {
    /// Only those of this mode.
    pub execution_mode: Option<ExecutionMode>,
    /// Only those of which this is known.
    pub captcha: Option<Captcha>,
}

impl Automation {
    /// Keeps a browser profile. A retry with the same request id and the same fields gets the same one.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when there is one of this external id or this account;
    /// [`Error::NotFound`] for the account; [`Error::InvalidArgument`] for a request id of another
    /// request; [`Error::Constrained`] for a caller with constraints.
    pub async fn create_profile(&self, caller: &Caller, new: NewProfile) -> Result<Profile, Error> {
        permit(caller, Permission::WriteAccounts)?;
        let message = new.message();
        let request_id = new.request_id.clone();
        let once = Once::of(&caller.tenant, "CreateProfile", &request_id, &message);
        let now = self.parts.clock.now();
        let create = self.make_profile(caller, new, once.as_ref(), now);
        let (store, keyring) = (&self.parts.store, &self.parts.keyring);
        match requests::answer(store, keyring, once.as_ref(), now, create).await? {
            Outcome::Made(profile) => Ok(profile),
            Outcome::Before(replayed) => {
                let mut conn = store.read().await?;
                found(&mut conn, &caller.tenant, &replayed.resource_id).await
            }
        }
    }

    async fn make_profile(
        &self,
        caller: &Caller,
        new: NewProfile,
        once: Option<&Once<'_>>,
        now: Timestamp,
    ) -> Result<Option<Profile>, Error> {
        let profile = new.into_profile(&caller.tenant, now);
        let entry = profile_entry(Action::ProfileCreated, caller, &profile);
        let made = transact!(self.parts.store, |tx| {
            let keyring = &self.parts.keyring;
            if let Some(once) = once
                && !requests::remember(&mut tx, keyring, once, &profile.id, None, now).await?
            {
                return Ok(false);
            }
            if let Some(account_id) = &profile.account_id {
                claim_account(&mut tx, &profile.tenant, account_id).await?;
            }
            if !store::automation::profiles::insert(&mut tx, &profile).await? {
                return Err(Error::AlreadyExists {
                    resource: Resource::Profile,
                    name: profile.external_id.clone(),
                    detail: "there is a profile of this external id".to_owned(),
                });
            }
            audit::record(&mut tx, &entry, now).await?;
            Ok(true)
        })?;
        Ok(made.then_some(profile))
    }

    /// The browser profile of this id or external id.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints; or the store's.
    pub async fn get_profile(&self, caller: &Caller, name: &str) -> Result<Profile, Error> {
        permit(caller, Permission::ReadAccounts)?;
        let mut conn = self.parts.store.read().await?;
        found(&mut conn, &caller.tenant, name).await
    }

    /// One page of the browser profiles behind the id `after`, oldest first.
    ///
    /// # Errors
    /// [`Error::Constrained`] for a caller with constraints, or the store's.
    pub async fn list_profiles(
        &self,
        caller: &Caller,
        filter: &ProfileFilter,
        after: &str,
        limit: i64,
    ) -> Result<Vec<Profile>, Error> {
        permit(caller, Permission::ReadAccounts)?;
        let query = ProfileQuery {
            execution_mode: filter.execution_mode,
            captcha: filter.captcha,
            after,
            limit,
        };
        let mut conn = self.parts.store.read().await?;
        Ok(store::automation::profiles::list(&mut conn, &caller.tenant, &query).await?)
    }

    /// Changes a browser profile.
    ///
    /// # Errors
    /// `HAS_OPEN_JOBS` for another account while jobs of it are not finished, which would sign the one of
    /// before in there; [`Error::Conflict`] when `version` is not the current one; [`Error::NotFound`]
    /// for the profile or the account; [`Error::AlreadyExists`] when another profile has the account;
    /// [`Error::Constrained`] for a caller with constraints.
    pub async fn update_profile(
        &self,
        caller: &Caller,
        id: &str,
        changes: &ProfileChanges,
        version: Option<i64>,
    ) -> Result<Profile, Error> {
        permit(caller, Permission::WriteAccounts)?;
        let tenant = &caller.tenant;
        transact!(self.parts.store, |tx| {
            // The account's lock comes first, as where an account is deleted, which frees its profile.
            let known = found_by_id(&mut tx, tenant, id).await?;
            if let Some(Some(account_id)) = &changes.account_id
                && known.account_id.as_ref() != Some(account_id)
            {
                claim_account(&mut tx, tenant, account_id).await?;
            }
            let mut profile = locked(&mut tx, tenant, id, version).await?;
            let now = self.parts.clock.now();
            let changed = changes.apply(&mut profile, now);
            if changed.is_empty() {
                return Ok(profile);
            }
            if changed.contains(&"account_id") {
                require_no_open_jobs(&mut tx, tenant, id).await?;
            }
            let was = profile.version;
            profile.version += 1;
            profile.updated_at = now;
            if !store::automation::profiles::update(&mut tx, &profile, was).await? {
                return Err(overtaken());
            }
            let entry = profile_entry(Action::ProfileUpdated, caller, &profile)
                .detail("fields", changed.join(" "));
            audit::record(&mut tx, &entry, now).await?;
            Ok(profile)
        })
    }

    /// Deletes a browser profile here; where it is kept it stays.
    ///
    /// # Errors
    /// `HAS_OPEN_JOBS` while jobs of it are not finished; [`Error::Conflict`] when `version` is not the
    /// current one; [`Error::NotFound`]; [`Error::Constrained`] for a caller with constraints.
    pub async fn delete_profile(
        &self,
        caller: &Caller,
        id: &str,
        version: Option<i64>,
    ) -> Result<(), Error> {
        permit(caller, Permission::WriteAccounts)?;
        let tenant = &caller.tenant;
        transact!(self.parts.store, |tx| {
            let profile = locked(&mut tx, tenant, id, version).await?;
            require_no_open_jobs(&mut tx, tenant, id).await?;
            store::automation::profiles::delete(&mut tx, tenant, id).await?;
            let entry = profile_entry(Action::ProfileDeleted, caller, &profile);
            audit::record(&mut tx, &entry, self.parts.clock.now()).await?;
            Ok(())
        })
    }
}

/// What is recorded of any change of a profile.
fn profile_entry(action: Action, caller: &Caller, profile: &Profile) -> Entry {
    Entry::new(action, caller)
        .on("profile", &profile.id)
        .detail("external_id", &profile.external_id)
}

fn not_found(name: &str) -> Error {
    Error::NotFound(Resource::Profile, name.to_owned())
}

async fn found(conn: &mut Conn, tenant: &str, name: &str) -> Result<Profile, Error> {
    let profile = store::automation::profiles::find(conn, tenant, name).await?;
    profile.ok_or_else(|| not_found(name))
}

/// The same by its id alone: what is changed or deleted is not to depend on what others called theirs.
async fn found_by_id(conn: &mut Conn, tenant: &str, id: &str) -> Result<Profile, Error> {
    let profile = found(conn, tenant, id).await?;
    if profile.id == id {
        Ok(profile)
    } else {
        Err(not_found(id))
    }
}

/// The profile, which nobody else changes until the transaction ends.
async fn locked(
    tx: &mut Tx,
    tenant: &str,
    id: &str,
    version: Option<i64>,
) -> Result<Profile, Error> {
    let profile = store::automation::profiles::lock(tx, tenant, id).await?;
    let profile = profile.ok_or_else(|| not_found(id))?;
    if version.is_some_and(|version| version != profile.version) {
        return Err(Error::Conflict(Resource::Profile, id.to_owned()));
    }
    Ok(profile)
}

/// All jobs of the profile are finished. Its lock keeps it so until the transaction ends.
async fn require_no_open_jobs(tx: &mut Tx, tenant: &str, id: &str) -> Result<(), Error> {
    match store::automation::jobs::has_open_of_profile(tx, tenant, id).await? {
        true => Err(has_open_jobs("profile")),
        false => Ok(()),
    }
}

/// The account is there, and no profile has it. Its lock keeps it so until the transaction ends.
async fn claim_account(tx: &mut Tx, tenant: &str, account_id: &str) -> Result<(), Error> {
    accounts::locked(tx, tenant, account_id, None).await?;
    let ids = [account_id.to_owned()];
    let mut taken = store::automation::profiles::of_accounts(tx, tenant, &ids).await?;
    match taken.pop() {
        None => Ok(()),
        Some(profile) => Err(Error::AlreadyExists {
            resource: Resource::Profile,
            name: profile.id,
            detail: format!("it is the profile of {account_id}; an account has one"),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_profile_met_has_a_time_while_it_is_something() {
        let new = NewProfile {
            external_id: "ext".to_owned(),
            display_name: String::new(),
            execution_mode: ExecutionMode::Cloud,
            proxy_country: String::new(),
            proxy_type: String::new(),
            account_id: None,
            captcha: Captcha::None,
            labels: BTreeMap::new(),
            request_id: String::new(),
        };
        let mut profile = new.into_profile("t", Timestamp::default());
        assert_eq!(profile.captcha_at, None);
        let now = Timestamp::from_micros(7);
        let mut met = |captcha| {
            let changes = ProfileChanges {
                captcha: Some(captcha),
                ..ProfileChanges::default()
            };
            let changed = changes.apply(&mut profile, now).len();
            (changed, profile.captcha_at)
        };
        assert_eq!(met(Captcha::Detected), (1, Some(now)));
        assert_eq!(met(Captcha::Detected), (0, Some(now)));
        assert_eq!(met(Captcha::None), (1, None));
    }
}
