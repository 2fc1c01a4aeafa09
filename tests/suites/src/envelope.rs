//! Refusals of a gateway itself. Its static pages know the time in whole
//! seconds only, and no correlation id but a well-formed one.

use anyhow::{Context as _, Result, ensure};
use postern_harness::http::Reply;
use serde_json::Value;

/// Checks an envelope that runner, handler or gateway may have sent: one of
/// these statuses with one of these codes.
///
/// # Errors
/// Something about it is not right.
pub fn refused_by_anyone(reply: &Reply, statuses: &[u16], codes: &[&str]) -> Result<Value> {
    let check = || {
        ensure!(
            statuses.contains(&reply.status),
            "the status is none of {statuses:?}"
        );
        let media_type = reply.header("content-type").unwrap_or_default();
        ensure!(
            media_type == "application/json",
            "the content type is {media_type:?}"
        );
        let body = reply.json()?;
        let error = body.get("error").context("it has no error")?;
        let text = |name: &str| error.get(name).and_then(Value::as_str);
        let code = text("code").context("it has no code")?;
        ensure!(codes.contains(&code), "the code is none of {codes:?}");
        ensure!(
            text("message").is_some_and(|message| !message.is_empty()),
            "it says nothing"
        );
        ensure!(text("correlationId").is_some(), "it has no correlationId");
        let timestamp = text("timestamp").context("it has no timestamp")?;
        ensure!(
            timestamp.len() >= 20 && timestamp.as_bytes().get(10) == Some(&b'T'),
            "{timestamp} is not a timestamp"
        );
        Ok(error.clone())
    };
    check().with_context(|| format!("expected {statuses:?} {codes:?}, got {reply:?}"))
}
