//! The error body: `{"error":{"code","message","correlationId","timestamp","details"?}}`.

use serde::Serialize;

use crate::Code;

/// One bad field of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Detail {
    /// Where: a JSON path (`metadata.owner`), a query argument or a header's name.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub reason: String,
}

impl Detail {
    /// A detail on one field.
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
        }
    }
}

/// An error as the client reads it. The message names the thing and the mend,
/// never SQL, a stack, a host or another tenant.
#[derive(Clone, Debug, Serialize)]
pub struct Envelope<'a> {
    error: Body<'a>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    code: Code,
    message: &'a str,
    correlation_id: &'a str,
    timestamp: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    details: &'a [Detail],
}

impl<'a> Envelope<'a> {
    /// An error raised now.
    #[must_use]
    pub fn new(
        code: Code,
        message: &'a str,
        correlation_id: &'a str,
        details: &'a [Detail],
    ) -> Self {
        let timestamp = timestamp(jiff::Timestamp::now());
        Self {
            error: Body {
                code,
                message,
                correlation_id,
                timestamp,
                details,
            },
        }
    }

    /// The body, `application/json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        // Strings, a code and a list of strings: there is nothing in it that serde_json refuses.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// RFC 3339 in UTC with milliseconds: `2024-01-15T10:00:00.000Z`.
#[must_use]
pub fn timestamp(at: jiff::Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_published_form() {
        let details = [Detail::new("slug", "must be lower case")];
        let json = Envelope::new(
            Code::ValidationError,
            "1 field is invalid",
            "corr-abc-123",
            &details,
        )
        .to_json();
        let value: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let error = value.get("error").unwrap();
        assert_eq!(error.get("code").unwrap(), "VALIDATION_ERROR");
        assert_eq!(error.get("correlationId").unwrap(), "corr-abc-123");
        assert_eq!(error.pointer("/details/0/field").unwrap(), "slug");
        let plain = Envelope::new(Code::Internal, "m", "corr-abc-123", &[]).to_json();
        assert!(!String::from_utf8(plain).unwrap().contains("details"));
    }

    #[test]
    fn timestamps_have_three_decimals() {
        assert_eq!(
            timestamp(jiff::Timestamp::UNIX_EPOCH),
            "1970-01-01T00:00:00.000Z"
        );
        let half = jiff::Timestamp::new(1, 500_000_000).unwrap();
        assert_eq!(timestamp(half), "1970-01-01T00:00:01.500Z");
    }
}
