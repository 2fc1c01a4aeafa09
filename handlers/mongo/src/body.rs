//! Bodies: extended JSON with its fields in the order in which they were sent.

use bson::{Bson, Document};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderName};
use postern_common::{Call, Failure};

use crate::wall::{At, json, value};

fn header(call: &Call, name: HeaderName) -> Option<&str> {
    let value = call.headers().get(name);
    value.and_then(|value| value.to_str().ok())
}

/// What the body is said to be, without parameters. Upper and lower case are the same.
pub(crate) fn media_type(call: &Call) -> &str {
    let whole = header(call, CONTENT_TYPE).unwrap_or_default();
    whole.split(';').next().unwrap_or_default().trim()
}

/// Reads the body as one value.
///
/// # Errors
/// `UNSUPPORTED_MEDIA_TYPE`; `VALIDATION_ERROR` when it is no extended JSON.
pub(crate) async fn read(call: &mut Call) -> Result<(Bytes, Bson), Failure> {
    let encoding = header(call, CONTENT_ENCODING).unwrap_or("identity");
    if !call.route.takes(media_type(call)) || !encoding.eq_ignore_ascii_case("identity") {
        return Err(Failure::unsupported(&call.route.media_types));
    }
    let body = call.body().await?;
    let at = At::root("body");
    let value = value(json(&body, &at)?, &at)?;
    Ok((body, value))
}

/// The same where it has to be an object.
///
/// # Errors
/// As [`read`].
pub(crate) async fn object(call: &mut Call) -> Result<(Bytes, Document), Failure> {
    match read(call).await? {
        (body, Bson::Document(fields)) => Ok((body, fields)),
        _ => Err(Failure::invalid_field("body", "must be an object")),
    }
}
