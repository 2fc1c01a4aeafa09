//! A Redis, a Valkey, or a cluster of either: which one a URL means, and a connection
//! to it, over TLS where the URL says so.
//!
//! | URL | is |
//! |---|---|
//! | `redis://[USER:PASSWORD@]HOST:PORT[/DB]` | one server |
//! | `rediss://…` | one server, over TLS |
//! | `redis-cluster://[USER:PASSWORD@]HOST:PORT,HOST:PORT` | some nodes of a cluster, which name the others |
//! | `rediss-cluster://…` | the same, over TLS |

use std::path::Path;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::{
    AsyncConnectionConfig, Client, FromRedisValue, RedisResult, ScriptInvocation, TlsCertificates,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Why a URL names no server. Never shows the URL: it may hold a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "is none of redis://HOST:PORT, rediss://, redis-cluster://HOST:PORT,HOST:PORT and rediss-cluster://"
)]
pub struct UrlError;

/// Who vouches for a server's certificate.
#[derive(Clone, Debug)]
pub struct Authority(Vec<u8>);

/// Why a file names no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] std::io::Error),
    /// There is no certificate in it, or a broken one.
    #[error("holds no certificate in PEM")]
    NoCertificate,
}

impl Authority {
    /// Reads a file of certificates in PEM.
    ///
    /// # Errors
    /// When it cannot be read or holds none.
    pub fn read(file: &Path) -> Result<Self, AuthorityError> {
        let pem = std::fs::read(file)?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match certificates {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(pem)),
            _ => Err(AuthorityError::NoCertificate),
        }
    }
}

/// Where the server is, or some nodes of the cluster. No connection is made yet.
pub enum Servers {
    /// One server.
    One(Box<Client>, Duration),
    /// A cluster.
    Cluster(Box<ClusterClient>),
}

/// A connection, which clones share and pipeline.
#[derive(Clone)]
pub enum Connection {
    /// To one server.
    One(MultiplexedConnection),
    /// To the nodes of a cluster.
    Cluster(ClusterConnection),
}

impl Servers {
    /// Those of a URL. Connecting and each answer may take as long as `patience`. With TLS
    /// `authority` vouches for them, else whom the system trusts.
    ///
    /// # Errors
    /// When the URL is none of ours.
    pub fn new(
        url: &str,
        authority: Option<&Authority>,
        patience: Duration,
    ) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError)?;
        // A fragment would let every certificate pass.
        if rest.contains('#') {
            return Err(UrlError);
        }
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: authority.map(|Authority(pem)| pem.clone()),
        };
        match scheme {
            "redis" => Client::open(url).map(|client| Self::One(client.into(), patience)),
            "rediss" => {
                use_aws_lc();
                let client = Client::build_with_tls(url, certificates);
                client.map(|client| Self::One(client.into(), patience))
            }
            "redis-cluster" | "rediss-cluster" => {
                let one = scheme.trim_end_matches("-cluster");
                let (login, nodes) = match rest.rsplit_once('@') {
                    Some((login, nodes)) => (format!("{login}@"), nodes),
                    None => (String::new(), rest),
                };
                let nodes = nodes
                    .split(',')
                    .map(|node| format!("{one}://{login}{node}"));
                let builder = ClusterClient::builder(nodes)
                    .retries(1)
                    .connection_timeout(patience)
                    .response_timeout(patience);
                let builder = if one == "rediss" {
                    use_aws_lc();
                    builder.certs(certificates)
                } else {
                    builder
                };
                let client = builder.build();
                client.map(|client| Self::Cluster(Box::new(client)))
            }
            _ => return Err(UrlError),
        }
        .map_err(|_| UrlError)
    }

    /// Whether keys are spread over several servers.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// Connects.
    ///
    /// # Errors
    /// The server's, or nobody is there.
    pub async fn connect(&self) -> RedisResult<Connection> {
        Ok(match self {
            Self::One(client, patience) => {
                let config = AsyncConnectionConfig::new()
                    .set_connection_timeout(Some(*patience))
                    .set_response_timeout(Some(*patience));
                let made = client.get_multiplexed_async_connection_with_config(&config);
                Connection::One(made.await?)
            }
            Self::Cluster(client) => Connection::Cluster(client.get_async_connection().await?),
        })
    }
}

impl std::fmt::Debug for Servers {
    /// Without the servers: their URL may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Servers")
    }
}

impl Connection {
    /// Runs a script by its hash; a server that does not know it is sent the text once.
    ///
    /// # Errors
    /// The server's, or the connection broke.
    pub async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> RedisResult<T> {
        match self.clone() {
            Self::One(mut connection) => invoke(script, &mut connection).await,
            Self::Cluster(mut connection) => invoke(script, &mut connection).await,
        }
    }

    /// Whether anybody answers.
    ///
    /// # Errors
    /// Nobody does.
    pub async fn ping(&self) -> RedisResult<()> {
        let ping = redis::cmd("PING");
        match self.clone() {
            Self::One(mut connection) => ping.query_async(&mut connection).await,
            Self::Cluster(mut connection) => ping.query_async(&mut connection).await,
        }
    }
}

async fn invoke<T: FromRedisValue>(
    script: &ScriptInvocation<'_>,
    connection: &mut (impl ConnectionLike + Send),
) -> RedisResult<T> {
    script.invoke_async(connection).await
}

/// The library takes the process's provider, which there is only one of.
fn use_aws_lc() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    #[test]
    fn urls() {
        for (url, cluster) in [
            ("redis://h:1", false),
            ("rediss://u:p@h:1/2", false),
            ("redis-cluster://u:p@h:1,i:2", true),
            ("rediss-cluster://:p@h:1", true),
        ] {
            let servers = Servers::new(url, None, PATIENCE).unwrap();
            assert_eq!(servers.is_cluster(), cluster, "{url}");
        }
        for url in [
            "",
            "hunter2",
            "redis",
            "http://h:1",
            "redis://u:hunter2@[h",
            "rediss://h:1#insecure",
            "rediss-cluster://h:1#insecure",
            "redis-cluster://u:hunter2@",
            "redis-cluster://u:hunter2@h:1,",
        ] {
            assert_eq!(
                Servers::new(url, None, PATIENCE).map(drop),
                Err(UrlError),
                "{url}"
            );
        }
    }

    #[test]
    fn a_file_without_a_certificate_vouches_for_nobody() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        assert!(matches!(
            Authority::read(&file),
            Err(AuthorityError::NoCertificate)
        ));
        assert!(matches!(
            Authority::read(Path::new("/nowhere")),
            Err(AuthorityError::Unreadable(_))
        ));
    }
}
