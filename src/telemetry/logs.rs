//! Logs on standard error: JSON lines for machines, or text for people.
//!
//! A JSON line carries the ids of the trace in which it was written. Refuses to log span
//! fields, so that what a request carried reaches a log only where an event names it.

use std::fmt;
use std::io::IsTerminal;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer};

use super::{TelemetryError, traces};
use crate::config;
use crate::config::LogFormat;
use crate::domain::Clock;

/// What the telemetry libraries say of themselves is left out, unless the configuration names them.
const QUIET: &str = "opentelemetry=warn,opentelemetry_sdk=warn,opentelemetry-otlp=warn";

/// The layer that writes logs to standard error.
pub(super) fn layer<S>(config: &config::Logs) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = EnvFilter::try_new(format!("{QUIET},{}", config.level))
        .map_err(|error| TelemetryError::Level { level: config.level.clone(), message: error.to_string() })?;
    Ok(match config.format {
        LogFormat::Json => json(std::io::stderr).with_filter(filter).boxed(),
        LogFormat::Text => tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .with_filter(filter)
            .boxed(),
    })
}

fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let lines = JsonLines { clock: Clock::system() };
    tracing_subscriber::fmt::layer().with_ansi(false).event_format(lines).with_writer(writer)
}

/// One event, one JSON object, one line.
struct JsonLines {
    clock: Clock,
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        line.insert("timestamp".to_owned(), self.clock.now().to_string().into());
        line.insert("level".to_owned(), event.metadata().level().as_str().into());
        line.insert("target".to_owned(), event.metadata().target().into());
        if let Some((trace, span)) = traces::current_ids() {
            line.insert("trace_id".to_owned(), trace.into());
            line.insert("span_id".to_owned(), span.into());
        }
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Puts an event's fields into the line; `message` is one of them. What the line itself says
/// is not overwritten.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: Value) {
        self.0.entry(field.name()).or_insert(value);
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::TracerProvider;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn lines(&self) -> Vec<Value> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        }
    }

    #[test]
    fn an_event_is_one_json_line_that_cannot_be_forged() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(json(move || writer.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(count = 3, level = "forged", cause = %"a\n{\"b\":1}", "bad {}", "set");
        });
        let [line] = buffer.lines().try_into().unwrap();
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["message"], "bad set");
        assert_eq!(line["count"], 3);
        assert_eq!(line["cause"], "a\n{\"b\":1}");
        assert!(line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(line.get("trace_id").is_none());
    }

    #[test]
    fn a_line_carries_the_ids_of_its_trace_and_no_field_of_a_span() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let provider = SdkTracerProvider::builder().build();
        let spans = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry()
            .with(spans)
            .with(json(move || writer.clone()).with_filter(EnvFilter::new("info")));
        let trace = tracing::subscriber::with_default(subscriber, || {
            let span = tracing::debug_span!("request", token = "canary");
            let _entered = span.enter();
            tracing::info!("inside");
            traces::current_trace_id()
        });
        let [line] = buffer.lines().try_into().unwrap();
        assert_eq!(line["trace_id"], trace.unwrap());
        assert_eq!(line["span_id"].as_str().unwrap().len(), 16);
        assert!(!line.to_string().contains("canary"));
    }
}
