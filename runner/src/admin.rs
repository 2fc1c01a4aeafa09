//! Metrics and health over HTTP, for this machine alone.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus' text form |
//! | `/healthz` | 200: the process runs |
//! | `/readyz` | 200, or 503 with what is not ready and why |

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::either::Either;

use crate::config::{Address, AdminConfig};
use crate::rpc::calls::Service;

/// Scrapers are few; further ones wait.
const CONNECTIONS: usize = 16;
/// A connection's whole life.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers from here on, if an address is configured.
pub(crate) async fn start(config: &AdminConfig, service: Arc<Service>) -> anyhow::Result<()> {
    let Some(listen) = &config.listen else {
        return Ok(());
    };
    let listener = match Address::parse(listen)? {
        Address::Loopback(address) => tcp(address).map(Either::Left),
        Address::Unix(path) => unix(&path).map(Either::Right),
    };
    let listener = listener.with_context(|| format!("admin.listen: cannot listen on {listen}"))?;
    tokio::spawn(accept(service, listener));
    Ok(())
}

type Listener = Either<TcpListener, UnixListener>;

async fn next(listener: &Listener) -> std::io::Result<Either<TcpStream, UnixStream>> {
    Ok(match listener {
        Either::Left(tcp) => Either::Left(tcp.accept().await?.0),
        Either::Right(unix) => Either::Right(unix.accept().await?.0),
    })
}

/// A new worker listens while the one before it still does.
fn tcp(address: std::net::SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(64)
}

/// Bound aside and moved into place, as the gateway's socket is.
fn unix(path: &std::path::Path) -> std::io::Result<UnixListener> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&aside);
    let listener = UnixListener::bind(&aside)?;
    std::fs::rename(&aside, path)?;
    Ok(listener)
}

async fn accept(service: Arc<Service>, listener: Listener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(room) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match next(&listener).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let answer = service_fn(move |request| {
                let response = answer(&service, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            let _ = timeout(PATIENCE, connection).await;
            drop(room);
        });
    }
}

fn answer(service: &Service, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, crate::metrics::render()),
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") => ready(service),
        (&Method::GET | &Method::HEAD, _) => (
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".into(),
        ),
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, text);
    response
}

fn ready(service: &Service) -> (StatusCode, String) {
    let unready = service.configurations.registry().unready();
    if unready.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let lines = unready
        .iter()
        .map(|(name, reason)| format!("{name}: {reason}\n"));
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}
