//! Callers of the service, as its users are: over gRPC with an API key.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokenbroker::pb;
use tokenbroker::pb::administration_client::AdministrationClient;
use tokenbroker::pb::authorization_server_client::AuthorizationServerClient;
use tokenbroker::pb::automation_jobs_client::AutomationJobsClient;
use tokenbroker::pb::client_registry_client::ClientRegistryClient;
use tokenbroker::pb::token_broker_client::TokenBrokerClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::provider::{LocalProvider, TOKEN_LETTERS};
use crate::spread::Spread;
use crate::{Fault, Outcome};

/// The scopes of every connection.
const SCOPES: [&str; 2] = ["calendar.readonly", "contacts.readonly"];

/// Calls at once while connections are imported.
const IMPORTING: usize = 32;

/// Sends the key along.
#[derive(Clone)]
pub struct WithKey(MetadataValue<Ascii>);

impl tonic::service::Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A caller with a connection of its own to the server.
#[derive(Clone)]
pub struct Caller {
    /// TokenBroker.
    pub broker: TokenBrokerClient<InterceptedService<Channel, WithKey>>,
    /// ClientRegistry.
    pub registry: ClientRegistryClient<InterceptedService<Channel, WithKey>>,
    /// AuthorizationServer.
    pub authorization_server: AuthorizationServerClient<InterceptedService<Channel, WithKey>>,
    /// AutomationJobs.
    pub jobs: AutomationJobsClient<InterceptedService<Channel, WithKey>>,
    administration: AdministrationClient<InterceptedService<Channel, WithKey>>,
}

impl Caller {
    /// Of the server there.
    pub fn new(address: SocketAddr, key: &str) -> Outcome<Self> {
        let channel = Endpoint::from_shared(format!("http://{address}"))?
            .tcp_nodelay(true)
            .connect_lazy();
        let key = WithKey(format!("Bearer {key}").parse()?);
        Ok(Self {
            broker: TokenBrokerClient::with_interceptor(channel.clone(), key.clone()),
            registry: ClientRegistryClient::with_interceptor(channel.clone(), key.clone()),
            authorization_server: AuthorizationServerClient::with_interceptor(
                channel.clone(),
                key.clone(),
            ),
            jobs: AutomationJobsClient::with_interceptor(channel.clone(), key.clone()),
            administration: AdministrationClient::with_interceptor(channel, key),
        })
    }

    /// Whether a server there says that it serves.
    pub async fn healthy(address: SocketAddr) -> bool {
        let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
            return false;
        };
        let Ok(channel) = endpoint.connect().await else {
            return false;
        };
        let asked = HealthClient::new(channel)
            .check(HealthCheckRequest::default())
            .await;
        asked.is_ok_and(|answer| answer.get_ref().status() == ServingStatus::Serving)
    }

    /// Registers the provider, and an app at it: the app's id.
    pub async fn register(&mut self, provider: &LocalProvider) -> Outcome<String> {
        let definition = serde_json::to_value(provider.definition())?;
        let definition = definition.as_object().ok_or("a definition is an object")?;
        let request = pb::CreateProviderRequest {
            provider_id: "local".to_owned(),
            definition: Some(tokenbroker::grpc::convert::structure(definition)),
            ..Default::default()
        };
        self.registry.create_provider(request).await?;
        let request = pb::CreateAppRequest {
            app: Some(pb::App {
                provider: "local".to_owned(),
                client_id: "bench".to_owned(),
                display_name: "Benchmark".to_owned(),
                ..Default::default()
            }),
            client_secret: random_token(),
            ..Default::default()
        };
        let created = self.registry.create_app(request).await?.into_inner();
        Ok(created.app.ok_or("no app was made")?.id)
    }

    /// Imports so many connections, of one owner each: their ids.
    pub async fn import(&self, app: &str, count: u64) -> Outcome<Vec<String>> {
        stream::iter(0..count)
            .map(|number| self.clone().import_one(app.to_owned(), number))
            .buffer_unordered(IMPORTING)
            .try_collect()
            .await
    }

    async fn import_one(mut self, app: String, number: u64) -> Outcome<String> {
        let now = jiff::Timestamp::now().as_second();
        let tokens = pb::ImportedOAuth2 {
            access_token: random_token(),
            refresh_token: random_token(),
            expire_time: Some(prost_types::Timestamp {
                seconds: now + 24 * 3_600,
                nanos: 0,
            }),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            token_type: "Bearer".to_owned(),
        };
        let request = pb::ImportConnectionRequest {
            app,
            owner: format!("customer-{number}"),
            account_id: format!("person-{number}"),
            credentials: Some(pb::import_connection_request::Credentials::Oauth2(tokens)),
            ..Default::default()
        };
        let imported = self.broker.import_connection(request).await?.into_inner();
        Ok(imported.connection.ok_or("no connection was made")?.id)
    }

    /// A new key that may call once a second.
    pub async fn limited_key(&self) -> Outcome<String> {
        let request = pb::CreateApiKeyRequest {
            name: "limited".to_owned(),
            role: pb::Role::Consumer.into(),
            rate_limit: Some(pb::RateLimit {
                requests_per_second: 1,
                burst: 1,
            }),
            ..Default::default()
        };
        let made = self.administration.clone().create_api_key(request).await?;
        Ok(made.into_inner().secret)
    }

    /// A new user who may read tokens: their id.
    pub async fn user(&self, email: &str, password: &str) -> Outcome<String> {
        let request = pb::CreateUserRequest {
            email: email.to_owned(),
            password: password.to_owned(),
            role: pb::Role::Consumer.into(),
            ..Default::default()
        };
        let made = self.administration.clone().create_user(request).await?;
        Ok(made.into_inner().user.ok_or("no user was made")?.id)
    }

    /// Signs a user in: the session token.
    pub async fn sign_in(&self, email: &str, password: &str) -> Outcome<String> {
        let credentials = pb::PasswordCredentials {
            email: email.to_owned(),
            password: password.to_owned(),
        };
        let request = pb::CreateSessionRequest {
            credentials: Some(pb::create_session_request::Credentials::Password(
                credentials,
            )),
            ..Default::default()
        };
        let made = self.administration.clone().create_session(request).await?;
        Ok(made.into_inner().session_token)
    }

    /// The session token of a new user.
    pub async fn session(&self) -> Outcome<String> {
        let password = random_token();
        self.user("reader@example.org", &password).await?;
        self.sign_in("reader@example.org", &password).await
    }

    /// The answer of `GetAccessToken`.
    pub async fn token(&mut self, connection_id: &str) -> Outcome<pb::GetAccessTokenResponse> {
        let answer = self
            .broker
            .get_access_token(token_request(connection_id))
            .await?;
        Ok(answer.into_inner())
    }

    /// Has every connection refreshed, so many at once: how long each took, and all together.
    pub async fn refresh(
        &self,
        connections: &[String],
        at_once: usize,
    ) -> Outcome<(Spread, Duration)> {
        let began = Instant::now();
        let took: Vec<Duration> = stream::iter(connections)
            .map(|id| {
                let mut caller = self.clone();
                let request = pb::RefreshAccessTokenRequest {
                    connection_id: id.clone(),
                    ..Default::default()
                };
                async move {
                    let asked = Instant::now();
                    caller.broker.refresh_access_token(request).await?;
                    Ok::<_, Fault>(asked.elapsed())
                }
            })
            .buffer_unordered(at_once)
            .try_collect()
            .await?;
        Ok((Spread::of(took), began.elapsed()))
    }
}

/// The request that is measured.
pub fn token_request(connection_id: &str) -> pb::GetAccessTokenRequest {
    pb::GetAccessTokenRequest {
        connection_id: connection_id.to_owned(),
        ..Default::default()
    }
}

/// A token as providers make them.
pub fn random_token() -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(TOKEN_LETTERS)
        .collect()
}
