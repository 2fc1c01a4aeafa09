//! The stand-in gateway does what the real one did: every recorded exchange,
//! replayed against it, gives the same calls, the same upstream request and the
//! same response.
//!
//! The runner and the upstream are scripts that answer what was recorded, in
//! `peers`; `compare` knows what may differ. `GOLDEN=<file>` replays another
//! recording of the same form. Each exchange is a test of its own, and the
//! comparison itself is tested, in `selftest`: a recording that is changed must not
//! pass, and exchanges that ours does not hold are made of those it holds.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic: the panic is its failure"
)]

mod calls;
mod compare;
mod message;
mod peers;
mod recording;
mod selftest;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use compare::{Observed, differences};
use peers::{Client, Runner, Upstream, disowned};
use recording::{Exchange, Recording};

/// APISIX's 60 s are 3 s here.
const TIME_SCALE: &str = "0.05";

fn main() -> ExitCode {
    let filter = std::env::args()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    match run(filter.as_deref()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(101),
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::from(101)
        }
    }
}

/// How many tests failed.
fn run(filter: Option<&str>) -> Result<usize> {
    let started = Instant::now();
    let recording = Recording::read()?;
    let mut report = Report::default();
    let wanted = |name: &str| filter.is_none_or(|filter| name.contains(filter));
    let mut replayed = replay(&recording, wanted, &mut report)?;
    if filter.is_none() {
        // Another recording may lack what these are made of.
        let variations = match recording.foreign {
            true => Vec::new(),
            false => selftest::variations(&recording)?,
        };
        for variation in &variations {
            replayed.extend(replay(variation, |_| true, &mut report)?);
            let exchange = &variation.exchanges[0];
            if exchange.name == selftest::DISOWNED {
                let undetected = match disowned(exchange).len() {
                    2 => Vec::new(),
                    other => vec![format!("in {other} of two calls")],
                };
                report.test("a call with an old token is noticed", &undetected);
            }
        }
        for (name, undetected) in self_test(recording.foreign, &replayed) {
            report.test(&format!("a changed {name} is noticed"), &undetected);
        }
    }
    ensure!(
        report.passed + report.failed > 0,
        "no exchange matches the filter"
    );
    report.close(started);
    Ok(report.failed)
}

/// An exchange, what its replay gave, and the recording it belongs to.
type Replayed<'r> = (&'r Exchange, Observed, &'r Recording);

fn replay<'r>(
    recording: &'r Recording,
    wanted: impl Fn(&str) -> bool,
    report: &mut Report,
) -> Result<Vec<Replayed<'r>>> {
    let gateway = Gateway::start(recording)?;
    let mut replayed = Vec::new();
    let exchanges = recording.exchanges.iter();
    for exchange in exchanges.filter(|exchange| wanted(&exchange.name)) {
        let observed = catch_unwind(AssertUnwindSafe(|| {
            if exchange.begins_without_token() {
                Gateway::start(recording)?.replay(exchange)
            } else {
                gateway.replay(exchange)
            }
        }));
        let found = match observed {
            Ok(Ok(observed)) => {
                let found = differences(exchange, &observed, recording);
                replayed.push((exchange, observed, recording));
                found
            }
            Ok(Err(error)) => vec![format!("{error:#}")],
            Err(_) => vec!["the replay panicked".to_owned()],
        };
        report.test(&exchange.name, &found);
    }
    Ok(replayed)
}

/// Changes one thing at a time in recordings that passed: none may pass then.
fn self_test(foreign: bool, replayed: &[Replayed<'_>]) -> Vec<(&'static str, Vec<String>)> {
    let mut outcome = Vec::new();
    for (name, change) in selftest::CHANGES {
        let missed = |(exchange, observed, recording): &Replayed<'_>| {
            let changed = change(exchange)?;
            let passes = differences(&changed, observed, recording).is_empty();
            Some(passes.then(|| format!("not in {}", exchange.name)))
        };
        let changed: Vec<Option<String>> = replayed
            .iter()
            .filter_map(|replayed| {
                let missed = catch_unwind(AssertUnwindSafe(|| missed(replayed)));
                missed.unwrap_or_else(|_| Some(Some(format!("panicked in {}", replayed.0.name))))
            })
            .collect();
        if !changed.is_empty() {
            outcome.push((name, changed.into_iter().flatten().collect()));
        } else if !foreign {
            // Another recording may have nothing of the kind; ours has.
            outcome.push((name, vec!["no exchange could be changed so".to_owned()]));
        }
    }
    outcome
}

/// The stand-in as a process, with the peers around it.
struct Gateway {
    child: Child,
    address: SocketAddr,
    runner: Runner,
    upstream: Upstream,
    _folder: tempfile::TempDir,
}

impl Gateway {
    fn start(recording: &Recording) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket = folder.path().join("runner.sock");
        let runner = Runner::listen(&socket)?;
        let upstream = Upstream::listen(&recording.upstream_answer)?;
        let (config, routes) = (
            folder.path().join("config.yaml"),
            folder.path().join("apisix.yaml"),
        );
        std::fs::write(
            &config,
            format!("ext-plugin: {{path_for_test: {}}}\n", socket.display()),
        )?;
        std::fs::write(&routes, routes_yaml(upstream.port))?;
        let mut child = Command::new(postern_harness::process::binary("standin-gateway")?)
            .arg("--config")
            .arg(&config)
            .arg("--apisix-yaml")
            .arg(&routes)
            .args(["--listen", "127.0.0.1:0", "--time-scale", TIME_SCALE])
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or("off".into()),
            )
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the stand-in")?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let line = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let address = line.context("the stand-in did not start")?.parse()?;
        Ok(Self {
            child,
            address,
            runner,
            upstream,
            _folder: folder,
        })
    }

    fn replay(&self, exchange: &Exchange) -> Result<Observed> {
        self.runner.expect(exchange);
        self.upstream.forget();
        let response = Client::send(self.address, &exchange.request)?;
        Ok(Observed {
            frames: self.runner.seen(),
            prepared: self.runner.prepared(),
            unknown_tokens: self.runner.unknown(),
            upstream: self.upstream.seen(),
            response,
            port: self.address.port().to_string().into_bytes(),
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The routes of the recording.
fn routes_yaml(upstream: u16) -> String {
    let mut out = String::from("routes:\n");
    let upstream = format!("{{type: roundrobin, nodes: {{\"127.0.0.1:{upstream}\": 1}}}}");
    for (id, plugins) in [
        (
            "m",
            "ext-plugin-pre-req: {conf: [{name: a, value: \"{}\"}]}",
        ),
        (
            "d",
            "ext-plugin-pre-req: {allow_degradation: true, conf: [{name: a, value: \"{}\"}]}",
        ),
        (
            "post",
            "ext-plugin-post-req: {conf: [{name: a, value: \"{}\"}]}",
        ),
        (
            "r",
            "proxy-rewrite: {regex_uri: [\"^/r/(.*)\", \"/$1\"]}, \
             ext-plugin-post-resp: {conf: [{name: rmode, value: noop}]}",
        ),
    ] {
        let _infallible = writeln!(
            out,
            "- {{id: {id}, name: route-{id}, uri: /{id}/*, upstream: {upstream}, \
             plugins: {{{plugins}}}}}"
        );
    }
    out + "#END\n"
}

/// What the test command counts.
#[derive(Default)]
struct Report {
    passed: usize,
    failed: usize,
    failures: Vec<String>,
}

impl Report {
    fn test(&mut self, name: &str, found: &[String]) {
        if found.is_empty() {
            self.passed += 1;
            println!("test conformance::{name} ... ok");
        } else {
            self.failed += 1;
            println!("test conformance::{name} ... FAILED");
            self.failures.push(format!(
                "---- conformance::{name} ----\n{}",
                found.join("\n")
            ));
        }
    }

    fn close(&self, started: Instant) {
        for failure in &self.failures {
            println!("\n{failure}");
        }
        let verdict = if self.failed == 0 { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in {:.2}s\n",
            self.passed,
            self.failed,
            started.elapsed().as_secs_f64()
        );
    }
}
