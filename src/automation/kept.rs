//! What jobs name has to stay there, and theirs, while they are open.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::error::{Error, Precondition, Resource};
use crate::model::Job;
use crate::store::automation::{accounts, profiles};
use crate::store::{Conn, Tx};

/// What some jobs name, as far as it is there.
pub(super) struct Kept {
    accounts: HashSet<String>,
    /// The account of each, by the profile's id.
    profiles: HashMap<String, Option<String>>,
}

impl Kept {
    /// What these jobs name.
    pub(super) async fn load(conn: &mut Conn, tenant: &str, jobs: &[&Job]) -> Result<Self, Error> {
        let ids = distinct(jobs.iter().map(|job| &job.account_id));
        let found = accounts::of_ids(conn, tenant, &ids).await?;
        let there = found.into_iter().map(|account| account.id).collect();
        let ids = distinct(jobs.iter().map(|job| &job.profile_id));
        let found = profiles::of_names(conn, tenant, &ids).await?;
        let theirs = found.into_iter().map(|it| (it.id, it.account_id));
        Ok(Self {
            accounts: there,
            profiles: theirs.collect(),
        })
    }

    /// That a job can be worked on with what it names.
    ///
    /// # Errors
    /// [`Error::NotFound`] for its account or profile; `JOB_STATE` where that profile is another account's
    /// by now: its worker would sign in to one account in the browser of another.
    pub(super) fn judge(&self, job: &Job) -> Result<(), Error> {
        if let Some(id) = &job.account_id
            && !self.accounts.contains(id)
        {
            return Err(Error::NotFound(Resource::Account, id.clone()));
        }
        let Some(id) = &job.profile_id else {
            return Ok(());
        };
        let profile = self.profiles.get(id);
        let of = profile.ok_or_else(|| Error::NotFound(Resource::Profile, id.clone()))?;
        match (of, &job.account_id) {
            (Some(of), Some(account_id)) if of != account_id => Err(Error::precondition(
                Precondition::JobState,
                "the job's profile is another account's by now: ask for a new job",
            )),
            _ => Ok(()),
        }
    }
}

/// Keeps what jobs name that were just made or begun again: whoever deletes or changes it waits, and then
/// sees them. After their rows, whose unique keys others may wait for who have locked what is named.
///
/// # Errors
/// Those of [`Kept::judge`], or the store's.
pub(super) async fn keep(tx: &mut Tx, tenant: &str, jobs: &[&Job]) -> Result<(), Error> {
    let ids = distinct(jobs.iter().map(|job| &job.account_id));
    let accounts = accounts::lock_all(tx, tenant, &ids).await?;
    let ids = distinct(jobs.iter().map(|job| &job.profile_id));
    let profiles = profiles::lock_all(tx, tenant, &ids).await?;
    let kept = Kept {
        accounts: accounts.into_iter().collect(),
        profiles: profiles.into_iter().collect(),
    };
    jobs.iter().try_for_each(|job| kept.judge(job))
}

/// The ids that jobs name, each once and in order.
fn distinct<'a>(named: impl Iterator<Item = &'a Option<String>>) -> Vec<String> {
    let ids = BTreeSet::from_iter(named.flatten());
    ids.into_iter().cloned().collect()
}
