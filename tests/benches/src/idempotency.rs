//! `idempotency` and `context` on a mutation, beside the plain chain.
//!
//! | name | what the chain has |
//! |---|---|
//! | `plain` | everything before `idempotency` |
//! | `context` | that, and the sealed context |
//! | `first-postgres`, `first-redis` | that, and `idempotency`, with a key nobody used |
//! | `replay-postgres`, `replay-redis` | the same with a key that is done: the runner answers |
//!
//! Each connection is a thread with one call in flight, because a claim is a round trip to a
//! store and waiting is what takes the time; the stores stand on the generator's core.

use std::ffi::OsStr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hdrhistogram::Histogram;
use postern_claims::{ClaimStore, Outcome, OutcomeKeys};
use postern_contract::idempotency::{IdempotencyKey, Request, Scope, sha256};
use postern_contract::{Match, routes};
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::redis::Redis;
use postern_harness::temporary_folder;
use postern_wire::Method;
use postern_wire::message::{Action, Entry, HttpReqCallReq, Message};
use serde_json::{Value, json};

use crate::proc;
use crate::report::Spread;
use crate::rpc::call::{WORKSPACE, exchange, prepare};
use crate::rpc::process::{self, Subject};
use crate::rpc::world::{World, chain};
use crate::rpc::{Options, program};

/// A key that is done in both stores.
const DONE: &str = "bench-done";
/// What an answer of a handler weighs.
const BODY: usize = 512;
const DAY: Duration = Duration::from_secs(86_400);
const WARM_UP: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    let folder = temporary_folder("postern-bench")?;
    let folder = folder.path();
    proc::pin(process::GENERATOR_CORE)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let world = World::start(folder)?;
    let port = Port::free()?;
    let (cluster, redis) = runtime.block_on(async {
        let cluster = Cluster::start(folder, port.number(), Durability::Volatile).await?;
        anyhow::Ok((cluster, Redis::start().await?))
    })?;
    for url in [cluster.url(), redis.url()] {
        runtime.block_on(seed(&world, &url, &folder.join("context.keys")))?;
    }
    let postgres = configuration(&world, folder, "postgres", &cluster.url())?;
    let redis_file = configuration(&world, folder, "redis", &redis.url())?;
    let (plain, context) = (
        without(&["idempotency", "context"]),
        without(&["idempotency"]),
    );
    let whole = without(&[]);
    let cases = [
        Case::new("plain", &world.config, &plain, Expect::GoesOn, folder)?,
        Case::new("context", &world.config, &context, Expect::Sealed, folder)?,
        Case::new("first-postgres", &postgres, &whole, Expect::Sealed, folder)?,
        Case::new("replay-postgres", &postgres, &whole, Expect::Replay, folder)?,
        Case::new("first-redis", &redis_file, &whole, Expect::Sealed, folder)?,
        Case::new("replay-redis", &redis_file, &whole, Expect::Replay, folder)?,
    ];
    eprintln!("name              conns    calls/s   p50 µs   p99 µs  CPU µs/call  ratio to plain");
    for &conns in &options.conns {
        measure(&cases, &world.token, usize::from(conns), options)?;
    }
    Ok(())
}

/// Puts a finished claim into a store, as a handler would.
async fn seed(world: &World, url: &str, keys: &Path) -> Result<()> {
    let payload = world.token.split('.').nth(1).context("a token")?;
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?;
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let path = format!("/v1/workspaces/{WORKSPACE}");
    let Match::Found(route, params) = routes().find_raw(&http::Method::DELETE, &path)? else {
        bail!("no route deletes a workspace");
    };
    let scope = Scope {
        issuer: text("iss"),
        tenant: text("tenant_id"),
        subject: text("sub"),
        family: route.family,
        workspace: params.get("workspaceId").unwrap_or_default(),
    };
    let scope = scope.digest(&IdempotencyKey::parse(DONE.as_bytes())?);
    let request = Request {
        method: "DELETE",
        route: &route.id,
        params,
        query: Vec::new(),
        headers: Vec::new(),
    };
    let json = ("content-type".to_owned(), b"application/json".to_vec());
    let outcome = Outcome::new(200, vec![json], vec![b'x'; BODY]);
    let sealed = OutcomeKeys::parse(&std::fs::read_to_string(keys)?)?.seal(&scope, &outcome)?;
    let store = ClaimStore::connect(url, 1, PATIENCE)?;
    store.migrate().await?;
    let fingerprint = request.fingerprint(&sha256(b""));
    store.done(&scope, &fingerprint, Some(&sealed), DAY).await?;
    Ok(())
}

/// The world's configuration with claims in this store.
fn configuration(world: &World, folder: &Path, name: &str, url: &str) -> Result<PathBuf> {
    let mut file: Value = serde_json::from_slice(&std::fs::read(&world.config)?)?;
    let claims = file.pointer_mut("/plugins/idempotency/claims");
    *claims.context("no claims in the world's configuration")? = json!({"url": url});
    let path = folder.join(format!("{name}.yaml"));
    std::fs::write(&path, file.to_string())?;
    Ok(path)
}

fn without(names: &[&str]) -> Vec<(String, String)> {
    let mut chain = chain();
    chain.retain(|(name, _)| !names.contains(&name.as_str()));
    chain
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expect {
    /// The request goes on.
    GoesOn,
    /// It goes on with the context.
    Sealed,
    /// The client is answered what was kept.
    Replay,
}

impl Expect {
    fn check(self, answer: &Message) -> Result<()> {
        let Message::HttpReqCallResp { action, .. } = answer else {
            bail!("{answer:?}");
        };
        let good = match (self, action) {
            (Self::GoesOn, None | Some(Action::Rewrite(_))) => true,
            (Self::Sealed, Some(Action::Rewrite(rewrite))) => {
                let is_context = |entry: &Entry| entry.is("x-postern-context");
                rewrite.headers.iter().any(is_context)
            }
            (Self::Replay, Some(Action::Stop(stop))) => {
                stop.status == 200 && stop.body.as_ref().is_some_and(|body| body.len() == BODY)
            }
            _ => false,
        };
        ensure!(good, "not {self:?}: {answer:?}");
        Ok(())
    }
}

/// A runner with a chain.
struct Case {
    name: &'static str,
    subject: Subject,
    conf_token: u32,
    expect: Expect,
}

struct Round {
    calls_per_s: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us_per_call: f64,
}

/// So that no key is used twice, whoever asks.
static USED: AtomicU64 = AtomicU64::new(0);

impl Case {
    fn new(
        name: &'static str,
        config: &Path,
        conf: &[(String, String)],
        expect: Expect,
        folder: &Path,
    ) -> Result<Self> {
        let args = [OsStr::new("--config"), config.as_os_str()];
        let mut subject = Subject::start(&program("postern-runner")?, &args, folder, name)?;
        let conf_token = prepare(&mut subject.connect()?, conf)?;
        subject.find_worker()?;
        Ok(Self {
            name,
            subject,
            conf_token,
            expect,
        })
    }

    fn frame(&self, token: &str) -> Result<Vec<u8>> {
        let key = match self.expect {
            Expect::Replay => DONE.to_owned(),
            _ => format!("bench-{:012}", USED.fetch_add(1, Ordering::Relaxed)),
        };
        let header = |(name, value): (&str, &str)| Entry::new(name, value);
        let bearer = format!("Bearer {token}");
        let call = HttpReqCallReq {
            id: 7,
            src_ip: vec![192, 0, 2, 10],
            method: Method::Delete,
            path: format!("/v1/workspaces/{WORKSPACE}").into_bytes(),
            args: Vec::new(),
            headers: [
                ("host", "api.example.com"),
                ("x-api-version", "2024-01-01"),
                ("x-correlation-id", "bench-0123456789abcdef"),
                ("accept", "application/json, text/plain, */*"),
                ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
                ("idempotency-key", &key),
                ("authorization", &bearer),
            ]
            .map(header)
            .into(),
            conf_token: self.conf_token,
        };
        Ok(Message::HttpReqCallReq(call).encode()?)
    }

    /// Calls on one connection until then, checking every answer.
    fn calls(&self, token: &str, until: Instant) -> Result<Histogram<u64>> {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let mut stream = UnixStream::connect(&self.subject.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        while Instant::now() < until {
            let frame = self.frame(token)?;
            let sent = Instant::now();
            let answer = exchange(&mut stream, &frame)?;
            let took = sent.elapsed().as_nanos();
            latency.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
            self.expect.check(&answer)?;
        }
        Ok(latency)
    }

    /// Calls until one is answered as it should be: caches fill, stores are connected to.
    fn settle(&self, token: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        let mut stream = UnixStream::connect(&self.subject.socket)?;
        loop {
            let answer = exchange(&mut stream, &self.frame(token)?)?;
            match self.expect.check(&answer) {
                Ok(()) => return Ok(()),
                Err(error) if Instant::now() > end => return Err(error.context(self.name)),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn round(&self, token: &str, conns: usize, length: Duration) -> Result<Round> {
        self.settle(token)?;
        self.load(token, conns, WARM_UP)?;
        let (before, began) = (self.subject.cpu()?, Instant::now());
        let latency = self.load(token, conns, length)?;
        let (cpu, elapsed) = (self.subject.cpu()? - before, began.elapsed());
        let calls = latency.len() as f64;
        let micros = |quantile| latency.value_at_quantile(quantile) as f64 / 1e3;
        Ok(Round {
            calls_per_s: calls / elapsed.as_secs_f64(),
            p50_us: micros(0.5),
            p99_us: micros(0.99),
            cpu_us_per_call: cpu.as_secs_f64() * 1e6 / calls,
        })
    }

    fn load(&self, token: &str, conns: usize, length: Duration) -> Result<Histogram<u64>> {
        let until = Instant::now() + length;
        let mut all = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        std::thread::scope(|threads| {
            let running: Vec<_> = (0..conns)
                .map(|_| threads.spawn(|| self.calls(token, until)))
                .collect();
            for one in running {
                let one = one.join().ok().context("a generator's thread panicked")?;
                all.add(one.context(self.name)?)?;
            }
            Ok(all)
        })
    }
}

/// All cases in turns, so that each is compared with `plain` in the same round.
fn measure(cases: &[Case], token: &str, conns: usize, options: &Options) -> Result<()> {
    let length = Duration::from_millis(options.millis);
    let mut rounds: Vec<Vec<Round>> = Vec::new();
    for _ in 0..options.rounds {
        let round = |case: &Case| case.round(token, conns, length);
        rounds.push(cases.iter().map(round).collect::<Result<_>>()?);
    }
    for (index, case) in cases.iter().enumerate() {
        let of = |pick: fn(&Round) -> f64| {
            Spread::of(rounds.iter().filter_map(|round| round.get(index)).map(pick)).median
        };
        let ratio =
            Spread::of(rounds.iter().filter_map(|round| {
                Some(round.get(index)?.calls_per_s / round.first()?.calls_per_s)
            }));
        let (calls, p50, p99) = (
            of(|round| round.calls_per_s),
            of(|round| round.p50_us),
            of(|round| round.p99_us),
        );
        let cpu = of(|round| round.cpu_us_per_call);
        let two = |value: f64| (value * 100.0).round() / 100.0;
        println!(
            "{}",
            json!({
                "name": case.name, "conns": conns, "calls_per_s": calls.round(),
                "p50_us": two(p50), "p99_us": two(p99), "cpu_us_per_call": two(cpu),
                "ratio_to_plain": two(ratio.median),
                "ratio_least": two(ratio.least), "ratio_most": two(ratio.most),
            })
        );
        eprintln!(
            "{:<17} {conns:>5} {calls:>10.0} {p50:>8.1} {p99:>8.1} {cpu:>12.2}  {:.3} ({:.3} to {:.3})",
            case.name, ratio.median, ratio.least, ratio.most
        );
    }
    Ok(())
}
