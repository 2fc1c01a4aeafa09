//! The value of `Content-Type`, as far as a route needs it (RFC 9110, 8.3.1).

/// A media type with any parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MediaType<'a> {
    essence: &'a str,
}

impl<'a> MediaType<'a> {
    /// Reads a header's value; `None` if it is no `type/subtype`.
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let value = std::str::from_utf8(value).ok()?;
        let essence = value.split(';').next().unwrap_or_default().trim_ascii();
        let (kind, subtype) = essence.split_once('/')?;
        let token = |text: &str| !text.is_empty() && text.bytes().all(is_token);
        (token(kind) && token(subtype)).then_some(Self { essence })
    }

    /// `type/subtype` without the parameters, in the client's case.
    pub(super) fn essence(self) -> &'a str {
        self.essence
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn essences() {
        let essence =
            |value: &'static str| MediaType::parse(value.as_bytes()).map(MediaType::essence);
        assert_eq!(essence("application/json"), Some("application/json"));
        assert_eq!(
            essence(" Application/JSON ; charset=\"utf-8\""),
            Some("Application/JSON")
        );
        assert_eq!(
            essence("application/merge-patch+json;v=1"),
            Some("application/merge-patch+json")
        );
        for bad in [
            "",
            "json",
            "/json",
            "application/",
            "a b/c",
            "application/json, text/csv",
        ] {
            assert_eq!(essence(bad), None, "{bad:?}");
        }
        assert_eq!(MediaType::parse(b"text/\xff"), None);
    }
}
