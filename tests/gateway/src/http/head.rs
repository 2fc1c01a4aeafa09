//! A request's head, read as nginx reads it. Sources: nginx's
//! `ngx_http_parse_request_line`, `ngx_http_parse_header_line`,
//! `ngx_http_process_request_header` and `ngx_http_headers_in`.

use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::client::Reader;
use super::fields::{Fields, same};
use super::uri::Target;

/// `client_header_buffer_size`: the first buffer a head is read into.
const FIRST_BUFFER: usize = 1024;
/// `large_client_header_buffers 4 8k`: the longest line, and how many such.
const LARGE_BUFFER: usize = 8 * 1024;
const LARGE_BUFFERS: usize = 4;

/// Headers that nginx takes once only; a second copy is a 400.
const ONCE: [&str; 12] = [
    "host",
    "if-modified-since",
    "if-unmodified-since",
    "if-match",
    "if-none-match",
    "content-length",
    "content-range",
    "if-range",
    "transfer-encoding",
    "expect",
    "authorization",
    "proxy-authorization",
];

/// How a request's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// `Content-Length`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request's line and headers.
#[derive(Debug, Clone)]
pub struct Head {
    /// The request line (`$request`).
    pub line: Vec<u8>,
    /// The method, known to the protocol or not.
    pub method: Vec<u8>,
    /// The target, normalised.
    pub target: Target,
    /// The second digit of `HTTP/1.x`.
    pub minor: u8,
    /// The headers.
    pub headers: Fields,
    /// Bytes of line and headers (`$request_length`).
    pub len: usize,
    /// How the body comes.
    pub framing: Framing,
    /// The host without port, lower-case (`$host`), if the client named one.
    pub host: Option<Vec<u8>>,
    /// Whether the client wants the connection to go on.
    pub keep_alive: bool,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Refused {
    /// The client closed or kept silent: nothing is answered.
    Silent,
    /// nginx answers this status itself, with what it has read so far.
    Status(u16, Box<Head>),
}

impl Head {
    fn empty() -> Self {
        Self {
            line: Vec::new(),
            method: b"GET".to_vec(),
            target: Target::default(),
            minor: 1,
            headers: Fields::default(),
            len: 0,
            framing: Framing::None,
            host: None,
            keep_alive: false,
        }
    }

    /// Reads the next request of a connection. `idle` bounds the wait for its
    /// first byte, `wait` the time from there to the end of the head.
    pub async fn read(
        reader: &mut Reader,
        idle: Duration,
        wait: Duration,
        underscores: bool,
    ) -> Result<Self, Refused> {
        let silent = |_: io::Error| Refused::Silent;
        while reader.held.is_empty() {
            reader.fill(idle).await.map_err(silent)?;
        }
        let until = Instant::now() + wait;
        let mut lines = Lines {
            reader,
            until,
            buffers_left: LARGE_BUFFERS,
            room: FIRST_BUFFER,
        };
        let mut head = Self::empty();
        match head.read_lines(&mut lines, underscores).await {
            Ok(()) => match head.judge() {
                Ok(()) => Ok(head),
                Err(status) => Err(Refused::Status(status, Box::new(head))),
            },
            Err(Stop::Silent) => Err(Refused::Silent),
            Err(Stop::Status(status)) => Err(Refused::Status(status, Box::new(head))),
        }
    }

    async fn read_lines(&mut self, lines: &mut Lines<'_>, underscores: bool) -> Result<(), Stop> {
        // Empty lines before a request are skipped.
        let line = loop {
            let line = lines.next(414).await?;
            self.len += line.len();
            let line = trim_end(&line).to_vec();
            if !line.is_empty() {
                break line;
            }
        };
        self.line = line;
        self.request_line()?;
        loop {
            let line = lines.next(494).await?;
            self.len += line.len();
            match trim_end(&line) {
                [] => return Ok(()),
                line => self.header_line(line, underscores)?,
            }
        }
    }

    fn request_line(&mut self) -> Result<(), Stop> {
        let bad = || Stop::Status(400);
        let mut words = self
            .line
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let method = words.next().ok_or_else(bad)?;
        let method_byte = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'_' | b'-');
        if !method.iter().all(method_byte) {
            return Err(bad());
        }
        let target = words.next().ok_or_else(bad)?;
        // HTTP/0.9, a line without a version, is not imitated.
        let version = words.next().ok_or_else(bad)?;
        if words.next().is_some() {
            return Err(bad());
        }
        let digits = version.strip_prefix(b"HTTP/").ok_or_else(bad)?;
        self.minor = match digits {
            [b'1', b'.', minor @ b'0'..=b'9'] => minor - b'0',
            [b'2'..=b'9', ..] => return Err(Stop::Status(505)),
            _ => return Err(bad()),
        };
        self.method = method.to_vec();
        if method == b"CONNECT" {
            return Err(Stop::Status(405));
        }
        self.target = Target::parse(target).map_err(|_| bad())?;
        self.host = self.target.host.as_deref().map(<[u8]>::to_ascii_lowercase);
        Ok(())
    }

    fn header_line(&mut self, line: &[u8], underscores: bool) -> Result<(), Stop> {
        let colon = line
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        if name.is_empty() || name.iter().any(|byte| *byte <= 0x20 || *byte == 0x7f) {
            return Err(Stop::Status(400));
        }
        let known = |byte: &u8| {
            byte.is_ascii_alphanumeric() || *byte == b'-' || (underscores && *byte == b'_')
        };
        if !name.iter().all(known) {
            return Ok(()); // ignore_invalid_headers
        }
        let value = value.strip_prefix(b":").unwrap_or_default();
        let value = value.strip_prefix_spaces();
        if value.contains(&0) {
            return Err(Stop::Status(400));
        }
        let text = String::from_utf8_lossy(name).to_ascii_lowercase();
        if ONCE.contains(&text.as_str()) && self.headers.get(&text).is_some() {
            return Err(Stop::Status(400));
        }
        self.headers.0.push((name.to_vec(), value.to_vec()));
        if text == "host" {
            let host = valid_host(value).ok_or(Stop::Status(400))?;
            self.host.get_or_insert(host);
        }
        Ok(())
    }

    /// What nginx checks once all headers are there.
    fn judge(&mut self) -> Result<(), u16> {
        let connection = self.headers.joined("connection", b",").unwrap_or_default();
        let connection = connection.to_ascii_lowercase();
        let says = |word: &[u8]| connection.windows(word.len()).any(|part| part == word);
        self.keep_alive = if self.minor == 0 {
            says(b"keep-alive") && !says(b"close")
        } else {
            !says(b"close")
        };
        if self.minor > 0 && self.headers.get("host").is_none() {
            return Err(400);
        }
        let length = match self.headers.get("content-length") {
            None => None,
            Some(digits) => Some(decimal(digits).ok_or(400_u16)?),
        };
        match self.headers.get("transfer-encoding") {
            None => {}
            Some(_) if self.minor == 0 => return Err(400),
            Some(coding) if same(coding, b"chunked") => {
                if length.is_some() {
                    return Err(400);
                }
                self.framing = Framing::Chunked;
            }
            Some(_) => return Err(501),
        }
        if let Some(length) = length {
            self.framing = Framing::Length(length);
        }
        if self.method == b"TRACE" {
            Err(405)
        } else {
            Ok(())
        }
    }
}

enum Stop {
    Silent,
    Status(u16),
}

/// Lines out of a connection, each within nginx's buffers.
struct Lines<'r> {
    reader: &'r mut Reader,
    until: Instant,
    buffers_left: usize,
    room: usize,
}

impl Lines<'_> {
    /// The next line with its end. A line that no buffer holds is `too_long`.
    async fn next(&mut self, too_long: u16) -> Result<Vec<u8>, Stop> {
        let mut seen = 0;
        loop {
            let rest = self.reader.held.get(seen..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                let len = seen + at + 1;
                self.account(len, too_long)?;
                return Ok(self.reader.held.split_to(len).to_vec());
            }
            seen = self.reader.held.len();
            if seen >= LARGE_BUFFER {
                return Err(Stop::Status(too_long));
            }
            let left = self.until.saturating_duration_since(Instant::now());
            self.reader.fill(left).await.map_err(|_| Stop::Silent)?;
        }
    }

    fn account(&mut self, len: usize, too_long: u16) -> Result<(), Stop> {
        if len <= self.room {
            self.room -= len;
        } else if len > LARGE_BUFFER || self.buffers_left == 0 {
            return Err(Stop::Status(too_long));
        } else {
            self.buffers_left -= 1;
            self.room = LARGE_BUFFER - len;
        }
        Ok(())
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

trait Spaces {
    fn strip_prefix_spaces(&self) -> &[u8];
}

impl Spaces for [u8] {
    /// nginx drops spaces around a value, and nothing else.
    fn strip_prefix_spaces(&self) -> &[u8] {
        let start = self
            .iter()
            .position(|byte| *byte != b' ')
            .unwrap_or(self.len());
        let end = self
            .iter()
            .rposition(|byte| *byte != b' ')
            .map_or(start, |at| at + 1);
        self.get(start..end).unwrap_or_default()
    }
}

/// A `Host` value without its port, lower-case; none where nginx refuses it.
fn valid_host(value: &[u8]) -> Option<Vec<u8>> {
    let name_end = match value.first()? {
        b'[' => value.iter().position(|byte| *byte == b']')? + 1,
        _ => value
            .iter()
            .position(|byte| *byte == b':')
            .unwrap_or(value.len()),
    };
    let (name, port) = value.split_at(name_end);
    let port = port.strip_prefix(b":").unwrap_or(port);
    let name_byte =
        |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%[]:".contains(byte);
    let dots = name.windows(2).any(|pair| pair == b"..");
    let name = name.strip_suffix(b".").unwrap_or(name);
    let valid = !name.is_empty() && !dots && name.iter().all(name_byte);
    (valid && port.iter().all(u8::is_ascii_digit) && port.len() <= 5)
        .then(|| name.to_ascii_lowercase())
}

/// A number in decimal digits and nothing else.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits
        .parse()
        .ok()
        .filter(|number| *number <= i64::MAX as u64)
}
