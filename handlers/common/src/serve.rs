//! From a socket to the chain and back.
//!
//! ```text
//! listener → connection (bounded number, stalled writes end it) → HTTP/1.1 → compression → chain
//! ```
//!
//! When draining, nothing is accepted any more, requests under way are answered,
//! and mutations whose client has left are awaited.

mod admin;
mod listener;
mod stall;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_ENCODING, ETAG};
use http::{HeaderValue, Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceBuilder, service_fn};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::SizeAbove;

pub use admin::{Admin, Readiness};
pub use listener::{Address, Bound, Listener};

use crate::Chain;
use stall::StallBound;

/// The gateway shows a plugin 100 headers and sends on whatever is beyond; hyper
/// would refuse what has more than 100.
const MAX_HEADERS: usize = 256;
/// The head of a request: two of nginx's largest header buffers.
const MAX_HEAD: usize = 64 << 10;
/// Smaller answers are not worth a compressor.
const COMPRESS_ABOVE: u64 = 1024;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; the next waits in the kernel's queue.
    pub connections: usize,
    /// An idle connection, and one that does not finish a request's head, is closed
    /// after this. Longer than the gateway keeps idle connections (60 s), so that the
    /// gateway closes first and never sends a request into a closing connection.
    pub idle: Duration,
    /// A client that takes none of its answer for this long is cut off.
    pub stall: Duration,
    /// How long requests and mutations may go on once draining began.
    pub drain: Duration,
}

/// Serves the chain until `stop`, then drains.
pub async fn serve(listener: Listener, chain: Arc<Chain>, limits: Limits, stop: CancellationToken) {
    let service = ServiceBuilder::new()
        .map_response(weaken_etag)
        .layer(CompressionLayer::new().compress_when(SizeAbove::new(COMPRESS_ABOVE)))
        .service(service_fn(move |request: Request<Incoming>| {
            let chain = Arc::clone(&chain);
            async move { Ok::<_, Infallible>(chain.answer(request).await) }
        }));
    connections(listener, service, limits, stop).await;
}

/// Accepts connections and serves each, until `stop`; then ends idle ones and
/// awaits the others.
pub(crate) async fn connections<S, B>(
    mut listener: Listener,
    service: S,
    limits: Limits,
    stop: CancellationToken,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD)
        .header_read_timeout(limits.idle)
        .half_close(false);
    let places = Arc::new(Semaphore::new(limits.connections));
    let open = GracefulShutdown::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, stream) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accepted => accepted,
        };
        let stream = TokioIo::new(StallBound::new(stream, limits.stall));
        let connection =
            open.watch(http.serve_connection(stream, TowerToHyperService::new(service.clone())));
        tokio::spawn(async move {
            // Clients that break off are no event of ours: their requests are logged.
            let _ = connection.await;
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, open.shutdown())
        .await
        .is_err()
    {
        tracing::warn!("connections were still busy when the drain time ended");
    }
}

/// What was compressed is not, byte for byte, what the strong validator named
/// (RFC 9110, 8.8.1).
fn weaken_etag<B>(mut response: Response<B>) -> Response<B> {
    if response.headers().contains_key(CONTENT_ENCODING)
        && let Some(strong) = response
            .headers()
            .get(ETAG)
            .and_then(|etag| etag.to_str().ok())
        && strong.starts_with('"')
        && let Ok(weak) = HeaderValue::from_str(&format!("W/{strong}"))
    {
        response.headers_mut().insert(ETAG, weak);
    }
    response
}
