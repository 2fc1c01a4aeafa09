//! Traces over OTLP, joined to the gateway's by `traceparent`.
//!
//! ```text
//! request → its mutation → a bounded queue → batches, sent by a thread of their own
//! ```
//!
//! Whether a trace is sampled the gateway says in `traceparent`; without one it is. No
//! request waits for a collector: a full queue drops spans.

use std::time::Duration;

use http::{HeaderMap, Method};
use opentelemetry::KeyValue;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Status, TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracer, SdkTracerProvider,
};
use tracing::{Metadata, Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use super::{Event, TelemetryError};

/// Spans that may wait for the collector; further ones are dropped.
const QUEUE: usize = 4_096;
/// How often what waits is sent.
const EVERY: Duration = Duration::from_secs(2);
/// How long the collector may take for a batch, and for the last one at the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// The way to the collector, if there is one.
#[must_use = "what still waits is lost without `end`"]
#[derive(Debug, Default)]
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    pub(super) fn start(endpoint: Option<&str>) -> Result<Self, TelemetryError> {
        let Some(endpoint) = endpoint else {
            return Ok(Self(None));
        };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint)
            .with_timeout(PATIENCE)
            .build()?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_scheduled_delay(EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let service = Resource::builder().with_service_name("postern-handlers");
        let provider = SdkTracerProvider::builder()
            .with_span_processor(processor)
            .with_resource(service.build())
            .build();
        Ok(Self(Some(provider)))
    }

    /// What turns our spans into the collector's; spans of libraries are their own affair.
    pub(super) fn layer<S>(&self) -> Option<impl Layer<S> + use<S>>
    where
        S: Subscriber + for<'s> LookupSpan<'s>,
    {
        let tracer: SdkTracer = self.0.as_ref()?.tracer("postern");
        let ours = |of: &Metadata<'_>| of.is_span() && of.target().starts_with("postern");
        let layer = tracing_opentelemetry::layer().with_tracer(tracer);
        Some(layer.with_filter(filter_fn(ours)))
    }

    /// Sends what still waits, for a little while.
    pub async fn end(self) {
        let Some(provider) = self.0 else { return };
        let ended = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(PATIENCE));
        if !matches!(ended.await, Ok(Ok(()))) {
            tracing::warn!("the last spans did not reach the collector");
        }
    }
}

/// The span of a request, child of the one in its `traceparent`. Nothing where no
/// collector is configured: logs do not look at spans of this level.
pub(crate) fn request(method: &Method, headers: &HeaderMap) -> Span {
    let span = tracing::debug_span!(
        "request",
        otel.kind = "server",
        http.request.method = method.as_str(),
    );
    if !span.is_disabled() {
        let parent = TraceContextPropagator::new().extract(&Headers(headers));
        // Fails where logs alone look at the span.
        let _ = span.set_parent(parent);
    }
    span
}

/// Says in the request's span what became of it.
pub(super) fn answered(route: &'static str, event: &Event<'_>) {
    // Of no effect where there is no collector.
    let context = Span::current().context();
    let span = context.span();
    let status = event.status.as_u16();
    span.update_name(route);
    span.set_attribute(KeyValue::new(
        "http.response.status_code",
        i64::from(status),
    ));
    let correlation_id = event.correlation_id.to_owned();
    span.set_attribute(KeyValue::new("postern.correlation_id", correlation_id));
    if let Some(code) = event.code {
        span.set_attribute(KeyValue::new("error.type", code.as_str()));
    }
    if status >= 500 {
        span.set_status(Status::error(""));
    }
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
