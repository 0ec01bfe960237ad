//! The yardstick: tonic with nothing behind it. One unary call under the broker's own path, so
//! that the load generator's command line is the same but for the port.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::Message as _;
use tokenbroker::pb;
use tokio::net::TcpListener;
use tonic::codegen::{Body, BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::{Outcome, process};

/// Names the file with the encoded answer that the broker gives.
pub const ANSWER: &str = "BENCH_ANSWER";
/// `text` or `message`.
pub const SHAPE: &str = "BENCH_SHAPE";

/// What is answered, of the same size on the wire either way.
#[derive(Clone)]
enum Echo {
    /// One string: the barest answer there is. A `String` is a message with one field.
    Text(Arc<str>),
    /// The broker's own message, cloned for each call.
    Message(Arc<pb::GetAccessTokenResponse>),
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = Ready<Result<Response<String>, Status>>;
    fn call(&mut self, _: Request<String>) -> Self::Future {
        ready(match self {
            Self::Text(text) => Ok(Response::new(text.as_ref().to_owned())),
            Self::Message(_) => Err(Status::internal("the echo answers messages")),
        })
    }
}

impl UnaryService<pb::GetAccessTokenRequest> for Echo {
    type Response = pb::GetAccessTokenResponse;
    type Future = Ready<Result<Response<pb::GetAccessTokenResponse>, Status>>;
    fn call(&mut self, _: Request<pb::GetAccessTokenRequest>) -> Self::Future {
        ready(match self {
            Self::Message(message) => Ok(Response::new(pb::GetAccessTokenResponse::clone(message))),
            Self::Text(_) => Err(Status::internal("the echo answers text")),
        })
    }
}

impl NamedService for Echo {
    const NAME: &'static str = "tokenbroker.v1.TokenBroker";
}

impl<B> Service<http::Request<B>> for Echo
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            Ok(match &echo {
                Self::Text(_) => {
                    let codec = ProstCodec::<String, String>::default();
                    Grpc::new(codec).unary(echo, request).await
                }
                Self::Message(_) => {
                    let codec = ProstCodec::<
                        pb::GetAccessTokenResponse,
                        pb::GetAccessTokenRequest,
                    >::default();
                    Grpc::new(codec).unary(echo, request).await
                }
            })
        })
    }
}

/// Serves with the settings that the broker's listener has by default.
pub async fn serve() -> Outcome<()> {
    let answer = std::fs::read(std::env::var(ANSWER)?)?;
    let echo = match std::env::var(SHAPE)?.as_str() {
        "text" => Echo::Text(text_of_size(answer.len())?.into()),
        "message" => Echo::Message(Arc::new(pb::GetAccessTokenResponse::decode(&*answer)?)),
        shape => return Err(format!("there is no shape {shape}").into()),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let config = tokenbroker::config::Config::defaults(&std::env::temp_dir())?.grpc;
    let serving = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .max_concurrent_streams(Some(config.max_concurrent_streams))
        .add_service(echo)
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = serving => Ok(served?),
        gone = process::announce(address) => gone,
    }
}

/// A string whose encoding as a message has this size.
fn text_of_size(size: usize) -> Outcome<String> {
    let fits = |length: &usize| "x".repeat(*length).encoded_len() == size;
    let length = (0..size).rev().find(fits);
    let length = length.ok_or("no string encodes to this size")?;
    Ok("x".repeat(length))
}
