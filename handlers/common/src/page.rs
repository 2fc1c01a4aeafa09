//! Lists in pages: `{"data":[…],"pagination":{"limit","nextCursor"}}`.
//!
//! A cursor holds the last key of a page and an HMAC over it, the route, the
//! caller's scope and the filters; so it cannot be made up, and cannot be taken
//! to another list. Keys, not offsets, keep pages stable under inserts.

use aws_lc_rs::{constant_time, hkdf, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use serde::Serialize;

use crate::{Failure, Reply, query::Query};

/// Signs cursors: with the first key, opens with any, as keys rotate. All
/// processes of a deployment have the same ones.
#[derive(Clone, Debug)]
pub struct CursorKeys(Vec<hmac::Key>);

/// Bytes of the signature in a cursor.
const TAG: usize = 16;
/// A cursor that was ours is shorter: it has to fit in a request line.
pub const MAX_CURSOR: usize = 4096;

fn sign(key: &hmac::Key, list: &str, position: &str) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(&(list.len() as u64).to_be_bytes());
    context.update(list.as_bytes());
    context.update(position.as_bytes());
    context.sign()
}

impl CursorKeys {
    /// Derives the keys from the deployment's secrets, the first of which is in use.
    #[must_use]
    pub fn derive<'s>(secrets: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let derive = |secret: &[u8]| {
            let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"postern");
            let extracted = salt.extract(secret);
            extracted
                .expand(&[b"cursor 1"], hmac::HMAC_SHA256)
                .map(hmac::Key::from)
        };
        // HKDF refuses outputs above 255 blocks only; this is one.
        Self(
            secrets
                .into_iter()
                .filter_map(|secret| derive(secret).ok())
                .collect(),
        )
    }

    /// The cursor after `position` of a list.
    #[must_use]
    pub fn seal(&self, list: &str, position: &str) -> String {
        let tag = self.0.first().map(|key| sign(key, list, position));
        let mut bytes = tag
            .as_ref()
            .and_then(|tag| tag.as_ref().get(..TAG))
            .unwrap_or_default()
            .to_vec();
        bytes.extend_from_slice(position.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The position in a cursor of this list.
    ///
    /// # Errors
    /// The rule, when the cursor is not one that [`Self::seal`] gave for this list.
    pub fn open(&self, list: &str, cursor: &str) -> Result<String, String> {
        let rule = || "must be the nextCursor of the page before, with the same filters".to_owned();
        if cursor.len() > MAX_CURSOR {
            return Err(rule());
        }
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| rule())?;
        let (tag, position) = bytes.split_at_checked(TAG).ok_or_else(rule)?;
        let position = std::str::from_utf8(position).map_err(|_| rule())?;
        let signed_by = |key: &hmac::Key| {
            let expected = sign(key, list, position);
            expected.as_ref().get(..TAG).is_some_and(|expected| {
                constant_time::verify_slices_are_equal(tag, expected).is_ok()
            })
        };
        if self.0.iter().any(signed_by) {
            Ok(position.to_owned())
        } else {
            Err(rule())
        }
    }
}

/// The page that a request asks for.
#[derive(Clone, Debug)]
pub struct Page {
    /// How many at most; what was above the maximum is cut to it.
    pub limit: u32,
    /// Only what stands after this key.
    pub after: Option<String>,
}

/// The default and the greatest page size of control-plane lists.
pub const LIMITS: (u32, u32) = (20, 100);

impl Page {
    /// Reads `limit` and `cursor`. `list` names the list: route, scope, filters.
    pub fn read(query: &mut Query, keys: &CursorKeys, list: &str) -> Self {
        let (default, max) = LIMITS;
        let limit = query.optional("limit", |text| {
            let rule = || format!("must be a whole number from 1; above {max} it is cut to {max}");
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(rule());
            }
            // More digits than a u32 holds are above the maximum all the same.
            match text.parse::<u32>().unwrap_or(u32::MAX) {
                0 => Err(rule()),
                n => Ok(n.min(max)),
            }
        });
        let after = query.optional("cursor", |cursor| keys.open(list, cursor));
        Self {
            limit: limit.unwrap_or(default),
            after,
        }
    }

    /// How many rows to ask the store for: one more tells whether there is a next page.
    #[must_use]
    pub fn fetch(&self) -> i64 {
        i64::from(self.limit) + 1
    }

    /// The answer, given the rows found, of which at most [`Self::fetch`].
    ///
    /// # Errors
    /// When a row has no JSON form.
    pub fn answer<T: Serialize>(
        &self,
        mut rows: Vec<T>,
        keys: &CursorKeys,
        list: &str,
        position: impl Fn(&T) -> String,
    ) -> Result<Reply, Failure> {
        #[derive(Serialize)]
        struct Answer<T> {
            data: Vec<T>,
            pagination: Pagination,
        }
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Pagination {
            limit: u32,
            next_cursor: Option<String>,
        }
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next_cursor = rows
            .last()
            .filter(|_| more)
            .map(|last| keys.seal(list, &position(last)));
        Reply::json(
            StatusCode::OK,
            &Answer {
                data: rows,
                pagination: Pagination {
                    limit: self.limit,
                    next_cursor,
                },
            },
        )
    }
}

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(raw: &str) -> Result<Page, Failure> {
        let mut query = Query::parse(Some(raw)).unwrap();
        let page = Page::read(&mut query, &CursorKeys::derive([b"s".as_slice()]), "list");
        query.finish().map(|()| page)
    }

    #[test]
    fn limits() {
        assert_eq!(read("").unwrap().limit, 20);
        assert_eq!(read("limit=7").unwrap().limit, 7);
        assert_eq!(read("limit=1000").unwrap().limit, 100);
        assert_eq!(read("limit=99999999999999999999").unwrap().limit, 100);
        for bad in [
            "limit=-1",
            "limit=0",
            "limit=x",
            "limit=",
            "limit=1.5",
            "limit=+1",
            "limit=1&limit=2",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_belongs_to_its_list_and_key() {
        let key = CursorKeys::derive([b"secret".as_slice()]);
        let cursor = key.seal("tenants.list active", "tnt_1");
        assert_eq!(key.open("tenants.list active", &cursor).unwrap(), "tnt_1");
        assert!(key.open("tenants.list", &cursor).is_err());
        assert!(
            CursorKeys::derive([b"other".as_slice()])
                .open("tenants.list active", &cursor)
                .is_err()
        );
    }

    proptest! {
        #[test]
        fn a_changed_cursor_is_refused(position in "[a-z0-9_]{1,40}", at in 0usize..60, flip in 1u8..) {
            let key = CursorKeys::derive([b"secret".as_slice()]);
            let mut bytes = URL_SAFE_NO_PAD.decode(key.seal("l", &position)).unwrap();
            let at = at % bytes.len();
            bytes[at] ^= flip;
            prop_assert!(key.open("l", &URL_SAFE_NO_PAD.encode(&bytes)).is_err());
        }

        #[test]
        fn no_text_panics(cursor in ".*") {
            prop_assert!(CursorKeys::derive([b"s".as_slice()]).open("l", &cursor).is_err());
        }
    }

    #[test]
    fn the_last_page_has_no_cursor() {
        let key = CursorKeys::derive([b"s".as_slice()]);
        let page = Page {
            limit: 2,
            after: None,
        };
        let body = |rows: Vec<u8>| {
            let reply = page.answer(rows, &key, "l", u8::to_string).unwrap();
            serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap()
        };
        assert_eq!(
            body(vec![1, 2])["pagination"]["nextCursor"],
            serde_json::Value::Null
        );
        let more = body(vec![1, 2, 3]);
        assert_eq!(more["data"], serde_json::json!([1, 2]));
        assert_eq!(
            key.open("l", more["pagination"]["nextCursor"].as_str().unwrap())
                .unwrap(),
            "2"
        );
    }
}
