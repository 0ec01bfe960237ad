//! The composition root: the only place that wires.

mod accounts;

pub use accounts::persons;

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::accounts::Accounts;
use crate::access::audit::{Reads, Refusals, Trail};
use crate::access::certificates::Certificates;
use crate::access::jwt::Jwts;
use crate::access::limits::{Addresses, Limits};
use crate::access::throttle::Throttle;
use crate::access::{ApiKeys, Callers, Sessions, Users, sessions};
use crate::automation::{self, Automation};
use crate::bootstrap::{self, FirstKey, StartError};
use crate::broker::events::Listener;
use crate::broker::journal::Journal;
use crate::broker::{Hub, Persons, Refresher, Schedule, Syncs, TokenCache, Tokens, refresh};
use crate::clock::Clock;
use crate::config::Config;
use crate::freshness::Freshness;
use crate::grpc::administration;
use crate::grpc::authorization_server::AuthorizationServerService;
use crate::grpc::automation_jobs;
use crate::grpc::client_registry::ClientRegistryService;
use crate::grpc::gate::Gate;
use crate::grpc::streams::Streams;
use crate::grpc::token_broker::Context;
use crate::issuer::{self, Issuer};
use crate::maintenance::Retention;
use crate::server::{self, Listening, Services, Tls};
use crate::store::{Engine, Store};
use crate::tasks::Tasks;
use crate::telemetry::Metrics;
use crate::web;
use crate::workers::{self, Tallies, Workers};

/// A server that runs.
pub struct Running {
    config: Arc<Config>,
    listening: Listening,
    store: Store,
    cache: Arc<TokenCache>,
    keys: Arc<ApiKeys>,
    users: Arc<Users>,
    callers: Arc<Callers>,
    issuer: Arc<Issuer>,
    tallies: Tallies,
    trail: Arc<Trail>,
    first_key: Option<FirstKey>,
    tasks: Tasks,
    /// Ends streams.
    stopping: CancellationToken,
    /// Ends the background loops.
    ending: CancellationToken,
    _lock: Option<bootstrap::Lock>,
}

/// Serves until `shutdown` is ready, and drains.
///
/// # Errors
/// [`StartError`] when it can't start.
pub async fn serve(
    config: Config,
    clock: Clock,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let running = start(config, clock).await?;
    shutdown.await;
    running.stop().await;
    Ok(())
}

/// Starts a server: returns when it answers requests.
///
/// # Errors
/// [`StartError`], before anything is served.
pub async fn start(config: Config, clock: Clock) -> Result<Running, StartError> {
    let config = Arc::new(config);
    let tls = tls(&config, &clock)?;
    let lock = bootstrap::Lock::acquire(&config.database)?;
    // Before the database is opened, which makes its file: a new key beside old data is refused.
    let keyring = bootstrap::keyring(&config)?;
    let store = bootstrap::open(&config.database).await?;
    bootstrap::schema(&store).await?;

    let grpc_listener = server::bind(config.grpc.listen).await?;
    let web_listener = server::bind(config.web.listen).await?;
    let issuer_listener = match config.issuer.listen {
        Some(address) => Some(server::bind(address).await?),
        None => None,
    };
    let tasks = Tasks::default();
    let poke = Arc::new(Notify::new());
    let stopping = CancellationToken::new();
    let ending = CancellationToken::new();
    let metrics = Arc::new(Metrics::new());
    let freshness = Arc::new(Freshness::new(config.cache.max_staleness));
    let limits = Arc::new(Limits::new(&config.limits, clock.clone()));
    let streams = Streams::new(config.grpc.max_streams_watching, Arc::clone(&metrics));
    let keys = ApiKeys::new(store.clone(), clock.clone(), Arc::clone(&freshness));
    let keys = Arc::new(keys.serving(keyring.clone(), Arc::clone(&limits)));
    let sessions = Arc::new(Sessions::new(sessions::Parts {
        store: store.clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        freshness: Arc::clone(&freshness),
        limits: Arc::clone(&limits),
        throttle: Throttle::new(store.clone(), config.passwords.clone()),
        config: config.sessions.clone(),
        poke: Arc::clone(&poke),
    }));
    let callers = Arc::new(Callers::new(
        Arc::clone(&keys),
        Arc::clone(&sessions),
        Certificates::new(
            &config.access.certificates,
            Arc::clone(&limits),
            clock.clone(),
        ),
        Jwts::new(&config.access.jwt, clock.clone(), Arc::clone(&limits))?,
    ));
    let cache = Arc::new(TokenCache::new(
        config.cache.capacity,
        Arc::clone(&freshness),
    ));
    let Accounts {
        http,
        registry,
        vault,
        authorizations,
        connections,
    } = Accounts::new(&config, &store, &keyring, &clock, &cache, &poke)?;
    let journal = Journal::open(&config.journal.dir, keyring.clone())
        .map_err(|error| StartError::Other(error.into()))?;
    let refresher = Arc::new(Refresher::new(refresh::Parts {
        store: store.clone(),
        clock: clock.clone(),
        vault: vault.clone(),
        registry: Arc::clone(&registry),
        http: http.clone(),
        journal,
        config: config.refresh.clone(),
        tasks: tasks.clone(),
        poke: Arc::clone(&poke),
        metrics: Arc::clone(&metrics),
    }));
    let mode = config.audit.token_reads;
    let tallies = Tallies {
        reads: Arc::new(Reads::new(store.clone(), clock.clone(), mode)),
        refusals: Arc::new(Refusals::new(store.clone(), clock.clone(), keyring.clone())),
        clock: clock.clone(),
    };
    let tokens = Arc::new(Tokens::new(
        store.clone(),
        clock.clone(),
        vault.clone(),
        Arc::clone(&registry),
        Arc::clone(&refresher),
        Arc::clone(&cache),
        Arc::clone(&tallies.reads),
        Arc::clone(&metrics),
        config.refresh.rejected_report_interval,
    ));
    let users = Arc::new(Users::new(
        store.clone(),
        keyring.clone(),
        clock.clone(),
        &config.passwords,
        Arc::clone(&poke),
    )?);
    let trail = Arc::new(Trail::new(
        store.clone(),
        keyring.clone(),
        clock.clone(),
        &config,
        stopping.clone(),
    ));
    let persons = Arc::new(Persons::new(
        store.clone(),
        clock.clone(),
        Arc::clone(&authorizations),
        Arc::clone(&connections),
        Arc::clone(&trail),
    ));
    let issuer = Arc::new(Issuer::new(issuer::Parts {
        store: store.clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        http,
        config: config.issuer.clone(),
        web_url: config.web.public_url.clone(),
        users: Arc::clone(&users),
        freshness: Arc::clone(&freshness),
        poke: Arc::clone(&poke),
        metrics: Arc::clone(&metrics),
    }));
    let automation = Arc::new(Automation::new(automation::Parts {
        store: store.clone(),
        keyring: keyring.clone(),
        clock: clock.clone(),
        config: config.automation.clone(),
        poke: Arc::clone(&poke),
        metrics: Arc::clone(&metrics),
        stopping: stopping.clone(),
    }));
    let syncs = Arc::new(Syncs::new(store.clone(), keyring, clock.clone()));
    let heard = Arc::clone(&cache);
    let forget: Listener = Box::new(move |event| heard.hear(event));
    let heard = Arc::clone(&issuer);
    let forget_issued: Listener = Box::new(move |event| heard.forget(event));
    let heard = Arc::clone(&automation);
    let hear_of_jobs: Listener = Box::new(move |event| heard.hear(event));
    let hub = Arc::new(Hub::new(
        store.clone(),
        config.events.clone(),
        freshness,
        Arc::clone(&poke),
        Arc::clone(&callers),
        Arc::clone(&metrics),
        vec![forget, forget_issued, hear_of_jobs],
        stopping.clone(),
    ));

    registry.declare(&config.apps).await?;
    issuer.prepare().await?;
    // What a crash left behind comes first: nothing may be refreshed from before it.
    refresher.recover().await?;
    hub.begin().await?;
    let first_key = bootstrap::first_api_key(&keys, &config).await?;
    tasks.spawn(Arc::clone(&hub).run(ending.clone()));
    let retention = Arc::new(Retention::new(
        store.clone(),
        clock.clone(),
        config.retention.clone(),
        config.events.retention,
        Arc::clone(&trail),
    ));
    let schedule = Arc::new(Schedule::new(
        store.clone(),
        clock.clone(),
        vault,
        Arc::clone(&registry),
        refresher,
        config.refresh.clone(),
        poke,
    ));
    Workers {
        store: store.clone(),
        config: Arc::clone(&config),
        schedule,
        authorizations: Arc::clone(&authorizations),
        issuer: Arc::clone(&issuer),
        automation: Arc::clone(&automation),
        retention,
        cache: Arc::clone(&cache),
        callers: Arc::clone(&callers),
        tallies: tallies.clone(),
        trail: Arc::clone(&trail),
        metrics: Arc::clone(&metrics),
        tasks: tasks.clone(),
    }
    .start(&ending);
    let services = Services {
        web: web::router(
            Arc::clone(&authorizations),
            Arc::clone(&issuer),
            tasks.clone(),
            &config.web.public_url,
            Arc::clone(&tallies.refusals),
            &config.web.trusted_proxies,
        ),
        endpoints: web::endpoints(
            Arc::clone(&issuer),
            tasks.clone(),
            &config.issuer,
            &config.web.trusted_proxies,
        ),
        authorization_server: AuthorizationServerService::new(Arc::clone(&issuer), tasks.clone()),
        automation_jobs: automation_jobs::Context {
            automation,
            authorizations: Arc::clone(&authorizations),
            registry: Arc::clone(&registry),
            hub: Arc::clone(&hub),
            streams: streams.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
            authorization_ttl: config.automation.authorization_ttl,
        },
        client_registry: ClientRegistryService::new(Arc::clone(&registry), tasks.clone()),
        administration: administration::Context {
            callers: Arc::clone(&callers),
            keys: Arc::clone(&keys),
            users: Arc::clone(&users),
            sessions,
            trail: Arc::clone(&trail),
            persons,
            authorizations: Arc::clone(&authorizations),
            streams: streams.clone(),
            clock: clock.clone(),
            tasks: tasks.clone(),
        },
        gate: Gate::new(
            Arc::clone(&callers),
            metrics,
            tasks.clone(),
            config.grpc.request_timeout,
            Addresses::new(
                config.limits.failed_authentications_per_address,
                clock.clone(),
            ),
            Arc::clone(&tallies.refusals),
        ),
        token_broker: Context {
            authorizations,
            connections,
            syncs,
            tokens,
            hub,
            streams,
            registry,
            clock,
            tasks: tasks.clone(),
        },
    };
    let listening = server::serve(
        server::Bound {
            grpc: grpc_listener,
            web: web_listener,
            issuer: issuer_listener,
        },
        services,
        &config,
        tls,
    )?;
    listening.ready().await;
    if config.issuer.is_out_of_reach(&config.web) {
        tracing::warn!(
            "issuer.url is a loopback address, while web.public_url is not: tokens of our own name \
             an issuer that nobody elsewhere can reach"
        );
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        engine = match store.engine() {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgres",
        },
        grpc = %listening.grpc,
        web = %listening.web,
        issuer = listening.issuer.map(tracing::field::display),
        "serving"
    );
    Ok(Running {
        config,
        listening,
        store,
        cache,
        keys,
        users,
        callers,
        issuer,
        tallies,
        trail,
        first_key,
        tasks,
        stopping,
        ending,
        _lock: lock,
    })
}

/// Checks what is needed before anything is made and what the configuration alone does not show:
/// whether the files of `grpc.tls` hold what they should.
///
/// # Errors
/// [`StartError::Config`].
pub fn check(config: &Config) -> Result<(), StartError> {
    tls(config, &Clock::system()).map(drop)
}

fn tls(config: &Config, clock: &Clock) -> Result<Option<Tls>, StartError> {
    let files = config.grpc.tls.as_ref();
    let tls = files.map(|files| Tls::load(files, clock.clone()));
    Ok(tls.transpose()?)
}

impl Running {
    /// Where gRPC is served.
    pub fn grpc_address(&self) -> SocketAddr {
        self.listening.grpc
    }

    /// Where browsers are.
    pub fn web_address(&self) -> SocketAddr {
        self.listening.web
    }

    /// Where clients of our own authorisation server are, if its endpoints are on.
    pub fn issuer_address(&self) -> Option<SocketAddr> {
        self.listening.issuer
    }

    /// The keys, for tests that make their own.
    pub fn keys(&self) -> &Arc<ApiKeys> {
        &self.keys
    }

    /// The users, for tests that count hashes.
    pub fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// The first key, if this start made it.
    pub fn first_key(&self) -> Option<&FirstKey> {
        self.first_key.as_ref()
    }

    /// Leaves in order: health first, then streams, requests, work begun, and what was counted.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.listening.leaving().await;
        self.stopping.cancel();
        self.listening.close(self.config.grpc.drain_timeout).await;
        self.ending.cancel();
        let drained = self.tasks.drained();
        if tokio::time::timeout(self.config.grpc.drain_timeout, drained)
            .await
            .is_err()
        {
            tracing::warn!("some work did not end within grpc.drain_timeout; the journal has it");
        }
        if let Err(error) = self.tallies.flush(&self.cache, true).await {
            crate::error::log(&error);
        }
        if let Err(error) =
            workers::flush(&self.store, &self.cache, &self.callers, &self.issuer).await
        {
            crate::error::log(&error);
        }
        // Last: it covers whatever was written until here.
        if let Err(error) = self.trail.checkpoint(true).await {
            crate::error::log(&error);
        }
        tracing::info!("stopped");
    }
}
