//! The accounts and profiles that jobs to be made name, read at once for all of them.

use std::collections::{BTreeSet, HashMap};

use super::jobs::NewJob;
use crate::error::{Error, Resource};
use crate::model::{Account, ExecutionMode, Profile};
use crate::store::Conn;
use crate::store::automation::{accounts, profiles};

/// What some jobs name.
#[derive(Default)]
pub(super) struct Named {
    accounts: HashMap<String, Account>,
    /// By id and by external id.
    profiles: HashMap<String, Profile>,
    /// By their account's id.
    of_accounts: HashMap<String, Profile>,
}

/// Where a job belongs.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    pub(super) account: Option<&'a Account>,
    pub(super) profile: Option<&'a Profile>,
}

impl Named {
    /// Whatever these jobs name, as far as there is such.
    pub(super) async fn load(
        conn: &mut Conn,
        tenant: &str,
        jobs: impl Iterator<Item = &NewJob> + Clone,
    ) -> Result<Self, Error> {
        let mut named = Self::default();
        let names: BTreeSet<_> = jobs.clone().filter_map(|job| job.profile.clone()).collect();
        let found = profiles::of_names(conn, tenant, &Vec::from_iter(names)).await?;
        let by_name = found.iter().map(|it| (it.external_id.clone(), it.clone()));
        named.profiles.extend(by_name);
        let ids: BTreeSet<_> = jobs
            .filter_map(|job| job.account_id.clone())
            .chain(found.iter().filter_map(|it| it.account_id.clone()))
            .collect();
        // An id goes before the same text as another's external id.
        let by_id = found.into_iter().map(|it| (it.id.clone(), it));
        named.profiles.extend(by_id);
        let ids = Vec::from_iter(ids);
        for account in accounts::of_ids(conn, tenant, &ids).await? {
            named.accounts.insert(account.id.clone(), account);
        }
        for profile in profiles::of_accounts(conn, tenant, &ids).await? {
            if let Some(account_id) = &profile.account_id {
                named.of_accounts.insert(account_id.clone(), profile);
            }
        }
        Ok(named)
    }

    /// Where a job belongs; its fields are named behind `path`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for what it names, [`Error::InvalidArgument`] for a profile of another
    /// account.
    pub(super) fn place(&self, job: &NewJob, path: &str) -> Result<Place<'_>, Error> {
        let profile = match (&job.profile, &job.account_id) {
            (Some(name), _) => {
                let missing = || Error::NotFound(Resource::Profile, name.clone());
                Some(self.profiles.get(name).ok_or_else(missing)?)
            }
            (None, Some(account_id)) => self.of_accounts.get(account_id),
            (None, None) => None,
        };
        let of_profile = profile.and_then(|profile| profile.account_id.as_ref());
        let account = match (&job.account_id, of_profile) {
            (Some(account_id), Some(other)) if account_id != other => {
                let field = format!("{path}profile");
                return Err(Error::invalid(field, "is the profile of another account"));
            }
            (Some(account_id), _) => {
                let missing = || Error::NotFound(Resource::Account, account_id.clone());
                Some(self.accounts.get(account_id).ok_or_else(missing)?)
            }
            (None, Some(account_id)) => self.accounts.get(account_id),
            (None, None) => None,
        };
        Ok(Place { account, profile })
    }
}

impl Place<'_> {
    /// Where the job may run: where its profile's browser does when it does not say.
    pub(super) fn execution_mode(&self, asked: ExecutionMode) -> ExecutionMode {
        match (asked, self.profile) {
            (ExecutionMode::Any, Some(profile)) => profile.execution_mode,
            (asked, _) => asked,
        }
    }
}
