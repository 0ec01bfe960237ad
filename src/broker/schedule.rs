//! What is due: refreshes ahead of expiry, keep-alives, warnings. Work is proportional to what is
//! due, never to what is stored.

mod in_hand;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use in_hand::{InHand, Place};

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
    slots: Arc<Semaphore>,
    in_hand: InHand,
}

/// How often it looks again at once while there is more than a batch.
const SCANS: usize = 8;

/// The most batches in hand: what bounds the memory when many providers are slow at once.
const BATCHES_MAX: usize = 8;

/// When a grant that can't be looked after is due again, such as one whose provider's definition can't
/// be read: until then it is not in the way of those behind it.
const PUT_OFF: Duration = Duration::from_secs(60);

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
            slots: Arc::new(Semaphore::new(config.concurrency)),
            in_hand: InHand::new(config.concurrency),
            store,
            clock,
            vault,
            registry,
            refresher,
            config,
            poke,
        }
    }

    /// Takes what is due in hand, to be looked after as slots become free, and does not wait for it:
    /// an app whose provider is slow to answer holds up its own grants. To be called again only when it
    /// has returned. What has not got its slot at `stop` is left as it is.
    ///
    /// # Errors
    /// The store's.
    pub async fn refresh_due(
        self: &Arc<Self>,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Result<(), Error> {
        for _ in 0..SCANS {
            if stop.is_cancelled() || !self.take_due(tasks, stop).await? {
                break;
            }
        }
        Ok(())
    }

    /// Answers whether more may be due. An app has a batch in hand at most, all have
    /// [`BATCHES_MAX`].
    async fn take_due(
        self: &Arc<Self>,
        tasks: &Tasks,
        stop: &CancellationToken,
    ) -> Result<bool, Error> {
        let batch = usize::try_from(self.config.batch).unwrap_or(usize::MAX);
        // Before the look: what ends after it is found due, and is left to the next scan.
        let in_hand = self.in_hand.grants();
        if in_hand.len() >= batch.saturating_mul(BATCHES_MAX) {
            return Ok(false);
        }
        let busy = self.in_hand.apps_with(batch);
        let limit = batch.saturating_add(in_hand.len());
        let now = self.clock.now();
        let mut conn = self.store.read().await?;
        let rows = i64::try_from(limit).unwrap_or(i64::MAX);
        let due = store::grants::any_tenant_due(&mut conn, now, &busy, rows).await?;
        drop(conn);
        let more = due.len() == limit;
        let new = due.into_iter().filter(|grant| !in_hand.contains(&grant.id));
        for grant in new.take(batch) {
            let Some(place) = self.in_hand.take(&grant, batch) else {
                continue;
            };
            let (this, stop) = (Arc::clone(self), stop.clone());
            tasks.spawn(async move { this.in_turn(grant, place, &stop).await });
        }
        Ok(more)
    }

    async fn in_turn(&self, grant: Grant, place: Place, stop: &CancellationToken) {
        let turn = async {
            let turn = place.turns.acquire().await;
            (turn, self.slots.acquire().await)
        };
        let Some((Ok(_turn), Ok(_slot))) = stop.run_until_cancelled(turn).await else {
            return;
        };
        if let Err(error) = self.look_after(&grant).await {
            crate::error::log(&error);
            let pause = match error {
                // The database was busy or away, which says nothing about the grant.
                Error::Store(_) => self.config.backoff_initial,
                _ => PUT_OFF,
            };
            let later = self.clock.now().plus(pause);
            if let Err(error) = self.move_to(&grant, Some(later)).await {
                crate::error::log(&error);
            }
        }
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
