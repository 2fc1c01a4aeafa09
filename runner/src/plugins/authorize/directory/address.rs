//! Where the directory is, and connections to it.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use hyper_util::rt::TokioIo;
use postern_directory::directory_client::DirectoryClient;
use serde::Deserialize;
use tokio::net::UnixStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

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

/// Certificates for a directory over TCP, PEM files, read when a worker starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct DirectoryTls {
    /// The authority of the directory's certificate.
    pub authority: PathBuf,
    /// The runner's own chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

const FIELD: &str = "plugins.authorize.directory";

impl Address {
    /// `unix:/path`, `https://host:port` with certificates, or `http://host:port`.
    pub(in super::super) fn parse(text: &str, tls: Option<&DirectoryTls>) -> anyhow::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let endpoint = || {
            let endpoint = Endpoint::from_shared(text.to_owned()).context(FIELD)?;
            Ok(endpoint.connect_timeout(ANSWER).tcp_nodelay(true))
        };
        let endpoint: anyhow::Result<Endpoint> = match (text.split_once("://"), tls) {
            (Some(("http", _)), None) => endpoint(),
            (Some(("https", _)), Some(files)) => {
                let tls = endpoint()?.tls_config(files.config()?);
                tls.context("plugins.authorize.directoryTls")
            }
            (Some(("https", _)), None) => {
                bail!("plugins.authorize.directoryTls: {text} needs certificates")
            }
            (Some(("http", _)), Some(_)) => {
                bail!("{FIELD}: {text} has certificates and would not use them: https://")
            }
            _ => bail!("{FIELD}: {text:?} is neither unix:/path nor https://host:port"),
        };
        Ok(Self::Tcp(Box::new(endpoint?)))
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

impl DirectoryTls {
    fn config(&self) -> anyhow::Result<ClientTlsConfig> {
        // In a build where another crate brings a second provider rustls has no default. It
        // fails when there is one already, which is as good.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let read = |field: &str, path: &Path| {
            let named = || {
                format!(
                    "plugins.authorize.directoryTls.{field}: cannot read {}",
                    path.display()
                )
            };
            std::fs::read(path).with_context(named)
        };
        let identity = Identity::from_pem(
            read("certificate", &self.certificate)?,
            read("key", &self.key)?,
        );
        let authority = Certificate::from_pem(read("authority", &self.authority)?);
        Ok(ClientTlsConfig::new()
            .identity(identity)
            .ca_certificate(authority))
    }
}
