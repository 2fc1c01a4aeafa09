//! A key's form, a key's scope, and the fingerprint of a request.
//! `docs/idempotency.md` has the protocol.

use aws_lc_rs::digest::{Context, SHA256};
use percent_encoding::percent_decode;

use crate::{Family, Params};

/// How long a key and its outcome are kept, from the first use.
pub const TTL_SECONDS: u64 = 24 * 60 * 60;

/// A client's key: `abc` and `"abc"` are the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

/// The value is neither 1–255 visible ASCII characters nor a quoted string of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 255 visible ASCII characters, bare or as a quoted string")]
pub struct KeyError;

impl IdempotencyKey {
    /// Reads the header's value: bare, or a quoted string of RFC 9651 (`\"` and `\\` escaped).
    ///
    /// # Errors
    /// When the value is empty, too long, or holds other than visible ASCII.
    pub fn parse(value: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(value).map_err(|_| KeyError)?;
        let key = match text.strip_prefix('"') {
            Some(rest) => unquote(rest.strip_suffix('"').ok_or(KeyError)?)?,
            None => text.to_owned(),
        };
        let visible = key.bytes().all(|b| b.is_ascii_graphic());
        if visible && (1..=255).contains(&key.len()) {
            Ok(Self(key))
        } else {
            Err(KeyError)
        }
    }

    /// The key without quotes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn unquote(inner: &str) -> Result<String, KeyError> {
    let mut key = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(KeyError),
            },
            '"' => return Err(KeyError),
            other => key.push(other),
        }
    }
    Ok(key)
}

/// SHA-256 over pieces, each with its length before it, so that no two lists of
/// pieces give the same bytes.
struct Pieces(Context);

impl Pieces {
    fn new(domain: &str) -> Self {
        let mut pieces = Self(Context::new(&SHA256));
        pieces.add(domain.as_bytes());
        pieces
    }

    fn add(&mut self, piece: &[u8]) {
        self.0.update(&(piece.len() as u64).to_be_bytes());
        self.0.update(piece);
    }

    fn count(&mut self, n: usize) {
        self.0.update(&(n as u64).to_be_bytes());
    }

    fn finish(self) -> [u8; 32] {
        let mut out = [0; 32];
        out.copy_from_slice(self.0.finish().as_ref());
        out
    }
}

/// Whose key it is. Equal keys in different scopes never meet.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// `iss` of the token.
    pub issuer: &'a str,
    /// The token's tenant; empty for a platform token.
    pub tenant: &'a str,
    /// `sub` of the token.
    pub subject: &'a str,
    /// The route's family.
    pub family: Family,
    /// The workspace in the path, if there is one.
    pub workspace: &'a str,
}

impl Scope<'_> {
    /// The name under which claim and record are stored.
    #[must_use]
    pub fn digest(&self, key: &IdempotencyKey) -> [u8; 32] {
        let mut pieces = Pieces::new("postern idempotency scope 1");
        for piece in [
            self.issuer,
            self.tenant,
            self.subject,
            self.family.as_str(),
            self.workspace,
            key.as_str(),
        ] {
            pieces.add(piece.as_bytes());
        }
        pieces.finish()
    }
}

/// What makes two requests the same request.
#[derive(Clone, Debug, Default)]
pub struct Request<'a> {
    /// In upper case.
    pub method: &'a str,
    /// [`crate::Route::id`].
    pub route: &'a str,
    /// Decoded path parameters.
    pub params: Params<'a>,
    /// Decoded pairs in any order; an argument without `=` counts as empty.
    pub query: Vec<(Vec<u8>, Vec<u8>)>,
    /// Content-Type, Prefer, If-Match, If-None-Match, If-Modified-Since,
    /// If-Unmodified-Since, If-Range: lower-case name and value, in any order.
    /// Others are passed over.
    pub headers: Vec<(&'a str, &'a [u8])>,
}

/// The headers that change what a request means.
pub const FINGERPRINTED: [&str; 7] = [
    "content-type",
    "prefer",
    "if-match",
    "if-none-match",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
];

impl Request<'_> {
    /// The fingerprint, given the SHA-256 of the body (of nothing, where there is none).
    #[must_use]
    pub fn fingerprint(mut self, body_sha256: &[u8; 32]) -> [u8; 32] {
        let mut pieces = Pieces::new("postern fingerprint 1");
        pieces.add(self.method.as_bytes());
        pieces.add(self.route.as_bytes());
        pieces.count(self.params.iter().count());
        for (name, value) in self.params.iter() {
            pieces.add(name.as_bytes());
            pieces.add(value.as_bytes());
        }
        self.query.sort();
        pieces.count(self.query.len());
        for (name, value) in &self.query {
            pieces.add(name);
            pieces.add(value);
        }
        self.headers
            .retain(|(name, _)| FINGERPRINTED.contains(name));
        self.headers.sort_unstable();
        pieces.count(self.headers.len());
        for (name, value) in &self.headers {
            pieces.add(name.as_bytes());
            pieces.add(value.trim_ascii());
        }
        pieces.add(body_sha256);
        pieces.finish()
    }
}

/// SHA-256 of a whole body.
#[must_use]
pub fn sha256(body: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&SHA256, body).as_ref());
    out
}

/// The decoded pairs of a raw query, read as the gateway reads it for the
/// runner: `+` is a space, broken escapes stay as they are, empty pieces and
/// pieces without a name vanish.
#[must_use]
pub fn query_pairs(raw: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let decode =
        |text: &str| -> Vec<u8> { percent_decode(text.replace('+', " ").as_bytes()).collect() };
    raw.split('&')
        .filter(|piece| !piece.is_empty() && !piece.starts_with('='))
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{Match, routes};
    use http::Method;

    #[test]
    fn keys() {
        assert_eq!(
            IdempotencyKey::parse(b"abc").unwrap(),
            IdempotencyKey::parse(b"\"abc\"").unwrap()
        );
        assert_eq!(
            IdempotencyKey::parse(br#""a\"b\\c""#).unwrap().as_str(),
            r#"a"b\c"#
        );
        for bad in [
            &b""[..],
            b"\"\"",
            b"a b",
            b"\"a",
            b"a\x7f",
            b"\xc3\xa4",
            br#""a\nb""#,
            &[b'x'; 256],
        ] {
            assert_eq!(IdempotencyKey::parse(bad), Err(KeyError), "{bad:?}");
        }
        assert!(IdempotencyKey::parse(&[b'x'; 255]).is_ok());
    }

    #[test]
    fn scopes_never_meet() {
        let key = IdempotencyKey::parse(b"k").unwrap();
        let scope = |tenant, subject| {
            Scope {
                issuer: "i",
                tenant,
                subject,
                family: Family::Tenants,
                workspace: "",
            }
            .digest(&key)
        };
        assert_ne!(scope("ab", "c"), scope("a", "bc"));
        assert_eq!(scope("a", "b"), scope("a", "b"));
    }

    #[test]
    fn order_does_not_matter_and_content_does() {
        let request = |query: &str, prefer: &'static [u8]| {
            Request {
                method: "POST",
                route: "tenants.create",
                query: query_pairs(query),
                headers: vec![
                    ("prefer", prefer),
                    ("content-type", b"application/json"),
                    ("user-agent", b"x"),
                ],
                ..Request::default()
            }
            .fingerprint(&sha256(b"{}"))
        };
        assert_eq!(request("a=1&b=2", b""), request("b=2&a=1", b""));
        assert_ne!(request("a=1&b=2", b""), request("a=1&b=3", b""));
        assert_ne!(request("a=1", b""), request("a=1", b"return=minimal"));
    }

    proptest! {
        /// The runner reads a path that the gateway decoded, the handler the client's bytes.
        #[test]
        fn both_readings_of_a_path_give_the_same(segment in "[^/\0]{1,24}", object in "[^/\0]{1,24}") {
            prop_assume!(![".", ".."].contains(&segment.as_str()) && ![".", ".."].contains(&object.as_str()));
            let encode = |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
            let decoded = format!("/v1/storage/{segment}/objects/{object}");
            let raw = format!("/v1/storage/{}/objects/{}", encode(&segment), encode(&object));
            let runner = routes().find(&Method::PUT, decoded.as_bytes()).unwrap();
            let handler = routes().find_raw(&Method::PUT, &raw).unwrap();
            let (Match::Found(a, ap), Match::Found(b, bp)) = (runner, handler) else {
                return Err(TestCaseError::fail("no route"));
            };
            let print = |route: &'static crate::Route, params: Params<'_>| {
                let request = Request { method: "PUT", route: &route.id, params: params.into_owned(), ..Request::default() };
                request.fingerprint(&sha256(b""))
            };
            prop_assert_eq!(print(a, ap), print(b, bp));
        }
    }
}
