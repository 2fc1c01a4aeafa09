//! What is wrong with a server's TLS, in an operator's words.

use std::error::Error as StdError;
use std::io;

use rustls::CertificateError;

/// What both drivers say where they need TLS and there is none.
const NO_TLS: &str = "server does not support TLS";

/// What is wrong with a server's TLS, for the operator; none: the error is another one.
#[must_use]
pub fn complaint(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(wrong) = cause.downcast_ref() {
            return Some(worded(wrong));
        }
        if cause.to_string() == NO_TLS {
            let hint = "say sslmode=disable where the network is your own";
            return Some(format!("the server speaks no TLS: {hint}"));
        }
        // Its `source` would skip what it holds.
        let held = cause
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        next = held.map_or_else(|| cause.source(), |held| Some(held));
    }
    None
}

fn worded(error: &rustls::Error) -> String {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, UnknownIssuer,
    };
    let rustls::Error::InvalidCertificate(wrong) = error else {
        return format!("TLS with the server fails: {error}");
    };
    let told = match wrong {
        UnknownIssuer => {
            "vouched for by nobody trusted here: sslrootcert=FILE names who is to vouch for it"
                .into()
        }
        NotValidForName => "for another name than the URL's".into(),
        NotValidForNameContext { presented, .. } => {
            format!("for another name than the URL's: {}", presented.join(", "))
        }
        Expired | ExpiredContext { .. } => "not valid any more".into(),
        other => format!("refused: {other}"),
    };
    format!("the server's certificate is {told}")
}
