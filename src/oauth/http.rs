//! The one client that talks to providers: no redirects, no proxies from the environment, a
//! deadline over the whole exchange, a bounded body, and addresses that the filter admits.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Request, StatusCode};
use ipnet::IpNet;
use url::Url;
use zeroize::Zeroizing;

use super::Error;
use super::address::{AddressFilter, FORBIDDEN, FilteredResolver, Forbidden};
use super::breaker::Breaker;
use super::classify::{Failure, clean, retry_after};
use crate::clock::Clock;

/// More of an answer than this is not read.
const LARGEST_BODY: usize = 1 << 20;
/// Short, so that a request rarely meets a connection that the provider is closing: whether such
/// a request was processed cannot be told.
const IDLE: Duration = Duration::from_secs(10);

/// How providers are reached.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// Upper bound on any one request, from sending to the last byte; providers may set less.
    pub timeout: Duration,
    /// Upper bound on name resolution, connecting and the TLS handshake together.
    pub connect_timeout: Duration,
    /// Whether loopback, private and unique-local addresses may be connected to.
    pub allow_private_networks: bool,
    /// Networks that may be connected to whatever they are.
    pub allowed_networks: Vec<IpNet>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(5),
            allow_private_networks: false,
            allowed_networks: Vec::new(),
        }
    }
}

/// The hardened HTTP client. Clones share connections and the breaker.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
    filter: AddressFilter,
    timeout: Duration,
    breaker: Arc<Breaker>,
    clock: Clock,
}

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// The body was longer than we read.
    pub(super) truncated: bool,
}

impl Http {
    /// Builds the client. Fails when no TLS set-up is possible.
    pub fn new(config: HttpConfig) -> Result<Self, Error> {
        Self::trusting(config, system_roots())
    }

    /// The same, trusting these certificate authorities (PEM) and not the system's.
    ///
    /// # Errors
    /// Besides those of [`Http::new`]: the text holds no certificate.
    pub fn with_authorities(config: HttpConfig, pem: &[u8]) -> Result<Self, Error> {
        let roots = reqwest::Certificate::from_pem_bundle(pem)
            .map_err(|error| Error::Setup(chain(&error)))?;
        if roots.is_empty() {
            return Err(Error::Setup("there is no certificate in it".to_owned()));
        }
        Self::trusting(config, roots)
    }

    fn trusting(config: HttpConfig, roots: Vec<reqwest::Certificate>) -> Result<Self, Error> {
        // Several libraries share the process-wide provider; who comes second finds it there.
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let filter = AddressFilter::new(config.allow_private_networks, config.allowed_networks);
        let client = reqwest::Client::builder()
            .user_agent(concat!("tokenbroker/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_proxy()
            .tls_certs_only(roots)
            .dns_resolver(FilteredResolver(filter.clone()))
            // Less than the whole deadline, so that an unreachable host is told from one that
            // may have taken the request.
            .connect_timeout(config.connect_timeout.min(config.timeout / 2))
            .pool_idle_timeout(IDLE)
            .tcp_nodelay(true)
            .build()
            .map_err(|error| Error::Setup(chain(&error)))?;
        Ok(Self {
            client,
            filter,
            timeout: config.timeout,
            breaker: Arc::new(Breaker::default()),
            clock: Clock::system(),
        })
    }

    /// The same client by another clock: what absolute expiries and dates are counted from.
    #[must_use]
    pub fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Which addresses this client talks to: for judging endpoints before they are stored.
    pub fn filter(&self) -> &AddressFilter {
        &self.filter
    }

    /// What time it is for this client.
    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sends one request, once. An answer of any status is an answer, and the caller's to judge;
    /// the failures are those without one.
    pub(super) async fn send(
        &self,
        request: Request<Vec<u8>>,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let url = Url::parse(&request.uri().to_string()).map_err(|_| not_sent("not a URL"))?;
        if !self.filter.admits_url(&url) {
            return Err(not_sent(FORBIDDEN));
        }
        let host = host_of(&url);
        self.breaker
            .admit(&host, Instant::now())
            .map_err(|wait| Failure::Transient {
                status: None,
                retry_after: Some(wait),
                detail: "the provider failed repeatedly and is given a rest".to_owned(),
            })?;
        let request = reqwest::Request::try_from(request)
            .map_err(|error| not_sent(&chain(&error.without_url())))?;
        let timeout = timeout.min(self.timeout);
        let outcome = match tokio::time::timeout(timeout, self.exchange(request)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Failure::Ambiguous {
                detail: "no answer within the deadline".to_owned(),
            }),
        };
        self.judge(&host, &outcome);
        outcome
    }

    async fn exchange(&self, request: reqwest::Request) -> Result<Answer, Failure> {
        let mut response = self.client.execute(request).await.map_err(|error| {
            // Connecting comprises resolving, the filter's refusal and the TLS handshake: until
            // it is done nothing of the request has left.
            let connecting = error.is_connect();
            let error = error.without_url();
            if is_forbidden(&error) {
                return not_sent(FORBIDDEN);
            }
            let detail = clean(&chain(&error), &[]);
            if connecting {
                Failure::NotSent { detail }
            } else {
                Failure::Ambiguous { detail }
            }
        })?;
        let status = response.status();
        let headers = response.headers().clone();
        let mut body = Zeroizing::new(Vec::new());
        let mut truncated = false;
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if body.len() + chunk.len() <= LARGEST_BODY => {
                    body.extend_from_slice(&chunk);
                }
                Ok(Some(_)) => {
                    truncated = true;
                    break;
                }
                Ok(None) => break,
                // The status is known and says what an error means; a success without its
                // tokens may have spent what was sent.
                Err(_) if !status.is_success() => break,
                Err(error) => {
                    return Err(Failure::Ambiguous {
                        detail: clean(&chain(&error.without_url()), &[]),
                    });
                }
            }
        }
        Ok(Answer {
            status,
            headers,
            body,
            truncated,
        })
    }

    fn judge(&self, host: &str, outcome: &Result<Answer, Failure>) {
        match outcome {
            Ok(answer) if answer.status.is_server_error() => {
                let wait = retry_after(&answer.headers, self.clock.now());
                self.breaker.failed(host, Instant::now(), wait);
            }
            Ok(_) => self.breaker.succeeded(host),
            // Our refusal, not the host's failure.
            Err(Failure::NotSent { detail }) if detail == FORBIDDEN => {}
            Err(_) => self.breaker.failed(host, Instant::now(), None),
        }
    }
}

fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    format!("{host}:{port}")
}

fn not_sent(detail: &str) -> Failure {
    Failure::NotSent {
        detail: clean(detail, &[]),
    }
}

fn is_forbidden(error: &(dyn StdError + 'static)) -> bool {
    error.is::<Forbidden>() || error.source().is_some_and(is_forbidden)
}

/// An error and its sources in a line. reqwest's own text alone names no cause.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// The system's certificate authorities. Without any, every provider is refused by its
/// certificate; the service itself can start.
fn system_roots() -> Vec<reqwest::Certificate> {
    let found = rustls_native_certs::load_native_certs();
    let roots: Vec<_> = found
        .certs
        .iter()
        .filter_map(|cert| reqwest::Certificate::from_der(cert).ok())
        .collect();
    if roots.is_empty() {
        tracing::warn!("no certificate authority found on this system; no provider can be reached");
    }
    roots
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    fn client(allow_private_networks: bool) -> Http {
        Http::new(HttpConfig {
            timeout: Duration::from_millis(400),
            connect_timeout: Duration::from_millis(200),
            allow_private_networks,
            allowed_networks: Vec::new(),
        })
        .unwrap()
    }

    /// A server that gives every request the same bytes, and its URL.
    fn server(answer: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                if answer == b"silence" {
                    silent.push(stream);
                } else {
                    let _ = stream.write_all(&answer);
                }
            }
        });
        format!("http://{address}/")
    }

    async fn send(http: &Http, url: &str) -> Result<Answer, Failure> {
        let request = Request::post(url).body(b"token=t".to_vec()).unwrap();
        http.send(request, Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn an_answer_of_any_status_is_an_answer() {
        let url =
            server(b"HTTP/1.1 302 Found\r\nLocation: /x\r\nContent-Length: 2\r\n\r\nhi".into());
        let answer = send(&client(true), &url).await.ok().unwrap();
        assert_eq!(answer.status, StatusCode::FOUND);
        assert_eq!(answer.body.as_slice(), b"hi");
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_is_ambiguous() {
        for answer in [
            "",
            "silence",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi",
        ] {
            let url = server(answer.into());
            let failure = send(&client(true), &url).await.err().unwrap();
            assert!(matches!(failure, Failure::Ambiguous { .. }), "{failure:?}");
        }
    }

    #[tokio::test]
    async fn what_never_left_is_told_apart() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", free.local_addr().unwrap());
        drop(free);
        let http = client(true);
        let failure = send(&http, &url).await.err().unwrap();
        assert!(matches!(failure, Failure::NotSent { .. }), "{failure:?}");
        // Refused by our own filter, however often: no failure of the host's.
        let http = client(false);
        for url in ["http://127.0.0.1:1/", "https://localhost/"].repeat(4) {
            let failure = send(&http, url).await.err().unwrap();
            let detail = FORBIDDEN.to_owned();
            assert_eq!(failure, Failure::NotSent { detail }, "{url}");
        }
    }

    #[tokio::test]
    async fn a_long_body_is_cut() {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 2 << 20);
        let url = server([head.into_bytes(), vec![b'x'; 2 << 20]].concat());
        let answer = send(&client(true), &url).await.ok().unwrap();
        assert!(answer.truncated);
        assert!(answer.body.len() <= LARGEST_BODY);
    }

    #[tokio::test]
    async fn a_failing_host_is_given_a_rest_and_a_refusing_one_is_not() {
        let http = client(true);
        let failing =
            server(b"HTTP/1.1 503 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into());
        let refusing =
            server(b"HTTP/1.1 429 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into());
        for _ in 0..5 {
            assert!(send(&http, &failing).await.is_ok());
        }
        let failure = send(&http, &failing).await.err().unwrap();
        assert!(
            matches!(
                failure,
                Failure::Transient {
                    retry_after: Some(_),
                    ..
                }
            ),
            "{failure:?}"
        );
        for _ in 0..8 {
            assert!(send(&http, &refusing).await.is_ok());
        }
    }
}
