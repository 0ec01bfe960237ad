//! The yardstick: tonic with nothing behind it. One unary call under the broker's own path, so
//! that the load generator's command line is the same but for the port. For forms, hyper alone.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use prost::Message;
use tokenbroker::pb;
use tokio::net::TcpListener;
use tonic::codegen::{Body, BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use tower::Service;

use crate::process::{self, Cores, Process};
use crate::{Fault, Outcome};

/// Names the file with the encoded answer that the broker gives.
const ANSWER: &str = "BENCH_ANSWER";
/// `text`, `message`, `introspection`, `tokens` or `form`.
const SHAPE: &str = "BENCH_SHAPE";

/// What is asked and answered, of the same size on the wire as the broker's.
trait Rpc: Send + Sync + 'static {
    const SERVICE: &'static str;
    type Asked: Message + Default + 'static;
    type Answer: Message + Default + Clone + 'static;
}

/// One string: the barest answer there is. A `String` is a message with one field.
struct Text;

impl Rpc for Text {
    const SERVICE: &'static str = "tokenbroker.v1.TokenBroker";
    type Asked = String;
    type Answer = String;
}

/// The broker's own message.
struct GetAccessToken;

impl Rpc for GetAccessToken {
    const SERVICE: &'static str = "tokenbroker.v1.TokenBroker";
    type Asked = pb::GetAccessTokenRequest;
    type Answer = pb::GetAccessTokenResponse;
}

struct IntrospectToken;

impl Rpc for IntrospectToken {
    const SERVICE: &'static str = "tokenbroker.v1.AuthorizationServer";
    type Asked = pb::IntrospectTokenRequest;
    type Answer = pb::IntrospectTokenResponse;
}

struct ExchangeToken;

impl Rpc for ExchangeToken {
    const SERVICE: &'static str = "tokenbroker.v1.AuthorizationServer";
    type Asked = pb::ExchangeTokenRequest;
    type Answer = pb::ExchangeTokenResponse;
}

/// Clones one answer for each call.
struct Echo<R: Rpc>(Arc<R::Answer>);

impl<R: Rpc> Clone for Echo<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<R: Rpc> UnaryService<R::Asked> for Echo<R> {
    type Response = R::Answer;
    type Future = Ready<Result<Response<R::Answer>, Status>>;
    fn call(&mut self, _: Request<R::Asked>) -> Self::Future {
        ready(Ok(Response::new(R::Answer::clone(&self.0))))
    }
}

impl<R: Rpc> NamedService for Echo<R> {
    const NAME: &'static str = R::SERVICE;
}

impl<R, B> Service<http::Request<B>> for Echo<R>
where
    R: Rpc,
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
            let codec = ProstCodec::<R::Answer, R::Asked>::default();
            Ok(Grpc::new(codec).unary(echo, request).await)
        })
    }
}

/// Starts one that answers what is in the file.
pub fn start(shape: &str, answer: &Path, cores: Cores) -> Outcome<(Process, SocketAddr)> {
    let env = [(SHAPE, shape), (ANSWER, &*answer.to_string_lossy())];
    Process::in_role("echo", cores, &env)
}

/// The role.
pub async fn serve() -> Outcome<()> {
    let answer = std::fs::read(std::env::var(ANSWER)?)?;
    match std::env::var(SHAPE)?.as_str() {
        "text" => serve_rpc::<Text>(text_of_size(answer.len())?).await,
        "message" => serve_rpc::<GetAccessToken>(Message::decode(&*answer)?).await,
        "introspection" => serve_rpc::<IntrospectToken>(Message::decode(&*answer)?).await,
        "tokens" => serve_rpc::<ExchangeToken>(Message::decode(&*answer)?).await,
        "form" => {
            let answer = Bytes::from(answer);
            process::serve_http1(move |request| answer_form(request, answer.clone())).await
        }
        shape => Err(format!("there is no shape {shape}").into()),
    }
}

/// With the settings that the broker's listener has by default.
async fn serve_rpc<R: Rpc>(answer: R::Answer) -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let config = tokenbroker::config::Config::defaults(&std::env::temp_dir())?.grpc;
    let serving = Server::builder()
        .http2_keepalive_interval(Some(config.keepalive_interval))
        .max_concurrent_streams(Some(config.max_concurrent_streams))
        .add_service(Echo::<R>(Arc::new(answer)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = serving => Ok(served?),
        gone = process::announce(address) => gone,
    }
}

/// Reads the form as far as it must, and answers JSON.
async fn answer_form(
    request: hyper::Request<Incoming>,
    answer: Bytes,
) -> Outcome<hyper::Response<Full<Bytes>>> {
    request.into_body().collect().await?;
    let answered = hyper::Response::builder().header("content-type", "application/json");
    answered.body(Full::from(answer)).map_err(Fault::from)
}

/// A string whose encoding as a message has this size.
fn text_of_size(size: usize) -> Outcome<String> {
    let fits = |length: &usize| "x".repeat(*length).encoded_len() == size;
    let length = (0..size).rev().find(fits);
    let length = length.ok_or("no string encodes to this size")?;
    Ok("x".repeat(length))
}
