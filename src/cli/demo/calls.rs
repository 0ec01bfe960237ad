//! The gRPC of the demo, by the generated clients, as any caller would.

use std::net::SocketAddr;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use zeroize::Zeroizing;

use super::Trouble;
use crate::pb;
use crate::pb::administration_client::AdministrationClient;
use crate::pb::client_registry_client::ClientRegistryClient;
use crate::pb::token_broker_client::TokenBrokerClient;

/// How long connecting to this very process may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Sends the API key along.
#[derive(Clone)]
pub(super) struct WithKey(MetadataValue<Ascii>);

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let key = self.0.clone();
        request.metadata_mut().insert("authorization", key);
        Ok(request)
    }
}

type Keyed = InterceptedService<Channel, WithKey>;

/// The services, as the holder of one API key reaches them.
#[derive(Clone)]
pub(super) struct Calls {
    registry: ClientRegistryClient<Keyed>,
    administration: AdministrationClient<Keyed>,
    broker: TokenBrokerClient<Keyed>,
}

macro_rules! calls {
    ($($service:ident.$name:ident($request:ident) -> $response:ident),+ $(,)?) => {
        impl Calls {
            $(pub(super) async fn $name(
                &self,
                request: pb::$request,
            ) -> Result<pb::$response, Trouble> {
                let answer = self.$service.clone().$name(request).await;
                answer.map(Response::into_inner).map_err(|status| refused(stringify!($name), &status))
            })+
        }
    };
}

calls!(
    registry.create_client(CreateClientRequest) -> CreateClientResponse,
    registry.approve_client(ApproveClientRequest) -> ApproveClientResponse,
    registry.update_client(UpdateClientRequest) -> UpdateClientResponse,
    registry.create_provider(CreateProviderRequest) -> CreateProviderResponse,
    registry.create_app(CreateAppRequest) -> CreateAppResponse,
    administration.create_user(CreateUserRequest) -> CreateUserResponse,
    broker.start_authorization(StartAuthorizationRequest) -> StartAuthorizationResponse,
    broker.confirm_authorization(ConfirmAuthorizationRequest) -> ConfirmAuthorizationResponse,
    broker.get_access_token(GetAccessTokenRequest) -> GetAccessTokenResponse,
    broker.list_refresh_attempts(ListRefreshAttemptsRequest) -> ListRefreshAttemptsResponse,
);

impl Calls {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub(super) async fn connect(address: SocketAddr, key: &SecretString) -> Result<Self, Trouble> {
        let line = Zeroizing::new(format!("Bearer {}", key.expose_secret()));
        let mut key = MetadataValue::try_from(line.as_str())
            .map_err(|_| Trouble("the API key can't be sent".to_owned()))?;
        key.set_sensitive(true);
        let key = WithKey(key);
        let unreachable = |error: tonic::transport::Error| {
            Trouble(format!("gRPC at {address} can't be reached: {error}"))
        };
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .map_err(unreachable)?
            .connect_timeout(PATIENCE)
            .connect()
            .await
            .map_err(unreachable)?;
        Ok(Self {
            registry: ClientRegistryClient::with_interceptor(channel.clone(), key.clone()),
            administration: AdministrationClient::with_interceptor(channel.clone(), key.clone()),
            broker: TokenBrokerClient::with_interceptor(channel, key),
        })
    }

    /// Watches all that happens from now on.
    ///
    /// # Errors
    /// It is refused.
    pub(super) async fn watch(&self) -> Result<Following, Trouble> {
        let mut broker = self.broker.clone();
        let request = pb::WatchTokenEventsRequest::default();
        let stream = broker.watch_token_events(request).await;
        stream
            .map(|answer| Following(answer.into_inner()))
            .map_err(|status| refused("watch_token_events", &status))
    }
}

/// A stream of events.
pub(super) struct Following(Streaming<pb::WatchTokenEventsResponse>);

impl Following {
    /// What comes next; none once the stream has ended.
    pub(super) async fn next(&mut self) -> Option<pb::WatchTokenEventsResponse> {
        self.0.message().await.ok().flatten()
    }
}

fn refused(call: &str, status: &Status) -> Trouble {
    Trouble(format!(
        "{call} was answered {:?}: {}",
        status.code(),
        status.message()
    ))
}

/// The fields that a change names.
pub(super) fn mask(path: &str) -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: vec![path.to_owned()],
    }
}
