//! Where a PostgreSQL is, who logs in, and how it is spoken to.

use std::time::Duration;

use postern_postgres_url::{Asked, Mode, Place, TlsError};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::errors::Fault;
use crate::handshake;

/// How long a connection may take to be made, with all that is said before it can be used.
const CONNECT: Duration = Duration::from_secs(5);
/// A connection on which nothing came for so long is asked whether anybody is there …
const SILENT: Duration = Duration::from_secs(5);
/// … so often, a second apart, before it counts as gone.
const PROBES: u32 = 3;

/// Why an address cannot be used. Repeats nothing of the URL that may be a password.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// No URL, or one with parameters that are not known.
    #[error("not of the form postgres://USER@HOST/DATABASE")]
    Form,
    /// Its TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Where a PostgreSQL is.
#[derive(Clone)]
pub struct Address {
    config: Config,
    tls: MakeRustlsConnect,
}

/// A connection that its owner drives.
pub(crate) type Driven = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

impl Address {
    /// Reads `postgres://USER:PASSWORD@HOST/DATABASE?sslmode=…&sslrootcert=…`.
    ///
    /// # Errors
    /// It is none, or its TLS cannot be had.
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let (asked, rest) = Asked::take(url)?;
        if !rest.contains("://") {
            return Err(AddressError::Form);
        }
        let mut config: Config = rest.parse().map_err(|_| AddressError::Form)?;
        let tls = asked.at(place(&config))?;
        config
            .ssl_mode(match tls.mode() {
                Mode::Disable => SslMode::Disable,
                Mode::Prefer => SslMode::Prefer,
                Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
            })
            .application_name("postern-handlers")
            .connect_timeout(CONNECT)
            .keepalives_idle(SILENT)
            .keepalives_interval(Duration::from_secs(1))
            .keepalives_retries(PROBES);
        Ok(Self {
            config,
            tls: MakeRustlsConnect::new(handshake::client(&tls)),
        })
    }

    /// Who logs in.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.config.get_user().filter(|user| !user.is_empty())
    }

    /// With which password.
    #[must_use]
    pub fn password(&self) -> Option<&[u8]> {
        self.config.get_password()
    }

    /// The driver's settings, and its TLS.
    pub(crate) fn parts(self) -> (Config, MakeRustlsConnect) {
        (self.config, self.tls)
    }

    pub(crate) async fn connect(&self) -> Result<(Client, Driven), Fault> {
        let connecting = self.config.connect(self.tls.clone());
        match tokio::time::timeout(CONNECT, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Fault::Away("it does not answer".into())),
        }
    }
}

/// Where the farthest of its hosts is.
fn place(config: &Config) -> Place {
    let addresses = config.get_hostaddrs();
    let places: Vec<_> = if addresses.is_empty() {
        let of = |host: &Host| match host {
            Host::Tcp(name) => Place::of(name),
            Host::Unix(_) => Place::Socket,
        };
        config.get_hosts().iter().map(of).collect()
    } else {
        let of = |address: &std::net::IpAddr| Place::of(&address.to_string());
        addresses.iter().map(of).collect()
    };
    for place in [Place::Network, Place::Loopback] {
        if places.contains(&place) {
            return place;
        }
    }
    Place::Socket
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_a_url_says() {
        let mode = |url: &str| Address::parse(url).unwrap().config.get_ssl_mode();
        for (url, said) in [
            ("postgres://u@localhost/d", SslMode::Prefer),
            ("postgres://u@127.0.0.1,[::1]/d", SslMode::Prefer),
            ("postgres://u@%2Frun%2Fpostgresql/d", SslMode::Disable),
            ("postgres:///d?user=u&host=/run", SslMode::Disable),
            ("postgres://u@h/d?sslmode=require", SslMode::Require),
            ("postgres://u@h/d?sslmode=disable", SslMode::Disable),
            ("postgres://u@h/d?hostaddr=127.0.0.1", SslMode::Prefer),
        ] {
            assert_eq!(mode(url), said, "{url}");
        }
        // One of them is elsewhere.
        match Address::parse("postgres://u@localhost,h/d") {
            Ok(address) => assert_eq!(address.config.get_ssl_mode(), SslMode::Require),
            Err(error) => assert!(matches!(error, AddressError::Tls(TlsError::Untrusting))),
        }
    }

    #[test]
    fn no_url_is_told_without_its_password() {
        for url in [
            "host=h user=u password=secret",
            "postgres://u:secret@localhost/d?nonsense=1",
            "postgres://u:secret@localhost:x/d",
            "",
        ] {
            let error = Address::parse(url).err().unwrap();
            assert!(matches!(error, AddressError::Form), "{url}: {error}");
        }
    }
}
