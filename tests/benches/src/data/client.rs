//! A closed loop over HTTP/1.1: every connection has one request in flight, the next one
//! follows its answer.
//!
//! It shares a core with the handlers, so it does as little as it can, and sleeps while
//! nothing has come.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use rustix::event::epoll;

/// No answer for so long is a failure, not a slow one.
const PATIENCE: rustix::event::Timespec = rustix::event::Timespec {
    tv_sec: 10,
    tv_nsec: 0,
};
const MAX_HEADERS: usize = 64;

/// A request as it goes out.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) bytes: Vec<u8>,
    /// Where its idempotency key stands, which is another one each time.
    pub(crate) key: Option<usize>,
}

/// How long the key is.
pub(crate) const KEY: &str = "0000000000000000";

/// What a stretch of load gave.
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from a request's last byte written to its answer's last byte read.
    pub(crate) latency: Histogram<u64>,
    /// Bytes of bodies.
    pub(crate) bytes: usize,
}

#[derive(Clone, Copy)]
enum Length {
    Bytes(usize),
    Chunked,
}

struct Connection {
    stream: TcpStream,
    sent: Instant,
    answer: Vec<u8>,
    /// Where the body begins, and what it is to be.
    body: Option<(usize, Length)>,
}

/// Connections, and the requests they make in turns.
pub(crate) struct Load {
    connections: Vec<Connection>,
    poll: rustix::fd::OwnedFd,
    requests: Vec<Request>,
    next: usize,
    status: u16,
    room: Vec<u8>,
}

impl Load {
    /// Opens the connections; every answer has to have this status.
    pub(crate) fn open(
        address: SocketAddr,
        count: usize,
        requests: Vec<Request>,
        status: u16,
    ) -> Result<Self> {
        ensure!(!requests.is_empty(), "no request");
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream = TcpStream::connect(address).with_context(|| address.to_string())?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                sent: Instant::now(),
                answer: Vec::new(),
                body: None,
            });
        }
        Ok(Self {
            connections,
            poll,
            requests,
            next: 0,
            status,
            room: vec![0; 64 << 10],
        })
    }

    /// Asks for so long, and waits for the answers to what is then in flight.
    pub(crate) fn run(&mut self, length: Duration) -> Result<Outcome> {
        let start = Instant::now();
        let end = start + length;
        let mut outcome = Outcome {
            calls: 0,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
            bytes: 0,
        };
        let mut in_flight = self.connections.len();
        for place in 0..in_flight {
            self.ask(place)?;
        }
        let mut events = Vec::with_capacity(in_flight);
        while in_flight > 0 {
            events.clear();
            epoll::wait(
                &self.poll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&PATIENCE),
            )?;
            ensure!(!events.is_empty(), "no answer to {in_flight} requests");
            for event in &events {
                let place = usize::try_from(event.data.u64())?;
                let connection = self.connections.get_mut(place).context("a connection")?;
                let Some(bytes) = connection.read(&mut self.room, self.status)? else {
                    continue;
                };
                let now = Instant::now();
                let took = now.duration_since(connection.sent).as_nanos();
                outcome
                    .latency
                    .saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
                outcome.bytes += bytes;
                outcome.calls += 1;
                if now < end {
                    self.ask(place)?;
                } else {
                    in_flight -= 1;
                }
            }
        }
        outcome.elapsed = start.elapsed();
        Ok(outcome)
    }

    fn ask(&mut self, place: usize) -> Result<()> {
        let turn = self.next;
        self.next += 1;
        let count = self.requests.len();
        let request = self.requests.get_mut(turn % count).context("a request")?;
        if let Some(at) = request.key {
            let key = format!("{:016x}", unused());
            if let Some(room) = request.bytes.get_mut(at..at + KEY.len()) {
                room.copy_from_slice(key.as_bytes());
            }
        }
        let connection = self.connections.get_mut(place).context("a connection")?;
        connection.answer.clear();
        connection.body = None;
        // Shorter than a socket's buffer, which is empty now.
        let written = connection
            .stream
            .write(&request.bytes)
            .context("the connection was closed")?;
        ensure!(written == request.bytes.len(), "a request was cut short");
        connection.sent = Instant::now();
        Ok(())
    }
}

/// A number that no request of this process had before.
fn unused() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

impl Connection {
    /// The length of the body, once it is whole.
    fn read(&mut self, room: &mut [u8], status: u16) -> Result<Option<usize>> {
        let got = match self.stream.read(room) {
            Ok(0) => bail!("the connection was closed"),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.answer.extend(room.iter().take(got));
        let body = match self.body {
            Some(body) => body,
            None => match self.head(status)? {
                Some(body) => *self.body.insert(body),
                None => return Ok(None),
            },
        };
        let come = self.answer.get(body.0..).unwrap_or_default();
        let whole = match body.1 {
            Length::Bytes(length) => come.len() >= length,
            // JSON holds no bare line break, so nothing within a chunk reads like this.
            Length::Chunked => come.ends_with(b"\r\n0\r\n\r\n"),
        };
        Ok(whole.then_some(come.len()))
    }

    fn head(&self, status: u16) -> Result<Option<(usize, Length)>> {
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(begins) = head.parse(&self.answer)? else {
            return Ok(None);
        };
        ensure!(
            head.code == Some(status),
            "not {status}: {}",
            String::from_utf8_lossy(&self.answer)
        );
        let header = |name: &str| {
            let found = head
                .headers
                .iter()
                .find(|h| h.name.eq_ignore_ascii_case(name));
            found.and_then(|header| str::from_utf8(header.value).ok())
        };
        let length = match header("content-length") {
            Some(length) => Length::Bytes(length.parse()?),
            None => {
                ensure!(
                    header("transfer-encoding") == Some("chunked"),
                    "an answer of unknown length"
                );
                Length::Chunked
            }
        };
        Ok(Some((begins, length)))
    }
}
