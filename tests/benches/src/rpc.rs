//! The external-plugin RPC under load.
//!
//! Two runners stand side by side on one core, the generator on another: the null
//! runner, and the real one with the whole chain. They are measured in turns, round
//! after round, because a machine's speed changes more over a minute than between
//! two neighbouring seconds; what is told is the median, and how far the rounds lie
//! apart.

pub(crate) mod call;
mod directory;
mod load;
pub(crate) mod process;
pub(crate) mod world;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use postern_wire::message::{Action, Message};
use serde_json::json;

use crate::proc;
use crate::report::{Measurement, Spread};
pub(crate) use load::Expect;
use load::Load;
use process::Subject;
use world::World;

/// Settings of the bench.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds for each number of connections
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) rounds: u32,
    /// Milliseconds of load on each runner in a round
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub(crate) millis: u64,
    /// Numbers of connections
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "1,8,32,128",
        value_parser = clap::value_parser!(u16).range(1..=1000)
    )]
    pub(crate) conns: Vec<u16>,
}

/// Calls before anything is counted: caches, branch predictors, buffers.
const WARM_UP: Duration = Duration::from_millis(200);
/// How long a runner may take until it has fetched keys and directory.
const WARM_UP_LIMIT: Duration = Duration::from_secs(5);

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = tempfile::tempdir().context("a folder for sockets and logs")?;
    proc::pin(process::GENERATOR_CORE)?;
    let world = World::start(folder.path())?;
    let null = Subject::start(&program("null-runner")?, &[], folder.path(), "null")?;
    let chain = start_chain(&world, folder.path(), "chain")?;
    let tokens = std::slice::from_ref(&world.token);
    let runners = [
        Runner::new("null", null, &[], tokens, Expect::NoAction)?,
        Runner::new("chain", chain, &world::chain(), tokens, Expect::Rewrite)?,
    ];
    eprintln!("{}", Measurement::HEAD);
    for &conns in &options.conns {
        measure(&runners, usize::from(conns), options)?;
    }
    drop(runners);
    first_answer(&world, folder.path(), options.rounds)
}

fn start_chain(world: &World, folder: &Path, name: &str) -> Result<Subject> {
    let args = [OsStr::new("--config"), world.config.as_os_str()];
    Subject::start(&program("postern-runner")?, &args, folder, name)
}

/// From exec to the first answer, with a call that needs no key: one without a token.
fn first_answer(world: &World, folder: &Path, rounds: u32) -> Result<()> {
    let mut took = Vec::new();
    for round in 0..rounds {
        let mut subject = start_chain(world, folder, &format!("first-{round}"))?;
        let mut stream = subject.connect()?;
        let conf_token = call::prepare(&mut stream, &world::chain())?;
        match call::exchange(&mut stream, &call::frame(None, conf_token)?)? {
            Message::HttpReqCallResp {
                action: Some(Action::Stop(stop)),
                ..
            } if stop.status == 401 => {}
            other => bail!("a call without a token was answered by {other:?}"),
        }
        took.push(subject.spawned.elapsed().as_secs_f64() * 1e3);
    }
    let took = Spread::of(took);
    println!(
        "{}",
        json!({"name": "first-answer", "ms": took.median.round(), "least_ms": took.least.round(), "most_ms": took.most.round()})
    );
    eprintln!(
        "first answer {:.1} ms after exec ({:.1} to {:.1})",
        took.median, took.least, took.most
    );
    Ok(())
}

/// A program that is built beside this one.
pub(crate) fn program(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let folder = this.parent().context("a program without a folder")?;
    Ok(folder.join(name))
}

/// A runner that is measured.
pub(crate) struct Runner {
    name: &'static str,
    subject: Subject,
    /// Made in turns.
    calls: Vec<Vec<u8>>,
    expect: Expect,
}

struct Round {
    calls_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_call: f64,
}

impl Runner {
    /// A runner that has answered once: a call with each of these tokens.
    pub(crate) fn new(
        name: &'static str,
        mut subject: Subject,
        conf: &[(String, String)],
        tokens: &[String],
        expect: Expect,
    ) -> Result<Self> {
        let mut stream = subject.connect()?;
        let conf_token = call::prepare(&mut stream, conf)?;
        let frame = |token: &String| call::frame(Some(token), conf_token);
        let calls = tokens.iter().map(frame).collect::<Result<Vec<_>>>()?;
        let call = calls.first().context("no token")?;
        subject.find_worker()?;
        // The first calls fill caches: keys are fetched, the directory asked.
        let deadline = Instant::now() + WARM_UP_LIMIT;
        loop {
            let answer = call::exchange(&mut stream, call)?;
            match expect.check(&answer) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => {
                    return Err(error.context(format!("{name}; its log: {}", subject.log())));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
        Ok(Self {
            name,
            subject,
            calls,
            expect,
        })
    }

    fn round(&self, conns: usize, length: Duration) -> Result<Round> {
        let mut load = Load::open(&self.subject.socket, conns, &self.calls, self.expect)
            .with_context(|| self.name)?;
        load.run(WARM_UP).with_context(|| self.name)?;
        let before = self.subject.cpu()?;
        let outcome = load.run(length).with_context(|| self.name)?;
        let cpu = self.subject.cpu()? - before;
        let micros = |quantile| outcome.latency.value_at_quantile(quantile) as f64 / 1e3;
        let calls = outcome.calls as f64;
        Ok(Round {
            calls_per_s: calls / outcome.elapsed.as_secs_f64(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            cpu_us_per_call: cpu.as_secs_f64() * 1e6 / calls,
        })
    }
}

/// All runners in turns; the first is what the others are compared with.
pub(crate) fn measure(runners: &[Runner], conns: usize, options: &Options) -> Result<()> {
    let length = Duration::from_millis(options.millis);
    let mut rounds: Vec<Vec<Round>> = Vec::new();
    for _ in 0..options.rounds {
        rounds.push(
            runners
                .iter()
                .map(|runner| runner.round(conns, length))
                .collect::<Result<_>>()?,
        );
    }
    for (index, runner) in runners.iter().enumerate() {
        let of = |pick: fn(&Round) -> f64| {
            Spread::of(rounds.iter().filter_map(|round| round.get(index)).map(pick))
        };
        let ratios = rounds
            .iter()
            .filter_map(|round| Some(round.get(index)?.calls_per_s / round.first()?.calls_per_s));
        let measurement = Measurement {
            name: runner.name,
            conns,
            calls_per_s: of(|round| round.calls_per_s).median,
            p50_us: of(|round| round.p50_us).median,
            p99_us: of(|round| round.p99_us).median,
            cpu_us_per_call: of(|round| round.cpu_us_per_call).median,
            rss_mib: runner.subject.rss()?,
            ratio_to_null: Spread::of(ratios),
        };
        println!("{}", measurement.json());
        eprintln!("{}", measurement.row());
    }
    Ok(())
}
