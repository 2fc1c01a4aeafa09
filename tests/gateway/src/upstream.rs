//! nginx's proxy: the request goes to the upstream, its answer to the client.
//! Source: nginx's `ngx_http_proxy_module.c` and `ngx_http_upstream.c` under the
//! directives of `apisix/cli/ngx_tpl.lua`.
//!
//! Unlike nginx it opens a connection for each request.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::config::routes::Upstream;
use crate::exchange::{End, Exchange};
use crate::http::body::{Body, Upload, UploadError};
use crate::http::client::{self, Reader, Writer};
use crate::http::fields::{Fields, same};
use crate::http::head::{Framing, decimal};
use crate::http::uri::{Escape, escape};
use crate::request::Request;

/// `proxy_buffer_size`: the longest head an upstream may send.
const HEAD: usize = 4096;
/// Headers read of an upstream: no head of 4 KiB holds more.
const HEADERS: usize = HEAD / 4;

/// Request headers that do not go upstream as they came.
const REPLACED: [&[u8]; 10] = [
    b"host",
    b"connection",
    b"x-real-ip",
    b"x-forwarded-for",
    b"upgrade",
    b"content-length",
    b"transfer-encoding",
    b"te",
    b"keep-alive",
    b"expect",
];

/// Upstream headers that do not reach the client as they came.
const HIDDEN: [&[u8]; 11] = [
    b"connection",
    b"keep-alive",
    b"transfer-encoding",
    b"content-length",
    b"server",
    b"x-pad",
    b"x-accel-expires",
    b"x-accel-redirect",
    b"x-accel-limit-rate",
    b"x-accel-buffering",
    b"x-accel-charset",
];

/// Why an upstream gives no answer.
#[derive(Debug)]
pub enum Failure {
    /// It cannot be reached, or does not speak HTTP: 502.
    Bad(String),
    /// It takes too long: 504.
    Late,
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Bad(why) => {
                tracing::error!("upstream: {why}");
                Self::Exit(502, None)
            }
            Failure::Late => {
                tracing::error!("upstream timed out");
                Self::Exit(504, None)
            }
        }
    }
}

/// An upstream's connection.
#[derive(Debug)]
pub struct Link {
    /// From it.
    pub reader: Reader,
    /// To it.
    pub writer: Writer,
    wait: Duration,
}

impl Link {
    /// Connects to the node picked for the request, or, where that fails, to the
    /// next ones as often as `retries` says.
    pub async fn open(exchange: &mut Exchange<'_>, upstream: &Upstream) -> Result<Self, Failure> {
        let times = exchange.worker.times;
        let wait = times.scaled(upstream.timeout.connect);
        let mut node = exchange.request.node.clone().unwrap_or_default();
        let mut left = upstream.retries;
        loop {
            let failure = match timeout(wait, TcpStream::connect(&node)).await {
                Err(_) => Failure::Late,
                Ok(Err(error)) => Failure::Bad(format!("{node}: {error}")),
                Ok(Ok(stream)) => {
                    let _only_slower = stream.set_nodelay(true);
                    let send = times.scaled(upstream.timeout.send);
                    let (reader, writer) = client::split(stream, send);
                    let wait = times.scaled(upstream.timeout.read);
                    exchange.request.node = Some(node);
                    return Ok(Self {
                        reader,
                        writer,
                        wait,
                    });
                }
            };
            let turn = upstream.turn.fetch_add(1, Ordering::Relaxed);
            let Some(next) = upstream.nodes.get(turn % upstream.nodes.len().max(1)) else {
                return Err(failure);
            };
            if left == 0 {
                return Err(failure);
            }
            left -= 1;
            node.clone_from(next);
        }
    }
}

/// An upstream's answer, its body still to come.
#[derive(Debug)]
pub struct Response {
    /// The code.
    pub status: u16,
    /// Code and reason, as they came.
    pub status_line: Vec<u8>,
    /// The second digit of `HTTP/1.x`.
    pub minor: u8,
    /// The headers, as they came.
    pub headers: Fields,
}

impl Response {
    /// Reads the head of an answer, past interim ones. May be given up and begun
    /// again: what has arrived stays in the reader.
    pub async fn read(reader: &mut Reader, wait: Duration) -> Result<Self, Failure> {
        loop {
            if let Some(response) = Self::parse(reader)?
                && (response.status == 101 || response.status >= 200)
            {
                return Ok(response);
            } else if reader.held.len() >= HEAD {
                return Err(Failure::Bad("it sent too big a header".into()));
            }
            match reader.fill(wait).await {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {
                    return Err(Failure::Late);
                }
                Err(error) => return Err(Failure::Bad(format!("no answer: {error}"))),
            }
        }
    }

    fn parse(reader: &mut Reader) -> Result<Option<Self>, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        let mut config = httparse::ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(true);
        config.ignore_invalid_headers_in_responses(true);
        let outcome = config.parse_response(&mut parsed, &reader.held);
        let outcome = outcome.map_err(|error| Failure::Bad(format!("not HTTP: {error}")))?;
        let httparse::Status::Complete(len) = outcome else {
            return Ok(None);
        };
        let status = parsed.code.unwrap_or(0);
        let reason = parsed.reason.unwrap_or_default();
        let fields = parsed
            .headers
            .iter()
            .map(|header| (header.name.as_bytes().to_vec(), header.value.to_vec()));
        let response = Self {
            status,
            status_line: format!("{status:03} {reason}").into_bytes(),
            minor: parsed.version.unwrap_or(1),
            headers: Fields(fields.collect()),
        };
        reader.held.advance(len);
        Ok(Some(response))
    }

    /// The body's length, if the upstream tells it.
    #[must_use]
    pub fn length(&self) -> Option<u64> {
        self.headers.get("content-length").and_then(decimal)
    }
}

/// The body of an upstream's answer.
#[derive(Debug)]
pub enum Download {
    /// Framed, or none.
    Framed(Body),
    /// It ends with the connection.
    UntilClose(Duration),
}

impl Download {
    /// What follows a head.
    #[must_use]
    pub fn after(response: &Response, to_head: bool, wait: Duration) -> Self {
        let bodiless = to_head || matches!(response.status, 100..=199 | 204 | 304);
        let coding = response
            .headers
            .joined("transfer-encoding", b",")
            .unwrap_or_default();
        let coding = coding.to_ascii_lowercase();
        let framing = if bodiless {
            Framing::None
        } else if coding.windows(7).any(|part| part == b"chunked") {
            Framing::Chunked
        } else if let Some(length) = response.length() {
            Framing::Length(length)
        } else {
            return Self::UntilClose(wait);
        };
        Self::Framed(Body::new(framing, false, u64::MAX, wait))
    }

    /// The next piece; none at the end. An upstream that breaks off cuts the
    /// client's connection too. May be given up and begun again.
    pub async fn next(&mut self, reader: &mut Reader) -> Result<Option<Bytes>, End> {
        match self {
            Self::Framed(body) => body.next(reader).await.map_err(|_| End::Cut),
            Self::UntilClose(wait) => {
                while reader.held.is_empty() {
                    match reader.fill(*wait).await {
                        Ok(()) => {}
                        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                            return Ok(None);
                        }
                        Err(_) => return Err(End::Cut),
                    }
                }
                Ok(Some(reader.held.split().freeze()))
            }
        }
    }
}

/// Sends the request on, and the answer back.
pub async fn proxy(exchange: &mut Exchange<'_>, upstream: &Upstream) -> Result<(), End> {
    let request = &mut exchange.request;
    request.body.check_length()?;
    if request.buffered {
        request.body.whole(exchange.reader, exchange.writer).await?;
    } else {
        request.body.begin(exchange.writer).await?;
    }
    // It is put behind the upstream's name, and no name is found that ends so.
    if !request.upstream_uri.is_empty()
        && !request.upstream_uri.starts_with(b"/")
        && !request.upstream_uri.starts_with(b"?")
    {
        return Err(End::Exit(502, None));
    }
    let mut link = Link::open(exchange, upstream).await?;
    // Out of the request, so that it can be sent while the answer comes in.
    let framing = exchange.request.body.framing();
    let mut body = std::mem::replace(&mut exchange.request.body, Body::empty(framing));
    let outcome = relay(exchange, &mut body, &mut link).await;
    exchange.request.body = body;
    outcome
}

async fn relay(exchange: &mut Exchange<'_>, body: &mut Body, link: &mut Link) -> Result<(), End> {
    let websocket = exchange
        .request
        .route
        .as_ref()
        .is_some_and(|route| route.websocket);
    let chunked = body.streams_chunks();
    let told = if chunked {
        Told::Chunks
    } else {
        body.length().map_or(Told::Nothing, Told::Length)
    };
    let head = request_head(&exchange.request, told, websocket);
    let mut upload = Upload::new(BytesMut::from(head.as_slice()), body, chunked);
    let response = loop {
        let read = Response::read(&mut link.reader, link.wait);
        if upload.is_done() {
            tokio::select! {
                response = read => break response?,
                () = exchange.reader.gone() => return Err(End::Cut),
            }
        } else {
            tokio::select! {
                response = read => break response?,
                step = upload.step(exchange.reader, &mut link.writer) => step?,
            }
        }
    };
    let to_head = exchange.request.is_head();
    let mut download = Download::after(&response, to_head, link.wait);
    take_over(exchange, &response, &download);
    exchange.send_head().await?;
    if response.status == 101 {
        return tunnel(exchange, link).await;
    }
    loop {
        let next = download.next(&mut link.reader);
        let piece = if upload.is_done() {
            tokio::select! {
                piece = next => piece?,
                () = exchange.reader.gone() => return Err(End::Cut),
            }
        } else {
            tokio::select! {
                piece = next => piece?,
                step = upload.step(exchange.reader, &mut link.writer) => {
                    step?;
                    continue;
                }
            }
        };
        let Some(piece) = piece else { break };
        exchange.answer.send_body(exchange.writer, &piece).await?;
    }
    exchange.finish().await
}

/// Puts the upstream's head behind what Lua has set.
fn take_over(exchange: &mut Exchange<'_>, response: &Response, download: &Download) {
    let answer = &mut exchange.answer;
    answer.status = Some(response.status);
    answer.status_line = Some(response.status_line.clone());
    answer.own_type(None);
    for (name, value) in &response.headers.0 {
        let hidden = HIDDEN.iter().any(|hidden| same(name, hidden));
        let upgrade = response.status != 101 && same(name, b"upgrade");
        if !hidden && !upgrade {
            answer.upstream_field(name, value);
        }
    }
    if response.status == 101 {
        answer.upstream_field(b"Connection", b"upgrade");
        return;
    }
    let chunked = matches!(download, Download::Framed(body) if body.framing() == Framing::Chunked);
    answer.length(response.length().filter(|_| !chunked));
}

/// What the upstream is told of a request's body, true or not.
#[derive(Clone, Copy, Debug)]
enum Told {
    Length(u64),
    Chunks,
    Nothing,
}

/// The head that goes upstream.
fn request_head(request: &Request, body: Told, websocket: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(&request.head.method);
    out.push(b' ');
    out.extend(request.upstream_target());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let mut field = |name: &[u8], value: &[u8]| {
        out.extend_from_slice(name);
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    // A header set to nothing is not sent at all.
    if let Some(host) = request
        .upstream_host
        .as_deref()
        .filter(|host| !host.is_empty())
    {
        field(b"Host", &escape(host, Escape::HeaderValue));
    }
    if let Some(upgrade) = request.head.headers.get("upgrade").filter(|_| websocket) {
        field(b"Upgrade", upgrade);
        field(b"Connection", b"upgrade");
    }
    field(b"X-Real-IP", request.client_ip.to_string().as_bytes());
    field(b"X-Forwarded-For", &request.forwarded_for());
    match body {
        Told::Length(length) => field(b"Content-Length", length.to_string().as_bytes()),
        Told::Chunks => field(b"Transfer-Encoding", b"chunked"),
        Told::Nothing => {}
    }
    for (name, value) in &request.head.headers.0 {
        if !REPLACED.iter().any(|replaced| same(name, replaced)) {
            field(name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// Bytes both ways, until one side ends.
async fn tunnel(exchange: &mut Exchange<'_>, link: &mut Link) -> Result<(), End> {
    let early = exchange.reader.held.split();
    link.writer.send(&early).await?;
    let early = link.reader.held.split();
    exchange.writer.send(&early).await?;
    let (from_client, from_upstream) = (exchange.reader.half(), link.reader.half());
    let (to_client, to_upstream) = (exchange.writer.half(), link.writer.half());
    let _how_it_ended = tokio::select! {
        up = tokio::io::copy(from_client, to_upstream) => up,
        down = tokio::io::copy(from_upstream, to_client) => down,
    };
    Err(End::Cut)
}

impl From<UploadError> for End {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::Client(error) => error.into(),
            UploadError::Spool => Self::Exit(500, None),
        }
    }
}

impl Link {
    /// How long the upstream may keep silent.
    #[must_use]
    pub fn wait(&self) -> Duration {
        self.wait
    }
}
