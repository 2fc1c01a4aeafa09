//! Prometheus metrics of this process, all called `postern_…`.

use std::sync::OnceLock;

use anyhow::Context as _;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Collects what `metrics` macros count from here on.
pub(crate) fn install() -> anyhow::Result<()> {
    let handle = PrometheusBuilder::new()
        .install_recorder()
        .context("cannot collect metrics")?;
    describe();
    let _ = RECORDER.set(handle);
    Ok(())
}

/// Everything counted so far, in Prometheus' text form.
pub(crate) fn render() -> String {
    let Some(recorder) = RECORDER.get() else {
        return String::new();
    };
    crate::tally::settle();
    recorder.run_upkeep();
    recorder.render() + &crate::histogram::CALLS.render()
}

fn describe() {
    use metrics::{describe_counter, describe_gauge};
    describe_counter!(
        "postern_calls_total",
        "Calls by outcome: passed on, or stopped by a plugin."
    );
    describe_counter!(
        "postern_stops_total",
        "Requests answered by a plugin, by plugin and error code."
    );
    describe_counter!(
        "postern_plugin_verdicts_total",
        "What each plugin said: next, pass, stop."
    );
    describe_counter!(
        "postern_panics_total",
        "Panics of plugins; each cost one request."
    );
    describe_counter!(
        "postern_malformed_frames_total",
        "Frames that could not be read."
    );
    describe_counter!(
        "postern_unknown_tokens_total",
        "Calls with a token nobody knows; the gateway prepares again."
    );
    describe_counter!(
        "postern_refusals_unwritten_total",
        "Refusals above log.refusalsPerSecond, counted only."
    );
    describe_counter!(
        "postern_log_dropped_total",
        "Log lines dropped because their reader was slow."
    );
    describe_counter!(
        "postern_shed_total",
        "Requests refused because limits.waiting others waited, by the plugin they came to."
    );
    describe_counter!(
        "postern_strangers_total",
        "Connections closed because socket.allowUsers and allowGroups do not name the caller."
    );
    describe_gauge!(
        "postern_waiting",
        "Requests that wait for a store, the directory or an issuer."
    );
    describe_gauge!("postern_connections", "Open connections of the gateway.");
    describe_gauge!(
        "postern_configurations",
        "Configurations of routes with a built chain."
    );
}
