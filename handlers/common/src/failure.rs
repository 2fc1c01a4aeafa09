//! Why a request was not carried out.
//!
//! Store and domain code raise a [`Failure`]; what the client sees of it is
//! decided in one place, [`Failure::verdict`]. The cause goes to the log only.

use std::borrow::Cow;
use std::error::Error as StdError;

use http::header::{ALLOW, RETRY_AFTER};
use http::{HeaderName, HeaderValue};
use postern_contract::code::Outcome;
use postern_contract::{Code, Detail};

/// A refusal that the family's own code decided on.
#[derive(Debug)]
pub struct Refusal {
    /// Which.
    pub code: Code,
    /// Names the thing and the mend.
    pub message: String,
    /// The bad fields, if fields are bad.
    pub details: Vec<Detail>,
    /// Sent along: `Allow`, `Retry-After`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What the caller was denied, where the refusal is no 403: another tenant's answers
    /// as what does not exist.
    pub denied: Option<String>,
    /// The status, where it is not the code's first.
    pub status: Option<u16>,
}

/// Everything that can stand in a request's way.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Decided here.
    #[error("{}: {}", .0.code, .0.message)]
    Refused(Box<Refusal>),
    /// The control-plane database refused or could not be asked.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// The request's deadline passed.
    #[error("the request's deadline passed")]
    Deadline,
    /// A panic in the family's code; it costs this request only.
    #[error("panic: {0}")]
    Panicked(String),
    /// A fault of ours.
    #[error("{0}")]
    Internal(#[source] Box<dyn StdError + Send + Sync>),
}

/// What the client is told.
#[derive(Debug)]
pub struct Verdict<'f> {
    /// The code.
    pub code: Code,
    /// The status, one of [`Code::statuses`].
    pub status: u16,
    /// The message.
    pub message: Cow<'f, str>,
    /// The bad fields.
    pub details: &'f [Detail],
    /// Headers besides the usual ones.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    /// A refusal with a code and a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::Refused(Box::new(Refusal {
            code,
            message: message.into(),
            details: Vec::new(),
            headers: Vec::new(),
            denied: None,
            status: None,
        }))
    }

    /// `VALIDATION_ERROR` on these fields.
    #[must_use]
    pub fn invalid(details: Vec<Detail>) -> Self {
        let message = match details.as_slice() {
            [one] => format!("{} {}", one.field, one.reason),
            many => format!("{} fields are invalid; details names each", many.len()),
        };
        Self::Refused(Box::new(Refusal {
            code: Code::ValidationError,
            message,
            details,
            headers: Vec::new(),
            denied: None,
            status: None,
        }))
    }

    /// `VALIDATION_ERROR` on one field.
    #[must_use]
    pub fn invalid_field(field: &str, reason: impl Into<String>) -> Self {
        Self::invalid(vec![Detail::new(field, reason)])
    }

    /// A method that the path does not take.
    #[must_use]
    pub fn method_not_allowed(method: &http::Method, allow: &[&str]) -> Self {
        let allow = allow.join(", ");
        let message = format!("{method} is not allowed here; use {allow}");
        Self::new(Code::MethodNotAllowed, message).with_header(ALLOW, &allow)
    }

    /// A body of a type that the route does not take, or an encoded one.
    #[must_use]
    pub fn unsupported(media_types: &[String]) -> Self {
        let taken = media_types.join(" or ");
        let message = format!("send a body of {taken}, without Content-Encoding");
        Self::new(Code::UnsupportedMediaType, message)
    }

    /// Adds a header. A value that no header can hold is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let (Self::Refused(refusal), Ok(value)) = (&mut self, HeaderValue::from_str(value)) {
            refusal.headers.push((name, value));
        }
        self
    }

    /// Answers with another of the code's statuses ([`Code::statuses`]).
    #[must_use]
    pub fn with_status(mut self, status: u16) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.status = Some(status).filter(|status| refusal.code.statuses().contains(status));
        }
        self
    }

    /// Adds details.
    #[must_use]
    pub fn with_details(mut self, details: Vec<Detail>) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.details = details;
        }
        self
    }

    /// Says that this hides a resource which is another tenant's.
    #[must_use]
    pub fn denying(mut self, resource: impl Into<String>) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.denied = Some(resource.into());
        }
        self
    }

    /// Whether this is a denial, for the audit trail, and of what if it says so.
    #[must_use]
    pub fn denied(&self) -> Option<Option<&str>> {
        let named = match self {
            Self::Refused(refusal) => refusal.denied.as_deref(),
            _ => None,
        };
        (named.is_some() || self.verdict().status == 403).then_some(named)
    }

    /// A fault of ours: 500, the cause logged.
    pub fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }

    /// The code the client would see.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Refused(refusal) => refusal.code,
            Self::Database(error) => database_code(error),
            Self::Deadline => Code::BackendUnavailable,
            Self::Panicked(_) | Self::Internal(_) => Code::Internal,
        }
    }

    /// Whether a retry with the same key replays this.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.code().outcome() == Outcome::Kept
    }

    /// The one place where a failure becomes what the client sees.
    #[must_use]
    pub fn verdict(&self) -> Verdict<'_> {
        let code = self.code();
        let mut verdict = Verdict {
            code,
            status: code.status(),
            message: Cow::Borrowed(""),
            details: &[],
            headers: Vec::new(),
        };
        match self {
            Self::Refused(refusal) => {
                verdict.message = Cow::Borrowed(&refusal.message);
                verdict.status = refusal.status.unwrap_or(verdict.status);
                verdict.details = &refusal.details;
                verdict.headers.clone_from(&refusal.headers);
            }
            Self::Database(_) => verdict.message = Cow::Borrowed(database_message(code)),
            Self::Deadline => {
                verdict.status = 504;
                verdict.message = "the request took too long; whether it took effect is not known, retry it with the \
                                   same Idempotency-Key"
                    .into();
            }
            Self::Panicked(_) | Self::Internal(_) => {
                verdict.message =
                    "something went wrong on our side; report the correlation id".into();
            }
        }
        if matches!(code, Code::BackendUnavailable | Code::SerializationFailure)
            && !verdict.headers.iter().any(|(name, _)| *name == RETRY_AFTER)
        {
            verdict
                .headers
                .push((RETRY_AFTER, HeaderValue::from_static("1")));
        }
        verdict
    }
}

/// By SQLSTATE class (PostgreSQL, appendix A).
fn database_code(error: &sqlx::Error) -> Code {
    use sqlx::Error;
    match error {
        Error::Io(_)
        // A connection that ends inside its handshake: sqlx takes the end for an answer.
        | Error::Protocol(_)
        | Error::Tls(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed => Code::BackendUnavailable,
        Error::Database(database) => match database.code().as_deref() {
            // Serialization, deadlock, lock time-out: another transaction was in the way.
            Some("40001" | "40P01" | "55P03") => Code::SerializationFailure,
            Some("57014") => Code::StatementTimeout,
            // Shutting down, starting, a standby, out of connections or memory, connection lost.
            Some("57P01" | "57P02" | "57P03" | "25006") => Code::BackendUnavailable,
            Some(state) if state.starts_with("53") || state.starts_with("08") => {
                Code::BackendUnavailable
            }
            _ => Code::Internal,
        },
        _ => Code::Internal,
    }
}

fn database_message(code: Code) -> &'static str {
    match code {
        Code::BackendUnavailable => {
            "the control-plane database cannot be reached; retry with the same Idempotency-Key"
        }
        Code::SerializationFailure => {
            "another request changes the same resource; retry with the same Idempotency-Key"
        }
        Code::StatementTimeout => "the database took too long; retry with the same Idempotency-Key",
        _ => "something went wrong on our side; report the correlation id",
    }
}

/// The SQLSTATE of a database error.
#[must_use]
pub fn sqlstate(error: &sqlx::Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(Cow::into_owned)
}

/// The unique or foreign-key constraint that was violated.
#[must_use]
pub fn constraint(error: &sqlx::Error) -> Option<&str> {
    error.as_database_error().and_then(|e| e.constraint())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_stay_inside() {
        let secret = "password=hunter2 host=db.internal";
        for failure in [
            Failure::internal(secret),
            Failure::Panicked(secret.into()),
            Failure::Database(sqlx::Error::Protocol(secret.into())),
            Failure::Database(sqlx::Error::Io(std::io::Error::other(secret))),
        ] {
            let verdict = failure.verdict();
            assert!(!verdict.message.contains("hunter2"), "{verdict:?}");
            assert!(
                verdict.code.statuses().contains(&verdict.status),
                "{verdict:?}"
            );
            assert!(!failure.is_kept());
        }
        assert_eq!(Failure::Deadline.verdict().status, 504);
    }

    #[test]
    fn a_database_that_is_away_says_when_to_retry() {
        let cut = sqlx::Error::Protocol("unexpected response from SSLRequest: 0x00".into());
        for error in [sqlx::Error::PoolTimedOut, cut] {
            let failure = Failure::Database(error);
            let verdict = failure.verdict();
            assert_eq!(verdict.code, Code::BackendUnavailable);
            assert!(verdict.headers.iter().any(|(name, _)| *name == RETRY_AFTER));
        }
    }
}
