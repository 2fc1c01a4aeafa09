//! Where the directory is, and connections to it.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use postern_directory::directory_client::DirectoryClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::ANSWER;

/// Where the directory is.
#[derive(Clone, Debug)]
pub(in crate::plugins) enum Address {
    Unix(PathBuf),
    Tcp(Box<Endpoint>),
    /// Whoever takes the other end is the directory.
    #[cfg(test)]
    Memory(tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>),
}

impl Address {
    /// `unix:/path` or `http://host:port`.
    pub(in crate::plugins) fn parse(text: &str) -> anyhow::Result<Self> {
        const FIELD: &str = "plugins.authorize.directory";
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        if !text.starts_with("http://") {
            bail!("{FIELD}: {text:?} is neither unix:/path nor http://host:port");
        }
        let endpoint = Endpoint::from_shared(text.to_owned()).context(FIELD)?;
        Ok(Self::Tcp(Box::new(
            endpoint.connect_timeout(ANSWER).tcp_nodelay(true),
        )))
    }

    /// A client with a connection of its own, made when it is first used.
    pub(in crate::plugins) fn client(&self) -> DirectoryClient<Channel> {
        // The name is for the request's authority only.
        let named = Endpoint::from_static("http://directory");
        let channel = match self {
            Self::Tcp(endpoint) => endpoint.connect_lazy(),
            Self::Unix(path) => {
                let path = path.clone();
                let connect = tower::service_fn(move |_: http::Uri| {
                    let path = path.clone();
                    async move { UnixStream::connect(path).await.map(TokioIo::new) }
                });
                named.connect_with_connector_lazy(connect)
            }
            #[cfg(test)]
            Self::Memory(directory) => {
                let directory = directory.clone();
                let connect = tower::service_fn(move |_: http::Uri| {
                    let (ours, theirs) = tokio::io::duplex(64 << 10);
                    let taken = directory.send(theirs);
                    let refused = |_| std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                    std::future::ready(taken.map(|()| TokioIo::new(ours)).map_err(refused))
                });
                named.connect_with_connector_lazy(connect)
            }
        };
        DirectoryClient::new(channel)
    }
}
