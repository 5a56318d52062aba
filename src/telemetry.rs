//! What the gate tells about itself: logs, traces, metrics, and whether it is ready.
//!
//! The only home of OpenTelemetry. Refuses to hold up a decision: whatever cannot be sent is
//! dropped, and said in the log.

pub mod instruments;
mod logs;
pub mod readiness;
pub mod traces;

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::tonic_types::transport::ClientTlsConfig;
use opentelemetry_otlp::{MetricExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config;

pub use instruments::{CacheName, Instruments, Reloaded};
pub use readiness::Readiness;
pub use traces::{current_trace_id, remote_parent, request_span, trace_id_of};

/// The most time given to sending what is left when the gate stops.
const FLUSH: Duration = Duration::from_secs(5);

/// Why telemetry could not start, or a metric could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level of logs does not parse.
    #[error("`{level}` is not a log level or a list of directives: {message}")]
    Level {
        /// As configured.
        level: String,
        /// What the parser says.
        message: String,
    },
    /// An exporter cannot be made for an endpoint.
    #[error("cannot send to the OTLP endpoint `{endpoint}`: {message}")]
    Exporter {
        /// As configured.
        endpoint: String,
        /// What the exporter says.
        message: String,
    },
    /// OTLP is configured, and there is no Tokio runtime to send it on.
    #[error("OTLP needs a Tokio runtime, and there is none")]
    NoRuntime,
    /// This process logs already.
    #[error("telemetry was already started in this process")]
    AlreadyStarted,
    /// Metrics cannot be shown.
    #[error("metrics cannot be encoded: {0}")]
    Render(String),
}

/// Telemetry that runs; to be [shut down](Telemetry::shutdown) last.
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
    instruments: Instruments,
}

/// Starts logs, traces and metrics for this process, for the gate of this name. Where an OTLP
/// endpoint is configured, to be called within a Tokio runtime; nothing waits for the endpoint.
///
/// # Errors
///
/// Something in the configuration cannot be used, or telemetry was started before.
pub fn start(config: &config::Telemetry, gate: &str) -> Result<(Telemetry, Instruments), TelemetryError> {
    let telemetry = build(config, gate)?;
    let subscriber = subscriber(&config.logs, telemetry.traces.as_ref())?;
    subscriber.try_init().map_err(|_| TelemetryError::AlreadyStarted)?;
    let instruments = telemetry.instruments.clone();
    Ok((telemetry, instruments))
}

impl Telemetry {
    /// Sends what is left of traces and metrics, for at most five seconds.
    pub async fn shutdown(self) {
        let (done, finished) = tokio::sync::oneshot::channel();
        // A thread of its own: the exporters block, and must not keep the runtime from ending.
        std::thread::spawn(move || {
            if let Some(Err(error)) = self.traces.map(|traces| traces.shutdown_with_timeout(FLUSH)) {
                tracing::warn!(%error, "the last traces may not have been sent");
            }
            self.instruments.shutdown();
            // Nobody waits any more if the time was up.
            let _ = done.send(());
        });
        if tokio::time::timeout(FLUSH, finished).await.is_err() {
            tracing::warn!("the last traces and metrics were not sent in time");
        }
    }
}

fn build(config: &config::Telemetry, gate: &str) -> Result<Telemetry, TelemetryError> {
    let (traces, metrics) = (&config.traces, &config.metrics);
    let is_sent = traces.otlp_endpoint.is_some() || metrics.otlp_endpoint.is_some();
    if is_sent && tokio::runtime::Handle::try_current().is_err() {
        return Err(TelemetryError::NoRuntime);
    }
    let resource = resource(gate);
    let spans = |endpoint: &String| traces::provider(endpoint, traces.sample_ratio, resource.clone());
    let traces = traces.otlp_endpoint.as_ref().map(spans).transpose()?;
    let reader = |endpoint: &String| reader(endpoint, metrics.interval.get());
    let reader = metrics.otlp_endpoint.as_ref().map(reader).transpose()?;
    let instruments = Instruments::new(resource, reader);
    Ok(Telemetry { traces, instruments })
}

/// What listens to events and spans: the log, and where there is a provider, the traces.
fn subscriber(
    logs: &config::Logs,
    provider: Option<&SdkTracerProvider>,
) -> Result<impl Subscriber + Send + Sync + use<>, TelemetryError> {
    Ok(tracing_subscriber::registry().with(logs::layer(logs)?).with(provider.map(traces::layer)))
}

/// What every trace and metric says of the gate that sent it.
fn resource(gate: &str) -> Resource {
    Resource::builder()
        .with_service_name("tollgate")
        .with_attribute(KeyValue::new("service.instance.id", gate.to_owned()))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build()
}

fn reader(endpoint: &str, interval: Duration) -> Result<PeriodicReader<MetricExporter>, TelemetryError> {
    let exporter = MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_tls_config(ClientTlsConfig::new().with_enabled_roots())
        .build()
        .map_err(|error| TelemetryError::Exporter {
            endpoint: endpoint.to_owned(),
            message: error.to_string(),
        })?;
    Ok(PeriodicReader::builder(exporter).with_interval(interval).build())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
        MetricsService, MetricsServiceServer,
    };
    use opentelemetry_proto::tonic::collector::metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
        TraceService, TraceServiceServer,
    };
    use opentelemetry_proto::tonic::collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
    };
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::{Request, Response, Status};

    use super::*;
    use crate::domain::Effect;

    /// An OTLP collector that keeps what it is sent.
    #[derive(Clone, Default)]
    struct Collector {
        spans: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
        metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    }

    #[tonic::async_trait]
    impl TraceService for Collector {
        async fn export(
            &self,
            request: Request<ExportTraceServiceRequest>,
        ) -> Result<Response<ExportTraceServiceResponse>, Status> {
            self.spans.lock().unwrap().push(request.into_inner());
            Ok(Response::new(Default::default()))
        }
    }

    #[tonic::async_trait]
    impl MetricsService for Collector {
        async fn export(
            &self,
            request: Request<ExportMetricsServiceRequest>,
        ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
            self.metrics.lock().unwrap().push(request.into_inner());
            Ok(Response::new(Default::default()))
        }
    }

    impl Collector {
        async fn listen(&self) -> String {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let server = tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(self.clone()))
                .add_service(MetricsServiceServer::new(self.clone()));
            tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
            endpoint
        }
    }

    fn config(endpoint: Option<String>) -> config::Telemetry {
        let mut config = config::Telemetry::default();
        config.logs.level = "off".to_owned();
        config.traces.otlp_endpoint.clone_from(&endpoint);
        config.metrics.otlp_endpoint = endpoint;
        config
    }

    fn caller(flags: &str) -> http::HeaderMap {
        let parent = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
        [(http::HeaderName::from_static("traceparent"), parent.parse().unwrap())].into_iter().collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sampled_spans_and_metrics_reach_a_collector() {
        let collector = Collector::default();
        let config = config(Some(collector.listen().await));
        let telemetry = build(&config, "gate-1").unwrap();
        let subscriber = subscriber(&config.logs, telemetry.traces.as_ref()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            drop(request_span("sampled", &caller("01")).entered());
            drop(request_span("not sampled", &caller("00")).entered());
        });
        telemetry.instruments.record_check(Effect::Allow, std::iter::empty(), Duration::from_micros(9));
        telemetry.shutdown().await;

        let sent = collector.spans.lock().unwrap().clone();
        let spans: Vec<_> =
            sent.iter().flat_map(|sent| &sent.resource_spans).flat_map(|of| &of.scope_spans).collect();
        let [span] = spans.iter().flat_map(|of| &of.spans).collect::<Vec<_>>().try_into().unwrap();
        assert_eq!(span.name, "sampled");
        assert_eq!(span.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        let said = format!("{:?}", sent[0].resource_spans[0].resource);
        assert!(said.contains("gate-1") && said.contains("service.version"), "{said}");
        let metrics = format!("{:?}", collector.metrics.lock().unwrap());
        assert!(metrics.contains("tollgate.check.duration"), "{metrics}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_collector_that_is_not_there_delays_nothing_for_long() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let config = config(Some(format!("http://{}", listener.local_addr().unwrap())));
        let telemetry = build(&config, "gate-1").unwrap();
        let subscriber = subscriber(&config.logs, telemetry.traces.as_ref()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            drop(request_span("lost", &caller("01")).entered());
        });
        let begun = std::time::Instant::now();
        telemetry.shutdown().await;
        assert!(begun.elapsed() < FLUSH + Duration::from_secs(1), "{:?}", begun.elapsed());
    }

    #[test]
    fn without_endpoints_there_are_logs_and_no_spans() {
        let mut config = config(None);
        config.logs.level = "info".to_owned();
        let telemetry = build(&config, "gate-1").unwrap();
        assert!(telemetry.traces.is_none());
        tracing::subscriber::with_default(subscriber(&config.logs, None).unwrap(), || {
            assert!(tracing::enabled!(tracing::Level::INFO));
            assert!(request_span("none", &caller("01")).is_disabled());
        });
    }

    #[test]
    fn otlp_without_a_runtime_is_an_error() {
        let config = config(Some("http://127.0.0.1:1".to_owned()));
        assert!(matches!(build(&config, "gate-1"), Err(TelemetryError::NoRuntime)));
    }
}
