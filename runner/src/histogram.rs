//! Durations in fixed buckets: one atomic addition each, no memory that grows.
//!
//! The exporter's own histograms keep every sample until they are read, which at
//! 100,000 calls a second is more memory than the rest of the worker has.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds in nanoseconds; one more bucket takes the rest.
const BOUNDS: [u64; 13] = [
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    1_000_000,
    5_000_000,
    10_000_000,
    25_000_000,
    100_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How long a call takes from its frame to its answer, round trips included.
pub(crate) static CALLS: Histogram = Histogram::new(
    "postern_call_duration_seconds",
    "From a call's frame to its answer, round trips included.",
);

/// A histogram of Prometheus' kind.
pub(crate) struct Histogram {
    name: &'static str,
    help: &'static str,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Histogram {
    const fn new(name: &'static str, help: &'static str) -> Self {
        let buckets = [const { AtomicU64::new(0) }; BOUNDS.len() + 1];
        Self {
            name,
            help,
            buckets,
            nanoseconds: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Relaxed);
        }
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// Prometheus' text form.
    pub(crate) fn render(&self) -> String {
        let Self { name, help, .. } = self;
        let mut text = format!("# HELP {name} {help}\n# TYPE {name} histogram\n");
        let mut count = 0;
        let bounds = BOUNDS
            .iter()
            .map(|bound| seconds(*bound).to_string())
            .chain(["+Inf".into()]);
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.load(Relaxed);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        let sum = seconds(self.nanoseconds.load(Relaxed));
        let _ = writeln!(text, "{name}_sum {sum}\n{name}_count {count}");
        text
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of years is still exact to the microsecond"
)]
fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::new("h", "help");
        for us in [1, 2, 3, 30_000_000] {
            histogram.record(Duration::from_micros(us));
        }
        let text = histogram.render();
        assert!(text.contains("h_bucket{le=\"0.000002\"} 2\n"), "{text}");
        assert!(text.contains("h_bucket{le=\"0.000005\"} 3\n"), "{text}");
        assert!(text.contains("h_bucket{le=\"10\"} 3\n"), "{text}");
        assert!(text.contains("h_bucket{le=\"+Inf\"} 4\n"), "{text}");
        assert!(text.contains("h_sum 30.000006\n"), "{text}");
    }
}
