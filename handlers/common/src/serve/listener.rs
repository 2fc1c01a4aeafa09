//! Where a server listens: TCP, or a Unix socket.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// `127.0.0.1:8080` or `unix:/run/postern/handlers.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and a port; 0: any free one.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some("") => Err("unix: needs a path".into()),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("{text:?} is neither ADDRESS:PORT nor unix:PATH")),
        }
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound socket.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

/// An address that is taken and does not listen yet: what is in use is told before
/// anything is done, and nobody is let in before all of it is.
#[derive(Debug)]
pub struct Bound(Taken);

#[derive(Debug)]
enum Taken {
    Tcp(TcpSocket),
    Unix(Aside),
}

/// A Unix socket under a temporary name, moved into place when all is ready, so that a
/// server that is leaving and one that comes never fight over the name.
#[derive(Debug)]
struct Aside {
    listener: Option<UnixListener>,
    temporary: PathBuf,
    path: PathBuf,
}

impl Bound {
    /// Takes the address. `mode` are a Unix socket's permissions, else what the umask leaves.
    ///
    /// # Errors
    /// When the address is in use, not ours, or the folder cannot be written.
    pub fn new(address: &Address, mode: Option<u32>) -> io::Result<Self> {
        Ok(Self(match address {
            Address::Tcp(address) => {
                let socket = if address.is_ipv4() {
                    TcpSocket::new_v4()?
                } else {
                    TcpSocket::new_v6()?
                };
                // Connections of a server before that are not quite over are no obstacle.
                socket.set_reuseaddr(true)?;
                socket.bind(*address)?;
                Taken::Tcp(socket)
            }
            Address::Unix(path) => Taken::Unix(Aside::new(path, mode)?),
        }))
    }

    /// Takes connections into the backlog from here on.
    ///
    /// # Errors
    /// When another server listened first, or the folder cannot be written any more.
    pub fn listen(self) -> io::Result<Listener> {
        match self.0 {
            Taken::Tcp(socket) => Ok(Listener::Tcp(socket.listen(BACKLOG)?)),
            Taken::Unix(aside) => Ok(Listener::Unix(aside.place()?)),
        }
    }
}

impl Aside {
    fn new(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        // A path that was mistaken for another: a key's file would be gone.
        if path
            .symlink_metadata()
            .is_ok_and(|there| !there.file_type().is_socket())
        {
            return Err(io::Error::other("it exists and is no socket"));
        }
        let temporary = path.with_extension(format!("{}.new", std::process::id()));
        // Left by a process of our number that was killed.
        let _ = std::fs::remove_file(&temporary);
        let aside = Self {
            listener: Some(UnixListener::bind(&temporary)?),
            temporary,
            path: path.to_owned(),
        };
        if let Some(mode) = mode {
            std::fs::set_permissions(&aside.temporary, Permissions::from_mode(mode))?;
        }
        Ok(aside)
    }

    fn place(mut self) -> io::Result<UnixListener> {
        std::fs::rename(&self.temporary, &self.path)?;
        let placed = self.listener.take();
        placed.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.listener.is_some() {
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// A client's stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// As the standard library has it; the system's own bound may be lower.
const BACKLOG: u32 = 1024;
/// After an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    /// Where it listens, with the port that was taken.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<String> {
        match self {
            Self::Tcp(listener) => Ok(listener.local_addr()?.to_string()),
            Self::Unix(listener) => Ok(format!("{:?}", listener.local_addr()?)),
        }
    }

    /// The next client. Failures of single clients are passed over.
    pub(crate) async fn accept(&mut self) -> Box<dyn Stream> {
        loop {
            let accepted = match self {
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Answers are written whole: waiting for more to send only delays them.
                    let _ = stream.set_nodelay(true);
                    Box::new(stream) as Box<dyn Stream>
                }),
                Self::Unix(listener) => listener
                    .accept()
                    .await
                    .map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            };
            match accepted {
                Ok(stream) => return stream,
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(
            "unix:/x/y".parse::<Address>().unwrap(),
            Address::Unix("/x/y".into())
        );
        assert_eq!(
            "127.0.0.1:0".parse::<Address>().unwrap().to_string(),
            "127.0.0.1:0"
        );
        for bad in ["", "unix:", "localhost", "127.0.0.1", "127.0.0.1:99999"] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn what_never_listens_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("s.sock"));
        drop(Bound::new(&address, None).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn the_next_bind_takes_the_name_over() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("s.sock"));
        let _leaving = Bound::new(&address, None).unwrap().listen().unwrap();
        let coming = Bound::new(&address, None).unwrap();
        let mut coming = coming.listen().unwrap();
        let Address::Unix(path) = &address else {
            unreachable!()
        };
        let (_, client) = tokio::join!(coming.accept(), tokio::net::UnixStream::connect(path));
        client.unwrap();
    }
}
