//! The mongo family beside the bare driver.
//!
//! | case | what | beside |
//! |---|---|---|
//! | `by-id` | `GET documents/:id` | `find_one` of the same predicate |
//! | `insert` | `POST documents`, one | `driver`: the same transaction, record and all; `bare_insert`: the insert alone, as durable |
//! | `list-1000` | 1,000 documents | the same pipeline, its documents read and dropped |
//! | `memory` | what concurrent lists make the handlers grow by | |
//!
//! The driver has a runtime of one thread on the handlers' core, and as many connections
//! as calls in flight.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use futures::TryStreamExt as _;
use hdrhistogram::Histogram;
use http::Method;
use mongodb::bson::{Binary, Bson, DateTime, Document, RawDocumentBuf, doc, spec::BinarySubtype};
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, ReadConcern, TransactionOptions, WriteConcern,
};
use mongodb::{Client, Collection};
use postern_context::SealingKeys;
use postern_harness::mongo::Mongo;
use postern_harness::stack::Stack;
use postern_harness::wait_for;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::data::client::Request;
use crate::data::sealed::Sealer;
use crate::data::{CONCURRENT, Case, Handlers, OUR_CORE, Options, Rate, STORE_CORE, WARM_UP};
use crate::proc;

const DOCUMENTS: u32 = 10_000;
/// Requests in turns: each context holds the path it is for.
const REQUESTS: u32 = 512;
const SOON: Duration = Duration::from_secs(20);
/// The family's default.
const MAX_TIME: Duration = Duration::from_secs(5);
/// How long a record is kept.
const RECORD_TTL: Duration = Duration::from_secs(86_400);
/// What a kept outcome of such an insert weighs.
const OUTCOME: usize = 400;
const LIST: &str = "?limit=1000&count=none";

/// Runs the bench.
pub(crate) fn run(options: &Options) -> Result<()> {
    let world = World::start(options)?;
    Case::head();
    // First: what was freed later on would hide it.
    if options.wants("memory") {
        let get = |rest| world.request(&Method::GET, rest, None);
        world.handlers.memory(get("/1")?, get(LIST)?, options)?;
    }
    for &conns in &options.conns {
        let conns = usize::from(conns);
        if options.wants("by-id") {
            by_id(&world, conns, options)?;
        }
        if options.wants("insert") {
            insert(&world, conns, options)?;
        }
    }
    if options.wants("list-1000") {
        list(&world, options)?;
    }
    Ok(())
}

/// A stack with a workspace, and the replica set on a core of its own.
struct World {
    // Dropped in this order: nobody is left waiting for somebody gone.
    _stack: Stack,
    mongo: Mongo,
    runtime: Runtime,
    sealer: Sealer,
    workspace: String,
    handlers: Handlers,
}

impl World {
    fn start(options: &Options) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        proc::pin(STORE_CORE)?;
        let mongo = runtime.block_on(Mongo::start())?;
        proc::pin(OUR_CORE)?;
        let most = options
            .conns
            .iter()
            .copied()
            .max()
            .unwrap_or(1)
            .max(CONCURRENT);
        let url = mongo.url();
        let mut stack = runtime.block_on(Stack::start_with(|plan| {
            // Fault points are not in what operators run.
            plan.faults = None;
            plan.handlers = json!({"mongo": {"url": url, "maxConnections": most}});
        }))?;
        let (tenant, workspace) = runtime.block_on(async {
            let tenant = stack.with_tenant("bench").await?;
            let workspace = tenant.with_workspace("bench", &["mongo"]).await?;
            let collections = format!("/v1/mongo/{}/collections", workspace.id);
            wait_for("the workspace to serve documents", SOON, async || {
                tenant.admin.get(&collections).await?.expect(200)?;
                Ok(())
            })
            .await?;
            for name in ["customers", "inserts"] {
                let collection = json!({"name": name});
                let made = tenant.admin.post(&collections, &collection).await?;
                ensure!(made.status < 300, "{made:?}");
            }
            anyhow::Ok((tenant.id.clone(), workspace.id))
        })?;
        let keys = std::fs::read_to_string(stack.master_keys()?)?;
        let address: SocketAddr = stack
            .handlers_url()?
            .trim_start_matches("http://")
            .parse()?;
        let id = stack.services()?.handlers().id();
        let world = Self {
            sealer: Sealer {
                keys: SealingKeys::parse(&keys)?,
                tenant,
            },
            handlers: Handlers { id, address },
            _stack: stack,
            mongo,
            runtime,
            workspace,
        };
        world.fill()?;
        Ok(world)
    }

    fn fill(&self) -> Result<()> {
        let documents = (1..=DOCUMENTS).map(|n| {
            let mut document = doc! { "_id": i64::from(n) };
            document.extend(customer(n));
            document.extend(self.predicate());
            document
        });
        self.runtime.block_on(async {
            let customers = self.driver(1).await?.collection("customers");
            customers.insert_many(documents).await?;
            anyhow::Ok(())
        })
    }

    fn request(&self, method: &Method, rest: &str, body: Option<&str>) -> Result<Request> {
        let collection = if body.is_some() {
            "inserts"
        } else {
            "customers"
        };
        let target = format!(
            "/v1/mongo/{}/collections/{collection}/documents{rest}",
            self.workspace
        );
        self.sealer.request(method, &target, body)
    }

    /// What keeps the workspace's documents apart.
    fn predicate(&self) -> Document {
        doc! { "_tenantId": &self.sealer.tenant, "_workspaceId": &self.workspace }
    }

    async fn driver(&self, conns: usize) -> Result<Driver> {
        let mut options = ClientOptions::parse(self.mongo.url()).await?;
        options.max_pool_size = Some(u32::try_from(conns)?);
        Ok(Driver {
            client: Client::with_options(options)?,
            database: self.workspace.replace("wks_", "ws_").to_ascii_lowercase(),
            predicate: self.predicate(),
        })
    }

    /// A round of the driver's.
    fn drive<F>(
        &self,
        conns: usize,
        options: &Options,
        call: impl Fn(Arc<Driver>) -> F + Clone + 'static,
    ) -> Result<Rate>
    where
        F: Future<Output = Result<()>> + 'static,
    {
        let calls = async {
            let driver = Arc::new(self.driver(conns).await?);
            load(&driver, conns, WARM_UP, call.clone()).await?;
            load(&driver, conns, options.length(), call).await
        };
        self.runtime
            .block_on(tokio::task::LocalSet::new().run_until(calls))
    }
}

fn customer(n: u32) -> Document {
    doc! {
        "name": format!("customer number {n}"), "city": format!("city {}", n % 100),
        "since": DateTime::from_millis(1_700_000_000_000 + i64::from(n)), "orders": i64::from(n),
        "address": { "street": "Main Street", "number": 7, "tags": ["home", "work"] },
    }
}

/// The driver, as the handlers use it.
struct Driver {
    client: Client,
    database: String,
    predicate: Document,
}

impl Driver {
    fn collection<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder()
            .write_concern(durable())
            .build();
        self.client
            .database(&self.database)
            .collection_with_options(name, options)
    }

    async fn find(&self, id: u32) -> Result<()> {
        let mut predicate = doc! { "_id": i64::from(id) };
        predicate.extend(self.predicate.clone());
        let found = self
            .collection::<RawDocumentBuf>("customers")
            .find_one(predicate)
            .max_time(MAX_TIME)
            .await?;
        found.map(drop).context("no document")
    }

    /// A document as the handlers make it.
    fn marked(&self) -> Document {
        let mut document = customer(7);
        document.extend(self.predicate.clone());
        document
    }

    async fn insert(&self) -> Result<()> {
        let inserts = self.collection("inserts");
        inserts.insert_one(self.marked()).await?;
        Ok(())
    }

    /// What the handlers do (`handlers/mongo/src/store.rs`): the record with its outcome,
    /// the effect, the commit.
    async fn insert_once(&self) -> Result<()> {
        let records: Collection<Document> = self.collection("postern.record");
        let mut session = self.client.start_session().await?;
        let options = TransactionOptions::builder()
            .write_concern(durable())
            .read_concern(ReadConcern::snapshot())
            .max_commit_time(MAX_TIME)
            .build();
        session.start_transaction().with_options(options).await?;
        let mut scope = b"driver..........................".to_vec();
        scope.extend(unused().to_be_bytes());
        let scope = binary(scope);
        // A day later: the server removes none of them meanwhile.
        let expires_at = DateTime::from_system_time(SystemTime::now() + RECORD_TTL);
        let record = doc! {
            "_id": scope, "fingerprint": binary(vec![7; 32]), "expiresAt": expires_at,
            "outcome": binary(vec![7; OUTCOME]),
        };
        records.insert_one(record).session(&mut session).await?;
        self.collection("inserts")
            .insert_many([self.marked()])
            .session(&mut session)
            .await?;
        session.commit_transaction().await?;
        Ok(())
    }

    async fn list(&self) -> Result<()> {
        let pipeline = [
            doc! { "$match": self.predicate.clone() },
            doc! { "$sort": { "_id": 1 } },
            doc! { "$skip": 0_i64 },
            doc! { "$limit": 1_001_i64 },
            doc! { "$addFields": { "_tenantId": ["$_id"] } },
            doc! { "$unset": ["_workspaceId"] },
        ];
        let cursor = self
            .collection::<RawDocumentBuf>("customers")
            .aggregate(pipeline)
            .max_time(MAX_TIME)
            .batch_size(1_001)
            .with_type::<RawDocumentBuf>()
            .await?;
        let documents: Vec<RawDocumentBuf> = cursor.try_collect().await?;
        ensure!(documents.len() == 1_001, "{} documents", documents.len());
        Ok(())
    }
}

/// On the disks of a majority, as the handlers write.
fn durable() -> WriteConcern {
    WriteConcern::builder()
        .w(Acknowledgment::Majority)
        .journal(true)
        .build()
}

fn binary(bytes: Vec<u8>) -> Bson {
    Bson::Binary(Binary {
        subtype: BinarySubtype::Generic,
        bytes,
    })
}

/// A number that nothing of this process had before.
fn unused() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// So many calls in flight, for so long.
async fn load<F>(
    driver: &Arc<Driver>,
    conns: usize,
    length: Duration,
    call: impl Fn(Arc<Driver>) -> F + Clone + 'static,
) -> Result<Rate>
where
    F: Future<Output = Result<()>> + 'static,
{
    let start = Instant::now();
    let mut running = Vec::new();
    for _ in 0..conns {
        let (driver, call) = (Arc::clone(driver), call.clone());
        running.push(tokio::task::spawn_local(async move {
            let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
            while start.elapsed() < length {
                let began = Instant::now();
                call(Arc::clone(&driver)).await?;
                let took = u64::try_from(began.elapsed().as_nanos())?;
                latency.saturating_record(took);
            }
            anyhow::Ok(latency)
        }));
    }
    let mut all = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
    for one in running {
        all.add(one.await??)?;
    }
    Ok(Rate::measured(&all, start.elapsed()))
}

fn by_id(world: &World, conns: usize, options: &Options) -> Result<()> {
    let mut case = Case::new("by-id", conns, &["driver"]);
    let step = DOCUMENTS / REQUESTS;
    for _ in 0..options.rounds {
        let request = |n: u32| world.request(&Method::GET, &format!("/{}", n * step + 1), None);
        let requests = (0..REQUESTS).map(request).collect::<Result<_>>()?;
        let ours = world.handlers.round(requests, conns, options)?;
        let theirs = world.drive(conns, options, move |driver| async move {
            let turn = u32::try_from(unused() % u64::from(REQUESTS))?;
            driver.find(turn * step + 1).await
        })?;
        case.round(ours, vec![theirs]);
    }
    case.tell();
    Ok(())
}

fn insert(world: &World, conns: usize, options: &Options) -> Result<()> {
    let mut case = Case::new("insert", conns, &["driver", "bare_insert"]);
    let body = Bson::Document(customer(7))
        .into_relaxed_extjson()
        .to_string();
    for _ in 0..options.rounds {
        let request = world.request(&Method::POST, "", Some(&body))?;
        let ours = world.handlers.round(vec![request], conns, options)?;
        let once = world.drive(conns, options, |driver| async move {
            driver.insert_once().await
        })?;
        let bare = world.drive(
            conns,
            options,
            |driver| async move { driver.insert().await },
        )?;
        case.round(ours, vec![once, bare]);
    }
    case.tell();
    Ok(())
}

fn list(world: &World, options: &Options) -> Result<()> {
    let mut case = Case::new("list-1000", 1, &["driver"]);
    for _ in 0..options.rounds {
        let request = world.request(&Method::GET, LIST, None)?;
        let ours = world.handlers.round(vec![request], 1, options)?;
        let theirs = world.drive(1, options, |driver| async move { driver.list().await })?;
        case.round(ours, vec![theirs]);
    }
    case.tell();
    Ok(())
}
