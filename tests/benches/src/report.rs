//! Measurements, as lines for programs and as a table for people.

use serde_json::{Value, json};

/// One measurement: the median of several rounds.
#[derive(Clone, Debug)]
pub(crate) struct Measurement {
    pub(crate) name: &'static str,
    pub(crate) conns: usize,
    pub(crate) calls_per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) cpu_us_per_call: f64,
    pub(crate) rss_mib: f64,
    /// Calls a second over the null runner's in the same round.
    pub(crate) ratio_to_null: Spread,
}

/// Several rounds' values of one thing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) least: f64,
    pub(crate) median: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// The spread of these values; zeros if there are none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        Self {
            least: at(0),
            median: at(values.len() / 2),
            most: at(values.len().saturating_sub(1)),
        }
    }
}

fn round(value: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    json!((value * scale).round() / scale)
}

impl Measurement {
    /// The line for programs.
    pub(crate) fn json(&self) -> Value {
        json!({
            "name": self.name,
            "conns": self.conns,
            "calls_per_s": round(self.calls_per_s, 0),
            "p50_us": round(self.p50_us, 1),
            "p99_us": round(self.p99_us, 1),
            "cpu_us_per_call": round(self.cpu_us_per_call, 2),
            "rss_mib": round(self.rss_mib, 1),
            "ratio_to_null": round(self.ratio_to_null.median, 3),
            "ratio_least": round(self.ratio_to_null.least, 3),
            "ratio_most": round(self.ratio_to_null.most, 3),
        })
    }

    /// The table's head.
    pub(crate) const HEAD: &str = "name        conns    calls/s   p50 µs   p99 µs  CPU µs/call  RSS MiB  ratio to null (least to most)";

    /// A row of the table.
    pub(crate) fn row(&self) -> String {
        let Self {
            name,
            conns,
            calls_per_s,
            p50_us,
            p99_us,
            cpu_us_per_call,
            rss_mib,
            ratio_to_null,
        } = self;
        let Spread {
            least,
            median,
            most,
        } = ratio_to_null;
        format!(
            "{name:<10} {conns:>6} {calls_per_s:>10.0} {p50_us:>8.1} {p99_us:>8.1} {cpu_us_per_call:>12.2} {rss_mib:>8.1}  {median:.3} ({least:.3} to {most:.3})"
        )
    }
}
