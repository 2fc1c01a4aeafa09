//! What the benches of data families share.
//!
//! ```text
//! core 0: client → postern-handlers      core 1: the store
//! core 0: the store's own client         core 1: the store
//! ```
//! The two are measured in turns, in the same run, with equal numbers of connections.

pub(crate) mod client;
pub(crate) mod sealed;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::proc;
use crate::report::Spread;
use client::{Load, Request};

/// Where the handlers and whoever asks them run.
pub(crate) const OUR_CORE: usize = 0;
/// Where the store runs.
pub(crate) const STORE_CORE: usize = 1;

/// Before anything is counted: connections are made, caches fill.
pub(crate) const WARM_UP: Duration = Duration::from_millis(300);

/// Settings of such a bench.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of each case
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Seconds of load on each side in a round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    pub(crate) seconds: u64,
    /// Numbers of connections
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,8,32",
        value_parser = clap::value_parser!(u16).range(1..=100)
    )]
    pub(crate) conns: Vec<u16>,
    /// Cases whose name begins so
    #[arg(long, default_value = "")]
    pub(crate) only: String,
}

impl Options {
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// Whether a case is asked for.
    pub(crate) fn wants(&self, case: &str) -> bool {
        case.starts_with(&self.only)
    }
}

/// One side in one round.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    pub(crate) per_s: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// The handlers' alone.
    pub(crate) cpu_us: f64,
}

impl Rate {
    /// Of what each call took, in nanoseconds, and all of them.
    pub(crate) fn measured(latency: &Histogram<u64>, elapsed: Duration) -> Self {
        let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            per_s: latency.len() as f64 / elapsed.as_secs_f64(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            cpu_us: 0.0,
        }
    }

    /// The same where nothing but the rate is known.
    pub(crate) fn of(per_s: f64) -> Self {
        Self {
            per_s,
            ..Self::default()
        }
    }
}

/// The handlers' process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handlers {
    pub(crate) id: u32,
    pub(crate) address: SocketAddr,
}

/// Lists at once, for the memory that one takes.
pub(crate) const CONCURRENT: u16 = 32;

impl Handlers {
    /// A round of theirs.
    pub(crate) fn round(
        &self,
        requests: Vec<Request>,
        conns: usize,
        options: &Options,
    ) -> Result<Rate> {
        let makes = requests.iter().any(|request| request.key.is_some());
        let mut load = Load::open(self.address, conns, requests, if makes { 201 } else { 200 })?;
        load.run(WARM_UP)?;
        let before = proc::cpu(self.id)?;
        let outcome = load.run(options.length())?;
        let cpu = proc::cpu(self.id)? - before;
        let calls = outcome.calls as f64;
        let mut rate = Rate::measured(&outcome.latency, outcome.elapsed);
        rate.cpu_us = cpu.as_secs_f64() * 1e6 / calls;
        Ok(rate)
    }

    /// What as many lists at once make them grow by. Their connections to the store, which
    /// `small` requests have made, are there before.
    pub(crate) fn memory(&self, small: Request, list: Request, options: &Options) -> Result<()> {
        let conns = usize::from(CONCURRENT);
        Load::open(self.address, conns, vec![small], 200)?.run(options.length())?;
        proc::forget_peak(self.id)?;
        let before = proc::rss(self.id)?;
        let mut load = Load::open(self.address, conns, vec![list], 200)?;
        let outcome = load.run(options.length())?;
        let (grown, after) = (proc::peak(self.id)? - before, proc::rss(self.id)?);
        let body = outcome.bytes as f64 / outcome.calls as f64 / 1024.0;
        let each = grown * 1024.0 / f64::from(CONCURRENT);
        println!(
            "{}",
            json!({
                "name": "memory", "conns": CONCURRENT, "body_kib": round(body, 0),
                "rss_mib_before": round(before, 1), "rss_mib_grown": round(grown, 1),
                "rss_mib_after": round(after, 1), "kib_per_request": round(each, 0),
            })
        );
        eprintln!(
            "memory: {CONCURRENT} lists of {body:.0} KiB at once make {before:.1} MiB grow by {grown:.1} MiB, {each:.0} KiB each"
        );
        Ok(())
    }
}

/// Rounds of one case: ours, and what it is compared with.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) conns: usize,
    /// `ratio_to_<whom>`
    pub(crate) against: &'static [&'static str],
    rounds: Vec<(Rate, Vec<Rate>)>,
}

impl Case {
    pub(crate) fn new(
        name: impl Into<String>,
        conns: usize,
        against: &'static [&'static str],
    ) -> Self {
        Self {
            name: name.into(),
            conns,
            against,
            rounds: Vec::new(),
        }
    }

    pub(crate) fn round(&mut self, ours: Rate, theirs: Vec<Rate>) {
        self.rounds.push((ours, theirs));
    }

    fn ours(&self, pick: fn(&Rate) -> f64) -> f64 {
        Spread::of(self.rounds.iter().map(|(ours, _)| pick(ours))).median
    }

    /// The head of the table.
    pub(crate) fn head() {
        eprintln!(
            "case                 conns  requests/s   p50 µs   p99 µs  CPU µs  beside: a second, ratio (least to most)"
        );
    }

    /// A line for programs, one for people.
    pub(crate) fn tell(&self) {
        let (per_s, p50, p99, cpu) = (
            self.ours(|rate| rate.per_s),
            self.ours(|rate| rate.p50_us),
            self.ours(|rate| rate.p99_us),
            self.ours(|rate| rate.cpu_us),
        );
        let mut line = json!({
            "name": self.name, "conns": self.conns, "requests_per_s": per_s.round(),
            "p50_us": p50.round(), "p99_us": p99.round(), "handler_cpu_us": round(cpu, 1),
        });
        let mut row = format!(
            "{:<20} {:>5} {per_s:>11.0} {p50:>8.0} {p99:>8.0} {cpu:>7.1}",
            self.name, self.conns
        );
        for (place, whom) in self.against.iter().enumerate() {
            let theirs = |(_, theirs): &(Rate, Vec<Rate>)| theirs.get(place).map(|rate| rate.per_s);
            let rate = Spread::of(self.rounds.iter().filter_map(theirs)).median;
            let ratio = Spread::of(
                self.rounds
                    .iter()
                    .filter_map(|round| Some(round.0.per_s / theirs(round)?)),
            );
            let Spread {
                least,
                median,
                most,
            } = ratio;
            row.push_str(&format!(
                "  {whom}: {rate:.0}, {median:.3} ({least:.3} to {most:.3})"
            ));
            if let Some(line) = line.as_object_mut() {
                line.insert(format!("{whom}_per_s"), json!(rate.round()));
                line.insert(format!("ratio_to_{whom}"), round(median, 3));
                line.insert(format!("ratio_to_{whom}_least"), round(least, 3));
                line.insert(format!("ratio_to_{whom}_most"), round(most, 3));
                if self.conns == 1 {
                    line.insert(format!("time_ratio_to_{whom}"), round(median.recip(), 3));
                }
            }
        }
        println!("{line}");
        eprintln!("{row}");
    }
}

pub(crate) fn round(value: f64, digits: i32) -> Value {
    let scale = 10f64.powi(digits);
    json!((value * scale).round() / scale)
}

/// The repository's gateway configuration with limits far above the load: what is measured
/// is the way, not refusing.
pub(crate) fn without_limits(folder: &Path) -> Result<std::path::PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .context("no folder around tests/benches")?;
    let made = folder.join("apisix-conf");
    std::fs::create_dir_all(&made)?;
    for name in ["config.yaml", "apisix.yaml"] {
        let mut text = std::fs::read_to_string(root.join("apisix-conf").join(name))?;
        for plugin in ["address-limit", "rate-limit"] {
            let stands = format!("- name: {plugin}\n        value: '{{}}'");
            ensure!(
                name == "config.yaml" || text.contains(&stands),
                "no {plugin} in {name}"
            );
            let wide = format!(
                "- name: {plugin}\n        value: '{{\"rate\": 4000000000, \"burst\": 4000000000}}'"
            );
            text = text.replace(&stands, &wide);
        }
        std::fs::write(made.join(name), text)?;
    }
    Ok(made)
}
