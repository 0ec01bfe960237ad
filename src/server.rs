//! The listeners: gRPC, the browser's and that of OAuth clients, health, and the way down.

mod incoming;
mod peer;
mod places;
mod tls;
mod web;

use places::Places;
pub use tls::Tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::bootstrap::StartError;
use crate::config::Config;
use crate::grpc::administration;
use crate::grpc::authorization_server::AuthorizationServerService;
use crate::grpc::automation_jobs;
use crate::grpc::client_registry::ClientRegistryService;
use crate::grpc::gate::Gate;
use crate::grpc::token_broker::Context;
use crate::pb;
use crate::pb::administration_server::AdministrationServer;
use crate::pb::authorization_server_server::AuthorizationServerServer;
use crate::pb::automation_jobs_server::AutomationJobsServer;
use crate::pb::client_registry_server::ClientRegistryServer;
use crate::pb::token_broker_server::TokenBrokerServer;

/// What is served.
pub struct Services {
    /// TokenBroker.
    pub token_broker: Context,
    /// ClientRegistry.
    pub client_registry: ClientRegistryService,
    /// Administration.
    pub administration: administration::Context,
    /// AuthorizationServer.
    pub authorization_server: AuthorizationServerService,
    /// AutomationJobs.
    pub automation_jobs: automation_jobs::Context,
    /// Before them all.
    pub gate: Gate,
    /// The browser edge.
    pub web: axum::Router,
    /// What OAuth clients call.
    pub endpoints: axum::Router,
}

/// Listeners that are bound already, so that a taken port is an error at the start.
pub struct Bound {
    /// For gRPC.
    pub grpc: TcpListener,
    /// For browsers.
    pub web: TcpListener,
    /// For OAuth clients, where they are served.
    pub issuer: Option<TcpListener>,
}

/// Listeners that serve, and what serves them.
pub struct Listening {
    /// Where gRPC is served.
    pub grpc: SocketAddr,
    /// Where browsers are.
    pub web: SocketAddr,
    /// Where OAuth clients are; none where those endpoints are off.
    pub issuer: Option<SocketAddr>,
    health: HealthReporter,
    serving: Vec<tokio::task::JoinHandle<()>>,
    stop: CancellationToken,
}

/// Binds an address.
///
/// # Errors
/// [`StartError::Listen`].
pub async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Listen {
        addr: address,
        source,
    };
    TcpListener::bind(address).await.map_err(failed)
}

/// Serves. With `tls` gRPC is encrypted.
///
/// # Errors
/// [`StartError::Other`] when a listener has no address or reflection can't be built.
pub fn serve(
    bound: Bound,
    services: Services,
    config: &Config,
    tls: Option<Tls>,
) -> Result<Listening, StartError> {
    let Bound { grpc, web, issuer } = bound;
    let grpc_config = &config.grpc;
    let grpc_address = address(&grpc)?;
    let web_address = address(&web)?;
    let issuer_address = issuer.as_ref().map(address).transpose()?;
    let stop = CancellationToken::new();
    let (health, health_service) = tonic_health::server::health_reporter();
    // Older tools know the alpha of the protocol only.
    let (reflection, reflection_alpha) = if grpc_config.offers_reflection() {
        let failed = |error: tonic_reflection::server::Error| StartError::Other(error.into());
        let v1 = reflected().build_v1().map_err(failed)?;
        let alpha = reflected().build_v1alpha().map_err(failed)?;
        (Some(v1), Some(alpha))
    } else {
        (None, None)
    };
    let most = grpc_config.max_message_bytes;
    let router = Server::builder()
        .http2_keepalive_interval(Some(grpc_config.keepalive_interval))
        .http2_keepalive_timeout(Some(grpc_config.keepalive_timeout))
        .max_concurrent_streams(Some(grpc_config.max_concurrent_streams))
        .layer(services.gate)
        .add_service(health_service)
        .add_optional_service(reflection)
        .add_optional_service(reflection_alpha)
        .add_service(TokenBrokerServer::new(services.token_broker).max_decoding_message_size(most))
        .add_service(
            ClientRegistryServer::new(services.client_registry).max_decoding_message_size(most),
        )
        .add_service(
            AdministrationServer::new(services.administration).max_decoding_message_size(most),
        )
        .add_service(
            AuthorizationServerServer::new(services.authorization_server)
                .max_decoding_message_size(most),
        )
        .add_service(
            AutomationJobsServer::new(services.automation_jobs).max_decoding_message_size(most),
        );
    let tls = tls.map(Arc::new);
    if let Some(tls) = tls.clone() {
        tokio::spawn(tls.watch(stop.clone()));
    }
    let places = Places::new(
        grpc_config.max_connections,
        config.limits.connections_per_address,
        &[],
    );
    let patience = grpc_config.handshake_timeout;
    let incoming = incoming::incoming(grpc, tls, places, patience, stop.clone());
    let stopped = stop.clone();
    let grpc_task = tokio::spawn(async move {
        if let Err(error) = router
            .serve_with_incoming_shutdown(incoming, stopped.cancelled_owned())
            .await
        {
            tracing::error!(%error, "the gRPC listener failed");
        }
    });
    let mut serving = vec![grpc_task];
    let browsers = door("browser", web, config);
    serving.push(tokio::spawn(web::serve(
        browsers,
        services.web,
        stop.clone(),
    )));
    if let Some(issuer) = issuer {
        let clients = door("OAuth", issuer, config);
        serving.push(tokio::spawn(web::serve(
            clients,
            services.endpoints,
            stop.clone(),
        )));
    }
    Ok(Listening {
        grpc: grpc_address,
        web: web_address,
        issuer: issuer_address,
        health,
        serving,
        stop,
    })
}

fn address(listener: &TcpListener) -> Result<SocketAddr, StartError> {
    let address = listener.local_addr();
    address.map_err(|error| StartError::Other(error.into()))
}

/// A listener that speaks HTTP/1.1: each has places of its own, so that one can't crowd out the other.
fn door(name: &'static str, listener: TcpListener, config: &Config) -> web::Door {
    web::Door {
        name,
        listener,
        places: Places::new(
            config.web.max_connections,
            config.limits.connections_per_address,
            &config.web.trusted_proxies,
        ),
        idle_timeout: config.web.idle_timeout,
        request_timeout: config.web.request_timeout,
    }
}

fn reflected() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(pb::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // The details of errors are packed; without this grpcurl shows them as raw bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// The services that health is told of; the empty name is the whole server.
const SERVICES: [&str; 6] = [
    "",
    "tokenbroker.v1.TokenBroker",
    "tokenbroker.v1.ClientRegistry",
    "tokenbroker.v1.Administration",
    "tokenbroker.v1.AuthorizationServer",
    "tokenbroker.v1.AutomationJobs",
];

impl Listening {
    /// Says that requests are welcome.
    pub async fn ready(&self) {
        self.tell(ServingStatus::Serving).await;
    }

    /// Says that no more are, before any is refused: balancers look away in time.
    pub async fn leaving(&self) {
        self.tell(ServingStatus::NotServing).await;
    }

    async fn tell(&self, status: ServingStatus) {
        for service in SERVICES {
            self.health.set_service_status(service, status).await;
        }
    }

    /// Takes no new connections and waits for requests under way, at most `patience`.
    pub async fn close(mut self, patience: Duration) {
        self.stop.cancel();
        // Ends the streams of those who watch health, once they have heard: no request of theirs
        // would ever end by itself.
        for service in SERVICES {
            self.health.clear_service_status(service).await;
        }
        let all = futures_util::future::join_all(self.serving);
        if tokio::time::timeout(patience, all).await.is_err() {
            tracing::warn!("some requests did not end within grpc.drain_timeout");
        }
    }
}
