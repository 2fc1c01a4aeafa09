//! Who the gateway speaks with: a client that sends recorded bytes, a runner and
//! an upstream that answer them.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_wire::message::Message;

use crate::message::HttpMessage;
use crate::recording::{Exchange, Frame, PREPARE_CONF, UpstreamAnswer};

/// Longer than any wait of the gateway's at its scale.
const PATIENCE: Duration = Duration::from_secs(20);

/// The client.
pub(crate) struct Client;

impl Client {
    /// Everything that comes back until the gateway closes, or, where the request
    /// does not ask for that, until the answer is whole.
    pub(crate) fn send(to: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let asked = HttpMessage::parse(request);
        let head = request.starts_with(b"HEAD ");
        let closes = asked.is_none_or(|asked| asked.get(b"connection") == Some(b"close"));
        let mut got = Vec::new();
        let mut piece = [0; 65536];
        loop {
            if !closes
                && let Some(answer) = HttpMessage::parse(&got)
                && (head || answer.body().is_some())
            {
                return Ok(got);
            }
            match stream.read(&mut piece) {
                Ok(0) => return Ok(got),
                Ok(len) => got.extend_from_slice(&piece[..len]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(got),
                Err(error) => return Err(error).context("the gateway's answer does not end"),
            }
        }
    }
}

/// The runner: it says what the recorded one said, call by call.
pub(crate) struct Runner(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    /// What to answer to each frame of the gateway's but prepare-conf.
    answers: VecDeque<Vec<Frame>>,
    /// What to answer to prepare-conf, before tokens are made up.
    tokens: VecDeque<Vec<u8>>,
    next_token: u32,
    seen: Vec<Frame>,
    prepared: Vec<Frame>,
}

impl Runner {
    pub(crate) fn listen(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let script = Arc::new(Mutex::new(Script {
            next_token: 1000,
            ..Script::default()
        }));
        let shared = Arc::clone(&script);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let script = Arc::clone(&shared);
                thread::spawn(move || serve_runner(stream, &script));
            }
        });
        Ok(Self(script))
    }

    /// Learns its part in an exchange.
    pub(crate) fn expect(&self, exchange: &Exchange) {
        let mut script = self.0.lock().unwrap();
        script.answers.clear();
        script.tokens.clear();
        script.seen.clear();
        script.prepared.clear();
        for frame in &exchange.frames {
            match (frame.from_gateway, frame.kind()) {
                (true, PREPARE_CONF) => {}
                (false, PREPARE_CONF) => script.tokens.push_back(frame.bytes.clone()),
                (true, _) => script.answers.push_back(Vec::new()),
                (false, _) => {
                    if let Some(last) = script.answers.back_mut() {
                        last.push(frame.clone());
                    }
                }
            }
        }
    }

    /// What the gateway sent since, but for prepare-conf.
    pub(crate) fn seen(&self) -> Vec<Frame> {
        self.0.lock().unwrap().seen.clone()
    }

    /// The prepare-conf calls since.
    pub(crate) fn prepared(&self) -> Vec<Frame> {
        self.0.lock().unwrap().prepared.clone()
    }
}

/// One connection. It ends where the recorded runner ended it: without an answer,
/// or within one.
fn serve_runner(mut stream: UnixStream, script: &Mutex<Script>) {
    while let Some(frame) = read_frame(&mut stream) {
        let (answer, closes) = script.lock().unwrap().answer(frame);
        if stream.write_all(&answer).is_err() || closes {
            return;
        }
    }
}

impl Script {
    fn answer(&mut self, frame: Frame) -> (Vec<u8>, bool) {
        if frame.kind() == PREPARE_CONF {
            self.prepared.push(frame);
            self.next_token += 1;
            let conf_token = self.next_token;
            let made_up = || Message::PrepareConfResp { conf_token }.encode().unwrap();
            return (self.tokens.pop_front().unwrap_or_else(made_up), false);
        }
        self.seen.push(frame);
        let answers = self.answers.pop_front().unwrap_or_default();
        let closes = answers.last().is_none_or(|last| !last.is_whole());
        (
            answers.into_iter().flat_map(|frame| frame.bytes).collect(),
            closes,
        )
    }
}

fn read_frame(stream: &mut UnixStream) -> Option<Frame> {
    let mut bytes = vec![0; 4];
    stream.read_exact(&mut bytes).ok()?;
    let len = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]);
    stream.take(len.into()).read_to_end(&mut bytes).ok()?;
    Some(Frame {
        from_gateway: true,
        bytes,
    })
}

/// The upstream: it keeps what it gets and answers everything alike.
pub(crate) struct Upstream {
    pub(crate) port: u16,
    seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Upstream {
    pub(crate) fn listen(answer: &UpstreamAnswer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (answer, kept) = (answer.clone(), Arc::clone(&seen));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, kept) = (answer.clone(), Arc::clone(&kept));
                thread::spawn(move || serve_upstream(stream, &answer, &kept));
            }
        });
        Ok(Self { port, seen })
    }

    pub(crate) fn forget(&self) {
        self.seen.lock().unwrap().clear();
    }

    pub(crate) fn seen(&self) -> Vec<Vec<u8>> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve_upstream(mut stream: TcpStream, answer: &UpstreamAnswer, kept: &Mutex<Vec<Vec<u8>>>) {
    let mut got = Vec::new();
    let mut piece = [0; 65536];
    loop {
        // A body that its head does not describe is told by its silence.
        if HttpMessage::parse(&got).is_some_and(|request| request.body().is_some()) {
            break;
        }
        let wait = Duration::from_millis(if got.is_empty() { 20_000 } else { 1_000 });
        let _kept_as_it_is = stream.set_read_timeout(Some(wait));
        match stream.read(&mut piece) {
            Ok(len) if len > 0 => got.extend_from_slice(&piece[..len]),
            _ => break,
        }
    }
    if got.is_empty() {
        return;
    }
    let to_head = got.starts_with(b"HEAD ");
    kept.lock().unwrap().push(got);
    let _gateway_left = stream.write_all(&answer.head);
    if !to_head {
        let _gateway_left = stream.write_all(&answer.body);
    }
}
