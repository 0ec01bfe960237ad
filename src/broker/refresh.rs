//! Refreshing a grant's tokens: one attempt at a time, however many callers and replicas ask, and
//! never a lost refresh token.
//!
//! The order is what makes it safe. The lease and the generation about to be spent are recorded
//! before anything is sent; the provider's answer is in the journal before the first attempt to
//! commit it; the commit is a compare-and-set on the generation.

mod attempt;
mod commit;
mod recovery;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use secrecy::SecretString;
use tokio::sync::Notify;

use super::journal::Journal;
use super::vault::Vault;
use crate::access::audit::Who;
use crate::clock::Clock;
use crate::config;
use crate::error::{Error, Precondition};
use crate::model::provider::Rotation;
use crate::model::{App, AppState, Grant, GrantState, Provider, RefreshTrigger, Timestamp};
use crate::oauth::{Http, ProviderClient};
use crate::registry::Registry;
use crate::store::grants::LeaseRequest;
use crate::store::{self, Store};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;

/// What is to be refreshed.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The tenant.
    pub tenant: String,
    /// The grant.
    pub grant_id: String,
    /// The generation that the asker has seen: a newer one is an answer already.
    pub generation: i64,
    /// What set it off.
    pub trigger: RefreshTrigger,
    /// Who did; of those who ask at once, the first.
    pub who: Who,
}

/// A grant, opened.
#[derive(Debug)]
pub struct Fresh {
    /// The grant.
    pub grant: Grant,
    /// Its access token.
    pub access_token: SecretString,
}

/// Why there are no new tokens. Shared by all who waited for the one attempt.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The provider can't be reached, or a back-off runs.
    Unavailable {
        /// How long to wait.
        retry_after: Duration,
        /// What happened.
        detail: String,
    },
    /// The owner must consent again.
    Dead {
        /// Why, machine-readable.
        reason: String,
    },
    /// The provider refuses the app.
    Misconfigured {
        /// The provider's code.
        code: String,
    },
    /// The app was switched off.
    AppInactive,
    /// There is no refresh token.
    NotRefreshable,
    /// The grant was revoked or deleted meanwhile.
    Gone,
    /// The database or this server failed.
    Broken(Arc<Error>),
}

impl Failure {
    /// Whether the held token may be served all the same.
    pub fn leaves_token_alive(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Misconfigured { .. } | Self::Broken(_) => true,
            Self::Dead { .. } | Self::AppInactive | Self::NotRefreshable | Self::Gone => false,
        }
    }

    /// As the caller is told.
    pub fn into_error(self, connection_id: &str) -> Error {
        match self {
            Self::Unavailable {
                retry_after,
                detail,
            } => Error::ProviderUnavailable {
                retry_after,
                detail,
            },
            Self::Dead { reason } => Error::ReauthorizationRequired {
                connection_id: connection_id.to_owned(),
                reason,
            },
            Self::Misconfigured { code } => Error::precondition(
                Precondition::AppMisconfigured,
                format!("the provider refuses the app ({code}); mend its registration"),
            ),
            Self::AppInactive => Error::precondition(
                Precondition::AppInactive,
                "the app was switched off; an operator can switch it on again",
            ),
            Self::NotRefreshable => Error::precondition(
                Precondition::NotRefreshable,
                "the connection holds no refresh token",
            ),
            Self::Gone => Error::precondition(
                Precondition::ConnectionRevoked,
                "the connection was revoked meanwhile",
            ),
            Self::Broken(error) => {
                crate::error::log(&error);
                Error::Unavailable("the refresh could not be carried out".to_owned(), None)
            }
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Broken(Arc::new(error))
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::from(Error::from(error))
    }
}

/// What an attempt led to.
pub type Outcome = Result<Arc<Fresh>, Failure>;
type Flight = Shared<BoxFuture<'static, Outcome>>;

/// Refreshes grants.
pub struct Refresher {
    store: Store,
    clock: Clock,
    vault: Vault,
    registry: Arc<Registry>,
    http: Http,
    journal: Journal,
    config: config::Refresh,
    tasks: Tasks,
    poke: Arc<Notify>,
    metrics: Arc<Metrics>,
    flights: Mutex<HashMap<(String, i64), Flight>>,
}

/// What a refresh is made with.
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Seals and schedules.
    pub vault: Vault,
    /// Apps and providers.
    pub registry: Arc<Registry>,
    /// The way to providers.
    pub http: Http,
    /// Where answers are kept before they are committed.
    pub journal: Journal,
    /// `[refresh]`.
    pub config: config::Refresh,
    /// Where attempts run.
    pub tasks: Tasks,
    /// Wakes the hub after a commit.
    pub poke: Arc<Notify>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// A grant under lease, with all that the attempt needs.
struct Leased {
    grant: Grant,
    app: App,
    provider: Provider,
    client: ProviderClient,
    holder: String,
    /// When the statement that took the lease was sent: the lease ends no earlier than its
    /// duration after this.
    since: Instant,
    lease: Duration,
    trigger: RefreshTrigger,
    who: Who,
}

impl Refresher {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            clock,
            vault,
            registry,
            http,
            journal,
            config,
            tasks,
            poke,
            metrics,
        } = parts;
        Self {
            store,
            clock,
            vault,
            registry,
            http,
            journal,
            config,
            tasks,
            poke,
            metrics,
            flights: Mutex::default(),
        }
    }

    /// Refreshes, or joins the attempt that this process is making already. The attempt runs on a
    /// task of its own: a caller that hangs up takes nothing with it.
    ///
    /// # Errors
    /// [`Failure`], the same for all who waited.
    pub async fn refresh(self: &Arc<Self>, ask: Ask) -> Outcome {
        let key = (ask.grant_id.clone(), ask.generation);
        let flight = {
            let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
            match flights.get(&key) {
                Some(flight) => flight.clone(),
                None => {
                    let this = Arc::clone(self);
                    let own = key.clone();
                    let task = self.tasks.spawn(async move {
                        // Landed even if the attempt panics: else its key would be taken for ever.
                        let _landing = Landing(&this, own);
                        this.run(&ask).await
                    });
                    let flight = task
                        .map(|joined| {
                            joined.unwrap_or_else(|panic| Err(Error::internal(panic).into()))
                        })
                        .boxed()
                        .shared();
                    flights.insert(key, flight.clone());
                    flight
                }
            }
        };
        flight.await
    }

    /// Until it is this process's turn, and then the attempt; or whatever somebody else brought.
    async fn run(&self, ask: &Ask) -> Outcome {
        let mut pause = Duration::from_millis(25);
        let mut patience = None;
        loop {
            let mut conn = self.store.read().await?;
            let grant = store::grants::find(&mut conn, &ask.tenant, &ask.grant_id)
                .await?
                .ok_or(Failure::Gone)?;
            let app = self
                .registry
                .app(&mut conn, &ask.tenant, &grant.app_id)
                .await?
                .ok_or(Failure::Gone)?;
            if let Some(outcome) = self.settled(&grant, &app, ask) {
                return outcome;
            }
            let provider = self
                .registry
                .provider(&mut conn, &ask.tenant, &app.provider)
                .await?;
            let standing = store::grants::lease_standing(&mut conn, &grant).await?;
            drop(conn);
            if !standing.leased {
                if app.state == AppState::Inactive {
                    return Err(Failure::AppInactive);
                }
                let callback = self.registry.callback_url(&app.id);
                let client = self.registry.client(&app, &provider, Some(callback))?;
                let permit = self
                    .permit(&grant, &provider, &client, &standing, ask)
                    .await?;
                if let Some(leased) = self
                    .lease(&grant, app, provider, client, permit, ask)
                    .await?
                {
                    return self.attempt(leased).await;
                }
            }
            // Somebody else's turn: their result is awaited in the row, by one poller a process.
            let now = Instant::now();
            if now > *patience.get_or_insert(now + OTHERS_TURN) {
                return Err(Failure::Unavailable {
                    retry_after: Duration::from_secs(1),
                    detail: "another replica has been refreshing it for too long".to_owned(),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(250));
        }
    }

    /// What the rows answer without an attempt.
    fn settled(&self, grant: &Grant, app: &App, ask: &Ask) -> Option<Outcome> {
        if let Some(failure) = ended(grant) {
            return Some(Err(failure));
        }
        if grant.generation != ask.generation {
            return Some(self.opened(grant.clone()));
        }
        if grant.refresh_token.is_none() {
            return Some(Err(Failure::NotRefreshable));
        }
        let now = self.clock.now();
        let until = grant.not_before.filter(|until| *until > now)?;
        if !app.misconfiguration.is_empty() {
            // As whoever made the attempt was told: waiting alone does not help.
            return Some(Err(Failure::Misconfigured {
                code: app.misconfiguration.clone(),
            }));
        }
        Some(Err(Failure::Unavailable {
            retry_after: until.since(now),
            detail: format!("the last attempt failed ({}); waiting", grant.last_error),
        }))
    }

    fn opened(&self, grant: Grant) -> Outcome {
        let access_token = self
            .vault
            .access_token(&grant)
            .map_err(Error::from)?
            .ok_or(Failure::NotRefreshable)?;
        Ok(Arc::new(Fresh {
            grant,
            access_token,
        }))
    }

    /// Whether the refresh token may be sent, given that an earlier attempt's end may be unknown.
    async fn permit(
        &self,
        grant: &Grant,
        provider: &Provider,
        client: &ProviderClient,
        standing: &store::grants::LeaseStanding,
        ask: &Ask,
    ) -> Result<Permit, Failure> {
        if !grant.is_ambiguous() {
            return Ok(Permit::Plain);
        }
        if provider.rotation == Rotation::Never {
            return Ok(Permit::Again);
        }
        let age = standing.attempt_age.unwrap_or(Duration::MAX);
        // The provider says that it takes a spent one again for so long; the request must arrive
        // within that.
        if age.saturating_add(client.total_timeout()) < provider.reuse_grace {
            return Ok(Permit::Again);
        }
        let now = self.clock.now();
        let alive = match grant.expires_at {
            Some(end) => end > now,
            None => ask.trigger != RefreshTrigger::Rejected,
        };
        let rest = self.config.ambiguous_hold.saturating_sub(age);
        if alive || !rest.is_zero() {
            let until_end = grant
                .expires_at
                .map_or(rest, |end| end.since(now).max(rest));
            return Err(Failure::Unavailable {
                retry_after: until_end.max(Duration::from_secs(1)),
                detail: "an earlier attempt's answer was lost, so its refresh token may be spent; \
                         waiting for the server that made it to recover it"
                    .to_owned(),
            });
        }
        if grant.attempt_retried {
            self.give_up(grant, &ask.who, now).await?;
            return Err(Failure::Dead {
                reason: LOST.to_owned(),
            });
        }
        Ok(Permit::LastTry)
    }

    async fn lease(
        &self,
        grant: &Grant,
        app: App,
        provider: Provider,
        client: ProviderClient,
        permit: Permit,
        ask: &Ask,
    ) -> Result<Option<Leased>, Failure> {
        let holder = new_holder();
        let lease = self
            .config
            .lease
            .max(client.total_timeout() + config::refresh::LEASE_SPARE * 2);
        let request = LeaseRequest {
            tenant: &grant.tenant,
            grant_id: &grant.id,
            generation: grant.generation,
            holder: &holder,
            duration: lease,
            despite_ambiguity: permit != Permit::Plain,
            last_try: permit == Permit::LastTry,
        };
        let since = Instant::now();
        let mut conn = self.store.write().await?;
        let taken = store::grants::take_lease(&mut conn, &request).await?;
        Ok(taken.map(|grant| Leased {
            grant,
            app,
            provider,
            client,
            holder,
            since,
            lease,
            trigger: ask.trigger,
            who: ask.who.clone(),
        }))
    }
}

/// How long another replica's attempt is waited for. Less than a request may take, so that its
/// caller is served the held token, or told to come back, rather than cut off.
const OTHERS_TURN: Duration = Duration::from_secs(15);

/// `state_reason` of a grant whose refresh token was spent and its successor lost.
const LOST: &str = "refresh_token_lost";

/// On what terms a refresh token is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Permit {
    /// It was not sent before.
    Plain,
    /// It may have been, and the provider takes it again.
    Again,
    /// It may have been, the held token has ended, and there is nothing to lose.
    LastTry,
}

/// Ends a flight when dropped.
struct Landing<'a>(&'a Refresher, (String, i64));

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        let mut flights = self
            .0
            .flights
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        flights.remove(&self.1);
    }
}

/// Why a grant is not refreshed any more, where it is not.
fn ended(grant: &Grant) -> Option<Failure> {
    match grant.state {
        GrantState::Active => None,
        GrantState::ReauthorizationRequired => Some(Failure::Dead {
            reason: grant.state_reason.clone(),
        }),
        GrantState::Revoked => Some(Failure::Gone),
    }
}

/// Unique to one attempt of one process.
fn new_holder() -> String {
    format!("{}-{}", std::process::id(), uuid::Uuid::now_v7().simple())
}

/// The later of two times, where there may be none.
fn later(one: Option<Timestamp>, other: Timestamp) -> Timestamp {
    one.map_or(other, |one| one.max(other))
}
