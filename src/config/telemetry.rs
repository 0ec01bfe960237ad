//! `[telemetry]`: logs, traces and metrics.

use tracing_subscriber::EnvFilter;
use url::Url;

use super::reader::Reader;

/// Logs, traces and metrics.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// How a log line looks.
    pub log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,tokenbroker::broker=debug`.
    pub log_filter: String,
    /// The collector that traces and metrics are sent to over OTLP/gRPC; `None` sends nothing.
    pub otlp_endpoint: Option<Url>,
    /// `service.name` of traces and metrics.
    pub service_name: String,
    /// The share of traces that begin here and are kept, 0 to 1. A caller's decision is followed.
    pub sample_ratio: f64,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Telemetry {
    pub(super) fn read(reader: &mut Reader) -> Self {
        const FORMATS: [(&str, LogFormat); 3] = [
            ("auto", LogFormat::Auto),
            ("text", LogFormat::Text),
            ("json", LogFormat::Json),
        ];
        let log_format = reader
            .choice("telemetry.log_format", &FORMATS)
            .unwrap_or(LogFormat::Auto);
        let log_filter = reader.text("telemetry.log_filter");
        if reader.sound(&["telemetry.log_filter"])
            && let Err(error) = EnvFilter::try_new(&log_filter)
        {
            let problem = format!("{log_filter:?} is not a filter such as \"info\": {error}");
            reader.fault("telemetry.log_filter", problem);
        }
        let otlp_endpoint = reader.optional_url("telemetry.otlp_endpoint");
        if otlp_endpoint
            .as_ref()
            .is_some_and(|url| url.scheme() != "http" || !url.has_host())
        {
            reader.fault(
                "telemetry.otlp_endpoint",
                "this must be an http URL such as \"http://127.0.0.1:4317\"; \
                 TLS to the outside is the collector's work",
            );
        }
        Self {
            log_format,
            log_filter,
            otlp_endpoint,
            service_name: reader.text("telemetry.service_name"),
            sample_ratio: reader.number("telemetry.sample_ratio", 0.0..=1.0),
        }
    }
}
