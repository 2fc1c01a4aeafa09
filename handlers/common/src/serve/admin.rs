//! The operator's listener: `/healthz`, `/readyz`, `/metrics`. Not for clients.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;
use tower::service_fn;

use super::{Limits, Listener, connections};

/// What `/readyz` asks: a reason not to send requests here, or none.
pub trait Readiness: Send + Sync {
    /// Why not.
    fn unready(&self) -> BoxFuture<'_, Option<String>>;
}

/// The operator's endpoint.
pub struct Admin {
    /// Renders the metrics.
    pub metrics: PrometheusHandle,
    /// Whether requests may come.
    pub readiness: Arc<dyn Readiness>,
    /// Cancelled when draining begins: not ready any more.
    pub draining: CancellationToken,
}

/// A probe is answered within this.
const PROBE: Duration = Duration::from_secs(2);

impl Admin {
    /// Serves until `stop`, which comes after draining: probes are answered meanwhile.
    pub async fn serve(self, listener: Listener, limits: Limits, stop: CancellationToken) {
        let admin = Arc::new(self);
        let service = service_fn(move |request: Request<Incoming>| {
            let admin = Arc::clone(&admin);
            async move { Ok::<_, Infallible>(admin.answer(request.uri().path()).await) }
        });
        connections(listener, service, limits, stop).await;
    }

    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/healthz" => text(StatusCode::OK, "ok\n"),
            "/readyz" => match self.unready().await {
                None => text(StatusCode::OK, "ok\n"),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
            },
            "/metrics" => {
                self.metrics.run_upkeep();
                text(StatusCode::OK, self.metrics.render())
            }
            _ => text(
                StatusCode::NOT_FOUND,
                "there are /healthz, /readyz and /metrics\n",
            ),
        }
    }

    async fn unready(&self) -> Option<String> {
        if self.draining.is_cancelled() {
            return Some("draining".into());
        }
        let asked = tokio::time::timeout(PROBE, self.readiness.unready()).await;
        asked.unwrap_or_else(|_| Some("the backends do not answer".into()))
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
