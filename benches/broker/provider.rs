//! A provider with a token endpoint and nothing else: every refresh gets new tokens at once.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response};
use tokenbroker::model::Provider;
use tokenbroker::model::provider::Rotation;

use crate::process::{self, Cores, Process};
use crate::{Outcome, callers};

/// Letters of a token: about what Google's have.
pub const TOKEN_LETTERS: usize = 200;

/// A provider that runs in a process of its own.
pub struct LocalProvider {
    address: SocketAddr,
    _process: Process,
}

impl LocalProvider {
    /// Starts it.
    pub fn start() -> Outcome<Self> {
        let (process, address) = Process::in_role("provider", Cores::All, &[])?;
        Ok(Self {
            address,
            _process: process,
        })
    }

    /// As it is registered.
    pub fn definition(&self) -> Provider {
        Provider {
            id: "local".to_owned(),
            display_name: "Local provider".to_owned(),
            authorization_endpoint: format!("http://{}/authorize", self.address),
            token_endpoint: format!("http://{}/token", self.address),
            rotation: Rotation::Always,
            ..Provider::default()
        }
    }

    /// How many tokens it has given.
    pub fn given(&self) -> Outcome<u64> {
        let mut stream = std::net::TcpStream::connect(self.address)?;
        stream.write_all(b"GET /count HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let count = answer.rsplit("\r\n").next().unwrap_or_default();
        Ok(count.trim().parse()?)
    }
}

/// The role.
pub async fn serve() -> Outcome<()> {
    let given = Arc::new(AtomicU64::new(0));
    process::serve_http1(move |request| answer(request, Arc::clone(&given))).await
}

async fn answer(
    request: Request<Incoming>,
    given: Arc<AtomicU64>,
) -> Outcome<Response<Full<Bytes>>> {
    let counts = request.method() == Method::GET;
    request.into_body().collect().await?;
    if counts {
        let count = given.load(Ordering::SeqCst).to_string();
        return Ok(Response::new(Full::from(count)));
    }
    given.fetch_add(1, Ordering::SeqCst);
    let tokens = serde_json::json!({
        "access_token": callers::random_token(),
        "refresh_token": callers::random_token(),
        "token_type": "Bearer",
        "expires_in": 3_600,
    });
    let answer = Response::builder().header("content-type", "application/json");
    Ok(answer.body(Full::from(tokens.to_string()))?)
}
