//! The TokenBroker service: every RPC, and where it is handled.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::streams::Streams;
use super::{authorizations, connections, events, records, tokens};
use crate::broker::{Authorizations, Connections, Hub, Syncs, Tokens};
use crate::clock::Clock;
use crate::pb::{self, token_broker_server::TokenBroker};
use crate::registry::Registry;
use crate::tasks::Tasks;

/// What the handlers work with.
#[derive(Clone)]
pub struct Context {
    /// Connecting accounts.
    pub authorizations: Arc<Authorizations>,
    /// Connections.
    pub connections: Arc<Connections>,
    /// Synchronisations.
    pub syncs: Arc<Syncs>,
    /// Serving tokens.
    pub tokens: Arc<Tokens>,
    /// Events.
    pub hub: Arc<Hub>,
    /// Places for streams of events.
    pub streams: Streams,
    /// Apps, where a filter names them.
    pub registry: Arc<Registry>,
    /// The time.
    pub clock: Clock,
    /// Where work runs that outlives its caller.
    pub tasks: Tasks,
}

type Answer<T> = Result<Response<T>, Status>;

/// Delegates each RPC to its handler.
macro_rules! rpcs {
    ($($rpc:ident($request:ident) -> $response:ident = $handler:path;)+) => {
        #[tonic::async_trait]
        impl TokenBroker for Context {
            type WatchTokenEventsStream =
                Pin<Box<dyn Stream<Item = Result<pb::WatchTokenEventsResponse, Status>> + Send>>;

            async fn watch_token_events(
                &self,
                request: Request<pb::WatchTokenEventsRequest>,
            ) -> Answer<Self::WatchTokenEventsStream> {
                events::watch(self, request).await
            }

            $(async fn $rpc(&self, request: Request<pb::$request>) -> Answer<pb::$response> {
                $handler(self, request).await
            })+
        }
    };
}

rpcs! {
    start_authorization(StartAuthorizationRequest) -> StartAuthorizationResponse = authorizations::start;
    get_authorization(GetAuthorizationRequest) -> GetAuthorizationResponse = authorizations::get;
    confirm_authorization(ConfirmAuthorizationRequest) -> ConfirmAuthorizationResponse = authorizations::confirm;
    complete_authorization(CompleteAuthorizationRequest) -> CompleteAuthorizationResponse = authorizations::complete;
    import_connection(ImportConnectionRequest) -> ImportConnectionResponse = authorizations::import;
    list_connected_accounts(ListConnectedAccountsRequest) -> ListConnectedAccountsResponse = authorizations::connected_accounts;
    get_connection(GetConnectionRequest) -> GetConnectionResponse = connections::get;
    list_connections(ListConnectionsRequest) -> ListConnectionsResponse = connections::list;
    update_connection(UpdateConnectionRequest) -> UpdateConnectionResponse = connections::update;
    delete_connection(DeleteConnectionRequest) -> DeleteConnectionResponse = connections::delete;
    revoke_connection(RevokeConnectionRequest) -> RevokeConnectionResponse = connections::revoke;
    revoke_app_connections(RevokeAppConnectionsRequest) -> RevokeAppConnectionsResponse = connections::revoke_app;
    get_access_token(GetAccessTokenRequest) -> GetAccessTokenResponse = tokens::get;
    batch_get_access_tokens(BatchGetAccessTokensRequest) -> BatchGetAccessTokensResponse = tokens::batch_get;
    refresh_access_token(RefreshAccessTokenRequest) -> RefreshAccessTokenResponse = tokens::refresh;
    report_access_token_rejected(ReportAccessTokenRejectedRequest) -> ReportAccessTokenRejectedResponse = tokens::report_rejected;
    list_token_events(ListTokenEventsRequest) -> ListTokenEventsResponse = events::list;
    list_refresh_attempts(ListRefreshAttemptsRequest) -> ListRefreshAttemptsResponse = records::list_attempts;
    record_sync(RecordSyncRequest) -> RecordSyncResponse = records::record_sync;
    list_sync_records(ListSyncRecordsRequest) -> ListSyncRecordsResponse = records::list_syncs;
}
