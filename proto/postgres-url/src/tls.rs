//! What a URL says of TLS, in libpq's words, and what is done about it.
//!
//! | `sslmode` | TLS | the server's certificate |
//! |---|---|---|
//! | `disable` | none | |
//! | `prefer` | if the server offers it | anybody's |
//! | `require` | always | anybody's; with `sslrootcert` as `verify-ca` |
//! | `verify-ca` | always | vouched for by `sslrootcert` |
//! | `verify-full` | always | vouched for by `sslrootcert`, else by whom the system trusts; for this name |
//!
//! Where libpq prefers when nothing is said, whoever stands between could read along
//! unnoticed. So that is for this machine alone: another one is verified in full unless its
//! URL says otherwise. A Unix socket never carries TLS.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Whom the system trusts, as libpq names them.
const SYSTEM: &str = "system";

/// How much TLS there has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// None.
    Disable,
    /// What the server offers.
    Prefer,
    /// Some, with anybody.
    Require,
    /// With a server that is vouched for.
    VerifyCa,
    /// With the server of this name.
    VerifyFull,
}

/// Where a server is, as far as TLS depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Behind a Unix socket.
    Socket,
    /// On this machine.
    Loopback,
    /// Anywhere.
    Network,
}

/// Why a URL's TLS cannot be had. Repeats nothing else of the URL.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A mode that is none, or `allow`, whose TLS is the server's choice.
    #[error("sslmode is disable, prefer, require, verify-ca or verify-full, not {0:?}")]
    Mode(String),
    /// Any authority would do for any server.
    #[error("sslmode={0} with sslrootcert=system verifies nothing: it has to be verify-full")]
    Weak(&'static str),
    /// Nobody is named who vouches.
    #[error("sslmode=verify-ca needs sslrootcert=FILE with who vouches for the server")]
    Nobody,
    /// That file cannot be read.
    #[error("sslrootcert: cannot read {0}: {1}")]
    Unreadable(PathBuf, io::Error),
    /// That file is not good.
    #[error("sslrootcert: {0} holds no certificate in PEM, or a broken one")]
    Certificates(PathBuf),
    /// There are no authorities on this system.
    #[error(
        "the system trusts no authority that could vouch for the server: name one by sslrootcert=FILE, \
         or say sslmode=disable where the network is your own"
    )]
    Untrusting,
}

/// What a URL says of TLS.
#[derive(Debug, Default)]
pub struct Asked {
    mode: Option<Mode>,
    authority: Option<String>,
}

/// What is done.
#[derive(Clone, Debug)]
pub struct Tls {
    mode: Mode,
    trusted: Vec<CertificateDer<'static>>,
}

impl Mode {
    fn parse(text: &str) -> Result<Self, TlsError> {
        Ok(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            other => return Err(TlsError::Mode(other.to_owned())),
        })
    }

    fn name(self) -> &'static str {
        match self {
            Self::Disable => "disable",
            Self::Prefer => "prefer",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        }
    }
}

impl Place {
    /// Where a host of a URL is: a name, an address, or the path of a socket.
    #[must_use]
    pub fn of(host: &str) -> Self {
        if host.starts_with(['/', '@']) {
            return Self::Socket;
        }
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let here = match host.parse::<IpAddr>() {
            Ok(address) => address.is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        };
        if here { Self::Loopback } else { Self::Network }
    }
}

impl Asked {
    /// Takes it out of a URL, whose rest is for the driver.
    ///
    /// # Errors
    /// The mode is none.
    pub fn take(url: &str) -> Result<(Self, String), TlsError> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let (mut asked, mut rest) = (Self::default(), Vec::new());
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match name {
                "sslmode" | "ssl-mode" => asked.mode = Some(Mode::parse(&value)?),
                "sslrootcert" | "ssl-root-cert" | "ssl-ca" => {
                    asked.authority = Some(value.into_owned());
                }
                _ => rest.push(pair),
            }
        }
        let rest = if rest.is_empty() {
            place.to_owned()
        } else {
            format!("{place}?{}", rest.join("&"))
        };
        Ok((asked, rest))
    }

    /// What is done with a server in this place. Files are read now, and not again.
    ///
    /// # Errors
    /// It is too little, or who should vouch is not there.
    pub fn at(self, place: Place) -> Result<Tls, TlsError> {
        let authority = self.authority.as_deref();
        let mode = match (place, self.mode) {
            (Place::Socket, _) => Mode::Disable,
            (_, Some(Mode::Require)) if authority.is_some() => Mode::VerifyCa,
            (_, Some(mode)) => mode,
            (Place::Loopback, None) if authority.is_none() => Mode::Prefer,
            (_, None) => Mode::VerifyFull,
        };
        let trusted = match (mode, authority) {
            (Mode::VerifyFull, None | Some(SYSTEM)) => systems()?,
            (Mode::VerifyCa, None) => return Err(TlsError::Nobody),
            (Mode::VerifyCa | Mode::VerifyFull, Some(file)) if file != SYSTEM => {
                read(Path::new(file))?
            }
            (Mode::Disable, _) | (_, None) => Vec::new(),
            // A file is for those that verify.
            (_, Some(file)) if file != SYSTEM => Vec::new(),
            (mode, Some(_)) => return Err(TlsError::Weak(self.mode.unwrap_or(mode).name())),
        };
        Ok(Tls { mode, trusted })
    }
}

impl Tls {
    /// How much there has to be.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Who vouches for the server, DER; nobody where nothing is verified.
    #[must_use]
    pub fn trusted(&self) -> &[CertificateDer<'static>] {
        &self.trusted
    }
}

/// Those in a file.
fn read(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(file).map_err(|error| TlsError::Unreadable(file.to_owned(), error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match read {
        Ok(read) if !read.is_empty() && usable(&read).len() == read.len() => Ok(read),
        _ => Err(TlsError::Certificates(file.to_owned())),
    }
}

/// Those whom the system trusts. A few that nobody can read are usual.
fn systems() -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found = usable(&rustls_native_certs::load_native_certs().certs);
    match found.is_empty() {
        true => Err(TlsError::Untrusting),
        false => Ok(found),
    }
}

fn usable(certificates: &[CertificateDer<'static>]) -> Vec<CertificateDer<'static>> {
    let usable =
        |one: &&CertificateDer<'static>| RootCertStore::empty().add((*one).clone()).is_ok();
    certificates.iter().filter(usable).cloned().collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// What is done with a server in this place, or why nothing is.
    fn done(query: &str, place: Place) -> Result<Mode, String> {
        let (asked, rest) =
            Asked::take(&format!("postgres://u:secret@h/d?{query}")).map_err(|e| e.to_string())?;
        assert_eq!(rest, "postgres://u:secret@h/d");
        let tls = asked.at(place).map_err(|error| error.to_string())?;
        let verifies = matches!(tls.mode, Mode::VerifyCa | Mode::VerifyFull);
        assert_eq!(tls.trusted().is_empty(), !verifies, "{query}");
        Ok(tls.mode)
    }

    #[test]
    fn modes_are_libpqs_and_the_default_is_safe() {
        let folder = tempfile::tempdir().unwrap();
        let authority = postern_harness::certificates::Authority::new().unwrap();
        let file = authority.write(folder.path(), "own").unwrap();
        let named = |mode: &str| format!("{mode}&sslrootcert={}", file.display());
        for (query, mode) in [
            ("sslmode=disable".into(), Mode::Disable),
            ("sslmode=prefer".into(), Mode::Prefer),
            (named("sslmode=prefer"), Mode::Prefer),
            ("sslmode=require".into(), Mode::Require),
            (named("sslmode=require"), Mode::VerifyCa),
            (named("sslmode=verify-ca"), Mode::VerifyCa),
            (named("sslmode=verify-full"), Mode::VerifyFull),
            (named(""), Mode::VerifyFull),
        ] {
            for place in [Place::Loopback, Place::Network] {
                assert_eq!(done(&query, place), Ok(mode), "{query} {place:?}");
            }
            assert_eq!(done(&query, Place::Socket), Ok(Mode::Disable), "{query}");
        }
        assert_eq!(done("", Place::Loopback), Ok(Mode::Prefer));
        assert_eq!(done("", Place::Socket), Ok(Mode::Disable));
        // Whom a system trusts is its own; without anybody it is refused.
        for query in ["", "sslmode=verify-full", "sslrootcert=system"] {
            match done(query, Place::Network) {
                Ok(mode) => assert_eq!(mode, Mode::VerifyFull, "{query}"),
                Err(why) => assert!(why.contains("the system trusts no authority"), "{why}"),
            }
        }
    }

    #[test]
    fn what_is_too_little_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = file.path().display();
        for (query, what) in [
            ("sslmode=allow".into(), "not \"allow\""),
            ("sslmode=".into(), "not \"\""),
            ("sslmode=verify-ca".into(), "needs sslrootcert"),
            (
                "sslmode=require&sslrootcert=system".into(),
                "sslmode=require with sslrootcert=system",
            ),
            (
                "sslmode=prefer&sslrootcert=system".into(),
                "sslmode=prefer with sslrootcert=system",
            ),
            ("sslrootcert=/no%20such".into(), "cannot read /no such"),
            (format!("sslrootcert={empty}"), "holds no certificate"),
        ] {
            let told = done(&query, Place::Network).unwrap_err();
            assert!(
                told.contains(what) && !told.contains("secret"),
                "{query}: {told}"
            );
        }
    }

    #[test]
    fn places() {
        for (host, place) in [
            ("/run/postgresql", Place::Socket),
            ("@abstract", Place::Socket),
            ("localhost", Place::Loopback),
            ("127.8.0.1", Place::Loopback),
            ("::1", Place::Loopback),
            ("[::1]", Place::Loopback),
            ("10.0.0.1", Place::Network),
            ("localhost.example.com", Place::Network),
            ("", Place::Network),
        ] {
            assert_eq!(Place::of(host), place, "{host}");
        }
    }
}
