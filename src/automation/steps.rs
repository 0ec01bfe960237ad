//! The steps of a locked job: written on the condition that the row is still so, told of, and with what
//! follows of them.

use secrecy::{ExposeSecret as _, SecretString};

use super::{Automation, moves, permit};
use crate::access::{Caller, Permission};
use crate::crypto::{Context, Purpose};
use crate::error::Error;
use crate::model::{EventKind, Job, JobState, NewEvent, Sealed, Timestamp};
use crate::store::automation::{accounts, jobs};
use crate::store::{self, Tx, transact};

impl Automation {
    /// Calls a locked job off; `None` where that changes nothing.
    pub(super) async fn call_off(
        &self,
        tx: &mut Tx,
        job: &Job,
        now: Timestamp,
    ) -> Result<Option<Job>, Error> {
        if job.state.is_final() || job.cancel_requested_at.is_some() {
            return Ok(None);
        }
        if job.state == JobState::Running {
            let next = moves::cancel_requested(job, now);
            let kind = EventKind::JobCancelRequested;
            self.put(tx, job, &next, kind, now).await?;
            return Ok(Some(next));
        }
        let next = moves::cancelled(job, now);
        self.moved(tx, job, &next, now).await?;
        Ok(Some(next))
    }

    /// A locked job, ended first where its authorisation has: so whoever comes between the callback and
    /// what follows of it does not overtake it.
    pub(super) async fn settled(
        &self,
        tx: &mut Tx,
        job: Job,
        now: Timestamp,
    ) -> Result<Job, Error> {
        let Some(id) = job.authorization_id.as_ref() else {
            return Ok(job);
        };
        if job.state.is_final() {
            return Ok(job);
        }
        let next = match store::authorizations::find(tx, &job.tenant, id).await? {
            Some(authorization) => moves::as_authorized(&job, &authorization, now),
            None => Some(moves::unauthorized(&job, now)),
        };
        let Some(next) = next else { return Ok(job) };
        self.moved(tx, &job, &next, now).await?;
        Ok(next)
    }

    /// Writes a move of a locked job into another state, and what follows of it: the account of a
    /// completed one is connected, the authorisation of one that ended otherwise is called off.
    pub(super) async fn moved(
        &self,
        tx: &mut Tx,
        was: &Job,
        next: &Job,
        now: Timestamp,
    ) -> Result<(), Error> {
        self.put(tx, was, next, EventKind::of_job(next.state), now)
            .await?;
        self.count(tx, next.state, 1);
        let tenant = &next.tenant;
        match (next.state, &next.authorization_id) {
            (JobState::Completed, _) => connect(tx, next, now).await,
            (JobState::Failed | JobState::Cancelled, Some(id)) => {
                Ok(store::authorizations::call_off(tx, tenant, id, now).await?)
            }
            _ => Ok(()),
        }
    }

    /// Writes a locked job and tells of it.
    pub(super) async fn put(
        &self,
        tx: &mut Tx,
        was: &Job,
        next: &Job,
        kind: EventKind,
        now: Timestamp,
    ) -> Result<(), Error> {
        if !jobs::update(tx, next, (was.state, was.lease_token)).await? {
            return Err(overtaken());
        }
        let reason = match kind {
            EventKind::JobFailed | EventKind::JobRetryable => next.failure_reason.as_str(),
            _ => "",
        };
        let event = NewEvent::of_job(kind, next, reason, now);
        Ok(store::events::append(tx, &event).await?)
    }

    /// Calls off authorisations that were started for jobs which could not be made.
    ///
    /// # Errors
    /// [`Error::PermissionDenied`]; [`Error::Constrained`]; or the store's.
    pub async fn call_off_all(&self, caller: &Caller, ids: &[String]) -> Result<(), Error> {
        permit(caller, Permission::WriteJobs)?;
        if ids.is_empty() {
            return Ok(());
        }
        let now = self.parts.clock.now();
        transact!(self.parts.store, |tx| {
            for id in ids {
                store::authorizations::call_off(&mut tx, &caller.tenant, id, now).await?;
            }
            Ok(())
        })
    }

    pub(super) fn seal_link(
        &self,
        tenant: &str,
        job_id: &str,
        link: &SecretString,
    ) -> Result<Sealed, Error> {
        let context = link_context(tenant, job_id);
        let link = link.expose_secret().as_bytes();
        Ok(self.parts.keyring.seal(&context, link)?)
    }

    pub(super) fn open_link(&self, job: &Job) -> Result<Option<SecretString>, Error> {
        let Some(sealed) = &job.connect_url else {
            return Ok(None);
        };
        let context = link_context(&job.tenant, &job.id);
        Ok(Some(self.parts.keyring.open_text(&context, sealed)?))
    }
}

fn link_context<'a>(tenant: &'a str, job_id: &'a str) -> Context<'a> {
    Context {
        tenant,
        purpose: Purpose::JobConnectUrl,
        row: job_id,
    }
}

/// A connection may have been deleted since.
async fn connect(tx: &mut Tx, job: &Job, now: Timestamp) -> Result<(), Error> {
    let (Some(account_id), Some(connection_id)) = (&job.account_id, &job.connection_id) else {
        return Ok(());
    };
    let tenant = &job.tenant;
    if store::connections::find(tx, tenant, connection_id)
        .await?
        .is_some()
    {
        accounts::connect(tx, tenant, account_id, Some(connection_id), now).await?;
    }
    Ok(())
}

/// Somebody was in between: the transaction runs again.
pub(super) fn overtaken() -> Error {
    Error::Store(store::Error::Busy("the row was changed meanwhile".into()))
}
