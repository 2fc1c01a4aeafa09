//! `ext-plugin-post-resp` (`apisix/plugins/ext-plugin-post-resp.lua`): the
//! gateway fetches the upstream itself, with lua-resty-http 0.16.1, and lets the
//! runner change what comes back.
//!
//! The head that goes upstream is made of the headers Lua sees, nothing added but
//! what the client library adds; a decoded path goes up decoded; and a body that
//! came in chunks is sent whole under `Transfer-Encoding: chunked`, which no
//! upstream can read. An answer without a body is not sent from here: the request
//! goes on to the proxy, and reaches the upstream a second time.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use postern_wire::frame::{FrameType, MAX_LEN};
use postern_wire::message::{Entry, HttpRespCallReq, Message};

use super::ext_plugin::{ExtPlugin, ResponseBody, TRIES, Verdict, converse};
use crate::exchange::{End, Exchange};
use crate::http::body::{Body, Upload};
use crate::http::fields::{Fields, same};
use crate::http::head::Framing;
use crate::rpc::RpcError;
use crate::rpc::answer::{EXCLUDED, response_headers};
use crate::upstream::{Download, Failure, Link, Response};

/// Methods for which lua-resty-http sends a length even without a body.
const EXPECTING_BODY: [&[u8]; 3] = [b"POST", b"PUT", b"PATCH"];
const USER_AGENT: &[u8] = b"lua-resty-http/0.16.1 (Lua) ngx_lua/10031";

/// An upstream's answer, as far as it has been read.
struct Fetched {
    link: Link,
    response: Response,
    download: Download,
    read: VecDeque<Bytes>,
    asked: bool,
}

/// The whole plugin.
pub async fn before_proxy(plugin: &ExtPlugin, exchange: &mut Exchange<'_>) -> Result<(), End> {
    let mut fetched = fetch(exchange).await?;
    let mut outcome = None;
    for _ in 0..TRIES {
        let tried = try_call(plugin, exchange, &mut fetched).await;
        if let ControlFlow::Break(settled) = plugin.settle(exchange, tried) {
            outcome = Some(settled?);
            break;
        }
    }
    match outcome.unwrap_or_else(|| plugin.failed()) {
        Some((status, Some(body))) => Err(End::Exit(status, Some(body))),
        verdict => send(exchange, &mut fetched, verdict.map(|(status, _)| status)).await,
    }
}

/// Sends the upstream's body under whatever status and headers there are now.
async fn send(
    exchange: &mut Exchange<'_>,
    fetched: &mut Fetched,
    status: Option<u16>,
) -> Result<(), End> {
    exchange.answer.status = Some(status.unwrap_or(fetched.response.status));
    while let Some(piece) = fetched.next().await? {
        exchange.print(&piece).await?;
    }
    if !exchange.answer.is_sent() {
        return Ok(());
    }
    exchange.finish().await?;
    Err(End::Sent)
}

impl Fetched {
    async fn next(&mut self) -> Result<Option<Bytes>, End> {
        match self.read.pop_front() {
            Some(piece) => Ok(Some(piece)),
            None => self.download.next(&mut self.link.reader).await,
        }
    }
}

impl ResponseBody for Fetched {
    async fn read(&mut self) -> Result<Option<Vec<u8>>, End> {
        // The reader's coroutine is dead after the first time.
        if std::mem::replace(&mut self.asked, true) {
            return Ok(None);
        }
        let mut whole = Vec::new();
        while let Some(piece) = self.download.next(&mut self.link.reader).await? {
            whole.extend_from_slice(&piece);
            self.read.push_back(piece);
            // One byte more than a frame holds fails the call, which is all that
            // the rest of it could do.
            if whole.len() > MAX_LEN {
                break;
            }
        }
        Ok(Some(whole))
    }
}

async fn try_call(
    plugin: &ExtPlugin,
    exchange: &mut Exchange<'_>,
    fetched: &mut Fetched,
) -> Result<Verdict, RpcError> {
    let worker = exchange.worker;
    let mut connection = worker.rpc.connect().await?;
    let conf_token = plugin.token(exchange).await?;
    let headers = fetched.response.headers.0.iter();
    let host = exchange.request.upstream_host.clone();
    let entry = |(name, value): &(Vec<u8>, Vec<u8>)| match &host {
        Some(host) if name == b"host" => Entry::new(name.clone(), host.clone()),
        _ => Entry::new(name.clone(), value.clone()),
    };
    let call = HttpRespCallReq {
        id: worker.rpc.next_id(),
        status: fetched.response.status,
        headers: headers.map(entry).collect(),
        conf_token,
    };
    connection.send(&Message::HttpRespCallReq(call)).await?;
    let answer = converse(&mut connection, exchange, fetched, FrameType::HttpRespCall).await?;
    let Message::HttpRespCallResp(answer) = answer else {
        return Err(RpcError::Failed("unexpected answer".into()));
    };
    if answer.headers.is_empty() {
        upstream_headers(exchange, &fetched.response.headers)?;
    } else {
        response_headers(&mut exchange.answer, &answer.headers, &[])?;
    }
    let body = answer.body.filter(|body| !body.is_empty());
    let status = match (answer.status, &body) {
        (0, Some(_)) => Some(fetched.response.status),
        (0, None) => None,
        (status, _) => Some(status),
    };
    worker.rpc.keep(connection);
    Ok(status.map(|status| (status, body)))
}

/// The upstream's headers, but for those that `resp_headers` cannot set either.
fn upstream_headers(exchange: &mut Exchange<'_>, headers: &Fields) -> Result<(), RpcError> {
    let allowed = headers
        .0
        .iter()
        .filter(|(name, _)| !EXCLUDED.iter().any(|excluded| same(name, excluded)));
    let entries: Vec<Entry> = allowed
        .map(|(name, value)| Entry::new(name.clone(), value.clone()))
        .collect();
    Ok(response_headers(&mut exchange.answer, &entries, &[])?)
}

async fn fetch(exchange: &mut Exchange<'_>) -> Result<Fetched, End> {
    let route = exchange.request.route.clone();
    let upstream = route.and_then(|route| route.upstream.clone());
    let upstream = upstream.ok_or(End::Exit(502, None))?;
    let mut link = Link::open(exchange, &upstream)
        .await
        .map_err(|failure| match failure {
            Failure::Bad(why) => End::from(Failure::Bad(why)),
            // lua-resty-http's time-outs are failures like any other.
            Failure::Late => End::from(Failure::Bad("timeout".into())),
        })?;
    let request = &mut exchange.request;
    let spool = request.body.whole(exchange.reader, exchange.writer).await?;
    let body = match spool {
        None => None,
        Some(spool) => {
            let body = spool
                .read(u64::MAX)
                .await
                .map_err(|_| End::Exit(502, None))?;
            body.filter(|body| !body.is_empty())
        }
    };
    let head = request_head(exchange, body.as_deref())?;
    let mut whole = BytesMut::from(head.as_slice());
    whole.extend_from_slice(&body.unwrap_or_default());
    let mut none = Body::empty(Framing::None);
    let mut upload = Upload::new(whole, &mut none, false);
    while !upload.is_done() {
        upload.step(exchange.reader, &mut link.writer).await?;
    }
    let wait = link.wait();
    let response = Response::read(&mut link.reader, wait).await;
    let response = response.map_err(|failure| match failure {
        Failure::Late => Failure::Bad("timeout".into()),
        bad => bad,
    })?;
    let download = Download::after(&response, exchange.request.is_head(), wait);
    Ok(Fetched {
        link,
        response,
        download,
        read: VecDeque::new(),
        asked: false,
    })
}

fn request_head(exchange: &mut Exchange<'_>, body: Option<&[u8]>) -> Result<Vec<u8>, End> {
    let request = &mut exchange.request;
    let target = if request.upstream_uri.is_empty() {
        request.with_args(&request.uri)
    } else if request.upstream_uri.contains(&b'?') {
        request.upstream_uri.clone()
    } else {
        request.with_args(&request.upstream_uri)
    };
    let refused = |what: &str| End::from(Failure::Bad(format!("invalid characters in {what}")));
    if !target.iter().all(|byte| in_target(*byte)) {
        return Err(refused("the path or query"));
    }
    let method = request.head.method.to_ascii_uppercase();
    let mut out = [&method[..], b" ", &target, b" HTTP/1.1\r\n"].concat();
    let mut field = |name: &[u8], value: &[u8]| {
        out.extend([name, b": ", value, b"\r\n"].concat());
    };
    let node = request.node.clone();
    let seen = request.seen();
    let has = |name: &[u8]| seen.iter().any(|(known, _)| known == name);
    let chunked = seen.iter().any(|(name, values)| {
        name == b"transfer-encoding" && values.iter().any(|value| same(value, b"chunked"))
    });
    for (name, values) in seen {
        if chunked && name == b"content-length" {
            continue;
        }
        for value in values {
            if value
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t')
            {
                return Err(refused("a header"));
            }
            field(name, value);
        }
    }
    if !chunked && !has(b"content-length") {
        match body {
            Some(body) => field(b"Content-Length", body.len().to_string().as_bytes()),
            None if EXPECTING_BODY.contains(&method.as_slice()) => field(b"Content-Length", b"0"),
            None => {}
        }
    }
    if !has(b"host")
        && let Some(node) = node
    {
        field(b"Host", node.as_bytes());
    }
    if !has(b"user-agent") {
        field(b"User-Agent", USER_AGENT);
    }
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// What lua-resty-http lets through in a path and, with `?`, in a query.
fn in_target(byte: u8) -> bool {
    byte > b' ' && !b"#<>`".contains(&byte)
}
