//! Closed-loop load: every connection has one call in flight, the next one follows
//! its answer, as a gateway's worker does under many clients.
//!
//! One thread over epoll, and as little work a call as can be: the generator must
//! not be what is measured. It never sleeps, either: a sleeping one would have to be
//! woken by every answer, and that costs the runner more than a whole call does.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use postern_wire::Side;
use postern_wire::frame::{self, FrameType, HEADER_LEN, Header};
use postern_wire::message::{Action, Message};
use rustix::event::epoll;

/// One answer of so many is read whole; of the others the length and the type.
const SAMPLE: u64 = 64;
/// Longer answers do not occur here.
const MAX_ANSWER: usize = 16 * 1024;
const NO_WAIT: rustix::event::Timespec = rustix::event::Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// No answer for so long is a failure of the runner, not a slow one.
const PATIENCE: Duration = Duration::from_secs(5);

/// What every answer has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// The request goes on unchanged.
    NoAction,
    /// The request goes on, changed.
    Rewrite,
    /// The request goes on.
    Pass,
}

impl Expect {
    /// Whether this is such an answer.
    pub(crate) fn check(self, answer: &Message) -> Result<()> {
        match (self, answer) {
            (Self::NoAction | Self::Pass, Message::HttpReqCallResp { action: None, .. })
            | (
                Self::Rewrite | Self::Pass,
                Message::HttpReqCallResp {
                    action: Some(Action::Rewrite(_)),
                    ..
                },
            ) => Ok(()),
            (
                _,
                Message::HttpReqCallResp {
                    action: Some(Action::Stop(stop)),
                    ..
                },
            ) => {
                let body = String::from_utf8_lossy(stop.body.as_deref().unwrap_or_default());
                bail!("a call was refused: {} {body}", stop.status)
            }
            _ => bail!("not {self:?}, but {answer:?}"),
        }
    }
}

/// What a stretch of load gave.
pub(crate) struct Outcome {
    pub(crate) calls: u64,
    pub(crate) elapsed: Duration,
    /// Nanoseconds from a call's last byte written to its answer's last byte read.
    pub(crate) latency: Histogram<u64>,
}

struct Connection {
    stream: UnixStream,
    sent: Instant,
    answer: Vec<u8>,
}

/// Connections, and the calls they make in turns.
pub(crate) struct Load<'c> {
    connections: Vec<Connection>,
    poll: rustix::fd::OwnedFd,
    calls: std::iter::Cycle<std::slice::Iter<'c, Vec<u8>>>,
    expect: Expect,
    answers: u64,
}

impl<'c> Load<'c> {
    /// Opens the connections.
    pub(crate) fn open(
        socket: &Path,
        count: usize,
        calls: &'c [Vec<u8>],
        expect: Expect,
    ) -> Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            let stream =
                UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(index as u64);
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
            connections.push(Connection {
                stream,
                sent: Instant::now(),
                answer: Vec::new(),
            });
        }
        Ok(Self {
            connections,
            poll,
            calls: calls.iter().cycle(),
            expect,
            answers: 0,
        })
    }

    /// Calls for so long, and waits for the answers to what is then in flight.
    pub(crate) fn run(&mut self, length: Duration) -> Result<Outcome> {
        let mut latency = Histogram::new_with_bounds(1, 60_000_000_000, 3)?;
        let start = Instant::now();
        let end = start + length;
        for connection in &mut self.connections {
            connection.call(self.calls.next().context("no call")?)?;
        }
        let mut in_flight = self.connections.len();
        let mut calls = 0;
        let mut last_answer = start;
        let mut events = Vec::with_capacity(self.connections.len());
        while in_flight > 0 {
            events.clear();
            epoll::wait(
                &self.poll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&NO_WAIT),
            )?;
            if events.is_empty() {
                ensure!(
                    last_answer.elapsed() < PATIENCE,
                    "no answer to {in_flight} calls for {PATIENCE:?}"
                );
                continue;
            }
            last_answer = Instant::now();
            for event in &events {
                let connection = usize::try_from(event.data.u64())
                    .ok()
                    .and_then(|index| self.connections.get_mut(index))
                    .context("an event of no connection")?;
                if !connection.read()? {
                    continue;
                }
                let now = Instant::now();
                let took = now.duration_since(connection.sent).as_nanos();
                latency.saturating_record(u64::try_from(took).unwrap_or(u64::MAX));
                if self.answers.is_multiple_of(SAMPLE) {
                    let (frame_type, body) = frame::split(&connection.answer)?;
                    self.expect
                        .check(&Message::decode(Side::Runner, frame_type, body)?)?;
                }
                self.answers += 1;
                calls += 1;
                if now < end {
                    connection.call(self.calls.next().context("no call")?)?;
                } else {
                    in_flight -= 1;
                }
            }
        }
        Ok(Outcome {
            calls,
            elapsed: start.elapsed(),
            latency,
        })
    }
}

impl Connection {
    fn call(&mut self, call: &[u8]) -> Result<()> {
        self.answer.clear();
        // One call is shorter than a socket's buffer, and that is empty now.
        let written = self
            .stream
            .write(call)
            .context("the runner closed a connection")?;
        ensure!(
            written == call.len(),
            "the socket took {written} bytes of {}",
            call.len()
        );
        self.sent = Instant::now();
        Ok(())
    }

    /// Whether the answer is whole now.
    fn read(&mut self) -> Result<bool> {
        let mut buffer = [0; MAX_ANSWER];
        let got = match self.stream.read(&mut buffer) {
            Ok(0) => bail!("the runner closed a connection"),
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        self.answer.extend(buffer.iter().take(got));
        let Some(header) = self.answer.first_chunk() else {
            return Ok(false);
        };
        let header = Header::parse(*header)?;
        ensure!(
            header.frame_type == FrameType::HttpReqCall,
            "answered by a frame of type {}",
            header.frame_type
        );
        Ok(self.answer.len() >= HEADER_LEN + header.len)
    }
}
