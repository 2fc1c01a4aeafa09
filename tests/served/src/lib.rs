//! One family of handlers, served to its tests, and a client that asks as the gateway
//! does: through the handlers' chain, with contexts sealed by keys of a runner's form.
//!
//! A test makes its family over real servers, gives its routes to [`Endpoint::new`], and
//! sends it an [`Ask`] for a [`Place`], a workspace of its own. [`cases`] reads tables.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails here is a failed test"
)]

mod ask;
pub mod cases;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Method;
use postern_claims::OutcomeKeys;
use postern_common::faults::Faults;
use postern_common::idempotency::{Bounds, Ledger};
use postern_common::page::CursorKeys;
use postern_common::{Chain, Denial, DenialLog, Router, Times};
use postern_context::{Context, OpeningKeys, PathParam, SealingKeys};
use postern_contract::{Family, Match, Route, TenantId, routes};
use sqlx::PgPool;
use tokio_util::task::TaskTracker;

pub use ask::{Answer, Ask};

/// A file of keys that runners seal contexts with.
pub const SEALING_KEYS: &str = "k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
/// A file of keys that outcomes of mutations are sealed with.
pub const OUTCOME_KEYS: &str = "o1 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Where requests go: a workspace, as a family's paths name it.
pub trait Place {
    /// Whose it is.
    fn tenant(&self) -> TenantId;

    /// The whole path of what stands below it.
    fn path(&self, below: &str) -> String;
}

/// A family behind the handlers' chain.
pub struct Endpoint {
    chain: Arc<Chain>,
    sealing: SealingKeys,
}

impl Endpoint {
    /// Serves these routes; a request may take as long as `deadline`.
    pub fn new(routes: Router, deadline: Duration) -> Self {
        let sealing = SealingKeys::parse(SEALING_KEYS).unwrap();
        let opening = OpeningKeys::parse(&sealing.opening_file(&Family::ALL)).unwrap();
        let times = Times {
            request: deadline,
            body: Duration::from_secs(5),
        };
        let opening = Arc::new(ArcSwap::from_pointee(opening));
        let chain = Chain::new(opening, routes, Arc::new(NoDenials), None, times);
        Self {
            chain: Arc::new(chain),
            sealing,
        }
    }
}

struct NoDenials;

impl DenialLog for NoDenials {
    fn denied<'a>(&'a self, _: Denial<'a>) -> BoxFuture<'a, ()> {
        std::future::ready(()).boxed()
    }
}

/// A ledger of mutations in this control plane, which waits as long as `deadline`.
pub fn ledger(control_plane: PgPool, deadline: Duration) -> Arc<Ledger> {
    ledger_keeping(1 << 30, control_plane, deadline)
}

/// One that keeps so many bytes of a tenant.
///
/// # Panics
/// The keys of outcomes are none.
pub fn ledger_keeping(quota: i64, control_plane: PgPool, deadline: Duration) -> Arc<Ledger> {
    let bounds = Bounds {
        quota,
        deadline,
        statement: Duration::from_secs(5),
    };
    let keys = OutcomeKeys::parse(OUTCOME_KEYS).unwrap();
    let (tasks, faults) = (TaskTracker::new(), Faults::default());
    let ledger = Ledger::new(control_plane, keys, None, tasks, bounds, faults);
    Arc::new(ledger)
}

/// Keys that cursors are sealed with.
pub fn cursor_keys() -> CursorKeys {
    CursorKeys::derive([b"secret".as_slice()])
}

/// What a runner would tell of a request, without whose it is, and the route it goes.
///
/// # Panics
/// Where no route has this method and path.
pub fn context(method: &Method, path: &str) -> (&'static Route, Context) {
    let path = path.split('?').next().unwrap_or_default();
    let Ok(Match::Found(route, params)) = routes().find_raw(method, path) else {
        panic!("no route for {method} {path}");
    };
    let param = |(name, value): (&str, &str)| PathParam {
        name: name.into(),
        value: value.into(),
    };
    let context = Context {
        route: route.id.clone(),
        method: method.to_string(),
        params: params.iter().map(param).collect(),
        issuer: "https://issuer".into(),
        subject: "user-1".into(),
        roles: vec!["tenant_admin".into()],
        correlation_id: "corr-of-test".into(),
        ..Context::default()
    };
    (route, context)
}

/// Seals what [`context`] gave, as of now.
pub fn seal(keys: &SealingKeys, route: &Route, context: Context) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let now = u64::try_from(now.as_millis()).unwrap();
    keys.seal(route.family, context, now)
}
