//! Bodies: extended JSON with its fields in the order in which they were sent.

use bson::{Bson, Document};
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use postern_common::{Call, Failure};

use crate::wall::{At, json, value};

/// Reads the body as one value.
///
/// # Errors
/// `UNSUPPORTED_MEDIA_TYPE`; `VALIDATION_ERROR` when it is no extended JSON.
pub(crate) async fn read(call: &mut Call) -> Result<(Bytes, Bson), Failure> {
    let header = |name| {
        call.headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    let media_type = header(CONTENT_TYPE).unwrap_or_default();
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    let encoding = header(CONTENT_ENCODING).unwrap_or("identity");
    if !call.route.takes(media_type) || !encoding.eq_ignore_ascii_case("identity") {
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
