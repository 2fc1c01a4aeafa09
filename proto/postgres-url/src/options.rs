//! For sqlx.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::tls::{Asked, Mode, Place, TlsError};

/// Why a URL cannot be used. Repeats nothing of it that may be a password.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It is none.
    #[error("not of the form postgres://USER@HOST/DATABASE")]
    Form,
    /// Its TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// This driver trusts public authorities besides, whose certificates anybody can have
    /// for a name of his own.
    #[error(
        "sslmode=verify-ca (which require with sslrootcert is) is for postgres.url alone: \
         here it has to be verify-full"
    )]
    AnyName,
}

/// How a URL says to connect. Files are read now, and not again.
///
/// # Errors
/// It is none, or its TLS cannot be had.
pub fn options(url: &str) -> Result<PgConnectOptions, UrlError> {
    let (asked, url) = Asked::take(url)?;
    let options: PgConnectOptions = url.parse().map_err(|_| UrlError::Form)?;
    let place = match options.get_socket() {
        Some(_) => Place::Socket,
        None => Place::of(options.get_host()),
    };
    let tls = asked.at(place)?;
    Ok(match tls.mode() {
        Mode::Disable => options.ssl_mode(PgSslMode::Disable),
        Mode::Prefer => options.ssl_mode(PgSslMode::Prefer),
        Mode::Require => options.ssl_mode(PgSslMode::Require),
        Mode::VerifyCa => return Err(UrlError::AnyName),
        Mode::VerifyFull => options
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert_from_pem(pem(tls.trusted())),
    })
}

fn pem(certificates: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let encoded = |one: &_| {
        let text = STANDARD.encode(AsRef::<[u8]>::as_ref(one));
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    };
    certificates.iter().map(encoded).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn every_row_of_the_table() {
        let folder = tempfile::tempdir().unwrap();
        let authority = postern_harness::certificates::Authority::new().unwrap();
        let file = authority.write(folder.path(), "own").unwrap();
        let named = |mode: &str| format!("{mode}&sslrootcert={}", file.display());
        for (host, query, mode) in [
            ("localhost", String::new(), PgSslMode::Prefer),
            ("127.0.0.1", String::new(), PgSslMode::Prefer),
            ("[::1]", String::new(), PgSslMode::Prefer),
            ("%2Frun%2Fpostgresql", String::new(), PgSslMode::Disable),
            ("h", "sslmode=disable".into(), PgSslMode::Disable),
            ("h", "sslmode=prefer".into(), PgSslMode::Prefer),
            ("h", "sslmode=require".into(), PgSslMode::Require),
            ("h", named("sslmode=verify-full"), PgSslMode::VerifyFull),
            ("h", named(""), PgSslMode::VerifyFull),
            ("localhost", named(""), PgSslMode::VerifyFull),
            // Where the driver goes, not what stands before the slash.
            ("localhost", named("host=h"), PgSslMode::VerifyFull),
        ] {
            let options = options(&format!("postgres://u:sslmode=@{host}/d?{query}")).unwrap();
            let chosen = std::mem::discriminant(&options.get_ssl_mode());
            assert_eq!(chosen, std::mem::discriminant(&mode), "{host} {query}");
        }
        for weak in [named("sslmode=require"), named("sslmode=verify-ca")] {
            let told = options(&format!("postgres://u@h/d?{weak}")).unwrap_err();
            assert!(matches!(told, UrlError::AnyName), "{weak}: {told}");
        }
        for bad in ["", "h", "postgres://u:secret@h:port/d"] {
            let told = options(bad).unwrap_err();
            assert!(matches!(told, UrlError::Form), "{bad}: {told}");
        }
    }
}
