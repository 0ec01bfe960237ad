//! Incoming trace contexts: the W3C `traceparent` and `tracestate` headers of a call.
//!
//! Nothing is ever put into outgoing calls: a provider is no part of our traces, and need not
//! learn their ids.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Makes `span` a child of the caller's span, where the headers name one and traces are exported.
/// Call it before the span is entered: a span that has begun keeps its parent. Headers that can't
/// be parsed are passed over, as W3C Trace Context asks.
pub fn set_parent(span: &Span, headers: &HeaderMap) {
    if !super::tracing_enabled() || !headers.contains_key("traceparent") {
        return;
    }
    // A span that no layer records has no parent to set.
    let _ = span.set_parent(context_of(headers));
}

/// The trace context that the headers carry; an empty one where they carry none.
pub fn context_of(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TraceContextExt;

    use super::*;

    #[test]
    fn a_trace_context_is_taken_from_the_headers() {
        let mut headers = HeaderMap::new();
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        headers.insert("traceparent", parent.parse().unwrap());
        headers.insert("tracestate", "vendor=1".parse().unwrap());
        let context = context_of(&headers);
        let span = context.span().span_context().clone();
        assert_eq!(
            span.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(span.trace_state().get("vendor"), Some("1"));
    }

    #[test]
    fn nonsense_is_passed_over() {
        let mut headers = HeaderMap::new();
        headers.insert("traceparent", "00-zz".parse().unwrap());
        assert!(!context_of(&headers).span().span_context().is_valid());
        set_parent(&Span::none(), &headers);
    }
}
