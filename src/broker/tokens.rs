//! Serving access tokens: from memory when one is held that will do, after one refresh when not.

mod loading;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;

use loading::Loaded;

use super::cache::{Fit, Held, TokenCache};
use super::connections;
use super::refresh::{Ask, Failure, Refresher};
use super::vault::Vault;
use crate::access::audit::{self, Action, Reads, Who};
use crate::access::{Caller, Permission, Principal};
use crate::clock::Clock;
use crate::error::{Error, Precondition};
use crate::model::{RefreshTrigger, Timestamp};
use crate::registry::Registry;
use crate::store::{Store, transact};
use crate::telemetry::Metrics;

/// Which token is wanted.
#[derive(Clone, Debug)]
pub enum Target {
    /// Of this connection.
    Connection(String),
    /// Of the connection that an app and an owner lead to; the owner may be left out where the
    /// app has one connection.
    App {
        /// The app's id, client id or external key.
        app: String,
        /// The owner.
        owner: Option<String>,
    },
}

/// What is wanted of it.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Good for this long from now; the provider's margin when not said.
    pub min_validity: Option<Duration>,
    /// Granted all of these.
    pub required_scopes: Vec<String>,
    /// Rather nothing than a token that is good for less.
    pub strict: bool,
}

/// A token to hand out.
#[derive(Clone, Debug)]
pub struct Served {
    /// The token.
    pub held: Arc<Held>,
    /// It is good for less than was asked.
    pub below_min_validity: bool,
}

/// What the report of a rejected token led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It was the held one; it has been replaced.
    Refreshed,
    /// Another one is held already.
    AlreadyReplaced,
    /// It can't be refreshed.
    NotRefreshable,
}

/// Serves tokens.
pub struct Tokens {
    store: Store,
    clock: Clock,
    vault: Vault,
    registry: Arc<Registry>,
    refresher: Arc<Refresher>,
    cache: Arc<TokenCache>,
    reads: Arc<Reads>,
    metrics: Arc<Metrics>,
    reported: Cache<String, ()>,
    report_interval: Duration,
}

impl Tokens {
    /// Over a store, with what refreshes and what remembers.
    #[allow(clippy::too_many_arguments, reason = "wired in one place")]
    pub fn new(
        store: Store,
        clock: Clock,
        vault: Vault,
        registry: Arc<Registry>,
        refresher: Arc<Refresher>,
        cache: Arc<TokenCache>,
        reads: Arc<Reads>,
        metrics: Arc<Metrics>,
        report_interval: Duration,
    ) -> Self {
        let reported = Cache::builder()
            .max_capacity(10_000)
            .time_to_live(report_interval)
            .build();
        Self {
            store,
            clock,
            vault,
            registry,
            refresher,
            cache,
            reads,
            metrics,
            reported,
            report_interval,
        }
    }

    /// The token from memory, when one is held that will do: no database, no waiting. `None` when
    /// [`Tokens::get`] must be asked, as always where each read is written down first. `ip` is where
    /// the caller calls from.
    pub fn get_held(
        &self,
        principal: &Arc<Principal>,
        ip: Option<IpAddr>,
        target: &Target,
        wanted: &Wanted,
    ) -> Option<Result<Served, Error>> {
        if self.reads.each() {
            return None;
        }
        let now = self.clock.now();
        let outcome = self.held(principal, target, wanted, now)?;
        if let Ok(served) = &outcome {
            served.held.count(principal, ip, now);
            self.metrics.access_token_served("cached");
        }
        Some(outcome)
    }

    /// The token from memory, when one is held that will do; not counted yet.
    fn held(
        &self,
        principal: &Principal,
        target: &Target,
        wanted: &Wanted,
        now: Timestamp,
    ) -> Option<Result<Served, Error>> {
        let target = match target.meant_by(principal) {
            Ok(target) => target,
            Err(error) => return Some(Err(error)),
        };
        let tenant = &principal.tenant;
        let held = match &*target {
            Target::Connection(id) => self.cache.get(tenant, id),
            Target::App { app, owner } => self.cache.get_named(tenant, app, owner.as_deref()),
        }?;
        if !principal.allows(&held.app_id, &held.provider, &held.owner) {
            return None;
        }
        if let Err(error) = has_scopes(&held, &wanted.required_scopes) {
            return Some(Err(error));
        }
        let waits = held.not_before.is_some_and(|until| until > now);
        match held.fit(wanted.min_validity, now) {
            Fit::Good => {}
            Fit::Short if !held.refreshable && !wanted.strict => {}
            // The back-off runs: nobody will get a better one meanwhile.
            Fit::Short if waits && !wanted.strict => {}
            Fit::Short | Fit::Ended => return None,
        }
        Some(Ok(Served {
            below_min_validity: held.is_below(wanted.min_validity, now),
            held,
        }))
    }

    /// The token, from wherever it takes. Run it to its end: it may refresh.
    ///
    /// # Errors
    /// Typed, as the RPC documents them.
    pub async fn get(
        &self,
        caller: &Caller,
        target: &Target,
        wanted: &Wanted,
    ) -> Result<Served, Error> {
        // Else it was looked for already.
        let held = if self.reads.each() {
            self.held(caller, target, wanted, self.clock.now())
        } else {
            None
        };
        let outcome = match held {
            Some(outcome) => outcome,
            None => self.fetch(caller, target, wanted).await,
        };
        let outcome = match outcome {
            Ok(served) => self.hand_out(caller, &served.held).await.map(|()| served),
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(served) => {
                let now = self.clock.now();
                served.held.count_use(caller.principal(), now);
                self.metrics.access_token_served("loaded");
            }
            Err(_) => self.metrics.access_token_served("refused"),
        }
        outcome
    }

    /// Has the audit trail know of a token before it is handed out.
    async fn hand_out(&self, caller: &Caller, held: &Held) -> Result<(), Error> {
        if self.reads.each() {
            return self.reads.write(caller, held.subject()).await;
        }
        let now = self.clock.now();
        held.count_read(caller.principal(), caller.origin.ip, now);
        Ok(())
    }

    async fn fetch(
        &self,
        caller: &Caller,
        target: &Target,
        wanted: &Wanted,
    ) -> Result<Served, Error> {
        let loaded = self.load(caller, target, Permission::ReadTokens).await?;
        let held = self.open(&loaded)?;
        self.cache.keep(&held, loaded.epoch);
        self.serve(caller, &loaded, held, wanted).await
    }

    async fn serve(
        &self,
        caller: &Caller,
        loaded: &Loaded,
        held: Arc<Held>,
        wanted: &Wanted,
    ) -> Result<Served, Error> {
        has_scopes(&held, &wanted.required_scopes)?;
        let served = |held: Arc<Held>| Served {
            below_min_validity: held.is_below(wanted.min_validity, self.clock.now()),
            held,
        };
        let fit = held.fit(wanted.min_validity, self.clock.now());
        if fit == Fit::Good {
            return Ok(served(held));
        }
        if !held.refreshable {
            return match fit {
                Fit::Good | Fit::Short if !wanted.strict => Ok(served(held)),
                Fit::Ended => Err(Error::ReauthorizationRequired {
                    connection_id: held.connection_id.clone(),
                    reason: "expired".to_owned(),
                }),
                Fit::Good | Fit::Short => Err(Error::precondition(
                    Precondition::NotRefreshable,
                    "the held token is good for less than was asked, and can't be refreshed",
                )),
            };
        }
        match self.refresh(caller, loaded, RefreshTrigger::Demand).await {
            Ok(fresh) => Ok(served(fresh)),
            Err(failure) => {
                // Judged anew: the attempt took time.
                let alive = held.fit(Some(Duration::ZERO), self.clock.now()) != Fit::Ended;
                if alive && !wanted.strict && failure.leaves_token_alive() && !held.dies_on_refresh
                {
                    Ok(served(held))
                } else {
                    Err(failure.into_error(&loaded.connection.id))
                }
            }
        }
    }

    /// Refreshes the loaded grant, and holds what came.
    async fn refresh(
        &self,
        caller: &Caller,
        loaded: &Loaded,
        trigger: RefreshTrigger,
    ) -> Result<Arc<Held>, Failure> {
        let ask = Ask {
            tenant: loaded.grant.tenant.clone(),
            grant_id: loaded.grant.id.clone(),
            generation: loaded.grant.generation,
            trigger,
            who: Who::from(caller),
        };
        let fresh = match self.refresher.refresh(ask).await {
            Ok(fresh) => fresh,
            Err(failure) => {
                // What is held does not know of the back-off yet.
                self.cache.forget(&loaded.connection.id);
                return Err(failure);
            }
        };
        let held = Arc::new(Held::new(
            &loaded.connection,
            &fresh.grant,
            &loaded.app,
            &loaded.provider,
            self.vault.margin(&fresh.grant, &loaded.provider),
            (fresh.access_token.clone(), None),
            self.cache.uses(&loaded.connection),
        ));
        self.cache.keep(&held, loaded.epoch);
        Ok(held)
    }

    /// Refreshes whatever is left of the held token.
    ///
    /// # Errors
    /// Typed, as the RPC documents them.
    pub async fn refresh_now(&self, caller: &Caller, target: &Target) -> Result<Served, Error> {
        let loaded = self.load(caller, target, Permission::RefreshTokens).await?;
        let held = self
            .refresh(caller, &loaded, RefreshTrigger::Forced)
            .await
            .map_err(|failure| failure.into_error(&loaded.connection.id))?;
        if caller.may(Permission::ReadTokens) {
            self.hand_out(caller, &held).await?;
        }
        Ok(Served {
            below_min_validity: held.is_below(None, self.clock.now()),
            held,
        })
    }

    /// Hears that a provider refused a token, with the HTTP status that it gave; 0 when not known.
    /// Only the held one is replaced.
    ///
    /// # Errors
    /// Typed, as the RPC documents them.
    pub async fn report_rejected(
        &self,
        caller: &Caller,
        connection_id: &str,
        token_id: &str,
        http_status: i32,
    ) -> Result<Rejection, Error> {
        let target = Target::Connection(connection_id.to_owned());
        let loaded = self
            .load(caller, &target, Permission::RefreshTokens)
            .await?;
        if loaded.grant.token_id() != token_id {
            let known = token_id
                .rsplit_once('.')
                .is_some_and(|(_, generation)| generation.parse::<i64>().is_ok());
            return if known {
                Ok(Rejection::AlreadyReplaced)
            } else {
                Err(Error::invalid(
                    "token_id",
                    "is not a token id that this service gave",
                ))
            };
        }
        // A provider outage makes every consumer report: one refresh an interval is enough.
        let first = self
            .reported
            .entry_by_ref(loaded.grant.id.as_str())
            .or_insert(())
            .is_fresh();
        if first && let Err(error) = self.record_rejected(caller, &loaded, http_status).await {
            // Nothing came of this report: the next one is the first.
            self.reported.invalidate(loaded.grant.id.as_str());
            return Err(error);
        }
        if loaded.grant.refresh_token.is_none() {
            return Ok(Rejection::NotRefreshable);
        }
        if !first {
            return Err(Error::ResourceExhausted {
                message: "this connection's token was reported as rejected a moment ago".to_owned(),
                retry_after: self.report_interval,
            });
        }
        let refreshed = self
            .refresh(caller, &loaded, RefreshTrigger::Rejected)
            .await;
        if let Err(Failure::Broken(_)) = &refreshed {
            // This server failed: the next report is to try again.
            self.reported.invalidate(loaded.grant.id.as_str());
        }
        refreshed.map_err(|failure| failure.into_error(connection_id))?;
        Ok(Rejection::Refreshed)
    }

    async fn record_rejected(
        &self,
        caller: &Caller,
        loaded: &Loaded,
        http_status: i32,
    ) -> Result<(), Error> {
        let entry = connections::entry(Action::TokenRejected, caller, &loaded.connection)
            .detail("token_id", loaded.grant.token_id())
            .detail("http_status", http_status);
        let now = self.clock.now();
        transact!(self.store, |tx| {
            audit::record(&mut tx, &entry, now).await.map(drop)
        })
    }

    /// The held token of a connection if it is still of this generation: for events that carry it.
    /// `None` also when the audit trail can't know of it.
    pub async fn of_generation(
        &self,
        caller: &Caller,
        connection_id: &str,
        generation: i64,
    ) -> Option<Arc<Held>> {
        let target = Target::Connection(connection_id.to_owned());
        let held = match self.cache.get(&caller.tenant, connection_id) {
            Some(held) => held,
            None => {
                let loaded = self
                    .load(caller, &target, Permission::ReadTokens)
                    .await
                    .ok()?;
                let held = self.open(&loaded).ok()?;
                self.cache.keep(&held, loaded.epoch);
                held
            }
        };
        if held.generation != generation {
            return None;
        }
        match self.hand_out(caller, &held).await {
            Ok(()) => Some(held),
            Err(error) => {
                crate::error::log(&error);
                None
            }
        }
    }
}

fn has_scopes(held: &Held, required: &[String]) -> Result<(), Error> {
    let missing: Vec<String> = required
        .iter()
        .filter(|scope| !held.scopes.contains(scope))
        .cloned()
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::ScopesMissing {
            connection_id: held.connection_id.clone(),
            missing,
        })
    }
}
