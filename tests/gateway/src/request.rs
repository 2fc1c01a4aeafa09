//! A request on its way through the gateway: what nginx knows of it, and what
//! APISIX keeps beside it in `ctx`. Sources: `apisix/init.lua`,
//! `apisix/core/request.lua`, `apisix/cli/ngx_tpl.lua`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::config::Config;
use crate::config::routes::Route;
use crate::http::answer::LuaError;
use crate::http::body::Body;
use crate::http::fields::{Fields, same};
use crate::http::head::{Head, decimal};
use crate::http::uri::{Args, Escape, escape};

/// `ngx.req.get_headers()` reads so many headers and no more.
pub const VISIBLE_HEADERS: usize = 100;

/// Header names in lower case, each with its values.
pub type Seen = Vec<(Vec<u8>, Vec<Vec<u8>>)>;

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The client.
    pub peer: SocketAddr,
    /// The gateway's own end.
    pub local: SocketAddr,
    /// The connection's number.
    pub connection: u64,
    /// The request's number on its connection.
    pub connection_requests: u64,
}

/// A request with what APISIX knows about it.
#[derive(Debug)]
pub struct Request {
    /// Line and headers, as nginx holds them now.
    pub head: Head,
    /// The body.
    pub body: Body,
    /// Where it came in.
    pub arrival: Arrival,
    /// The client's address, after `real_ip_header` (`$remote_addr`).
    pub client_ip: IpAddr,
    /// The client's port; none where a header named the address.
    pub client_port: Option<u16>,
    /// `ctx.var.uri`: the path the route was found by.
    pub uri: Vec<u8>,
    /// `ctx.var.request_uri`: that path with its query.
    pub request_uri: Vec<u8>,
    /// `$upstream_uri`: what goes upstream; empty for what the client sent.
    pub upstream_uri: Vec<u8>,
    /// `$upstream_host`.
    pub upstream_host: Option<Vec<u8>>,
    /// The route, once it is found.
    pub route: Option<Arc<Route>>,
    /// The node picked for it.
    pub node: Option<String>,
    /// nginx buffers the body before the upstream sees it, unless told not to.
    pub buffered: bool,
    /// `X-Forwarded-*` as the client sent them.
    pub originals: Vec<(&'static str, Vec<u8>)>,
    /// `$request_id`.
    pub id: String,
    /// When its first byte was read.
    pub started: (Instant, SystemTime),
    args: Option<Args>,
    seen: Option<Seen>,
}

/// Headers a client cannot speak for.
const NEUTRALISED: [(&str, &str); 4] = [
    ("x-forwarded-proto", "original_x_forwarded_proto"),
    ("x-forwarded-host", "original_x_forwarded_host"),
    ("x-forwarded-port", "original_x_forwarded_port"),
    ("forwarded", "original_forwarded"),
];

impl Request {
    /// A request as APISIX's access phase first sees it.
    #[must_use]
    pub fn new(head: Head, body: Body, arrival: Arrival, config: &Config) -> Self {
        let (client_ip, client_port) = real_ip(&head.headers, arrival.peer, config);
        let uri = head.target.path.clone();
        let mut request = Self {
            upstream_host: head.headers.get("host").map(<[u8]>::to_vec),
            head,
            body,
            arrival,
            client_ip,
            client_port,
            request_uri: Vec::new(),
            uri,
            upstream_uri: Vec::new(),
            route: None,
            node: None,
            buffered: true,
            originals: Vec::new(),
            id: request_id(),
            started: (Instant::now(), SystemTime::now()),
            args: None,
            seen: None,
        };
        request.request_uri = request.with_args(&request.uri);
        request.neutralise();
        request
    }

    /// What `ngx_tpl.lua` does with `more_set_input_headers`. They are appended,
    /// so that beyond a hundred headers Lua does not see them either.
    fn neutralise(&mut self) {
        let headers = &mut self.head.headers;
        for (name, variable) in NEUTRALISED {
            let original = headers.get(name).unwrap_or_default().to_vec();
            self.originals.push((variable, original));
        }
        if let Some(chain) = headers.joined("x-forwarded-for", b", ") {
            self.originals.push(("original_x_forwarded_for", chain));
        }
        let host = headers.get("host").map(<[u8]>::to_vec);
        let port = host.as_deref().and_then(port_of).map(<[u8]>::to_vec);
        let port = port.unwrap_or_else(|| self.arrival.local.port().to_string().into_bytes());
        let host = host.or_else(|| self.head.host.clone());
        headers.set(b"X-Forwarded-Proto", Some(b"http"));
        headers.set(
            b"X-Forwarded-Host",
            Some(&host.unwrap_or_else(|| b"_".to_vec())),
        );
        headers.set(b"X-Forwarded-Port", Some(&port));
        headers.set(b"Forwarded", None);
    }

    /// Whether the method is HEAD.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.head.method == b"HEAD"
    }

    /// A path with `?` and the arguments, where there are any.
    #[must_use]
    pub fn with_args(&self, path: &[u8]) -> Vec<u8> {
        let args = &self.head.target.args;
        let mark: &[u8] = if args.is_empty() { b"" } else { b"?" };
        [path, mark, args].concat()
    }

    /// `core.request.get_uri_args`.
    pub fn args(&mut self) -> &mut Args {
        let query = &self.head.target.args;
        self.args.get_or_insert_with(|| Args::parse(query))
    }

    /// `core.request.set_uri_args`: from here on the path is encoded anew too.
    pub fn set_args(&mut self, query: Vec<u8>) {
        self.args = None;
        self.head.target.args = query;
        self.head.target.raw_is_valid = false;
    }

    /// `core.request.headers`: the first hundred, read once and kept up to date
    /// by [`Request::set_header`].
    pub fn seen(&mut self) -> &Seen {
        let headers = &self.head.headers;
        self.seen.get_or_insert_with(|| {
            let mut seen = Seen::new();
            for (name, value) in headers.0.iter().take(VISIBLE_HEADERS) {
                let name = name.to_ascii_lowercase();
                match seen.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, values)) => values.push(value.clone()),
                    None => seen.push((name, vec![value.clone()])),
                }
            }
            seen
        })
    }

    /// `core.request.header`: the first value among those that are seen.
    pub fn seen_header(&mut self, name: &str) -> Option<Vec<u8>> {
        let found = self
            .seen()
            .iter()
            .find(|(known, _)| known == name.as_bytes());
        found.and_then(|(_, values)| values.first().cloned())
    }

    /// `core.request.set_header`.
    pub fn set_header(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), LuaError> {
        let lower = name.to_ascii_lowercase();
        match (lower.as_slice(), value) {
            (b"host", Some(host)) if !host.is_empty() => {
                let valid = lua_host(host);
                self.head.host = Some(valid.ok_or_else(|| LuaError::new("not a host"))?);
            }
            (b"expect", value) => {
                let waits = value.is_some_and(|value| same(value, b"100-continue"));
                self.body.expect(waits && self.head.minor > 0);
            }
            (b"content-length", value) => {
                let digits = value.filter(|value| !value.is_empty());
                let length =
                    |digits| decimal(digits).ok_or_else(|| LuaError::new("not a content length"));
                self.body.announce(digits.map(length).transpose()?);
            }
            _ => {}
        }
        self.head.headers.set(name, value);
        if let Some(seen) = &mut self.seen {
            let place = seen.iter().position(|(known, _)| *known == lower);
            match (place.and_then(|at| seen.get_mut(at)), value) {
                (Some((_, values)), Some(value)) => *values = vec![value.to_vec()],
                (None, Some(value)) => seen.push((lower, vec![value.to_vec()])),
                (_, None) => seen.retain(|(known, _)| *known != lower),
            }
        }
        Ok(())
    }

    /// `core.request.add_header`.
    pub fn add_header(&mut self, name: &[u8], value: &[u8]) {
        self.head.headers.add(name, value);
        let lower = name.to_ascii_lowercase();
        if let Some(seen) = &mut self.seen {
            match seen.iter_mut().find(|(known, _)| *known == lower) {
                Some((_, values)) => values.push(value.to_vec()),
                None => seen.push((lower, vec![value.to_vec()])),
            }
        }
    }

    /// The target that goes upstream (`ngx_http_proxy_create_request`).
    #[must_use]
    pub fn upstream_target(&self) -> Vec<u8> {
        let target = &self.head.target;
        if !self.upstream_uri.is_empty() {
            let slash: &[u8] = if self.upstream_uri.starts_with(b"?") {
                b"/"
            } else {
                b""
            };
            return [slash, &self.upstream_uri].concat();
        }
        if target.raw_is_valid {
            return target.raw.clone();
        }
        if target.quoted {
            self.with_args(&escape(&target.path, Escape::Path))
        } else {
            self.with_args(&target.path)
        }
    }
}

/// nginx's realip module: a trusted peer's header names the client.
fn real_ip(headers: &Fields, peer: SocketAddr, config: &Config) -> (IpAddr, Option<u16>) {
    let from_peer = (peer.ip(), Some(peer.port()));
    if !config.real_ip_from.contains(&peer.ip()) {
        return from_peer;
    }
    let name = config.real_ip_header.as_str();
    // Of this one nginx reads the copies from the last to the first.
    let value = match name {
        "x-forwarded-for" => headers.all(name).last(),
        _ => headers.get(name),
    };
    let value = value.and_then(last_address);
    let text = value.and_then(|value| std::str::from_utf8(value).ok());
    let Some(text) = text else { return from_peer };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return (ip, None);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) => (address.ip(), Some(address.port())),
        Err(_) => from_peer,
    }
}

/// The last of a list, as `ngx_http_get_forwarded_addr_internal` finds it.
fn last_address(list: &[u8]) -> Option<&[u8]> {
    let between = |byte: &u8| matches!(byte, b' ' | b',');
    let end = list.iter().rposition(|byte| !between(byte))? + 1;
    let start = list.get(..end)?.iter().rposition(between);
    list.get(start.filter(|at| *at > 0).map_or(0, |at| at + 1)..end)
}

/// `ngx_http_lua_validate_host`, which takes more than nginx does of a client.
fn lua_host(host: &[u8]) -> Option<Vec<u8>> {
    let name = host.split(|byte| *byte == b':').next().unwrap_or_default();
    let refused = host.iter().any(|byte| matches!(byte, b'/' | 0));
    let dots = host.windows(2).any(|pair| pair == b"..");
    let name = name.strip_suffix(b".").unwrap_or(name);
    (!refused && !dots && !name.is_empty()).then(|| name.to_ascii_lowercase())
}

/// `map $http_host $var_x_forwarded_port`.
fn port_of(host: &[u8]) -> Option<&[u8]> {
    let colon = host.iter().rposition(|byte| *byte == b':')?;
    let port = host.get(colon + 1..)?;
    (!port.is_empty() && port.iter().all(u8::is_ascii_digit)).then_some(port)
}

/// 32 hexadecimal digits.
fn request_id() -> String {
    use std::hash::{BuildHasher as _, RandomState};
    let draw = || RandomState::new().hash_one(SystemTime::now());
    format!("{:016x}{:016x}", draw(), draw())
}
