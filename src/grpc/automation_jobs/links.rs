//! The authorisations that jobs are to bring about: started here, since the queue itself knows nothing
//! of them but how they end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Context;
use super::asked::{AHEAD_MAX, Asked};
use crate::access::{Caller, Permission};
use crate::automation::{Authorized, Checked};
use crate::broker::authorizations::NewAuthorization;
use crate::error::Error;
use crate::model::{Authorization, AuthorizationMode, Job, Timestamp};
use crate::pb;

impl Context {
    /// Starts what a job asks for.
    pub(super) async fn authorize(
        &self,
        caller: &Caller,
        asked: &Asked,
        wanted: &pb::JobAuthorization,
        checked: &Checked,
    ) -> Result<Authorized, Error> {
        // Before anything is told of apps.
        caller.require(Permission::AuthorizeLinkOnly)?;
        asked.judge_ahead(self.clock.now())?;
        let at = |name: &str| format!("{}.authorization.{name}", asked.field);
        let account = checked.account.as_ref();
        let app = or_its(&wanted.app, account.and_then(|it| it.app_id.as_deref()));
        let missing = "is required, since the job has no account that has one";
        let app = app.ok_or_else(|| Error::invalid(at("app"), missing))?;
        let owner = or_its(&wanted.owner, account.map(|it| it.owner.as_str()));
        let missing = "is required, since the job has no account";
        let owner = owner.ok_or_else(|| Error::invalid(at("owner"), missing))?;
        let app = self.registry.get_app(caller, app).await?;
        // Or the account would be said to be connected by a connection of somewhere else.
        if account.is_some_and(|account| account.provider != app.provider) {
            let fault = "is registered at another provider than the account's";
            return Err(Error::invalid(at("app"), fault));
        }
        let new = NewAuthorization {
            app: app.id,
            owner: owner.to_owned(),
            scopes: wanted.scopes.clone(),
            return_url: wanted.return_url.clone(),
            connection_id: Some(wanted.connection_id.clone()).filter(|id| !id.is_empty()),
            ..self.link_only(asked.job.run_at, asked.job.deadline_at)
        };
        self.start(caller, new, app.provider).await
    }

    /// Starts the authorisation of a job anew, as the one before was.
    pub(super) async fn authorize_again(
        &self,
        caller: &Caller,
        job: &Job,
        before: &Authorization,
    ) -> Result<Authorized, Error> {
        let new = NewAuthorization {
            app: before.app_id.clone(),
            owner: before.owner.clone(),
            scopes: before.scopes.clone(),
            return_url: before.return_url.clone(),
            connection_id: before.renews.clone(),
            ..self.link_only(None, job.deadline_at)
        };
        self.start(caller, new, job.provider.clone()).await
    }

    async fn start(
        &self,
        caller: &Caller,
        new: NewAuthorization,
        provider: String,
    ) -> Result<Authorized, Error> {
        let started = self.authorizations.start(caller, new, None).await?;
        let no_link = || Error::internal("an authorization with our own redirect URI has no link");
        Ok(Authorized {
            authorization_id: started.authorization.id,
            app_id: started.authorization.app_id,
            provider,
            connect_url: started.connect_url.ok_or_else(no_link)?,
        })
    }

    /// Whoever opens the link connects; it is good for as long as the job has.
    fn link_only(
        &self,
        run_at: Option<Timestamp>,
        deadline_at: Option<Timestamp>,
    ) -> NewAuthorization {
        NewAuthorization {
            app: String::new(),
            owner: String::new(),
            scopes: Vec::new(),
            return_url: String::new(),
            login_hint: String::new(),
            connection_id: None,
            mode: AuthorizationMode::LinkOnly,
            redirect_uri: String::new(),
            parameters: BTreeMap::new(),
            refresh_policy: None,
            ttl: Some(lifetime(
                self.clock.now(),
                run_at,
                deadline_at,
                self.authorization_ttl,
            )),
        }
    }
}

/// Until the deadline, as far ahead as that of a new job may be; without one, or with one that is over
/// and so is dropped, for `ttl` from when the job may run.
fn lifetime(
    now: Timestamp,
    run_at: Option<Timestamp>,
    deadline_at: Option<Timestamp>,
    ttl: Duration,
) -> Duration {
    let from = run_at.map_or(now, |run_at| run_at.max(now));
    let deadline = deadline_at.filter(|deadline| *deadline > now);
    let deadline = deadline.map(|deadline| deadline.min(now.plus(AHEAD_MAX)));
    deadline.unwrap_or_else(|| from.plus(ttl)).since(now)
}

/// The request's own, or what it is when that is empty.
fn or_its<'a>(own: &'a str, otherwise: Option<&'a str>) -> Option<&'a str> {
    let own = Some(own).filter(|own| !own.is_empty());
    own.or(otherwise.filter(|it| !it.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_good_for_as_long_as_its_job_has() {
        let now = Timestamp::from_micros(1_700_000_000_000_000);
        let [minute, hour] = [60, 3_600].map(Duration::from_secs);
        let later = now.plus(hour);
        assert_eq!(lifetime(now, None, None, minute), minute);
        assert_eq!(lifetime(now, Some(later), None, minute), hour + minute);
        assert_eq!(lifetime(now, Some(now.minus(hour)), None, minute), minute);
        assert_eq!(lifetime(now, None, Some(later), minute), hour);
        assert_eq!(lifetime(now, None, Some(now.minus(hour)), minute), minute);
        let far = now.plus(2 * AHEAD_MAX);
        assert_eq!(lifetime(now, None, Some(far), minute), AHEAD_MAX);
    }
}
