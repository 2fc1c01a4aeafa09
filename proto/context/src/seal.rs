//! Sealing and opening.

use std::time::Duration;

use aws_lc_rs::digest::SHA256_OUTPUT_LEN;
use aws_lc_rs::{constant_time, hmac};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use postern_contract::Family;
use prost::Message as _;

use crate::{Context, OpeningKeys, SealingKeys, View};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
static ENCODER: std::sync::LazyLock<base64::engine::Simd> = std::sync::LazyLock::new(|| {
    base64::engine::Simd::url_safe(base64::engine::general_purpose::NO_PAD)
});
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
static ENCODER: std::sync::LazyLock<base64::engine::GeneralPurpose> =
    std::sync::LazyLock::new(|| BASE64);

/// How long a context opens after it was sealed.
pub const VALIDITY: Duration = Duration::from_secs(60);
/// How far the handler's clock may lag behind the runner's.
pub const NOT_BEFORE_SLACK: Duration = Duration::from_secs(5);
/// A longer header is refused unread. A gateway takes lines of 8 KiB: one may be the token
/// and another the path, and base64 makes them a third longer.
pub const MAX_HEADER_LEN: usize = 24 << 10;

/// Of the header's form.
pub(crate) const VERSION: &str = "v2";

/// Most contexts are shorter, sealed.
const USUAL_LEN: usize = 1024;

/// Why a context does not open. Clients are told one thing for all: `CONTEXT_INVALID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Not of the form, or too long.
    #[error("malformed")]
    Malformed,
    /// No key of this kid for this family.
    #[error("sealed with a key that is not known for this family")]
    UnknownKey,
    /// The seal does not fit the message.
    #[error("forged or damaged")]
    Forged,
    /// Sealed for another family.
    #[error("sealed for another family")]
    Audience,
    /// Too old, or from the future.
    #[error("expired or not valid yet")]
    Stale,
}

impl SealingKeys {
    /// Seals a context for a family, at this time (epoch milliseconds): audience and
    /// time of issue are set here. The result is the header's value.
    #[must_use]
    pub fn seal(&self, family: Family, mut context: Context, now_ms: u64) -> String {
        context.audience.clear();
        context.audience.push_str(family.as_str());
        context.issued_at_ms = now_ms;
        let header = self.header(family, |message| context.encode_raw(message));
        String::from_utf8(header).unwrap_or_default()
    }

    /// The same for a context that borrows its parts.
    #[must_use]
    pub fn seal_view(&self, family: Family, context: &View<'_>, now_ms: u64) -> Vec<u8> {
        self.header(family, |message| {
            context.encode(family.as_str(), now_ms, message);
        })
    }

    fn header(&self, family: Family, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let Some((prefix, key)) = self.current(family) else {
            // Keys are derived for every family when the file is read.
            return Vec::new();
        };
        let prefix = prefix.as_bytes();
        let mut sealed = Vec::with_capacity(USUAL_LEN);
        sealed.extend_from_slice(prefix);
        write(&mut sealed);
        let tag = hmac::sign(key, &sealed);
        sealed.extend_from_slice(tag.as_ref());
        let text = sealed.get(prefix.len()..).unwrap_or_default();
        // Exactly: a header with memory to spare would be copied, or bring a counter of its own.
        let mut header = Vec::with_capacity(prefix.len() + base64_len(text.len()));
        header.extend_from_slice(prefix);
        push_base64(text, &mut header);
        header
    }
}

/// Without padding.
fn base64_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

/// Appends in place: the engine's own way over a `String` checks its UTF-8 again.
fn push_base64(bytes: &[u8], to: &mut Vec<u8>) {
    let start = to.len();
    to.resize(start + base64_len(bytes.len()), 0);
    if let Some(room) = to.get_mut(start..) {
        let written = ENCODER.encode_slice(bytes, room);
        debug_assert!(written.is_ok_and(|written| written == room.len()));
    }
}

impl OpeningKeys {
    /// Opens a header's value, for a handler of `family`, at this time (epoch milliseconds).
    ///
    /// # Errors
    /// When it was not sealed for this family by a known key, or is not valid now.
    pub fn open(&self, family: Family, header: &[u8], now_ms: u64) -> Result<Context, OpenError> {
        if header.len() > MAX_HEADER_LEN {
            return Err(OpenError::Malformed);
        }
        let header = std::str::from_utf8(header).map_err(|_| OpenError::Malformed)?;
        let mut parts = header.split('.');
        let (Some(VERSION), Some(kid), Some(text), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(OpenError::Malformed);
        };
        let key = self.find(kid, family).ok_or(OpenError::UnknownKey)?;
        let sealed = BASE64.decode(text).map_err(|_| OpenError::Malformed)?;
        let (message, tag) = sealed
            .split_last_chunk::<SHA256_OUTPUT_LEN>()
            .ok_or(OpenError::Malformed)?;
        let prefix = header.strip_suffix(text).unwrap_or_default();
        let mut mac = hmac::Context::with_key(key);
        mac.update(prefix.as_bytes());
        mac.update(message);
        constant_time::verify_slices_are_equal(mac.sign().as_ref(), tag)
            .map_err(|_| OpenError::Forged)?;
        let context = Context::decode(message).map_err(|_| OpenError::Malformed)?;
        if context.audience != family.as_str() {
            return Err(OpenError::Audience);
        }
        let issued = context.issued_at_ms;
        let newest = now_ms.saturating_add(millis(NOT_BEFORE_SLACK));
        let oldest = now_ms.saturating_sub(millis(VALIDITY));
        if issued > newest || issued < oldest {
            Err(OpenError::Stale)
        } else {
            Ok(context)
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::PathParam;

    const NOW: u64 = 1_700_000_000_000;
    const OLD: &str = "k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    const NEW: &str = "k2 AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

    fn keys(file: &str) -> (SealingKeys, OpeningKeys) {
        let sealing = SealingKeys::parse(file).unwrap();
        let opening =
            OpeningKeys::parse(&sealing.opening_file(&[Family::Tenants, Family::Postgres]))
                .unwrap();
        (sealing, opening)
    }

    fn context() -> Context {
        Context {
            route: "tenants.get".into(),
            subject: "u1".into(),
            ..Context::default()
        }
    }

    #[test]
    fn sealed_and_opened() {
        let (sealing, opening) = keys(OLD);
        let header = sealing.seal(Family::Tenants, context(), NOW);
        let opened = opening
            .open(Family::Tenants, header.as_bytes(), NOW + 10)
            .unwrap();
        assert_eq!(
            (opened.audience.as_str(), opened.subject.as_str()),
            ("tenants", "u1")
        );
        assert!(
            header.bytes().all(|b| b.is_ascii_graphic()),
            "a header value"
        );
    }

    #[test]
    fn the_longest_token_and_the_longest_path_fit() {
        let (sealing, opening) = keys(OLD);
        let long = Context {
            roles: vec!["r".repeat(6 << 10)],
            params: vec![PathParam {
                name: "id".into(),
                value: "p".repeat(8 << 10),
            }],
            ..context()
        };
        let header = sealing.seal(Family::Tenants, long, NOW);
        let opened = opening.open(Family::Tenants, header.as_bytes(), NOW);
        assert!(opened.is_ok(), "{} bytes", header.len());
    }

    #[test]
    fn another_family_cannot_open_it() {
        let (sealing, opening) = keys(OLD);
        let header = sealing.seal(Family::Tenants, context(), NOW);
        assert_eq!(
            opening.open(Family::Postgres, header.as_bytes(), NOW),
            Err(OpenError::Forged)
        );
        assert_eq!(
            opening.open(Family::Mongo, header.as_bytes(), NOW),
            Err(OpenError::UnknownKey)
        );
    }

    #[test]
    fn its_time() {
        let (sealing, opening) = keys(OLD);
        let header = sealing.seal(Family::Tenants, context(), NOW);
        let at = |now| {
            opening
                .open(Family::Tenants, header.as_bytes(), now)
                .map(drop)
        };
        assert_eq!(at(NOW - 5_000), Ok(()));
        assert_eq!(at(NOW - 5_001), Err(OpenError::Stale));
        assert_eq!(at(NOW + 60_000), Ok(()));
        assert_eq!(at(NOW + 60_001), Err(OpenError::Stale));
    }

    #[test]
    fn keys_rotate_without_a_gap() {
        let (old, _) = keys(OLD);
        let (_, both) = keys(&format!("{OLD}\n{NEW}\n# the old one goes last"));
        let (new, only_new) = keys(NEW);
        let sealed_old = old.seal(Family::Tenants, context(), NOW);
        let sealed_new = new.seal(Family::Tenants, context(), NOW);
        assert!(
            both.open(Family::Tenants, sealed_old.as_bytes(), NOW)
                .is_ok()
        );
        assert!(
            both.open(Family::Tenants, sealed_new.as_bytes(), NOW)
                .is_ok()
        );
        assert_eq!(
            only_new.open(Family::Tenants, sealed_old.as_bytes(), NOW),
            Err(OpenError::UnknownKey)
        );
    }

    #[test]
    fn bad_key_files_are_named_by_line() {
        for (text, reason) in [
            ("", "holds no key"),
            ("k1", "line 1: is not `<kid> <base64 of 32 bytes>`"),
            ("k1 !!!", "line 1: the key is not base64"),
            ("\nk1 AAAA", "line 2: the key is not of 32 bytes"),
            (&format!("{OLD}\n{OLD}"), "line 2: the kid stands twice"),
        ] {
            assert_eq!(SealingKeys::parse(text).err().unwrap().to_string(), reason);
        }
        assert_eq!(
            OpeningKeys::parse("k1 nothing AAAA")
                .err()
                .unwrap()
                .to_string(),
            "line 1: names no family"
        );
    }

    proptest! {
        #[test]
        fn one_changed_byte_and_it_stays_shut(at in 0_usize..200, byte in 0_u8..128) {
            let (sealing, opening) = keys(OLD);
            let mut header = sealing.seal(Family::Tenants, context(), NOW).into_bytes();
            let at = at % header.len();
            let slot = header.get_mut(at).unwrap();
            prop_assume!(*slot != byte);
            *slot = byte;
            prop_assert!(opening.open(Family::Tenants, &header, NOW).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_open(header in proptest::collection::vec(any::<u8>(), 0..400)) {
            let (_, opening) = keys(OLD);
            prop_assert!(opening.open(Family::Tenants, &header, NOW).is_err());
        }
    }
}
