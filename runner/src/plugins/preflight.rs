//! CORS preflights: answered by the gateway's `cors` plugin or the upstream, never by us.

use http::Method;

use crate::Request;

/// Whether a request is a well-formed preflight, as the Fetch standard sends it: it
/// carries no token and no header of ours, and passes the whole chain untouched.
pub(super) fn is_preflight(request: &Request<'_>) -> bool {
    *request.method() == Method::OPTIONS
        && request
            .header("origin")
            .is_some_and(|origin| !origin.is_empty())
        && request
            .header("access-control-request-method")
            .is_some_and(|method| Method::from_bytes(method).is_ok())
}
