//! The family that the suite `faults` counts the effects of.
//!
//! It stands where a family stands: behind the gateway, on the handlers' own chain, with
//! the idempotent transaction around one INSERT into a table that has no unique key. A
//! route of the table is served (`postgres.rows.insert`), so the runner judges it as it
//! judges any. With `--without-records` the record's guard is off, and the suite has to
//! notice.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use clap::Parser;
use futures::future::BoxFuture;
use http::StatusCode;
use postern_claims::{ClaimStore, OutcomeKeys};
use postern_common::faults::Faults;
use postern_common::idempotency::{Bounds, Ledger};
use postern_common::serve::{Address, Bound, Limits, serve};
use postern_common::{Call, Chain, Denial, DenialLog, Failure, Reply, Router, Times, fields, keys};
use postern_context::OpeningKeys;
use postern_contract::Code;
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

#[derive(Parser)]
struct Arguments {
    #[arg(long)]
    listen: SocketAddr,
    /// Where effects and records are.
    #[arg(long)]
    database: String,
    /// Where claims are.
    #[arg(long)]
    claims: String,
    #[arg(long)]
    context_keys: PathBuf,
    #[arg(long)]
    outcome_keys: PathBuf,
    /// No record guards an effect.
    #[arg(long)]
    without_records: bool,
}

/// Shorter than in service, so that a fault's end is seen within the run.
const REQUEST: Duration = Duration::from_secs(5);
const STATEMENT: Duration = Duration::from_secs(2);
const ACQUIRE: Duration = Duration::from_secs(1);
const CLAIM: Duration = Duration::from_millis(500);

struct Family {
    ledger: Arc<Ledger>,
    records: bool,
}

struct NoTrail;

impl DenialLog for NoTrail {
    fn denied<'a>(&'a self, denial: Denial<'a>) -> BoxFuture<'a, ()> {
        tracing::error!(code = %denial.code, "nobody is to be denied here");
        Box::pin(std::future::ready(()))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let pool = PgPoolOptions::new()
        .max_connections(16)
        .acquire_timeout(ACQUIRE)
        .connect_lazy(&arguments.database)?;
    let claims = ClaimStore::connect(&arguments.claims, 8, CLAIM)?;
    let bounds = Bounds {
        quota: 1 << 40,
        deadline: REQUEST,
        statement: STATEMENT,
    };
    let ledger = Ledger::new(
        pool,
        keys::read(&arguments.outcome_keys, OutcomeKeys::parse)?,
        Some(claims.clone()),
        TaskTracker::new(),
        bounds,
        Faults::default(),
    );
    let family = Arc::new(Family {
        ledger: Arc::new(ledger),
        records: !arguments.without_records,
    });
    let router = Router::default().route("postgres.rows.insert", &family, insert);
    let opening = keys::read(&arguments.context_keys, OpeningKeys::parse)?;
    let times = Times {
        request: REQUEST,
        body: REQUEST,
    };
    let chain = Chain::new(
        Arc::new(ArcSwap::from_pointee(opening)),
        router,
        Arc::new(NoTrail),
        Some(claims),
        times,
    );
    let limits = Limits {
        connections: 1024,
        idle: Duration::from_secs(75),
        stall: REQUEST,
        drain: REQUEST,
    };
    let listener = Bound::new(&Address::Tcp(arguments.listen), None)
        .and_then(Bound::listen)
        .context("cannot listen")?;
    serve(listener, Arc::new(chain), limits, CancellationToken::new()).await;
    Ok(())
}

/// One effect a call, and an answer that no other call gets. Asked to, it refuses when the
/// effect is there: the refusal is kept, and the effect is not.
async fn insert(family: Arc<Family>, mut call: Call) -> Result<Reply, Failure> {
    let (body, mut fields) = call.json().await?;
    let action = fields.required("action", fields::text(1, 100));
    let payload = fields.required("payload", fields::text(1, 100));
    let verdict = fields.required("verdict", fields::text(1, 10));
    fields.finish()?;
    let (Some(action), Some(payload), Some(verdict)) = (action, payload, verdict) else {
        return Err(Failure::internal("a field that was read is missing"));
    };
    let keyed = call.keyed(&body)?.filter(|_| family.records);
    let work = Arc::new((action, payload, verdict));
    let ledger = Arc::clone(&family.ledger);
    let id = call.caller.correlation_id().to_owned();
    ledger
        .run(keyed, &id, move |db| {
            let work = Arc::clone(&work);
            Box::pin(async move {
                let (action, payload, verdict) = &*work;
                let number: (i64,) = sqlx::query_as(
                    "INSERT INTO effect (action, payload, number)
                     VALUES ($1, $2, floor(random() * 1e15)::bigint) RETURNING number",
                )
                .bind(action)
                .bind(payload)
                .fetch_one(db)
                .await?;
                if verdict == "refuse" {
                    let message = format!("{action} is refused, attempt {}", number.0);
                    return Err(Failure::new(Code::DuplicateKey, message));
                }
                let told = json!({"action": action, "payload": payload, "number": number.0});
                Reply::json(StatusCode::CREATED, &told)
            })
        })
        .await
}
