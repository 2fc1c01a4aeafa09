//! Log lines on their way out, never waited for.
//!
//! An event becomes a line of JSON, the line goes into a bounded queue, and one
//! thread writes. When the disk is slow lines are dropped and counted; a request
//! never waits for its log line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::config::LogConfig;

/// How long an ending process waits for its last lines.
const FLUSH: Duration = Duration::from_millis(100);

static QUEUE: OnceLock<SyncSender<Order>> = OnceLock::new();

enum Order {
    Line(Vec<u8>),
    /// The file was moved away: open it anew.
    Reopen,
    /// Answer when everything before is written.
    Flush(SyncSender<()>),
}

/// Sends this process's events where the configuration says.
pub(crate) fn start(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.level)
        .with_context(|| format!("log.level: {:?} cannot be read", config.level))?;
    let sink =
        Sink::open(&config.to).with_context(|| format!("log.to: cannot write to {}", config.to))?;
    let (queue, orders) = sync_channel(config.queue);
    std::thread::Builder::new()
        .name("log".into())
        .spawn(move || write(sink, &orders))?;
    let _ = QUEUE.set(queue.clone());
    let subscriber = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(Lines(queue));
    subscriber
        .try_init()
        .map_err(|error| anyhow::anyhow!("cannot log: {error}"))?;
    // Where, but not the message: it may quote what a client sent.
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        tracing::error!(location, "panic");
    }));
    Ok(())
}

/// Opens the log file anew, after somebody has moved it away.
pub(crate) fn reopen() {
    if let Some(queue) = QUEUE.get() {
        let _ = queue.try_send(Order::Reopen);
    }
}

/// Waits, not for long, until what was said is written.
pub(crate) fn flush() {
    let (done, written) = sync_channel(1);
    if QUEUE
        .get()
        .is_some_and(|queue| queue.try_send(Order::Flush(done)).is_ok())
    {
        let _ = written.recv_timeout(FLUSH);
    }
}

enum Sink {
    Stderr,
    Socket(UnixDatagram),
    File(PathBuf, File),
}

impl Sink {
    fn open(to: &str) -> io::Result<Self> {
        if to == "stderr" {
            return Ok(Self::Stderr);
        }
        if let Some(path) = to.strip_prefix("unix:") {
            let socket = UnixDatagram::unbound()?;
            socket.connect(path)?;
            return Ok(Self::Socket(socket));
        }
        Ok(Self::File(to.into(), append(Path::new(to))?))
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stderr => io::stderr().write_all(line),
            Self::Socket(socket) => socket.send(line).map(drop),
            // One write a line: processes that share the file do not mix theirs.
            Self::File(_, file) => file.write_all(line),
        }
    }

    fn reopen(&mut self) -> io::Result<()> {
        if let Self::File(path, file) = self {
            *file = append(path)?;
        }
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

fn write(mut sink: Sink, orders: &Receiver<Order>) {
    let lost = metrics::counter!("postern_log_dropped_total");
    for order in orders {
        let written = match order {
            Order::Line(line) => sink.write(&line),
            Order::Reopen => sink.reopen(),
            Order::Flush(done) => {
                let _ = done.send(());
                Ok(())
            }
        };
        if written.is_err() {
            lost.increment(1);
        }
    }
}

/// Takes lines into the queue.
struct Lines(SyncSender<Order>);

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Order::Line(line.to_vec())).is_err() {
            metrics::counter!("postern_log_dropped_total").increment(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'w> MakeWriter<'w> for Lines {
    type Writer = &'w Self;

    fn make_writer(&'w self) -> Self::Writer {
        self
    }
}
