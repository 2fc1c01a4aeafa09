//! The directory's listener: a Unix socket, or TCP with certificates on both sides.

use anyhow::{Context, Result};
use postern_common::serve::Listener;
use postern_platform::directory::{DirectoryServer, DirectoryService};
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

use crate::config::Tls;

/// Reads the certificates.
pub(crate) fn tls(files: Option<&Tls>) -> Result<Option<ServerTlsConfig>> {
    let Some(files) = files else { return Ok(None) };
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("directoryTls: cannot read {}", path.display()))
    };
    let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
    let authority = Certificate::from_pem(read(&files.client_ca)?);
    Ok(Some(
        ServerTlsConfig::new()
            .identity(identity)
            .client_ca_root(authority),
    ))
}

/// Serves until `stop`. Watches end with it; runners then ask another process.
pub(crate) async fn serve(
    listener: Listener,
    tls: Option<ServerTlsConfig>,
    service: DirectoryService,
    stop: CancellationToken,
) {
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = match server.tls_config(tls) {
            Ok(server) => server,
            Err(error) => return tracing::error!(%error, "the directory is not served"),
        };
    }
    let router = server.add_service(DirectoryServer::new(service));
    let serving = async {
        match listener {
            Listener::Tcp(listener) => {
                router
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
            }
            Listener::Unix(listener) => {
                router
                    .serve_with_incoming(UnixListenerStream::new(listener))
                    .await
            }
        }
    };
    if let Some(Err(error)) = stop.run_until_cancelled(serving).await {
        tracing::error!(%error, "the directory is not served any more");
    }
}
