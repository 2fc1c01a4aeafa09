//! What an operator sees: one event, a few metrics and a span per request, with a
//! fixed vocabulary. Never a token, key, body or password.

pub mod traces;

use std::any::Any;
use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use postern_contract::{Code, Route};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::Caller;
use traces::Traces;

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not `error`, `warn`, `info`, `debug`, `trace` or a filter of `tracing`.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The file cannot be written.
    #[error("log.file: {0}")]
    File(#[from] std::io::Error),
    /// The recorder is refused.
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    /// The collector's address is none.
    #[error("otlp.endpoint: {0}")]
    Traces(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Another subscriber or recorder stands already.
    #[error("telemetry was started twice")]
    Twice,
}

/// Starts logs, JSON a line, to a file or standard error, and traces to a collector, if
/// there is one.
///
/// # Errors
/// When the level, the file or the collector's address is not usable.
pub fn start(
    level: &str,
    file: Option<&Path>,
    collector: Option<&str>,
) -> Result<Traces, TelemetryError> {
    // A runner whose certificate the directory refuses is told of there only.
    let refused = "tonic::transport::server::io_stream=debug".parse()?;
    let filter = EnvFilter::builder().parse(level)?.add_directive(refused);
    let writer = match file {
        Some(path) => BoxMakeWriter::new(std::sync::Mutex::new(
            OpenOptions::new().append(true).create(true).open(path)?,
        )),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let traces = Traces::start(collector)?;
    let logs = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_writer(writer)
        .with_filter(filter);
    tracing_subscriber::registry()
        .with(logs)
        .with(traces.layer())
        .try_init()
        .map_err(|_| TelemetryError::Twice)?;
    Ok(traces)
}

/// Starts metrics; the handle renders them for `/metrics`.
///
/// # Errors
/// When a recorder stands already.
pub fn start_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let seconds = [
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ];
    let recorder = PrometheusBuilder::new()
        .set_buckets(&seconds)?
        .build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| TelemetryError::Twice)?;
    Ok(handle)
}

/// A request that was answered.
pub(crate) struct Event<'e> {
    pub(crate) method: &'e Method,
    pub(crate) route: Option<&'static Route>,
    pub(crate) status: StatusCode,
    pub(crate) code: Option<Code>,
    pub(crate) replayed: bool,
    pub(crate) correlation_id: &'e str,
    pub(crate) caller: Option<&'e Caller>,
    pub(crate) trace: Option<&'e str>,
    pub(crate) took: Duration,
}

/// Logs and counts a request, once.
pub(crate) fn request(event: &Event<'_>) {
    let route = event.route.map_or("none", |route| route.id.as_str());
    let family = event.route.map_or("none", |route| route.family.as_str());
    let status = event.status.as_u16();
    tracing::info!(
        method = event.method.as_str(),
        route,
        status,
        code = event.code.map(Code::as_str),
        replayed = event.replayed,
        correlation_id = event.correlation_id,
        subject = event.caller.map(Caller::subject),
        tenant = event
            .caller
            .and_then(Caller::tenant)
            .map(|id| id.to_string()),
        trace_id = event.trace,
        duration_us = u64::try_from(event.took.as_micros()).unwrap_or(u64::MAX),
        "request"
    );
    traces::answered(route, event);
    metrics::counter!("postern_handler_requests_total",
        "family" => family, "route" => route, "status" => status.to_string())
    .increment(1);
    metrics::histogram!("postern_handler_request_seconds", "family" => family, "route" => route)
        .record(event.took.as_secs_f64());
}

/// The trace id of a W3C `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>`.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<String> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let mut parts = value.split('-');
    let (version, trace) = (parts.next()?, parts.next()?);
    let hex =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_hexdigit());
    (hex(version, 2) && hex(trace, 32) && parts.next().is_some_and(|parent| hex(parent, 16)))
        .then(|| trace.to_owned())
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".into())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn traceparents() {
        let read = |value: &str| {
            trace_id(
                &[("traceparent".parse().unwrap(), value.parse().unwrap())]
                    .into_iter()
                    .collect(),
            )
        };
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            read(&format!("00-{trace}-00f067aa0ba902b7-01")).as_deref(),
            Some(trace)
        );
        for bad in ["", "00", "00-x-y-01", "00-4bf9-00f067aa0ba902b7-01"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
