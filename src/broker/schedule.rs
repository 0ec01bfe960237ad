//! What is due: refreshes ahead of expiry, keep-alives, warnings. Work is proportional to what is
//! due, never to what is stored.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use super::refresh::{Ask, Failure, Refresher};
use super::vault::Vault;
use crate::access::audit::Who;
use crate::clock::Clock;
use crate::config;
use crate::error::Error;
use crate::model::{
    App, AppState, ConnectionState, EventKind, Grant, NewEvent, Provider, RefreshPolicy,
    RefreshTrigger, Timestamp,
};
use crate::registry::Registry;
use crate::store::{self, Store, transact};
use crate::tasks::Tasks;

/// Looks after grants that nobody is asking for.
pub struct Schedule {
    store: Store,
    clock: Clock,
    vault: Vault,
    registry: Arc<Registry>,
    refresher: Arc<Refresher>,
    config: config::Refresh,
    poke: Arc<Notify>,
    running: Running,
}

/// How often it looks again at once while there is more than a batch. Bounded, since what can't be
/// looked after, such as a provider whose definition can't be read, stays due.
const SCANS: usize = 8;

/// The grants that are being looked after, by id: still due in the database until that is done. As
/// many as there are slots at most.
#[derive(Clone, Default)]
struct Running(Arc<Mutex<HashSet<String>>>);

/// Takes its grant off the list in the end, whichever end that is.
struct Place(Running, String);

impl Running {
    fn now(&self) -> HashSet<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn begin(&self, id: &str) -> Place {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.insert(id.to_owned());
        Place(self.clone(), id.to_owned())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut ids = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        ids.remove(&self.1);
    }
}

/// What is to be done with a grant that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Refresh(RefreshTrigger),
    /// Look again then, or never.
    At(Option<Timestamp>),
}

impl Schedule {
    /// Over a store, with what refreshes.
    pub fn new(
        store: Store,
        clock: Clock,
        vault: Vault,
        registry: Arc<Registry>,
        refresher: Arc<Refresher>,
        config: config::Refresh,
        poke: Arc<Notify>,
    ) -> Self {
        Self {
            store,
            clock,
            vault,
            registry,
            refresher,
            config,
            poke,
            running: Running::default(),
        }
    }

    /// Begins to refresh what is due, as many at once as there are slots, and returns when the
    /// last has been begun: a provider that is slow to answer keeps its slots and holds up nobody
    /// else's scan. To be called again only when it has returned.
    ///
    /// # Errors
    /// The store's.
    pub async fn refresh_due(
        self: &Arc<Self>,
        slots: &Arc<Semaphore>,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        for _ in 0..SCANS {
            if !self.begin_due(slots, tasks).await? {
                break;
            }
        }
        Ok(())
    }

    /// Answers whether more may be due.
    async fn begin_due(
        self: &Arc<Self>,
        slots: &Arc<Semaphore>,
        tasks: &Tasks,
    ) -> Result<bool, Error> {
        let now = self.clock.now();
        let mut conn = self.store.read().await?;
        // Before the look: what ends after it is found due, and is left to the next scan.
        let running = self.running.now();
        let limit = i64::from(self.config.batch)
            .saturating_add(i64::try_from(running.len()).unwrap_or(i64::MAX));
        let due = store::grants::any_tenant_due(&mut conn, now, limit).await?;
        drop(conn);
        let more = i64::try_from(due.len()).is_ok_and(|found| found == limit);
        for grant in due {
            if running.contains(&grant.id) {
                continue;
            }
            // Waiting here is the backpressure: the next scan begins when this one has places.
            let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
                return Ok(false);
            };
            let this = Arc::clone(self);
            let place = self.running.begin(&grant.id);
            tasks.spawn(async move {
                let _held = (slot, place);
                if let Err(error) = this.look_after(&grant).await {
                    crate::error::log(&error);
                }
            });
        }
        Ok(more)
    }

    async fn look_after(&self, grant: &Grant) -> Result<(), Error> {
        let mut conn = self.store.read().await?;
        let app = self
            .registry
            .app(&mut conn, &grant.tenant, &grant.app_id)
            .await?;
        let Some(app) = app else { return Ok(()) };
        let provider = self
            .registry
            .provider(&mut conn, &grant.tenant, &app.provider)
            .await?;
        let used = store::connections::grant_last_used(&mut conn, &grant.tenant, &grant.id).await?;
        drop(conn);
        match self.decide(grant, &app, &provider, used) {
            Due::At(next) => self.move_to(grant, next).await,
            Due::Refresh(trigger) => {
                let ask = Ask {
                    tenant: grant.tenant.clone(),
                    grant_id: grant.id.clone(),
                    generation: grant.generation,
                    trigger,
                    who: Who::system("refresh", &grant.tenant),
                };
                match self.refresher.refresh(ask).await {
                    Ok(_) => Ok(()),
                    // Most failures have moved the grant already; this one catches the rest, such
                    // as a lease that another replica holds for long.
                    Err(failure) => self.after(grant, failure).await,
                }
            }
        }
    }

    fn decide(
        &self,
        grant: &Grant,
        app: &App,
        provider: &Provider,
        used: Option<Timestamp>,
    ) -> Due {
        if app.state == AppState::Inactive || !app.misconfiguration.is_empty() {
            // Parked: mending or activating the app brings its grants back.
            return Due::At(None);
        }
        let now = self.clock.now();
        let keep_alive = self.vault.keep_alive_at(grant, provider);
        if keep_alive.is_some_and(|at| at <= now) {
            return Due::Refresh(RefreshTrigger::KeepAlive);
        }
        let lately = used.is_some_and(|at| now.since(at) < self.config.recently_used)
            || now.since(grant.issued_at) < self.config.recently_used
                && grant.last_refreshed_at.is_none();
        match grant.refresh_policy {
            RefreshPolicy::Always => Due::Refresh(RefreshTrigger::Ahead),
            RefreshPolicy::WhenUsed if lately => Due::Refresh(RefreshTrigger::Ahead),
            RefreshPolicy::WhenUsed | RefreshPolicy::OnDemand => Due::At(keep_alive),
        }
    }

    async fn after(&self, grant: &Grant, failure: Failure) -> Result<(), Error> {
        let now = self.clock.now();
        let next = match failure {
            Failure::Unavailable { retry_after, .. } => {
                Some(now.plus(retry_after.clamp(Duration::from_secs(1), self.config.backoff_max)))
            }
            Failure::Broken(error) => {
                crate::error::log(&error);
                Some(now.plus(self.config.backoff_initial))
            }
            Failure::Misconfigured { .. }
            | Failure::AppInactive
            | Failure::Dead { .. }
            | Failure::NotRefreshable
            | Failure::Gone => None,
        };
        self.move_to(grant, next).await
    }

    async fn move_to(&self, grant: &Grant, next: Option<Timestamp>) -> Result<(), Error> {
        let mut conn = self.store.write().await?;
        Ok(store::grants::move_due(&mut conn, grant, next).await?)
    }

    /// Warns of refresh tokens that are about to lapse, once each.
    ///
    /// # Errors
    /// The store's.
    pub async fn send_notices(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let mut conn = self.store.read().await?;
        let limit = i64::from(self.config.batch);
        let due = store::grants::any_tenant_to_notify(&mut conn, now, limit).await?;
        drop(conn);
        for grant in due {
            transact!(self.store, |tx| {
                let connections =
                    store::connections::lock_of_grant(&mut tx, &grant.tenant, &grant.id).await?;
                if !store::grants::mark_notified(&mut tx, &grant).await? {
                    return Ok(());
                }
                for connection in &connections {
                    if connection.state == ConnectionState::Active {
                        let event = NewEvent {
                            expires_at: grant.refresh_expires_at,
                            ..NewEvent::of(
                                EventKind::Expiring,
                                connection,
                                &grant,
                                "refresh_token_expiring",
                                now,
                            )
                        };
                        store::events::append(&mut tx, &event).await?;
                    }
                }
                Ok(())
            })?;
            self.poke.notify_one();
        }
        Ok(())
    }

    /// Commits answers that were journaled and whose commit failed for long.
    ///
    /// # Errors
    /// The journal's.
    pub async fn recover(&self) -> Result<(), Error> {
        self.refresher.recover().await.map(drop)
    }
}
