//! Headers that mean one thing only, found in one go over all headers of a call.
//!
//! Two of them, and gateway, runner and handler could each read another one.

use postern_contract::header;
use postern_wire::read::Entry;

use crate::request::same_name;

/// Those that are asked for by name; the place of each in [`SINGLE`].
#[derive(Clone, Copy, Debug)]
pub(crate) enum Single {
    Authorization,
    ApiVersion,
    CorrelationId,
    IdempotencyKey,
}

const SINGLE: [&str; 13] = [
    "authorization",
    header::API_VERSION,
    header::CORRELATION_ID,
    header::IDEMPOTENCY_KEY,
    "content-type",
    "content-length",
    "content-md5",
    "host",
    "if-modified-since",
    "if-unmodified-since",
    "if-range",
    "range",
    "traceparent",
];

/// For each length of a name which of [`SINGLE`] have it, a bit each: most headers are
/// told from all of them by that.
#[expect(
    clippy::indexing_slicing,
    reason = "computed while compiling, where it would be an error"
)]
const OF_LENGTH: [u16; 32] = {
    let mut of_length = [0; 32];
    let mut at = 0;
    while at < SINGLE.len() {
        of_length[SINGLE[at].len()] |= 1 << at;
        at += 1;
    }
    of_length
};

/// Which of [`SINGLE`] a name is, in any spelling.
fn single(name: &[u8]) -> Option<usize> {
    let mut left = OF_LENGTH.get(name.len()).copied().unwrap_or_default();
    while left != 0 {
        let at = left.trailing_zeros() as usize;
        let is = |single: &&str| same_name(single.as_bytes(), name);
        if SINGLE.get(at).is_some_and(is) {
            return Some(at);
        }
        left &= left - 1;
    }
    None
}

/// Where the single headers of a call stand.
#[derive(Debug, Default)]
pub(crate) struct Singles {
    /// The place of the first one of each name, from 1; 0: there is none.
    places: [u32; SINGLE.len()],
    /// Which came again, a bit each.
    repeated: u16,
}

/// A header that means one thing only came more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Repeated;

impl Singles {
    pub(crate) fn find(headers: &[Entry<'_>]) -> Self {
        let mut singles = Self::default();
        for (here, (name, _)) in (1..).zip(headers) {
            let Some(at) = single(name) else { continue };
            match singles.places.get_mut(at) {
                Some(place @ 0) => *place = here,
                _ => singles.repeated |= 1 << at,
            }
        }
        singles
    }

    /// The value of a header among those that were gone over.
    pub(crate) fn get<'a>(
        &self,
        single: Single,
        headers: &[Entry<'a>],
    ) -> Result<Option<&'a [u8]>, Repeated> {
        let at = single as usize;
        if self.repeated & 1 << at != 0 {
            return Err(Repeated);
        }
        let place = self.places.get(at).copied().unwrap_or_default();
        let entry = (place as usize)
            .checked_sub(1)
            .and_then(|at| headers.get(at));
        Ok(entry.map(|(_, value)| value.unwrap_or_default()))
    }

    /// The name of one that came more than once.
    pub(crate) fn repeated(&self) -> Option<&'static str> {
        SINGLE.get(self.repeated.trailing_zeros() as usize).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_in_any_spelling_and_only_once() {
        for (at, name) in SINGLE.iter().enumerate() {
            assert_eq!(single(name.as_bytes()), Some(at));
            assert_eq!(single(name.to_uppercase().as_bytes()), Some(at));
            assert_eq!(
                single(name.replace('-', "_").as_bytes()),
                (!name.contains('-')).then_some(at)
            );
        }
        for other in [
            &b""[..],
            b"hosts",
            b"h\xd3st",
            b"x-forwarded-host",
            &[b'x'; 100],
        ] {
            assert_eq!(single(other), None);
        }
    }

    #[test]
    fn one_stands_and_two_are_an_error() {
        let headers: [Entry<'_>; 5] = [
            (b"accept", Some(b"a")),
            (b"Authorization", Some(b"b")),
            (b"accept", Some(b"c")),
            (b"x-api-version", None),
            (b"host", Some(b"d")),
        ];
        let singles = Singles::find(&headers);
        assert_eq!(singles.repeated(), None);
        let get = |single| singles.get(single, &headers);
        assert_eq!(get(Single::Authorization), Ok(Some(&b"b"[..])));
        assert_eq!(get(Single::ApiVersion), Ok(Some(&b""[..])));
        assert_eq!(get(Single::CorrelationId), Ok(None));
        assert_eq!(get(Single::IdempotencyKey), Ok(None));
        let mut twice = headers.to_vec();
        twice.push((b"AUTHORIZATION", Some(b"b")));
        let singles = Singles::find(&twice);
        assert_eq!(singles.repeated(), Some("authorization"));
        assert_eq!(singles.get(Single::Authorization, &twice), Err(Repeated));
        assert_eq!(singles.get(Single::ApiVersion, &twice), Ok(Some(&b""[..])));
    }

    #[test]
    fn those_with_a_name_stand_in_their_places() {
        for (single, name) in [
            (Single::Authorization, "authorization"),
            (Single::ApiVersion, header::API_VERSION),
            (Single::CorrelationId, header::CORRELATION_ID),
            (Single::IdempotencyKey, header::IDEMPOTENCY_KEY),
        ] {
            assert_eq!(SINGLE.get(single as usize), Some(&name));
        }
    }
}
