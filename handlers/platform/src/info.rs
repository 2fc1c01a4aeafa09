//! `/health`, `/v1/platform/health`, `/v1/platform/info`, `/v1/platform/openapi.json`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use http::StatusCode;
use postern_common::serve::Readiness;
use postern_common::{Call, Failure, Reply};
use postern_contract::envelope::timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Mutex;

use crate::provisioning::BackendError;
use crate::store::{directory, plans};
use crate::{Platform, openapi};

/// Asks a store, whatever it is for, whether it answers.
pub type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<(), BackendError>> + Send + Sync>;

/// A backend that takes longer is down.
const PROBE: Duration = Duration::from_secs(1);

fn now() -> String {
    timestamp(jiff::Timestamp::now())
}

/// `GET /health`: this process answers; nothing is asked.
pub(crate) async fn alive(_: Arc<Platform>, _: Call) -> Result<Reply, Failure> {
    Reply::json(StatusCode::OK, &json!({"status": "ok", "timestamp": now()}))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BackendHealth {
    name: &'static str,
    status: &'static str,
    required: bool,
    latency_ms: f64,
}

async fn probe(
    name: &'static str,
    required: bool,
    asked: BoxFuture<'_, Result<(), BackendError>>,
) -> BackendHealth {
    let began = Instant::now();
    let up = matches!(tokio::time::timeout(PROBE, asked).await, Ok(Ok(())));
    let micros = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
    BackendHealth {
        name,
        status: if up { "up" } else { "down" },
        required,
        latency_ms: f64::from(micros) / 1000.0,
    }
}

/// Backends are asked at most so often, however many want to know.
const FRESH: Duration = Duration::from_secs(1);

/// What the backends said last, and when.
pub(crate) type LastHealth = Mutex<Option<(Instant, Arc<[BackendHealth]>)>>;

/// `GET /v1/platform/health`: each backend; 503 when a required one is down.
pub(crate) async fn health(app: Arc<Platform>, _: Call) -> Result<Reply, Failure> {
    // Whoever comes meanwhile waits for the same answers.
    let mut last = app.health.lock().await;
    let backends = match &*last {
        Some((at, backends)) if at.elapsed() < FRESH => Arc::clone(backends),
        _ => {
            let backends = ask_backends(&app).await;
            *last = Some((Instant::now(), Arc::clone(&backends)));
            backends
        }
    };
    drop(last);
    let ready = backends
        .iter()
        .all(|backend| !backend.required || backend.status == "up");
    let (status, text) = if ready {
        (StatusCode::OK, "ok")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
    };
    Reply::json(
        status,
        &json!({"status": text, "timestamp": now(), "backends": *backends}),
    )
}

async fn ask_backends(app: &Platform) -> Arc<[BackendHealth]> {
    let control_plane = async { Ok(directory::revision(&app.pool).await.map(drop)?) }.boxed();
    let others = app
        .provisioning
        .backends()
        .iter()
        .map(|backend| probe(backend.capability(), false, backend.probe()))
        .chain(
            app.probes
                .get()
                .into_iter()
                .flatten()
                .map(|(name, ask)| probe(name, false, ask())),
        );
    let (control_plane, others) =
        tokio::join!(probe("controlPlane", true, control_plane), join_all(others));
    std::iter::once(control_plane).chain(others).collect()
}

/// `GET /v1/platform/info`
pub(crate) async fn info(app: Arc<Platform>, _: Call) -> Result<Reply, Failure> {
    let plans = plans::list(&app.pool).await?;
    let info = json!({
        "name": "postern",
        "version": env!("CARGO_PKG_VERSION"),
        "apiVersions": app.about.api_versions,
        "families": app.about.families,
        "plans": plans,
    });
    Reply::json(StatusCode::OK, &info)
}

/// `GET /v1/platform/openapi.json`
pub(crate) async fn openapi(app: Arc<Platform>, _: Call) -> Result<Reply, Failure> {
    Reply::json(StatusCode::OK, &openapi::document(&app.about))
}

impl Readiness for Platform {
    fn unready(&self) -> BoxFuture<'_, Option<String>> {
        async move {
            let asked = directory::revision(&self.pool).await;
            asked
                .err()
                .map(|_| "the control-plane database does not answer".to_owned())
        }
        .boxed()
    }
}
