//! What a worker tells of its calls: counters for all, log lines for some.
//!
//! Requests that went through are sampled, refusals are written up to a rate, and
//! all are counted. Never a token, key, body, path or query.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use metrics::Counter;

use crate::config::LogConfig;
use crate::facts::Facts;
use crate::histogram::Histogram;
use crate::reply::Reply;

/// One call, as far as it may be told.
pub(crate) struct Call<'c> {
    pub(crate) method: &'static str,
    /// The route's id in the contract; `None` if it has none, or nobody asked.
    pub(crate) route: Option<&'static str>,
    pub(crate) started: Instant,
    pub(crate) facts: &'c Facts<'c>,
}

/// Counters and the log of calls.
pub(crate) struct Events {
    passed: Counter,
    stopped: Counter,
    malformed: Counter,
    unwritten: Counter,
    durations: &'static Histogram,
    one_in: u64,
    seen: AtomicU64,
    refusals: Rate,
    complaints: Rate,
}

impl Events {
    pub(crate) fn new(log: &LogConfig) -> Self {
        let calls =
            |outcome: &'static str| metrics::counter!("postern_calls_total", "outcome" => outcome);
        Self {
            passed: calls("passed"),
            stopped: calls("stopped"),
            malformed: metrics::counter!("postern_malformed_frames_total"),
            unwritten: metrics::counter!("postern_refusals_unwritten_total"),
            durations: &crate::histogram::CALLS,
            one_in: log.request_one_in,
            seen: AtomicU64::new(0),
            refusals: Rate::new(log.refusals_per_second),
            complaints: Rate::new(log.refusals_per_second),
        }
    }

    /// A request goes on.
    pub(crate) fn passed(&self, call: &Call<'_>) {
        self.passed.increment(1);
        let took = call.started.elapsed();
        self.durations.record(took);
        if self.one_in > 0 && self.seen.fetch_add(1, Relaxed).is_multiple_of(self.one_in) {
            let (correlation_id, subject) = known(call.facts);
            tracing::info!(
                method = call.method,
                route = call.route,
                correlation_id,
                subject,
                us = micros(took),
                "passed"
            );
        }
    }

    /// A request is answered by a plugin: refused, or replayed.
    pub(crate) fn stopped(&self, call: &Call<'_>, plugin: &'static str, reply: &Reply) {
        self.stopped.increment(1);
        let took = call.started.elapsed();
        self.durations.record(took);
        let code = reply.code().map_or("", |code| code.as_str());
        metrics::counter!("postern_stops_total", "plugin" => plugin, "code" => code).increment(1);
        if self.refusals.allows() {
            let (correlation_id, subject) = known(call.facts);
            tracing::info!(
                method = call.method,
                route = call.route,
                correlation_id,
                subject,
                plugin,
                status = reply.status(),
                code,
                us = micros(took),
                "stopped"
            );
        } else {
            self.unwritten.increment(1);
        }
    }

    /// Somebody called who may not.
    pub(crate) fn stranger(&self, error: &dyn Display) {
        metrics::counter!("postern_strangers_total").increment(1);
        if self.complaints.allows() {
            tracing::warn!(%error, "a connection was closed");
        }
    }

    /// Something came that is no frame, or not the one that was due.
    pub(crate) fn malformed(&self, error: &dyn Display) {
        self.malformed.increment(1);
        if self.complaints.allows() {
            tracing::warn!(%error, "malformed frame; the connection is closed");
        }
    }
}

fn known<'f>(facts: &'f Facts<'_>) -> (Option<&'f str>, Option<&'f str>) {
    (
        facts.correlation_id.as_deref(),
        facts.identity.as_deref().map(|who| who.subject.as_str()),
    )
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

/// So many a second, and no more.
struct Rate {
    per_second: u64,
    started: Instant,
    /// The second since the start, and how many it has had: 40 and 24 bits.
    state: AtomicU64,
}

impl Rate {
    fn new(per_second: u64) -> Self {
        Self {
            per_second: per_second.min(0xff_ffff),
            started: Instant::now(),
            state: AtomicU64::new(0),
        }
    }

    fn allows(&self) -> bool {
        let second = self.started.elapsed().as_secs() << 24;
        let next = self.state.fetch_update(Relaxed, Relaxed, |state| {
            let had = if state & !0xff_ffff == second {
                state & 0xff_ffff
            } else {
                0
            };
            (had < self.per_second).then_some(second | (had + 1))
        });
        next.is_ok()
    }
}
