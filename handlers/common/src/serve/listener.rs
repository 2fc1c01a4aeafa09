//! Where a server listens: TCP, or a Unix socket.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

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

/// A client's stream.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// After an accept failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Listener {
    /// Binds. A Unix socket is bound under a temporary name and moved into place, so
    /// that a server that is leaving and one that comes never fight over the name;
    /// `mode` are its permissions, else what the umask leaves.
    ///
    /// # Errors
    /// When the address is in use, not ours, or the folder cannot be written.
    pub async fn bind(address: &Address, mode: Option<u32>) -> io::Result<Self> {
        match address {
            Address::Tcp(address) => Ok(Self::Tcp(TcpListener::bind(address).await?)),
            Address::Unix(path) => {
                // A path that was mistaken for another: a key's file would be gone.
                if path
                    .symlink_metadata()
                    .is_ok_and(|there| !there.file_type().is_socket())
                {
                    return Err(io::Error::other("it exists and is no socket"));
                }
                let temporary = path.with_extension(format!("{}.new", std::process::id()));
                let listener = UnixListener::bind(&temporary)?;
                let place = || {
                    if let Some(mode) = mode {
                        std::fs::set_permissions(&temporary, Permissions::from_mode(mode))?;
                    }
                    std::fs::rename(&temporary, path)
                };
                place().inspect_err(|_| drop(std::fs::remove_file(&temporary)))?;
                Ok(Self::Unix(listener))
            }
        }
    }

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
    async fn the_next_bind_takes_the_name_over() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("s.sock"));
        let _leaving = Listener::bind(&address, None).await.unwrap();
        let mut coming = Listener::bind(&address, None).await.unwrap();
        let Address::Unix(path) = &address else {
            unreachable!()
        };
        let (_, client) = tokio::join!(coming.accept(), tokio::net::UnixStream::connect(path));
        client.unwrap();
    }
}
