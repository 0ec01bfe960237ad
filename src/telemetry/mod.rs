//! Logs to standard error, and traces and metrics over OTLP where a collector is configured.
//!
//! Without a collector nothing of OpenTelemetry runs: [`tracing_enabled`] is false, incoming
//! trace contexts are not parsed and [`Metrics`] records nothing.

mod metrics;
mod propagation;

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tokio::sync::oneshot;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

pub use metrics::Metrics;
pub use propagation::{context_of, set_parent};

use crate::config::{LogFormat, Telemetry};

/// The name of our tracer and meter, and of the crate whose spans are exported. Spans of the HTTP
/// stack are not: those of the exporter's own calls would beget each other.
const SCOPE: &str = env!("CARGO_CRATE_NAME");

/// How long a guard that is dropped without [`Guard::shutdown`] waits for the exporters.
const DROP_DEADLINE: Duration = Duration::from_secs(2);

static ENABLED: AtomicBool = AtomicBool::new(false);

/// A layer that can be boxed with others for the subscriber `S`.
pub type BoxedLayer<S> = Box<dyn Layer<S> + Send + Sync>;

/// Whether traces and metrics are exported.
pub fn tracing_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// Sets up logging for the process, and the exporters where a collector is configured. Exporters
/// need a tokio runtime around the call.
///
/// # Errors
/// A filter or an endpoint that is not valid, no runtime for the exporters, or a process whose
/// subscriber is set already.
pub fn init(config: &Telemetry) -> Result<Guard, String> {
    let on_terminal = std::io::stderr().is_terminal();
    let logs = log_layer(config, std::io::stderr, on_terminal)?;
    let (guard, spans) = match &config.otlp_endpoint {
        None => (Guard { exporters: None }, None),
        Some(endpoint) => {
            let exporters = Exporters::new(config, endpoint.as_str())?;
            let tracer = exporters.traces.tracer(SCOPE);
            let ours = Targets::new().with_target(SCOPE, LevelFilter::INFO);
            let spans = tracing_opentelemetry::layer()
                .with_tracer(tracer)
                .with_filter(ours);
            let exporters = Some(exporters);
            (Guard { exporters }, Some(spans))
        }
    };
    tracing_subscriber::registry()
        .with(logs)
        .with(spans)
        .try_init()
        .map_err(|error| error.to_string())?;
    if let Some(exporters) = &guard.exporters {
        opentelemetry::global::set_meter_provider(exporters.metrics.clone());
        ENABLED.store(true, Ordering::Relaxed);
    }
    Ok(guard)
}

/// The layer that writes log lines to `writer`, in the configured form and under the configured
/// filter. `on_terminal` decides what [`LogFormat::Auto`] means, and whether text is coloured.
///
/// # Errors
/// A filter that is not valid.
pub fn log_layer<S, W>(
    config: &Telemetry,
    writer: W,
    on_terminal: bool,
) -> Result<BoxedLayer<S>, String>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&config.log_filter).map_err(|error| error.to_string())?;
    let as_json = match config.log_format {
        LogFormat::Auto => !on_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(if as_json {
        layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed()
    } else {
        layer.with_ansi(on_terminal).with_filter(filter).boxed()
    })
}

/// A layer that writes everything at debug level and above as plain text to `writer`, so that a
/// test can search the log for what must not stand there.
pub fn layer_for_tests<S, W>(writer: W) -> BoxedLayer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .with_filter(LevelFilter::DEBUG)
        .boxed()
}

/// Sends what the exporters still hold when the process ends.
#[must_use = "dropping the guard stops the exporters"]
#[derive(Debug)]
pub struct Guard {
    exporters: Option<Exporters>,
}

impl Guard {
    /// Sends what is left and stops the exporters, for at most `deadline`. Without exporters it
    /// returns at once.
    pub async fn shutdown(mut self, deadline: Duration) {
        let Some(exporters) = self.exporters.take() else {
            return;
        };
        let (done, stopped) = oneshot::channel();
        exporters.stop_on_thread(deadline, move || {
            // The receiver is gone once the deadline has passed.
            let _ = done.send(());
        });
        if tokio::time::timeout(deadline, stopped).await.is_err() {
            tracing::warn!("traces and metrics could not be sent before the deadline");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(exporters) = self.exporters.take() {
            let (done, stopped) = std::sync::mpsc::channel();
            exporters.stop_on_thread(DROP_DEADLINE, move || {
                let _ = done.send(());
            });
            let _ = stopped.recv_timeout(DROP_DEADLINE);
        }
    }
}

#[derive(Debug)]
struct Exporters {
    traces: SdkTracerProvider,
    metrics: SdkMeterProvider,
}

impl Exporters {
    fn new(config: &Telemetry, endpoint: &str) -> Result<Self, String> {
        if tokio::runtime::Handle::try_current().is_err() {
            return Err("exporting traces and metrics needs a tokio runtime".to_owned());
        }
        let in_words = |error: ExporterBuildError| format!("telemetry.otlp_endpoint: {error}");
        let spans = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(in_words)?;
        let measures = MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .build()
            .map_err(in_words)?;
        // The builder also takes OTEL_RESOURCE_ATTRIBUTES.
        let resource = Resource::builder()
            .with_service_name(config.service_name.clone())
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                env!("CARGO_PKG_VERSION"),
            ))
            .build();
        let begun_here = Sampler::TraceIdRatioBased(config.sample_ratio);
        let traces = SdkTracerProvider::builder()
            .with_batch_exporter(spans)
            .with_sampler(Sampler::ParentBased(Box::new(begun_here)))
            .with_resource(resource.clone())
            .build();
        let metrics = SdkMeterProvider::builder()
            .with_periodic_exporter(measures)
            .with_resource(resource)
            .build();
        Ok(Self { traces, metrics })
    }

    /// Stops both exporters on a thread of its own, since stopping blocks: a runtime's worker
    /// would hold up the very channel that the exporters send on, and a blocking task the
    /// runtime's end.
    fn stop_on_thread(self, deadline: Duration, done: impl FnOnce() + Send + 'static) {
        ENABLED.store(false, Ordering::Relaxed);
        let stop = move || {
            // A collector that is down is no reason to end with a failure.
            let _ = self.traces.shutdown_with_timeout(deadline);
            let _ = self.metrics.shutdown_with_timeout(deadline);
            done();
        };
        let thread = std::thread::Builder::new().name("telemetry-stop".to_owned());
        if let Err(error) = thread.spawn(stop) {
            tracing::warn!(%error, "traces and metrics could not be sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::Config;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, on_terminal: bool) -> String {
        let mut config = Config::defaults(Path::new("data")).unwrap().telemetry;
        config.log_format = format;
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = log_layer(&config, move || writer.clone(), on_terminal).unwrap();
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(connection = "conn_1", "refreshed");
            tracing::debug!("not at this level");
        });
        captured.text()
    }

    #[test]
    fn logs_are_json_away_from_a_terminal() {
        let line = logged(LogFormat::Auto, false);
        let fields: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(fields.get("message").unwrap(), "refreshed");
        assert_eq!(fields.get("connection").unwrap(), "conn_1");
        assert!(logged(LogFormat::Auto, true).contains("refreshed"));
        assert!(!logged(LogFormat::Text, false).contains('{'));
    }

    #[test]
    fn the_layer_for_tests_sees_debug_lines() {
        let captured = Captured::default();
        let writer = captured.clone();
        let layer = layer_for_tests(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || tracing::debug!("a detail"));
        assert!(captured.text().contains("a detail"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn stopping_keeps_the_deadline_without_a_collector() {
        let config = Config::defaults(Path::new("data")).unwrap().telemetry;
        // Nothing listens on the discard port.
        let exporters = Exporters::new(&config, "http://127.0.0.1:9").unwrap();
        let tracer = exporters.traces.tracer(SCOPE);
        drop(opentelemetry::trace::Tracer::start(&tracer, "a span"));
        let exporters = Some(exporters);
        let deadline = Duration::from_secs(1);
        let begun = std::time::Instant::now();
        Guard { exporters }.shutdown(deadline).await;
        assert!(begun.elapsed() < deadline * 3);
    }
}
