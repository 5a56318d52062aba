//! Traces: spans sent over OTLP/gRPC, joined to the caller's trace by W3C Trace Context.
//!
//! Refuses to cost anything when there is no endpoint: the spans of requests are of level
//! `debug`, which nothing then listens to.

use http::HeaderMap;
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::TelemetryError;

const TRACEPARENT: &str = "traceparent";

/// A sender of spans to `endpoint`. A caller's choice to sample is followed; of the traces
/// begun here, `ratio` (0 to 1) are sampled. To be called within a Tokio runtime.
pub(super) fn provider(
    endpoint: &str,
    ratio: f64,
    resource: Resource,
) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_tls_config(ClientTlsConfig::new().with_enabled_roots())
        .build()
        .map_err(|error| TelemetryError::Exporter {
            endpoint: endpoint.to_owned(),
            message: error.to_string(),
        })?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .build())
}

/// The layer that turns this crate's spans into OpenTelemetry's.
pub(super) fn layer<S>(provider: &SdkTracerProvider) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tollgate"))
        .with_threads(false)
        .with_location(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(is_own))
}

/// The exporter's own connections would otherwise trace themselves.
fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target() == "tollgate" || metadata.target().starts_with("tollgate::")
}

/// The span of one RPC, under the caller's span where `headers` name one. Disabled, and free,
/// when traces are off.
pub fn request_span(rpc: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.name = rpc,
        otel.kind = "server",
        rpc.system = "grpc",
        decision = tracing::field::Empty,
    );
    joined(span, headers)
}

/// The span of one request over HTTP to `route`; else the same.
pub fn http_span(route: &'static str, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.name = route,
        otel.kind = "server",
        http.route = route,
        decision = tracing::field::Empty,
    );
    joined(span, headers)
}

fn joined(span: Span, headers: &HeaderMap) -> Span {
    if !span.is_disabled() {
        // Fails only where nothing listens to the span, and then there is nothing to join.
        let _ = span.set_parent(remote_parent(headers));
    }
    span
}

/// The caller's span, from the W3C `traceparent` and `tracestate` headers; an empty context
/// where there is none or it is malformed.
pub fn remote_parent(headers: &HeaderMap) -> Context {
    if !headers.contains_key(TRACEPARENT) {
        return Context::new();
    }
    TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(headers))
}

/// The id of the trace that the current span is in, in hexadecimal; none where traces are off.
pub fn current_trace_id() -> Option<String> {
    current_ids().map(|(trace, _)| trace)
}

/// The id of the caller's trace, in hexadecimal, sampled or not, whether or not traces are on here.
pub fn trace_id_of(headers: &HeaderMap) -> Option<String> {
    let context = remote_parent(headers);
    let caller = context.span().span_context().clone();
    caller.is_valid().then(|| caller.trace_id().to_string())
}

/// The ids of the current trace and span.
pub(super) fn current_ids() -> Option<(String, String)> {
    Context::map_current(|context| {
        let span = context.span();
        let ids = span.span_context();
        ids.is_valid().then(|| (ids.trace_id().to_string(), ids.span_id().to_string()))
    })
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
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn headers(flags: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let caller = format!("00-{TRACE}-b7ad6b7169203331-{flags}");
        headers.insert(TRACEPARENT, caller.parse().unwrap());
        headers
    }

    #[test]
    fn the_callers_trace_is_named_sampled_or_not() {
        assert_eq!(trace_id_of(&headers("01")).as_deref(), Some(TRACE));
        assert_eq!(trace_id_of(&headers("00")).as_deref(), Some(TRACE));
        assert_eq!(trace_id_of(&HeaderMap::new()), None);
        for bad in ["", "00", "00-0-0-0", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "\u{e9}"]
        {
            let mut headers = HeaderMap::new();
            headers.insert(TRACEPARENT, http::HeaderValue::from_bytes(bad.as_bytes()).unwrap());
            assert_eq!(trace_id_of(&headers), None, "{bad}");
        }
    }

    #[test]
    fn a_request_joins_its_callers_trace() {
        let provider = SdkTracerProvider::builder().build();
        let subscriber = tracing_subscriber::registry().with(layer(&provider));
        tracing::subscriber::with_default(subscriber, || {
            for flags in ["00", "01"] {
                let span = request_span("tollgate.v1.DecisionService/Check", &headers(flags));
                let inside = span.in_scope(current_trace_id);
                assert_eq!(inside.as_deref(), Some(TRACE));
            }
            assert_eq!(current_trace_id(), None);
        });
    }

    #[test]
    fn without_a_listener_there_is_no_span() {
        let logs = tracing_subscriber::fmt::layer()
            .with_writer(std::io::sink)
            .with_filter(tracing_subscriber::EnvFilter::new("info"));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logs), || {
            let span = request_span("tollgate.v1.DecisionService/Check", &headers("01"));
            assert!(span.is_disabled());
            assert_eq!(span.in_scope(current_trace_id), None);
        });
    }
}
