//! Metrics, health and an operator's commands over HTTP, for this machine alone.
//!
//! | path | answer |
//! |---|---|
//! | `/metrics` | Prometheus' text form |
//! | `/healthz` | 200: the process runs |
//! | `/readyz` | 200, or 503 with what is not ready and why |
//! | `POST` to a command's path | what came of it ([`Registry::with_command`](crate::Registry::with_command)) |

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::either::Either;

use crate::config::Address;
use crate::rpc::calls::Service;
use crate::supervisor::privileges::User;

/// Scrapers are few; further ones wait.
const CONNECTIONS: usize = 16;
/// A connection's whole life.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of a command's body.
const MAX_BODY: usize = 16 << 10;

/// How long a runner that is ending may keep the port: the gateway kills it 1 s after
/// SIGTERM, and starts its successor earlier.
const LEAVING: Duration = Duration::from_secs(1);

/// Where to answer. The supervisor binds it once and passes it on, as it does with the
/// gateway's socket: what each worker can bind beside the one before, a second runner can.
#[derive(Debug)]
pub(crate) struct Endpoint {
    listen: String,
    socket: Socket,
    /// A socket's file, from its temporary name to its own, until it has that.
    aside: RefCell<Option<(PathBuf, PathBuf)>>,
}

impl Endpoint {
    /// Takes the address, and does not listen yet: whatever else is wrong is found
    /// before a runner that serves is disturbed. A file is `user`'s.
    pub(crate) fn bind(listen: &str, user: Option<User>) -> anyhow::Result<Self> {
        Self::take(listen, user).with_context(|| cannot(listen))
    }

    /// The same at the start, when a runner before may be on its way out.
    pub(crate) async fn succeed(listen: &str, user: Option<User>) -> anyhow::Result<Self> {
        let until = Instant::now() + LEAVING;
        loop {
            match Self::take(listen, user) {
                Err(error) if in_use(&error) && Instant::now() < until => {
                    sleep(Duration::from_millis(10)).await;
                }
                taken => return taken.with_context(|| cannot(listen)),
            }
        }
    }

    fn take(listen: &str, user: Option<User>) -> anyhow::Result<Self> {
        let (socket, aside) = match Address::parse(listen)? {
            Address::Loopback(address) => (tcp(address)?, None),
            Address::Unix(path) => {
                let (socket, aside) = unix(&path, user)?;
                (socket, Some((aside, path)))
            }
        };
        Ok(Self {
            listen: listen.to_owned(),
            socket,
            aside: RefCell::new(aside),
        })
    }

    /// Listens from here on.
    pub(crate) fn open(&self) -> anyhow::Result<()> {
        self.listen().with_context(|| cannot(&self.listen))
    }

    fn listen(&self) -> std::io::Result<()> {
        self.socket.listen(64)?;
        let mut aside = self.aside.borrow_mut();
        if let Some((from, to)) = &*aside {
            std::fs::rename(from, to)?;
        }
        *aside = None;
        Ok(())
    }

    /// Whether it is where a configuration wants it.
    pub(crate) fn is_at(&self, listen: &str) -> bool {
        self.listen == listen
    }

    /// For a worker.
    pub(crate) fn descriptor(&self) -> std::io::Result<OwnedFd> {
        self.socket.as_fd().try_clone_to_owned()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        if let Some((aside, _)) = self.aside.get_mut() {
            // Nobody could find it.
            let _ = std::fs::remove_file(aside);
        }
    }
}

fn cannot(listen: &str) -> String {
    format!("admin.listen: cannot listen on {listen}")
}

fn in_use(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<std::io::Error>();
    error.is_some_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn tcp(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // Connections of a runner before that are not quite over are no obstacle.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Bound aside and moved into place, as the gateway's socket is.
fn unix(path: &Path, user: Option<User>) -> std::io::Result<(Socket, PathBuf)> {
    if path
        .symlink_metadata()
        .is_ok_and(|there| !there.file_type().is_socket())
    {
        return Err(std::io::Error::other("it exists and is no socket"));
    }
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    let _ = std::fs::remove_file(&aside);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&aside)?)?;
    if let Some(user) = user {
        chown(&aside, Some(user.id), Some(user.group))?;
    }
    Ok((socket, aside))
}

/// What the supervisor passed on.
pub(crate) type Listener = Either<TcpListener, UnixListener>;

pub(crate) fn listener(socket: OwnedFd) -> std::io::Result<Listener> {
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    Ok(if socket.domain()? == Domain::UNIX {
        Either::Right(UnixListener::from_std(socket.into())?)
    } else {
        Either::Left(TcpListener::from_std(socket.into())?)
    })
}

async fn next(listener: &Listener) -> std::io::Result<Either<TcpStream, UnixStream>> {
    Ok(match listener {
        Either::Left(tcp) => Either::Left(tcp.accept().await?.0),
        Either::Right(unix) => Either::Right(unix.accept().await?.0),
    })
}

/// Answers from here on.
pub(crate) async fn accept(service: Arc<Service>, listener: Listener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(room) = Arc::clone(&room).acquire_owned().await else {
            return;
        };
        let stream = match next(&listener).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "the admin endpoint cannot accept");
                sleep(Duration::from_millis(100)).await;
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
