//! What the process measures of itself. Names follow OpenTelemetry's semantic conventions where
//! they have one (RPC, HTTP client, database client pool); the rest begin with `tokenbroker.`.
//!
//! Attributes stay few and bounded: never an id, an owner, an address or anything a caller chose.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};

/// The buckets, in seconds, that the conventions advise for HTTP and RPC durations.
const ADVISED: [f64; 14] = [
    0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
];

/// Buckets below the advised ones, in seconds: most calls are answered from memory.
const BELOW: [f64; 5] = [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001];

/// gRPC codes that the conventions count as the server's own failures.
const SERVER_FAILURES: [&str; 6] = [
    "UNKNOWN",
    "DEADLINE_EXCEEDED",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
];

/// The instruments, or nothing where no metrics are exported: then each method costs one branch.
/// Clones share the instruments.
#[derive(Clone, Default)]
pub struct Metrics(Option<Arc<Instruments>>);

struct Instruments {
    rpc_duration: Histogram<f64>,
    http_duration: Histogram<f64>,
    access_tokens_served: Counter<u64>,
    rate_limited: Counter<u64>,
    refresh_attempts: Counter<u64>,
    refresh_duration: Histogram<f64>,
    tokens_issued: Counter<u64>,
    issued_swept: Counter<u64>,
    events_numbered: Counter<u64>,
    events_watchers: UpDownCounter<i64>,
    cache_entries: Gauge<u64>,
    connection_wait: Histogram<f64>,
    connection_timeouts: Counter<u64>,
    jobs_moved: Counter<u64>,
    jobs_rescued: Counter<u64>,
    claim_duration: Histogram<f64>,
}

impl Metrics {
    /// The instruments of the process where metrics are exported, else none. Call it after
    /// [`super::init`].
    pub fn new() -> Self {
        if super::tracing_enabled() {
            Self::on_meter(&opentelemetry::global::meter(super::SCOPE))
        } else {
            Self::disabled()
        }
    }

    /// No instruments.
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Instruments of the given meter.
    pub fn on_meter(meter: &Meter) -> Self {
        Self(Some(Arc::new(Instruments::new(meter))))
    }

    /// Whether anything is recorded: asks for attributes that cost something need not be made
    /// where nothing is.
    pub fn enabled(&self) -> bool {
        self.0.is_some()
    }

    /// One call to us has ended: `rpc.server.call.duration`.
    ///
    /// `method` is the full name (`tokenbroker.v1.TokenBroker/GetAccessToken`) of a method that
    /// exists, or `_OTHER`; `code` a gRPC code's name (`NOT_FOUND`).
    pub fn rpc_served(&self, method: &str, code: &'static str, duration: Duration) {
        let Some(instruments) = &self.0 else { return };
        let attributes = [
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.response.status_code", code),
            KeyValue::new("error.type", code),
        ];
        let known = if SERVER_FAILURES.contains(&code) {
            4
        } else {
            3
        };
        let attributes = attributes.get(..known).unwrap_or(&attributes);
        instruments
            .rpc_duration
            .record(duration.as_secs_f64(), attributes);
    }

    /// One HTTP request of ours has ended: `http.client.request.duration`.
    ///
    /// `host` is a provider's host; `status` its answer's, or `None` where there was none, and
    /// then `failure` says what happened (`timeout`, `connect`).
    pub fn http_requested(
        &self,
        method: &'static str,
        host: &str,
        status: Option<u16>,
        failure: Option<&'static str>,
        duration: Duration,
    ) {
        let Some(instruments) = &self.0 else { return };
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("server.address", host.to_owned()),
        ];
        if let Some(status) = status {
            let status_code = i64::from(status);
            attributes.push(KeyValue::new("http.response.status_code", status_code));
        }
        match (failure, status) {
            (Some(failure), _) => attributes.push(KeyValue::new("error.type", failure)),
            (None, Some(status)) if status >= 400 => {
                attributes.push(KeyValue::new("error.type", status.to_string()));
            }
            (None, _) => {}
        }
        instruments
            .http_duration
            .record(duration.as_secs_f64(), &attributes);
    }

    /// An access token was asked for: `tokenbroker.access_token.served`. `outcome` says whence it
    /// came or why it did not (`cache`, `database`, `refreshed`, `below_min_validity`, `refused`).
    pub fn access_token_served(&self, outcome: &'static str) {
        if let Some(instruments) = &self.0 {
            let attributes = [KeyValue::new("outcome", outcome)];
            instruments.access_tokens_served.add(1, &attributes);
        }
    }

    /// A call was refused by a limit of its caller's: `tokenbroker.caller.rate_limited`. `limit` is the
    /// limit's name in the configuration.
    pub fn rate_limited(&self, limit: &'static str) {
        if let Some(instruments) = &self.0 {
            let attributes = [KeyValue::new("limit", limit)];
            instruments.rate_limited.add(1, &attributes);
        }
    }

    /// A refresh has ended: `tokenbroker.refresh.attempts` and `tokenbroker.refresh.duration`.
    /// `outcome` and `trigger` are those of the attempt's row, `provider` a name in the catalogue.
    pub fn refreshed(
        &self,
        outcome: &'static str,
        trigger: &'static str,
        provider: &str,
        duration: Duration,
    ) {
        let Some(instruments) = &self.0 else { return };
        let attributes = [
            KeyValue::new("outcome", outcome),
            KeyValue::new("trigger", trigger),
            KeyValue::new("provider", provider.to_owned()),
        ];
        instruments.refresh_attempts.add(1, &attributes);
        instruments
            .refresh_duration
            .record(duration.as_secs_f64(), &attributes);
    }

    /// Our authorisation server has issued an access token: `tokenbroker.issuer.tokens`.
    pub fn token_issued(&self) {
        if let Some(instruments) = &self.0 {
            instruments.tokens_issued.add(1, &[]);
        }
    }

    /// What our authorisation server needs no longer was deleted: `tokenbroker.issuer.swept`, in rows of
    /// a table (`tokens`, `codes`, `grants`, …).
    pub fn issued_swept(&self, table: &'static str, rows: usize) {
        if let Some(instruments) = &self.0 {
            let attributes = [KeyValue::new("table", table)];
            let rows = u64::try_from(rows).unwrap_or(u64::MAX);
            instruments.issued_swept.add(rows, &attributes);
        }
    }

    /// `count` more events have their position, by this replica: `tokenbroker.events.numbered`.
    pub fn events_numbered(&self, count: u64) {
        if let Some(instruments) = &self.0 {
            instruments.events_numbered.add(count, &[]);
        }
    }

    /// A watcher came: `tokenbroker.events.watchers` goes up by one.
    pub fn watcher_joined(&self) {
        if let Some(instruments) = &self.0 {
            instruments.events_watchers.add(1, &[]);
        }
    }

    /// A watcher went: `tokenbroker.events.watchers` goes down by one.
    pub fn watcher_left(&self) {
        if let Some(instruments) = &self.0 {
            instruments.events_watchers.add(-1, &[]);
        }
    }

    /// How many access tokens the cache holds: `tokenbroker.cache.entries`.
    pub fn cache_holds(&self, entries: u64) {
        if let Some(instruments) = &self.0 {
            instruments.cache_entries.record(entries, &[]);
        }
    }

    /// So many jobs came into a state: `tokenbroker.jobs.moved`.
    pub fn jobs_moved(&self, state: &'static str, jobs: usize) {
        if let Some(instruments) = &self.0 {
            let attributes = [KeyValue::new("state", state)];
            let jobs = u64::try_from(jobs).unwrap_or(u64::MAX);
            instruments.jobs_moved.add(jobs, &attributes);
        }
    }

    /// So many jobs were taken from workers that were lost: `tokenbroker.jobs.rescued`.
    pub fn jobs_rescued(&self, jobs: usize) {
        if let Some(instruments) = &self.0 {
            let jobs = u64::try_from(jobs).unwrap_or(u64::MAX);
            instruments.jobs_rescued.add(jobs, &[]);
        }
    }

    /// A claim of jobs has ended, with its wait: `tokenbroker.jobs.claim.duration`.
    pub fn claim_waited(&self, duration: Duration) {
        if let Some(instruments) = &self.0 {
            instruments
                .claim_duration
                .record(duration.as_secs_f64(), &[]);
        }
    }

    /// A connection of the database pool was obtained after `duration`:
    /// `db.client.connection.wait_time`. `pool` names the pool (`reader`, `writer`).
    pub fn connection_obtained(&self, pool: &'static str, duration: Duration) {
        if let Some(instruments) = &self.0 {
            let attributes = [KeyValue::new("db.client.connection.pool.name", pool)];
            instruments
                .connection_wait
                .record(duration.as_secs_f64(), &attributes);
        }
    }

    /// No connection of the database pool was free in time: `db.client.connection.timeouts`.
    pub fn connection_timed_out(&self, pool: &'static str) {
        if let Some(instruments) = &self.0 {
            let attributes = [KeyValue::new("db.client.connection.pool.name", pool)];
            instruments.connection_timeouts.add(1, &attributes);
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Metrics").field(&self.enabled()).finish()
    }
}

impl Instruments {
    fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, description: &'static str, buckets: Vec<f64>| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(buckets)
                .build()
        };
        let count = |name: &'static str, unit: &'static str, description: &'static str| {
            meter
                .u64_counter(name)
                .with_unit(unit)
                .with_description(description)
                .build()
        };
        let fine = [BELOW.as_slice(), ADVISED.as_slice()].concat();
        Self {
            rpc_duration: seconds(
                "rpc.server.call.duration",
                "Duration of calls served",
                fine.clone(),
            ),
            http_duration: seconds(
                "http.client.request.duration",
                "Duration of requests to providers",
                ADVISED.to_vec(),
            ),
            access_tokens_served: count(
                "tokenbroker.access_token.served",
                "{request}",
                "Access tokens asked for, by outcome",
            ),
            rate_limited: count(
                "tokenbroker.caller.rate_limited",
                "{request}",
                "Calls refused by a limit of their caller's, by limit",
            ),
            refresh_attempts: count(
                "tokenbroker.refresh.attempts",
                "{attempt}",
                "Refreshes that have ended, by outcome",
            ),
            refresh_duration: seconds(
                "tokenbroker.refresh.duration",
                "Duration of refreshes, from the lease to the commit",
                ADVISED.to_vec(),
            ),
            tokens_issued: count(
                "tokenbroker.issuer.tokens",
                "{token}",
                "Access tokens that our authorisation server issued",
            ),
            issued_swept: count(
                "tokenbroker.issuer.swept",
                "{row}",
                "Rows of our authorisation server that were deleted, by table",
            ),
            events_numbered: count(
                "tokenbroker.events.numbered",
                "{event}",
                "Events that have been put in order",
            ),
            events_watchers: meter
                .i64_up_down_counter("tokenbroker.events.watchers")
                .with_unit("{watcher}")
                .with_description("Event streams open now")
                .build(),
            cache_entries: meter
                .u64_gauge("tokenbroker.cache.entries")
                .with_unit("{entry}")
                .with_description("Access tokens held opened in memory")
                .build(),
            connection_wait: seconds(
                "db.client.connection.wait_time",
                "Time to obtain a connection from the pool",
                fine,
            ),
            connection_timeouts: count(
                "db.client.connection.timeouts",
                "{timeout}",
                "Connections that the pool could not give in time",
            ),
            jobs_moved: count(
                "tokenbroker.jobs.moved",
                "{job}",
                "Jobs that came into a state, by state",
            ),
            jobs_rescued: count(
                "tokenbroker.jobs.rescued",
                "{job}",
                "Jobs taken from workers that were lost",
            ),
            claim_duration: seconds(
                "tokenbroker.jobs.claim.duration",
                "Duration of claims of jobs, with their wait",
                [ADVISED.as_slice(), &[30.0, 60.0]].concat(),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_recorded_without_a_collector() {
        let metrics = Metrics::new();
        assert!(!metrics.enabled());
        metrics.rpc_served("a/b", "OK", Duration::from_micros(40));
    }

    #[test]
    fn every_instrument_takes_a_value() {
        let provider = opentelemetry_sdk::metrics::SdkMeterProvider::builder().build();
        let meter = opentelemetry::metrics::MeterProvider::meter(&provider, "test");
        let metrics = Metrics::on_meter(&meter);
        let moment = Duration::from_millis(3);
        assert!(metrics.enabled());
        metrics.rpc_served("a/b", "INTERNAL", moment);
        metrics.http_requested("POST", "github.com", Some(503), None, moment);
        metrics.http_requested("POST", "github.com", None, Some("timeout"), moment);
        metrics.access_token_served("cache");
        metrics.rate_limited("requests_per_second");
        metrics.refreshed("refreshed", "due", "github", moment);
        metrics.token_issued();
        metrics.issued_swept("tokens", 3);
        metrics.events_numbered(3);
        metrics.watcher_joined();
        metrics.watcher_left();
        metrics.cache_holds(7);
        metrics.connection_obtained("writer", moment);
        metrics.connection_timed_out("writer");
        metrics.jobs_moved("pending", 2);
        metrics.jobs_rescued(1);
        metrics.claim_waited(moment);
    }
}
