//! `Authorization` → the token in it (RFC 6750, 2.1).

use super::refusal::Refusal;
use crate::Request;
use crate::singles::{Repeated, Single};

/// A longer token is refused unread.
const MAX_TOKEN: usize = 8 << 10;

pub(super) fn token<'a>(request: &Request<'a>) -> Result<&'a [u8], Refusal> {
    let value = request
        .single(Single::Authorization)
        .map_err(|Repeated| Refusal::Malformed("send one Authorization header"))?;
    let value = value.ok_or(Refusal::Missing)?.trim_ascii();
    let space = value
        .iter()
        .position(|byte| *byte == b' ')
        .ok_or(NOT_BEARER)?;
    let (scheme, token) = value.split_at_checked(space).ok_or(NOT_BEARER)?;
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(NOT_BEARER);
    }
    let token = token.trim_ascii();
    if token.len() > MAX_TOKEN {
        return Err(Refusal::Malformed("the token is longer than 8 KiB"));
    }
    Ok(token)
}

const NOT_BEARER: Refusal = Refusal::Malformed("send Authorization: Bearer and the token");
