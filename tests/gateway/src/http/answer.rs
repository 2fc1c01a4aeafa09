//! What goes back to the client: the header list that Lua and the upstream fill,
//! and how nginx frames and writes it. Sources: lua-nginx's
//! `ngx_http_lua_headers_out.c`, nginx's header, charset, chunked and
//! not-modified filters.

use std::io;

use super::client::Writer;
use super::fields::{Fields, same};
use super::head::decimal;
use super::special::status_line;
use super::uri::{Escape, escape};

/// An error that Lua would throw. APISIX answers it with a 500, whatever
/// `allow_degradation` says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("lua: {0}")]
pub struct LuaError(pub String);

impl LuaError {
    /// An error with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Types to which nginx adds the charset (`charset_types`' default).
const CHARSET_TYPES: [&[u8]; 6] = [
    b"text/html",
    b"text/xml",
    b"text/plain",
    b"text/vnd.wap.wml",
    b"application/javascript",
    b"application/rss+xml",
];

/// Headers nginx keeps one of: another one takes its place even when added.
const SINGLE: [&str; 10] = [
    "server",
    "date",
    "content-encoding",
    "refresh",
    "last-modified",
    "content-range",
    "accept-ranges",
    "expires",
    "e-tag",
    "etag",
];

/// How the body's end is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// There is no body.
    NoBody,
    /// `Content-Length`, right or wrong.
    Length,
    Chunked,
    Close,
}

/// What the head of an answer depends on besides itself.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    /// Whether the method was HEAD.
    pub head_only: bool,
    /// The second digit of `HTTP/1.x`.
    pub minor: u8,
    /// The request's headers, for the conditions among them.
    pub headers: &'r Fields,
    /// The path, for its extension.
    pub path: &'r [u8],
    /// What the gateway says it is.
    pub server: &'static [u8],
}

/// An answer before and after its head is sent.
#[derive(Debug)]
pub struct Answer {
    /// The list of headers, apart from those below.
    pub fields: Fields,
    content_type: Option<Vec<u8>>,
    type_chosen: bool,
    content_length: Option<u64>,
    /// The status; none for 200.
    pub status: Option<u16>,
    /// The reason the upstream gave, status included.
    pub status_line: Option<Vec<u8>>,
    /// Whether the connection goes on after this.
    pub keep_alive: bool,
    ending: Option<Ending>,
}

impl Answer {
    /// An answer of which nothing is known.
    #[must_use]
    pub fn new(keep_alive: bool) -> Self {
        Self {
            fields: Fields::default(),
            content_type: None,
            type_chosen: false,
            content_length: None,
            status: None,
            status_line: None,
            keep_alive,
            ending: None,
        }
    }

    /// Whether the head is out.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.ending.is_some()
    }

    /// `ngx.header[name] = value`.
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), LuaError> {
        self.put(name, value, true)
    }

    /// `core.response.add_header(name, value)`. What FlatBuffers hands over for no
    /// value is no argument at all, and with one argument less APISIX deletes.
    pub fn add(&mut self, name: &[u8], value: Option<&[u8]>) -> Result<(), LuaError> {
        self.put(name, value, value.is_none())
    }

    fn put(&mut self, name: &[u8], value: Option<&[u8]>, over: bool) -> Result<(), LuaError> {
        // lua_transform_underscores_in_response_headers
        let name: Vec<u8> = name
            .iter()
            .map(|byte| if *byte == b'_' { b'-' } else { *byte })
            .collect();
        let name = escape(&name, Escape::HeaderName);
        if name.is_empty() {
            // Its hash is 0, nginx's sign for a header that is not to be sent.
            return Ok(());
        }
        let value = escape(value.unwrap_or_default(), Escape::HeaderValue);
        if same(&name, b"content-type") {
            self.type_chosen = true;
            self.content_type = Some(value).filter(|value| !value.is_empty());
            self.fields.set(b"content-type", None);
            return Ok(());
        }
        if same(&name, b"content-length") {
            self.content_length =
                match value.as_slice() {
                    [] => None,
                    digits => Some(decimal(digits).ok_or_else(|| {
                        LuaError::new("failed to set header: not a content length")
                    })?),
                };
            self.fields.0.retain(|(known, _)| !same(known, &name));
            if self.content_length.is_some() {
                self.fields.0.push((name, value));
            }
            return Ok(());
        }
        let single = SINGLE.iter().any(|single| same(&name, single.as_bytes()));
        if over || single {
            self.replace(name, value);
        } else if same(&name, b"location") {
            self.add_location(name, value);
        } else if !value.is_empty() {
            self.fields.0.push((name, value));
        }
        Ok(())
    }

    /// nginx loses sight of a `Location` that is only a path, so another one comes
    /// beside it; any other is replaced.
    fn add_location(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let known = self
            .fields
            .0
            .iter()
            .rposition(|(known, value)| same(known, &name) && !value.starts_with(b"/"));
        match known.and_then(|known| self.fields.0.get_mut(known)) {
            Some(known) if !value.is_empty() => *known = (name, value),
            Some(_) => self.fields.0.retain(|(known, _)| !same(known, &name)),
            None if !value.is_empty() => self.fields.0.push((name, value)),
            None => {}
        }
    }

    /// One copy, in the place of the first.
    fn replace(&mut self, name: Vec<u8>, value: Vec<u8>) {
        let first = self
            .fields
            .0
            .iter()
            .position(|(known, _)| same(known, &name));
        let Some(first) = first.filter(|_| !value.is_empty()) else {
            self.fields.0.retain(|(known, _)| !same(known, &name));
            if !value.is_empty() {
                self.fields.0.push((name, value));
            }
            return;
        };
        let mut index = 0;
        self.fields.0.retain(|(known, _)| {
            index += 1;
            index == first + 1 || !same(known, &name)
        });
        if let Some(kept) = self.fields.0.get_mut(first) {
            *kept = (name, value);
        }
    }

    /// Takes over what the upstream sent, after whatever Lua has set.
    pub fn upstream_field(&mut self, name: &[u8], value: &[u8]) {
        if same(name, b"content-type") {
            self.type_chosen = true;
            self.content_type = Some(value.to_vec());
        } else {
            self.fields.0.push((name.to_vec(), value.to_vec()));
        }
    }

    /// The body's length, as the upstream or nginx itself knows it.
    pub fn length(&mut self, length: Option<u64>) {
        self.fields
            .0
            .retain(|(known, _)| !same(known, b"content-length"));
        self.content_length = length;
        if let Some(length) = length {
            let digits = length.to_string().into_bytes();
            self.fields.0.push((b"Content-Length".to_vec(), digits));
        }
    }

    /// The type of a page of nginx's own.
    pub fn own_type(&mut self, content_type: Option<&[u8]>) {
        self.type_chosen = true;
        self.content_type = content_type.map(<[u8]>::to_vec);
    }

    /// Forgets what a page of nginx's own must not carry.
    pub fn clear_validators(&mut self) {
        for name in ["accept-ranges", "last-modified", "etag"] {
            self.fields
                .0
                .retain(|(known, _)| !same(known, name.as_bytes()));
        }
    }

    /// nginx's not-modified filter, which goes over every 200 that is not
    /// proxied: `412` or `304` where the request's conditions ask for it.
    #[must_use]
    pub fn condition(&self, request: &Fields) -> Option<u16> {
        if self.status.unwrap_or(200) != 200 {
            return None;
        }
        let etag = self.fields.get("etag");
        let modified = self.fields.get("last-modified");
        if let Some(since) = request.get("if-unmodified-since")
            && modified != Some(since)
        {
            return Some(412);
        }
        if let Some(list) = request.get("if-match")
            && !matches_any(list, etag, false)
        {
            return Some(412);
        }
        let since = request.get("if-modified-since");
        let none = request.get("if-none-match");
        if since.is_none() && none.is_none()
            || since.is_some_and(|since| modified != Some(since))
            || none.is_some_and(|list| !matches_any(list, etag, true))
        {
            return None;
        }
        Some(304)
    }

    /// Writes the head. `streams` says whether a body of unknown length may come.
    pub async fn send_head(&mut self, writer: &mut Writer, asked: Asked<'_>) -> io::Result<()> {
        let status = self.status.unwrap_or(200);
        let mut out = Vec::with_capacity(512);
        out.extend_from_slice(b"HTTP/1.1 ");
        match self.status_line.take() {
            Some(line) => out.extend(line),
            None => out.extend(status_line(status).into_bytes()),
        }
        out.extend_from_slice(b"\r\n");
        let bodiless = asked.head_only || status == 204 || status == 304 || status < 200;
        if status == 204 {
            self.length(None);
        } else {
            self.write_type(&mut out, status, asked.path);
        }
        let ending = if bodiless {
            Ending::NoBody
        } else if self.content_length.is_some() {
            Ending::Length
        } else if asked.minor > 0 {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Ending::Chunked
        } else {
            self.keep_alive = false;
            Ending::Close
        };
        if status != 101 {
            let connection: &[u8] = if self.keep_alive {
                b"keep-alive"
            } else {
                b"close"
            };
            push_field(&mut out, b"Connection", connection);
        }
        if self.fields.get("date").is_none() {
            let now = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT");
            push_field(&mut out, b"Date", now.to_string().as_bytes());
        }
        for (name, value) in &self.fields.0 {
            push_field(&mut out, name, value);
        }
        push_field(&mut out, b"Server", asked.server);
        out.extend_from_slice(b"\r\n");
        self.ending = Some(ending);
        writer.send(&out).await
    }

    fn write_type(&self, out: &mut Vec<u8>, status: u16, path: &[u8]) {
        let content_type = match &self.content_type {
            Some(chosen) => chosen.as_slice(),
            None if self.type_chosen || status == 304 => return,
            None => super::special::default_type(path),
        };
        let mut value = content_type.to_vec();
        let charset = CHARSET_TYPES.iter().any(|kind| same(kind, content_type));
        if charset && !matches!(status, 301 | 302) {
            value.extend_from_slice(b"; charset=utf-8");
        }
        push_field(out, b"Content-Type", &value);
    }

    /// Writes a piece of the body.
    pub async fn send_body(&mut self, writer: &mut Writer, piece: &[u8]) -> io::Result<()> {
        match self.ending {
            None | Some(Ending::NoBody) => Ok(()),
            _ if piece.is_empty() => Ok(()),
            Some(Ending::Chunked) => {
                let mut out = format!("{:x}\r\n", piece.len()).into_bytes();
                out.extend_from_slice(piece);
                out.extend_from_slice(b"\r\n");
                writer.send(&out).await
            }
            Some(Ending::Length | Ending::Close) => writer.send(piece).await,
        }
    }

    /// Ends the body.
    pub async fn send_end(&mut self, writer: &mut Writer) -> io::Result<()> {
        match self.ending {
            Some(Ending::Chunked) => writer.send(b"0\r\n\r\n").await,
            _ => Ok(()),
        }
    }
}

fn push_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether one of the tags in a list is the answer's.
fn matches_any(list: &[u8], etag: Option<&[u8]>, weak: bool) -> bool {
    if list == b"*" {
        return true;
    }
    let bare = |tag: &[u8]| match tag.strip_prefix(b"W/") {
        Some(strong) if weak => strong.to_vec(),
        _ => tag.to_vec(),
    };
    etag.is_some_and(|etag| {
        list.split(|byte| *byte == b',')
            .any(|tag| bare(tag.trim_ascii()) == bare(etag))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn names(answer: &Answer) -> Vec<String> {
        let line = |(name, value): &(Vec<u8>, Vec<u8>)| {
            let (name, value) = (
                String::from_utf8_lossy(name),
                String::from_utf8_lossy(value),
            );
            format!("{name}: {value}")
        };
        answer.fields.0.iter().map(line).collect()
    }

    #[test]
    fn headers_are_set_as_lua_sets_them() {
        let mut answer = Answer::new(true);
        answer.set(b"x_under_score", Some(b"u")).unwrap();
        answer.set(b"set-cookie", Some(b"a=1")).unwrap();
        answer.add(b"set-cookie", Some(b"b=2")).unwrap();
        answer.set(b"location", Some(b"/1")).unwrap();
        answer.set(b"etag", Some(b"\"1\"")).unwrap();
        answer.add(b"etag", Some(b"\"2\"")).unwrap();
        answer.add(b"location", Some(b"http://h/2")).unwrap();
        answer.add(b"location", Some(b"http://h/3")).unwrap();
        answer.set(b"x-null", None).unwrap();
        answer.set(b"x-inj", Some(b"a\r\nb")).unwrap();
        answer.set(b"", Some(b"nameless")).unwrap();
        answer.set(b"x-null-again", Some(b"1")).unwrap();
        answer.add(b"x-null-again", None).unwrap();
        assert!(answer.set(b"content-length", Some(b"many")).is_err());
        assert_eq!(
            names(&answer),
            [
                "x-under-score: u",
                "set-cookie: a=1",
                "set-cookie: b=2",
                "location: /1",
                "etag: \"2\"",
                "location: http://h/3",
                "x-inj: a%0D%0Ab"
            ]
        );
    }

    #[test]
    fn conditions_hit_answers_of_the_gateways_own() {
        let mut request = Fields::default();
        request.add(b"If-Match", b"\"old\"");
        let mut answer = Answer::new(true);
        assert_eq!(answer.condition(&request), Some(412));
        answer.set(b"etag", Some(b"\"old\"")).unwrap();
        assert_eq!(answer.condition(&request), None);
        answer.status = Some(201);
        answer.set(b"etag", Some(b"\"new\"")).unwrap();
        assert_eq!(answer.condition(&request), None);
    }
}
