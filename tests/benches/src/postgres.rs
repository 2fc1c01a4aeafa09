//! The postgres family beside pgbench.
//!
//! | case | what | beside |
//! |---|---|---|
//! | `by-key` | `GET rows/customers/:id` | the same flight, pipelined and in turns |
//! | `list-1000` | 1,000 rows | the flight, and its statement alone |
//! | `to-many` | 100 customers with their orders, 1,000 rows embedded | the same |
//! | `memory` | what concurrent lists make the handlers grow by | |
//! | `neighbour` | `by-key` while another tenant has slow queries | itself, alone |
//! | `path-…` | CPU time of each process between client and rows | |

mod pgbench;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use http::Method;
use postern_context::SealingKeys;
use postern_harness::ports::Port;
use postern_harness::postgres::{Cluster, Durability};
use postern_harness::stack::Stack;
use postern_harness::{temporary_folder, wait_for};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::data::client::{Load, Request};
use crate::data::sealed::{Sealer, bearing};
use crate::data::{
    CONCURRENT, Case, Handlers, OUR_CORE, Options, STORE_CORE, WARM_UP, round, without_limits,
};
use crate::proc;
use crate::report::Spread;
use pgbench::{Flight, Login, Way};

const CUSTOMERS: u32 = 10_000;
const ORDERS_EACH: u32 = 10;
/// Requests in turns: each context holds the path it is for.
const REQUESTS: u32 = 512;
/// The one whose flight is learned.
const SAMPLE: u32 = 4_711;
const SOON: Duration = Duration::from_secs(20);

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut world = World::start(options)?;
    Case::head();
    // First: what was freed later on would hide it.
    if options.wants("memory") {
        let (small, list) = (world.request("customers/1")?, world.request(LIST)?);
        world.handlers.memory(small, list, options)?;
    }
    if options.wants("by-key") {
        for &conns in &options.conns {
            by_key(&world, usize::from(conns), options)?;
        }
    }
    for (name, query) in LISTS {
        if options.wants(name) {
            list(&world, name, query, options)?;
        }
    }
    if options.wants("neighbour") {
        neighbour(&world, options)?;
    }
    for (name, query) in PATHS {
        if options.wants(name) {
            path(&mut world, name, query, options)?;
        }
    }
    Ok(())
}

/// Nothing is counted: what is compared is the rows.
const LIST: &str = "customers?limit=1000&count=none";
const LISTS: [(&str, &str); 2] = [
    ("list-1000", LIST),
    (
        "to-many",
        "customers?select=id,name,orders(id,total)&limit=100&count=none",
    ),
];

const PATHS: [(&str, &str); 2] = [("path-by-key", "customers/4711"), ("path-list-1000", LIST)];

/// A stack with a workspace, and its cluster on a core of its own.
struct World {
    // Dropped in this order: nobody is left waiting for somebody gone.
    stack: Stack,
    sql: tokio_postgres::Client,
    cluster: Cluster,
    runtime: Runtime,
    sealer: Sealer,
    login: Login,
    workspace: String,
    /// Another tenant, and what takes half a second there.
    others: Sealer,
    slow: String,
    token: String,
    /// Connections of one tenant at most.
    share: u16,
    handlers: Handlers,
    log: PathBuf,
    folder: TempDir,
    _port: Port,
}

impl World {
    fn start(options: &Options) -> Result<Self> {
        let folder = temporary_folder("postern-bench")?;
        let port = Port::free()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        proc::pin(STORE_CORE)?;
        let cluster = Cluster::start(folder.path(), port.number(), Durability::Volatile);
        let cluster = runtime.block_on(cluster)?;
        proc::pin(OUR_CORE)?;
        let configuration = without_limits(folder.path())?;
        let most = options
            .conns
            .iter()
            .copied()
            .max()
            .unwrap_or(1)
            .max(CONCURRENT);
        let mut stack = runtime.block_on(Stack::start_with(|plan| {
            plan.database = postern_harness::services::Database::Url(cluster.url());
            plan.postgres = true;
            // Fault points are not in what operators run.
            plan.faults = None;
            plan.configuration = configuration;
            plan.handlers =
                json!({"postgres": {"maxConnections": most + 8, "tenantConnections": most}});
        }))?;
        let (ours, others) =
            runtime.block_on(async { anyhow::Ok((made(&stack).await?, made(&stack).await?)) })?;
        let sql = runtime.block_on(async {
            let (sql, connection) =
                tokio_postgres::connect(&cluster.url(), tokio_postgres::NoTls).await?;
            tokio::spawn(connection);
            sql.batch_execute(&rows_made(&ours)).await?;
            sql.batch_execute(&slow_made(&others)).await?;
            sql.batch_execute("VACUUM ANALYZE").await?;
            anyhow::Ok(sql)
        })?;
        let keys = std::fs::read_to_string(stack.master_keys()?)?;
        let sealer = |tenant: &str| -> Result<Sealer> {
            Ok(Sealer {
                keys: SealingKeys::parse(&keys)?,
                tenant: tenant.to_owned(),
            })
        };
        let slow = format!("/v1/postgres/{}/rows/slow?count=none", others.workspace);
        let password = stack.folder()?.join("data/data-login.password");
        let address = stack.handlers_url()?;
        let address = address.trim_start_matches("http://").parse()?;
        let id = stack.services()?.handlers().id();
        Ok(Self {
            sealer: sealer(&ours.tenant)?,
            others: sealer(&others.tenant)?,
            slow,
            login: Login {
                address: cluster.address(),
                user: "postern_data".to_owned(),
                password: std::fs::read_to_string(password)?,
            },
            log: folder.path().join("postgres.log"),
            handlers: Handlers { id, address },
            stack,
            sql,
            cluster,
            runtime,
            workspace: ours.workspace,
            token: ours.token,
            share: most,
            folder,
            _port: port,
        })
    }

    fn target(&self, rows: &str) -> String {
        format!("/v1/postgres/{}/rows/{rows}", self.workspace)
    }

    fn request(&self, rows: &str) -> Result<Request> {
        self.sealer.request(&Method::GET, &self.target(rows), None)
    }

    /// What PostgreSQL is sent for a request.
    fn flight(&self, rows: &str) -> Result<Flight> {
        let asked = || {
            let mut load = Load::open(self.handlers.address, 1, vec![self.request(rows)?], 200)?;
            load.run(Duration::ZERO).map(drop)
        };
        let flight = Flight::of(&self.sql, &self.log, asked);
        self.runtime.block_on(flight)
    }
}

/// A workspace of a tenant of its own.
struct Made {
    tenant: String,
    workspace: String,
    token: String,
}

impl Made {
    fn schema(&self) -> String {
        self.workspace.replace("wks_", "ws_").to_ascii_lowercase()
    }
}

async fn made(stack: &Stack) -> Result<Made> {
    let tenant = stack.with_tenant("bench").await?;
    let workspace = tenant.with_workspace("bench", &["postgres"]).await?;
    let tables = format!("/v1/postgres/{}/tables", workspace.id);
    wait_for("the workspace to serve rows", SOON, async || {
        tenant.admin.get(&tables).await?.expect(200)?;
        Ok(())
    })
    .await?;
    for table in tables_made() {
        tenant.admin.post(&tables, &table).await?.expect(201)?;
    }
    Ok(Made {
        token: tenant.admin.token().context("a token")?.to_owned(),
        tenant: tenant.id.clone(),
        workspace: workspace.id,
    })
}

fn tables_made() -> [Value; 2] {
    let id = json!({"name": "id", "type": "bigint", "identity": true, "primaryKey": true});
    [
        json!({"name": "customers", "columns": [
            id,
            {"name": "name", "type": "text"},
            {"name": "city", "type": "text"},
            {"name": "since", "type": "timestamptz", "default": "now()"},
        ]}),
        json!({"name": "orders", "columns": [
            id,
            {"name": "customer_id", "type": "bigint", "references": {"table": "customers"}},
            {"name": "total", "type": "numeric(12,2)"},
        ]}),
    ]
}

/// It waits, and computes nothing: PostgreSQL's core is the neighbour's.
fn slow_made(of: &Made) -> String {
    let schema = of.schema();
    format!(
        "CREATE VIEW {schema}.slow WITH (security_invoker = true) AS
         SELECT 1 AS id, pg_sleep(0.5)::text AS slept;
         GRANT SELECT ON {schema}.slow TO {schema}_data"
    )
}

fn rows_made(of: &Made) -> String {
    let (tenant, workspace, schema) = (&of.tenant, &of.workspace, of.schema());
    let orders = CUSTOMERS * ORDERS_EACH;
    format!(
        "SET app.tenant_id = '{tenant}'; SET app.workspace_id = '{workspace}';
         INSERT INTO {schema}.customers (name, city)
         SELECT 'customer number ' || n, 'city ' || n % 100 FROM generate_series(1, {CUSTOMERS}) n;
         INSERT INTO {schema}.orders (customer_id, total)
         SELECT n % {CUSTOMERS} + 1, n / 100.0 FROM generate_series(1, {orders}) n"
    )
}

/// At equal connections.
fn by_key(world: &World, conns: usize, options: &Options) -> Result<()> {
    let flight = world.flight(&format!("customers/{SAMPLE}"))?;
    let mut case = Case::new("by-key", conns, &["pgbench", "pgbench_in_turns"]);
    let sample = SAMPLE.to_string();
    let step = CUSTOMERS / REQUESTS;
    for _ in 0..options.rounds {
        let request = |n: u32| world.request(&format!("customers/{}", n * step + 1));
        let requests = (0..REQUESTS).map(request).collect::<Result<_>>()?;
        let ours = world.handlers.round(requests, conns, options)?;
        let theirs = |way| {
            let varied = Some((sample.as_str(), CUSTOMERS));
            let load = (conns, options.length());
            flight.run(&world.login, world.folder.path(), way, varied, load)
        };
        case.round(ours, vec![theirs(Way::Pipelined)?, theirs(Way::InTurns)?]);
    }
    case.tell();
    Ok(())
}

/// One after another: how long one takes.
fn list(world: &World, name: &str, rows: &str, options: &Options) -> Result<()> {
    let flight = world.flight(rows)?;
    let mut case = Case::new(name, 1, &["pgbench", "statement"]);
    for _ in 0..options.rounds {
        let ours = world
            .handlers
            .round(vec![world.request(rows)?], 1, options)?;
        let theirs = |way| {
            let load = (1, options.length());
            flight.run(&world.login, world.folder.path(), way, None, load)
        };
        case.round(ours, vec![theirs(Way::Pipelined)?, theirs(Way::Bare)?]);
    }
    case.tell();
    Ok(())
}

/// Connections of the neighbour.
const NEIGHBOUR: usize = 4;

/// Alone, and while another tenant asks for twice as many slow things as it has connections:
/// its share is in use and its queue is never empty.
fn neighbour(world: &World, options: &Options) -> Result<()> {
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let requests = vec![world.request(&format!("customers/{SAMPLE}"))?];
        let round = || world.handlers.round(requests.clone(), NEIGHBOUR, options);
        let alone = round()?;
        let beside = std::thread::scope(|threads| {
            let slow = threads.spawn(|| {
                let requests = vec![world.others.request(&Method::GET, &world.slow, None)?];
                let count = usize::from(world.share) * 2;
                let mut load = Load::open(world.handlers.address, count, requests, 200)?;
                load.run(WARM_UP + options.length() + WARM_UP)
            });
            // They are under way before the neighbour is looked at.
            std::thread::sleep(WARM_UP);
            let beside = round();
            let slow = slow
                .join()
                .ok()
                .context("the slow tenant's thread panicked")??;
            ensure!(slow.calls > 0, "nothing was slow");
            beside
        })?;
        rounds.push((alone, beside));
    }
    let alone = Spread::of(rounds.iter().map(|round| round.0.p99_us)).median;
    let beside = Spread::of(rounds.iter().map(|round| round.1.p99_us)).median;
    let Spread {
        least,
        median,
        most,
    } = Spread::of(
        rounds
            .iter()
            .map(|(alone, beside)| beside.p99_us / alone.p99_us),
    );
    println!(
        "{}",
        json!({
            "name": "neighbour", "conns": NEIGHBOUR, "slow_conns": world.share * 2,
            "p99_us_alone": alone.round(), "p99_us_beside": beside.round(),
            "ratio_of_p99": round(median, 3), "ratio_of_p99_least": round(least, 3),
            "ratio_of_p99_most": round(most, 3),
        })
    );
    eprintln!(
        "neighbour: p99 {alone:.0} µs alone, {beside:.0} µs beside slow queries: {median:.2} ({least:.2} to {most:.2})"
    );
    Ok(())
}

/// Client, gateway, runner, handlers and PostgreSQL: what each costs a request.
fn path(world: &mut World, name: &str, rows: &str, options: &Options) -> Result<()> {
    let gateway = world.stack.services()?.gateway().id();
    let runner = proc::descendants(gateway)?;
    ensure!(!runner.is_empty(), "the gateway has no runner");
    let postmaster = world.cluster.process().id();
    let handlers = world.handlers.id;
    let address: SocketAddr = world.stack.url().trim_start_matches("http://").parse()?;
    let request = bearing(&world.token, &world.target(rows))?;
    let mut load = Load::open(address, 8, vec![request], 200)?;
    load.run(WARM_UP)?;
    let hops = || -> Result<[(&str, Duration); 5]> {
        let all = |ids: Vec<u32>| ids.into_iter().map(proc::cpu).sum::<Result<Duration>>();
        let mut store = proc::descendants(postmaster)?;
        store.push(postmaster);
        Ok([
            ("client", proc::cpu(std::process::id())?),
            ("gateway", proc::cpu(gateway)?),
            ("runner", all(runner.clone())?),
            ("handlers", proc::cpu(handlers)?),
            ("postgres", all(store)?),
        ])
    };
    let mut rounds = Vec::new();
    for _ in 0..options.rounds {
        let (before, began) = (hops()?, Instant::now());
        let outcome = load.run(options.length())?;
        let (after, took) = (hops()?, began.elapsed());
        let calls = outcome.calls as f64;
        let each: Vec<(&str, f64)> = before
            .iter()
            .zip(after)
            .map(|(before, after)| (after.0, (after.1 - before.1).as_secs_f64() * 1e6 / calls))
            .collect();
        rounds.push((calls / took.as_secs_f64(), each));
    }
    let per_s = Spread::of(rounds.iter().map(|round| round.0));
    let mut line = json!({"name": name, "conns": 8, "requests_per_s": per_s.median.round()});
    let mut row = format!("{name:<20} {:>5} {:>11.0}  CPU µs:", 8, per_s.median);
    for place in 0..5 {
        let of = rounds.iter().filter_map(|round| round.1.get(place));
        let hop = of.clone().map(|hop| hop.0).next().unwrap_or_default();
        let cpu = Spread::of(of.map(|hop| hop.1));
        let Spread {
            least,
            median,
            most,
        } = cpu;
        row.push_str(&format!("  {hop} {median:.1} ({least:.1} to {most:.1})"));
        if let Some(line) = line.as_object_mut() {
            line.insert(format!("{hop}_cpu_us"), round(median, 1));
        }
    }
    println!("{line}");
    eprintln!("{row}");
    Ok(())
}
