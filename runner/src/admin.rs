//! Metrics, health and an operator's commands over HTTP, for this machine alone.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus' text form |
//! | `/healthz` | 200: the process runs |
//! | `/readyz` | 200, or 503 with what is not ready and why |
//! | `POST` to a command's path | what came of it ([`Registry::with_command`](crate::Registry::with_command)) |

use std::convert::Infallible;
use std::os::unix::fs::FileTypeExt as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
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
/// Bytes of a command's body.
const MAX_BODY: usize = 16 << 10;

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
    if path
        .symlink_metadata()
        .is_ok_and(|there| !there.file_type().is_socket())
    {
        return Err(std::io::Error::other("it exists and is no socket"));
    }
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
                let service = Arc::clone(&service);
                async move { Ok::<_, Infallible>(answer(&service, request).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), answer);
            let _ = timeout(PATIENCE, connection).await;
            drop(room);
        });
    }
}

async fn answer(service: &Service, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (status, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            metrics::gauge!("postern_waiting").set(service.places.taken() as f64);
            (StatusCode::OK, crate::metrics::render())
        }
        (&Method::GET | &Method::HEAD, "/healthz") => (StatusCode::OK, "ok\n".into()),
        (&Method::GET | &Method::HEAD, "/readyz") => ready(service),
        (&Method::GET | &Method::HEAD, _) => (
            StatusCode::NOT_FOUND,
            "there are /metrics, /healthz and /readyz\n".into(),
        ),
        (&Method::POST, _) => command(service, request).await,
        _ => (StatusCode::METHOD_NOT_ALLOWED, "GET and POST only\n".into()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let text = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, text);
    response
}

async fn command(service: &Service, request: Request<Incoming>) -> (StatusCode, String) {
    let registry = service.configurations.registry();
    let path = request.uri().path().to_owned();
    if !registry.commands().any(|known| known == path) {
        let known: Vec<_> = registry.commands().collect();
        let told = format!("commands: {}\n", known.join(", "));
        return (StatusCode::NOT_FOUND, told);
    }
    // A page in a browser can send a form to this machine, but not this type.
    let json = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/json");
    if !request
        .headers()
        .get(http::header::CONTENT_TYPE)
        .is_some_and(json)
    {
        let told = "send application/json\n".into();
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, told);
    }
    let body = match Limited::new(request.into_body(), MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    match registry.command(&path, body) {
        Some(done) => done.await,
        None => (StatusCode::NOT_FOUND, "no such command\n".into()),
    }
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
