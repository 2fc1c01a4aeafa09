//! A proxy in front of a server, for a test to cut the wire with.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// They arrive.
    Whole,
    /// There is no connection, and none can be made.
    Cut,
    /// Connections stand and can be made; what is sent is lost, and nobody is told.
    Swallowing,
    /// As above on the connections that there are; those made from now on are whole.
    Stale,
}

/// Passes on what comes to its TCP address. Ends with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to `target`, on a port that the kernel chooses. Needs a tokio runtime,
    /// on which it runs.
    ///
    /// # Errors
    /// No port can be bound.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("a proxy finds no port")?;
        let (wire, state) = watch::channel(Wire::Whole);
        Ok(Self {
            address: listener.local_addr()?,
            wire,
            accepting: tokio::spawn(accept(listener, target, state)),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A server's URL with this address in the place of its own.
    #[must_use]
    pub fn url(&self, url: &str, of: SocketAddr) -> String {
        url.replace(&of.to_string(), &self.address.to_string())
    }

    /// From now on. Connections that lost bytes are closed when the wire is whole again.
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// The same between two Unix sockets.
#[derive(Debug)]
pub struct SocketProxy {
    wire: watch::Sender<Wire>,
    accepting: JoinHandle<()>,
}

impl SocketProxy {
    /// A proxy at `path` to the server at `target`, which need not be there yet. Needs a
    /// tokio runtime, on which it runs.
    ///
    /// # Errors
    /// No socket can be bound there.
    pub fn start(path: &Path, target: &Path) -> Result<Self> {
        let named = || format!("a proxy cannot listen on {}", path.display());
        let listener = UnixListener::bind(path).with_context(named)?;
        let (wire, state) = watch::channel(Wire::Whole);
        let target = target.to_owned();
        let accepting = async move {
            while let Ok((client, _)) = listener.accept().await {
                let target = target.clone();
                let connect = async move { UnixStream::connect(target).await };
                tokio::spawn(carry(client, connect, state.clone()));
            }
        };
        Ok(Self {
            wire,
            accepting: tokio::spawn(accepting),
        })
    }

    /// As [`Proxy::set`].
    pub fn set(&self, wire: Wire) {
        self.wire.send_replace(wire);
    }
}

impl Drop for SocketProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, target: SocketAddr, wire: watch::Receiver<Wire>) {
    // Out of descriptors, say: the test sees what its client says.
    while let Ok((client, _)) = listener.accept().await {
        let _ = client.set_nodelay(true);
        let connect = async move {
            let server = TcpStream::connect(target).await?;
            server.set_nodelay(true)?;
            Ok(server)
        };
        tokio::spawn(carry(client, connect, wire.clone()));
    }
}

/// One connection, until an end closes it or the wire changes.
async fn carry<S: AsyncRead + AsyncWrite + Unpin>(
    mut client: S,
    connect: impl Future<Output = io::Result<S>>,
    mut wire: watch::Receiver<Wire>,
) {
    let now = *wire.borrow_and_update();
    match now {
        Wire::Cut => return,
        Wire::Swallowing => return swallow(&mut client, None, &mut wire).await,
        Wire::Whole | Wire::Stale => {}
    }
    let Ok(mut server) = connect.await else {
        return;
    };
    tokio::select! {
        _ = copy_bidirectional(&mut client, &mut server) => {}
        _ = wire.changed() => {
            let now = *wire.borrow_and_update();
            if matches!(now, Wire::Swallowing | Wire::Stale) {
                swallow(&mut client, Some(&mut server), &mut wire).await;
            }
        }
    }
}

/// Reads what both ends send and passes nothing on.
async fn swallow<S: AsyncRead + Unpin>(
    client: &mut S,
    server: Option<&mut S>,
    wire: &mut watch::Receiver<Wire>,
) {
    let from_server = async {
        match server {
            Some(server) => lose(server).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = wire.changed() => {}
        () = async { tokio::join!(lose(client), from_server); } => {}
    }
}

async fn lose(stream: &mut (impl AsyncRead + Unpin)) {
    let mut lost = [0; 16 << 10];
    while matches!(stream.read(&mut lost).await, Ok(read) if read > 0) {}
}
