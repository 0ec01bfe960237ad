//! The gate before every service: who calls, may they, how long did it take. A tower layer, since
//! looking up a key may wait for the database.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::{Layer, Service};
use tracing::Instrument as _;

use super::caller::{address, origin_of};
use super::status::OAUTH_ERROR;
use crate::access::audit::Refusals;
use crate::access::limits::Addresses;
use crate::access::policy::{RULES, Rule};
use crate::access::{Callers, Origin, Peer, Principal};
use crate::error::{Error, Unknown};
use crate::tasks::Tasks;
use crate::telemetry::{self, Metrics};

static BY_PATH: LazyLock<HashMap<&'static str, Rule>> =
    LazyLock::new(|| RULES.iter().copied().collect());

/// Longest credentials that are looked at, in bytes.
const CREDENTIALS_MAX: usize = 8 * 1_024;

/// What waits for something to come up, as its caller asks: our own deadline begins behind that.
const WAITS: &str = "/tokenbroker.v1.AutomationJobs/ClaimJobs";

/// The longest wait that a caller may ask for.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(60);

/// Goes with an answer in parts, such as a batch's: how many of them say that the caller may not.
#[derive(Clone, Copy)]
pub(super) struct DeniedParts(pub usize);

/// Puts the gate before a service.
#[derive(Clone)]
pub struct Gate {
    callers: Arc<Callers>,
    metrics: Arc<Metrics>,
    tasks: Tasks,
    timeout: Duration,
    addresses: Arc<Addresses>,
    refusals: Arc<Refusals>,
}

impl Gate {
    /// `timeout` bounds every unary call; streams are not bounded. `addresses` counts where
    /// credentials are refused from, `refusals` for the audit trail.
    pub fn new(
        callers: Arc<Callers>,
        metrics: Arc<Metrics>,
        tasks: Tasks,
        timeout: Duration,
        addresses: Addresses,
        refusals: Arc<Refusals>,
    ) -> Self {
        Self {
            callers,
            metrics,
            tasks,
            timeout,
            addresses: Arc::new(addresses),
            refusals,
        }
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;
    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            gate: Arc::new(self.clone()),
        }
    }
}

/// A service behind the gate.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    /// Shared, since every call clones it: one counter to touch, not one a field.
    gate: Arc<Gate>,
}

type Answering<E> =
    std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send + 'static>>;

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answering<S::Error>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone keeps its place for the next call; this call has the one that is ready.
        let clone = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, clone);
        let gate = Arc::clone(&self.gate);
        if !gate.metrics.enabled() && !telemetry::tracing_enabled() {
            return Box::pin(gate.pass(inner, request));
        }
        let path = request.uri().path().to_owned();
        let span = span(&path, &request);
        Box::pin(
            async move {
                let began = Instant::now();
                let metrics = Arc::clone(&gate.metrics);
                let answer = gate.pass(inner, request).await;
                let code = answer.as_ref().map_or(Code::Unknown, code_of);
                let name = code_name(code);
                tracing::Span::current().record("rpc.response.status_code", name);
                metrics.rpc_served(path.trim_start_matches('/'), name, began.elapsed());
                answer
            }
            .instrument(span),
        )
    }
}

fn span(path: &str, request: &Request<Body>) -> tracing::Span {
    if !telemetry::tracing_enabled() {
        return tracing::Span::none();
    }
    let method = path.trim_start_matches('/');
    let span = tracing::info_span!(
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = tracing::field::Empty,
        tokenbroker.caller.id = tracing::field::Empty,
    );
    telemetry::set_parent(&span, request.headers());
    span
}

impl Gate {
    async fn pass<S>(
        self: Arc<Self>,
        inner: S,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        // An unknown path is the router's to refuse, as unimplemented.
        let rule = BY_PATH.get_key_value(request.uri().path());
        let mut known = None;
        if let Some((rpc, rule)) = rule.map(|(rpc, rule)| (*rpc, *rule))
            && rule != Rule::Open
            && (rule != Rule::Optional || !is_anonymous(&request))
        {
            match self.admit(request.headers(), request.extensions()).await {
                Ok(principal) => {
                    // What is denied was a call too.
                    let charged = principal.limiter.charge();
                    if let Err(error) = charged.and_then(|()| judge(&principal, rule)) {
                        self.count_limited(&error);
                        self.count_denied(&principal, &error, rpc, &request);
                        return Ok(Status::from(error).into_http());
                    }
                    if telemetry::tracing_enabled() {
                        tracing::Span::current().record("tokenbroker.caller.id", &*principal.id);
                    }
                    let ip = address(request.extensions());
                    known = Some((Arc::clone(&principal), ip, rpc));
                    request.extensions_mut().insert(principal);
                }
                Err(error) => {
                    self.count_limited(&error);
                    self.count_refused(&error, &request);
                    return Ok(Status::from(error).into_http());
                }
            }
        }
        let answer = self.answer(inner, request).await;
        // What the caller is held to, handlers judge.
        if let (Some((principal, ip, rpc)), Ok(response)) = (known, &answer) {
            for _ in 0..denials(response) {
                let origin = Origin {
                    ip,
                    ..Origin::default()
                };
                self.refusals.denied(&principal, "", rpc, &origin);
            }
        }
        answer
    }

    async fn answer<S>(
        &self,
        mut inner: S,
        request: Request<Body>,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let waits = request.uri().path() == WAITS;
        let ours = self.timeout + if waits { WAIT_MAX } else { Duration::ZERO };
        let timeout = patience(request.headers()).map_or(ours, |theirs| theirs.min(ours));
        let mut answering = std::pin::pin!(inner.call(request));
        // What is answered from memory is ready at once: no timer is set for it.
        let once = std::future::poll_fn(|cx| Poll::Ready(answering.as_mut().poll(cx)));
        if let Poll::Ready(answer) = once.await {
            return answer;
        }
        // Bounds the time to the answer's head: for a stream, until it begins.
        match tokio::time::timeout(timeout, answering).await {
            Ok(answer) => answer,
            Err(_) => Ok(Status::deadline_exceeded(
                "the request took too long; what it began is being finished",
            )
            .into_http()),
        }
    }

    async fn admit(
        &self,
        headers: &HeaderMap,
        extensions: &http::Extensions,
    ) -> Result<Arc<Principal>, Error> {
        let token = bearer_of(headers)?;
        let peer = extensions.get::<Peer>();
        if let Some(principal) = self.callers.recognise(token, peer) {
            return Ok(principal);
        }
        let address = address(extensions);
        self.addresses.admit(address)?;
        // Boxed: it is large, and would be moved with every call.
        let outcome = Box::pin(self.look_up(token, peer)).await;
        if let Err(Error::Unauthenticated(unknown)) = &outcome
            && *unknown != Unknown::Missing
        {
            self.addresses.refused(address);
        }
        outcome
    }

    async fn look_up(
        &self,
        token: Option<&str>,
        peer: Option<&Peer>,
    ) -> Result<Arc<Principal>, Error> {
        let callers = Arc::clone(&self.callers);
        let token = token.map(secrecy::SecretString::from);
        let peer = peer.cloned();
        self.tasks
            .run(async move {
                use secrecy::ExposeSecret as _;
                let token = token.as_ref().map(|token| token.expose_secret());
                callers.authenticate(token, peer.as_ref()).await
            })
            .await
    }

    fn count_denied(
        &self,
        principal: &Principal,
        error: &Error,
        rpc: &str,
        request: &Request<Body>,
    ) {
        if let Error::PermissionDenied(permission) = error {
            let origin = origin_of(request.headers(), request.extensions());
            self.refusals.denied(principal, permission, rpc, &origin);
        }
    }

    fn count_refused(&self, error: &Error, request: &Request<Body>) {
        if let Error::Unauthenticated(unknown) = error {
            let origin = origin_of(request.headers(), request.extensions());
            // Credentials that can't even be read were sent, too.
            let sent = bearer_of(request.headers()).unwrap_or(Some(""));
            let peer = request.extensions().get::<Peer>();
            let certificate = peer.and_then(|peer| peer.certificate.as_ref());
            let certificate = certificate.map(|certificate| &certificate.fingerprint);
            self.refusals.refused(*unknown, sent, certificate, &origin);
        }
    }

    fn count_limited(&self, error: &Error) {
        if let Error::RateLimited { limit, .. } = error {
            self.metrics.rate_limited(limit);
        }
    }
}

/// How often an answer says that the caller may not: once if it ended with its head and says so
/// there, else in so many of its parts. Most have neither, so that this costs them nothing. What
/// OAuth 2.0 denies, it denies a client or a device of the caller's.
fn denials(answer: &Response<Body>) -> usize {
    let status = answer.headers().get(Status::GRPC_STATUS);
    if status.is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::PermissionDenied) {
        let status = Status::from_header_map(answer.headers());
        let info = status.and_then(|status| status.get_details_error_info());
        return usize::from(info.is_none_or(|info| info.reason != OAUTH_ERROR));
    }
    let parts = answer.extensions().get::<DeniedParts>();
    parts.map_or(0, |DeniedParts(denied)| *denied)
}

/// The bearer token of a request, if it has credentials at all.
fn bearer_of(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let Some(credentials) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    credentials
        .to_str()
        .ok()
        .filter(|text| text.len() <= CREDENTIALS_MAX)
        .and_then(bearer)
        .map(Some)
        .ok_or(Error::Unauthenticated(Unknown::Invalid))
}

/// Whether a request comes without any credentials.
fn is_anonymous(request: &Request<Body>) -> bool {
    let peer = request.extensions().get::<Peer>();
    !request.headers().contains_key(AUTHORIZATION)
        && peer.is_none_or(|peer| peer.certificate.is_none())
}

/// Whether a known caller passes the rule.
fn judge(principal: &Principal, rule: Rule) -> Result<(), Error> {
    match rule {
        Rule::Open | Rule::Optional | Rule::Known => Ok(()),
        Rule::OwnOr(permission) => {
            if principal.user_id().is_some() {
                return Ok(());
            }
            principal.require(permission)
        }
        Rule::Needs(permission) => principal.require(permission),
    }
}

/// RFC 6750 section 2.1; the scheme in any case (RFC 9110 section 11.1).
fn bearer(text: &str) -> Option<&str> {
    let (scheme, key) = text.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| key.trim_start_matches(' '))
}

/// The caller's own deadline (`grpc-timeout`).
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?;
    grpc_timeout(value.to_str().ok()?)
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number.checked_mul(3_600)?),
        'M' => Duration::from_secs(number.checked_mul(60)?),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Of an answer that ended with its head; a stream's end is not waited for.
fn code_of(answer: &Response<Body>) -> Code {
    Status::from_header_map(answer.headers()).map_or(Code::Ok, |status| status.code())
}

const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
