//! A gateway as a process, with a runner and an upstream that are closures.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use postern_wire::message::{Action, Entry, Message, Rewrite, Stop};
use postern_wire::{Side, frame};

/// Longer than anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a runner answers to a frame; none closes the connection.
pub type Behaviour = dyn Fn(&Message) -> Option<Message> + Send + Sync;

/// A runner that answers as it is told, and keeps what it was asked.
pub struct Runner {
    pub socket: PathBuf,
    asked: Arc<Mutex<Vec<Message>>>,
}

impl Runner {
    pub fn new(
        folder: &Path,
        behaviour: impl Fn(&Message) -> Option<Message> + Send + Sync + 'static,
    ) -> Self {
        let socket = folder.join("runner.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, behaviour): (_, Arc<Behaviour>) = (Arc::clone(&asked), Arc::new(behaviour));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, behaviour) = (Arc::clone(&kept), Arc::clone(&behaviour));
                thread::spawn(move || answer(stream, &*behaviour, &kept));
            }
        });
        Self { socket, asked }
    }

    /// Everything asked so far.
    pub fn asked(&self) -> Vec<Message> {
        self.asked.lock().unwrap().clone()
    }
}

fn answer(mut stream: UnixStream, behaviour: &Behaviour, kept: &Mutex<Vec<Message>>) {
    loop {
        let mut bytes = vec![0; frame::HEADER_LEN];
        if stream.read_exact(&mut bytes).is_err() {
            return;
        }
        let len = u32::from_be_bytes([0, bytes[1], bytes[2], bytes[3]]);
        (&mut stream)
            .take(len.into())
            .read_to_end(&mut bytes)
            .unwrap();
        let (kind, body) = frame::split(&bytes).unwrap();
        let message = Message::decode(Side::Gateway, kind, body).unwrap();
        kept.lock().unwrap().push(message.clone());
        match behaviour(&message) {
            Some(answer) if stream.write_all(&answer.encode().unwrap()).is_ok() => {}
            _ => return,
        }
    }
}

/// What a well-behaved runner says: every configuration is known, every request
/// goes on.
pub fn pass(message: &Message) -> Option<Message> {
    match message {
        Message::PrepareConfReq(_) => Some(Message::PrepareConfResp { conf_token: 7 }),
        Message::HttpReqCallReq(call) => Some(Message::HttpReqCallResp {
            id: call.id,
            action: None,
        }),
        _ => None,
    }
}

/// The request goes on, changed.
pub fn rewrite(rewrite: Rewrite) -> Message {
    Message::HttpReqCallResp {
        id: 0,
        action: Some(Action::Rewrite(rewrite)),
    }
}

/// An answer of the runner's own.
pub fn stop(status: u16, headers: &[(&str, &str)], body: &str) -> Message {
    let entry = |(name, value): &(&str, &str)| Entry::new(*name, *value);
    Message::HttpReqCallResp {
        id: 0,
        action: Some(Action::Stop(Stop {
            status,
            headers: headers.iter().map(entry).collect(),
            body: Some(body.as_bytes().to_vec()),
        })),
    }
}

/// An upstream whose connections come out of a channel, to be served by the test.
pub struct Upstream {
    pub port: u16,
    connections: mpsc::Receiver<TcpStream>,
}

impl Upstream {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, connections) = mpsc::channel();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                if sender.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { port, connections }
    }

    /// The next connection the gateway opens.
    pub fn accept(&self) -> TcpStream {
        self.connections.recv_timeout(PATIENCE).unwrap()
    }

    /// Whether the gateway has opened none since.
    pub fn is_quiet(&self) -> bool {
        self.connections.try_recv().is_err()
    }
}

/// Reads until the bytes end so.
pub fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut got = Vec::new();
    let mut byte = [0];
    while !got.ends_with(end.as_bytes()) {
        let read = stream.read(&mut byte);
        assert_eq!(
            read.ok(),
            Some(1),
            "ended: {}",
            String::from_utf8_lossy(&got)
        );
        got.push(byte[0]);
    }
    String::from_utf8_lossy(&got).into_owned()
}

/// A gateway as a process.
pub struct Gateway {
    pub child: Child,
    pub address: SocketAddr,
}

impl Gateway {
    /// Starts one on the two files in a folder.
    pub fn start(folder: &Path, scale: &str) -> Self {
        let mut child = command(folder)
            .args(["--listen", "127.0.0.1:0", "--time-scale", scale])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let line = output
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("listening on ").map(str::to_owned));
        let address = line.expect("it listens").parse().unwrap();
        Self { child, address }
    }

    /// A client's connection.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends bytes and reads until the gateway closes.
    pub fn exchange(&self, request: &str) -> String {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// A GET that closes.
    pub fn get(&self, path: &str, headers: &str) -> String {
        self.exchange(&format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{headers}\r\n"
        ))
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _already_gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standin-gateway"));
    command
        .arg("--config")
        .arg(folder.join("config.yaml"))
        .arg("--apisix-yaml")
        .arg(folder.join("apisix.yaml"));
    command
}

/// A folder with both files: `config` and one route `/r/*` with these plugins.
pub fn folder(config: &str, plugins: &str, port: u16) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
    std::fs::write(
        folder.path().join("apisix.yaml"),
        routes(&[("r", plugins)], port),
    )
    .unwrap();
    folder
}

/// Routes `/<id>/*` to one upstream.
pub fn routes(routes: &[(&str, &str)], port: u16) -> String {
    let route = |(id, plugins): &(&str, &str)| {
        format!(
            "- {{id: {id}, uri: '/{id}/*', upstream: {{nodes: {{'127.0.0.1:{port}': 1}}, \
             timeout: {{connect: 5, read: 60, send: 60}}}}, plugins: {{{plugins}}}}}\n"
        )
    };
    format!(
        "routes:\n{}#END\n",
        routes.iter().map(route).collect::<String>()
    )
}

pub const PRE_REQ: &str = "ext-plugin-pre-req: {conf: [{name: a, value: '{}'}]}";

pub fn with_runner(folder: &tempfile::TempDir, runner: &Runner) {
    let config = format!(
        "ext-plugin: {{path_for_test: {}}}\n",
        runner.socket.display()
    );
    std::fs::write(folder.path().join("config.yaml"), config).unwrap();
}

/// Waits until a check holds, and says what it last saw when it never does.
pub fn eventually<T: std::fmt::Debug>(mut look: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(seen) => assert!(Instant::now() < until, "still: {seen}"),
        }
        thread::sleep(Duration::from_millis(5));
    }
}
