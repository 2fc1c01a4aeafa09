//! Validators and preconditions (RFC 9110, 13).
//!
//! A resource's validator is its version, which each change raises; a list's is
//! a digest of its bytes. Answers that the compression layer changes carry the
//! weak form; since validators name versions rather than bytes, `If-Match`
//! takes the weak form of one as well.

use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use postern_contract::Code;
use postern_contract::idempotency::sha256;

use crate::{Failure, Reply};

/// The validator of a resource's version.
#[must_use]
pub fn of_version(version: i64) -> String {
    format!("\"{version}\"")
}

/// The validator of something that has no version: a digest of its bytes.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    let digest = sha256(bytes);
    let bits = digest
        .iter()
        .take(8)
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    format!("\"{bits:016x}\"")
}

/// Completes the answer to a read: `ETag`, and 304 when the client has it already.
#[must_use]
pub fn conditional(reply: Reply, request: &HeaderMap) -> Reply {
    let etag = match reply
        .headers
        .get(ETAG)
        .and_then(|value| value.to_str().ok())
    {
        Some(etag) => etag.to_owned(),
        None => of_bytes(&reply.body),
    };
    let reply = reply.with_header(ETAG, &etag);
    if names(request, &IF_NONE_MATCH, &etag) == Some(true) {
        let mut not_modified = Reply::empty(StatusCode::NOT_MODIFIED);
        not_modified.headers.insert(
            ETAG,
            reply
                .headers
                .get(ETAG)
                .cloned()
                .unwrap_or_else(|| http::HeaderValue::from_static("\"\"")),
        );
        return not_modified;
    }
    reply
}

/// The precondition of a change, carried into its transaction.
#[derive(Clone, Debug, Default)]
pub struct IfMatch(Option<HeaderMap>);

impl IfMatch {
    /// Takes `If-Match` from a request.
    #[must_use]
    pub fn of(request: &HeaderMap) -> Self {
        let mut headers = HeaderMap::new();
        for value in request.get_all(IF_MATCH) {
            headers.append(IF_MATCH, value.clone());
        }
        Self((!headers.is_empty()).then_some(headers))
    }

    /// Whether the request names any.
    #[must_use]
    pub fn is_present(&self) -> bool {
        self.0.is_some()
    }

    /// Compares with the version found.
    ///
    /// # Errors
    /// `PRECONDITION_FAILED` when the request names other versions only.
    pub fn check(&self, version: i64) -> Result<(), Failure> {
        self.check_tag(&of_version(version))
    }

    /// Compares with the validator found.
    ///
    /// # Errors
    /// `PRECONDITION_FAILED` when the request names others only.
    pub fn check_tag(&self, current: &str) -> Result<(), Failure> {
        match self
            .0
            .as_ref()
            .and_then(|headers| names(headers, &IF_MATCH, current))
        {
            Some(false) => Err(Failure::new(
                Code::PreconditionFailed,
                format!("the resource has changed: its ETag is {current}; read it again"),
            )),
            _ => Ok(()),
        }
    }
}

/// Whether a list of validators names one; `None` without the header.
fn names(headers: &HeaderMap, header: &http::HeaderName, etag: &str) -> Option<bool> {
    let mut values = headers.get_all(header).iter().peekable();
    values.peek()?;
    Some(values.filter_map(|value| value.to_str().ok()).any(|list| {
        list.split(',')
            .map(str::trim)
            .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == etag)
    }))
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]
mod tests {
    use super::*;

    fn headers(name: http::HeaderName, value: &str) -> HeaderMap {
        [(name, value.parse().unwrap())].into_iter().collect()
    }

    #[test]
    fn a_client_that_has_it_gets_304() {
        let reply = || {
            Reply::json(StatusCode::OK, &1)
                .unwrap()
                .with_header(ETAG, "\"3\"")
        };
        for value in ["\"3\"", "W/\"3\"", "\"1\", \"3\"", "*"] {
            let answer = conditional(reply(), &headers(IF_NONE_MATCH, value));
            assert_eq!(answer.status, StatusCode::NOT_MODIFIED, "{value}");
            assert_eq!(answer.headers.get(ETAG).unwrap(), "\"3\"");
        }
        assert_eq!(
            conditional(reply(), &headers(IF_NONE_MATCH, "\"4\"")).status,
            StatusCode::OK
        );
    }

    #[test]
    fn equal_lists_have_equal_validators() {
        let etag = |n: i32| {
            conditional(Reply::json(StatusCode::OK, &n).unwrap(), &HeaderMap::new()).headers[ETAG]
                .clone()
        };
        assert_eq!(etag(1), etag(1));
        assert_ne!(etag(1), etag(2));
    }

    #[test]
    fn a_stale_version_is_refused() {
        assert!(IfMatch::of(&HeaderMap::new()).check(7).is_ok());
        assert!(IfMatch::of(&headers(IF_MATCH, "\"7\"")).check(7).is_ok());
        assert!(IfMatch::of(&headers(IF_MATCH, "*")).check(7).is_ok());
        let stale = IfMatch::of(&headers(IF_MATCH, "\"6\""))
            .check(7)
            .unwrap_err();
        assert_eq!(stale.verdict().status, 412);
    }
}
