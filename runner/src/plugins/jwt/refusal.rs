//! Why a token is not taken, and what the client reads of it.

use postern_contract::Code;

use crate::Reply;

/// Why a request is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the access token is missing: send Authorization: Bearer and a token")]
    Missing,
    #[error("the access token is malformed: {0}")]
    Malformed(&'static str),
    #[error("the access token is from an issuer that is not trusted here")]
    UntrustedIssuer,
    #[error("the access token is signed with a key or an algorithm that its issuer does not offer")]
    UnknownKey,
    #[error("the access token's signature does not fit")]
    Signature,
    #[error("the access token's claim {0} is missing or of the wrong form")]
    Claim(String),
    #[error("the access token is for another audience")]
    Audience,
    #[error("the access token was given to a client that is not allowed here")]
    Client,
    #[error("the access token is of another type than access tokens are")]
    Type,
    #[error("the access token is bound to a key (cnf), which cannot be checked here")]
    Bound,
    #[error("the access token was revoked")]
    Revoked,
    #[error("the access token is not valid yet")]
    NotYet,
    #[error("the access token has expired: refresh it")]
    Expired,
    #[error("the keys of the token's issuer are not known yet: retry")]
    NoKeys,
    #[error("whether the access token was revoked is not known now: retry")]
    RevocationUnknown,
}

impl Refusal {
    /// The answer, with the challenge of RFC 6750, 3.
    pub(super) fn reply(&self) -> Reply {
        let message = self.to_string();
        let (code, error) = match self {
            Self::NoKeys | Self::RevocationUnknown => {
                return Reply::refuse(Code::BackendUnavailable, message)
                    .with_header("Retry-After", "1");
            }
            // Our contract has an `error` here too, where the RFC would leave it out.
            Self::Missing => (Code::TokenMissing, "invalid_request"),
            Self::Expired => (Code::TokenExpired, "invalid_token"),
            _ => (Code::TokenInvalid, "invalid_token"),
        };
        let challenge = challenge(error, &message);
        Reply::refuse(code, message).with_header("WWW-Authenticate", challenge)
    }
}

fn challenge(error: &str, description: &str) -> String {
    // A claim's configured name may hold anything; a quoted string may not.
    let allowed = |c: &char| (c.is_ascii_graphic() || *c == ' ') && !matches!(c, '"' | '\\');
    let description: String = description.chars().filter(allowed).collect();
    format!(r#"Bearer error="{error}", error_description="{description}", realm="postern""#)
}
