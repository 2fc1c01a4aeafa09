//! Who the gateway speaks with: a client that sends recorded bytes, a runner and
//! an upstream that answer them.

use std::collections::{BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use postern_wire::ErrorCode;
use postern_wire::message::Message;

use crate::message::HttpMessage;
use crate::recording::{Exchange, Frame, PREPARE_CONF, Step, UpstreamAnswer};

/// Longer than any wait of the gateway's at its scale.
const PATIENCE: Duration = Duration::from_secs(20);

/// The client.
pub(crate) struct Client;

impl Client {
    /// Everything that comes back until the gateway closes, or, where the request
    /// does not ask for that, until each request has a whole answer.
    pub(crate) fn send(to: SocketAddr, request: &[u8]) -> Result<Vec<u8>> {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(request)?;
        let asked = HttpMessage::requests(request);
        let head = request.starts_with(b"HEAD ");
        let closes = asked.last().is_none_or(HttpMessage::closes);
        let is_whole = |answer: &HttpMessage| head || answer.body().is_some();
        let mut got = Vec::new();
        let mut piece = [0; 65536];
        loop {
            let answers = HttpMessage::answers(&got, head);
            if !closes && answers.len() >= asked.len() && answers.iter().all(is_whole) {
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
    /// What is to come, as it was recorded.
    steps: VecDeque<Step>,
    /// Tokens given since the runner disowned all it knew.
    known: BTreeSet<u32>,
    next_token: u32,
    seen: Vec<Frame>,
    prepared: Vec<Frame>,
    unknown: Vec<u32>,
}

impl Runner {
    pub(crate) fn listen(socket: &Path) -> Result<Self> {
        let listener = UnixListener::bind(socket)?;
        let script = Arc::new(Mutex::new(Script::default()));
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
        self.0.lock().unwrap().expect(exchange);
    }

    /// What the gateway sent since, but for prepare-conf.
    pub(crate) fn seen(&self) -> Vec<Frame> {
        self.0.lock().unwrap().seen.clone()
    }

    /// All prepare-conf calls, those of earlier exchanges too.
    pub(crate) fn prepared(&self) -> Vec<Frame> {
        self.0.lock().unwrap().prepared.clone()
    }

    /// Tokens in calls since that the runner had not given, or had disowned.
    pub(crate) fn unknown(&self) -> Vec<u32> {
        self.0.lock().unwrap().unknown.clone()
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
    fn expect(&mut self, exchange: &Exchange) {
        self.steps = exchange.steps().into();
        self.seen.clear();
        self.unknown.clear();
    }

    /// What to send, and whether the connection ends then. Tokens are the script's
    /// own, and a gateway may ask for one where the recorded one did not, or need
    /// none; any other answer to prepare-conf is given as it was recorded.
    fn answer(&mut self, frame: Frame) -> (Vec<u8>, bool) {
        let prepares = frame.kind() == PREPARE_CONF;
        while !prepares && self.steps.front().is_some_and(Step::prepares) {
            self.steps.pop_front();
        }
        let step = self
            .steps
            .front()
            .filter(|step| step.prepares() == prepares);
        let recorded = step.map(|step| step.answers.clone());
        if recorded.is_some() {
            self.steps.pop_front();
        }
        let answers = if prepares {
            self.prepared.push(frame);
            let other = recorded.filter(|answers| !answers.iter().any(Frame::gives_token));
            other.unwrap_or_else(|| vec![self.token()])
        } else {
            self.unknown
                .extend(token_of(&frame).filter(|token| !self.known.contains(token)));
            self.seen.push(frame);
            recorded.unwrap_or_default()
        };
        if answers.iter().any(disowns_tokens) {
            self.known.clear();
        }
        let closes = answers.last().is_none_or(|last| !last.is_whole());
        (
            answers.into_iter().flat_map(|frame| frame.bytes).collect(),
            closes,
        )
    }

    fn token(&mut self) -> Frame {
        self.next_token += 1;
        self.known.insert(self.next_token);
        let answer = Message::PrepareConfResp {
            conf_token: self.next_token,
        };
        Frame {
            from_gateway: false,
            bytes: answer.encode().unwrap(),
        }
    }
}

/// The token in a call; none in what is no call.
fn token_of(frame: &Frame) -> Option<u32> {
    match frame.message()? {
        Message::HttpReqCallReq(call) => Some(call.conf_token),
        Message::HttpRespCallReq(call) => Some(call.conf_token),
        _ => None,
    }
}

fn disowns_tokens(frame: &Frame) -> bool {
    frame.message() == Some(Message::Err(ErrorCode::ConfTokenNotFound))
}

/// Plays a gateway that goes on with a token after the runner has disowned it;
/// the tokens that the script objects to.
pub(crate) fn disowned(exchange: &Exchange) -> Vec<u32> {
    let mut script = Script::default();
    script.expect(exchange);
    let frames = exchange.frames.iter();
    let mut asked = frames.filter(|frame| frame.from_gateway).cloned();
    let prepare = asked.find(|frame| frame.kind() == PREPARE_CONF);
    script.answer(prepare.unwrap());
    let conf_token = script.next_token;
    for mut call in asked.filter(|frame| frame.kind() != PREPARE_CONF) {
        let Some(Message::HttpReqCallReq(mut message)) = call.message() else {
            continue;
        };
        message.conf_token = conf_token;
        call.bytes = Message::HttpReqCallReq(message).encode().unwrap();
        script.answer(call);
    }
    script.unknown
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
    let _gateway_left = stream.write_all(&answer.head());
    if !to_head {
        let _gateway_left = stream.write_all(&answer.body);
    }
}
