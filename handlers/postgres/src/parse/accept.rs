//! What a client takes: the `Accept` header, and `Range`.

use postern_contract::Detail;

/// One row by itself, as PostgREST and its clients call it (`.single()`).
pub(crate) const SINGLE: &str = "application/vnd.pgrst.object+json";

/// How an answer is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As the route has it.
    #[default]
    Whole,
    /// One row by itself; anything but one is refused.
    Single,
}

impl Shape {
    /// The shape that the `Accept` headers like best, of equals the first; none: what they
    /// name is not here (RFC 9110, 12.5.1).
    pub(crate) fn read<'h>(headers: impl Iterator<Item = &'h str>) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        let mut said = false;
        let ranges = headers.flat_map(|header| header.split(','));
        for range in ranges.map(str::trim).filter(|range| !range.is_empty()) {
            said = true;
            let Some((quality, shape)) = media_range(range) else {
                continue;
            };
            if quality > best.map_or(0.0, |(best, _)| best) {
                best = Some((quality, shape));
            }
        }
        match best {
            Some((_, shape)) => Some(shape),
            None => (!said).then_some(Self::Whole),
        }
    }
}

/// What a media range stands for here, and how much it is liked.
fn media_range(range: &str) -> Option<(f32, Shape)> {
    let mut parts = range
        .split(';')
        .map(|part| part.trim().to_ascii_lowercase());
    let shape = match parts.next()?.as_str() {
        // The first is wrong, and some clients send it.
        "*" | "*/*" | "application/*" | "application/json" => Shape::Whole,
        SINGLE | "application/vnd.pgrst.object" => Shape::Single,
        _ => return None,
    };
    let mut quality = 1.0;
    for part in parts {
        match part.split_once('=') {
            Some(("q", value)) => quality = value.trim().parse().unwrap_or(1.0),
            // Rows without their nulls are other rows.
            Some(("nulls", _)) if shape == Shape::Single => return None,
            _ => {}
        }
    }
    Some((quality, shape))
}

/// Rows from one place to another, the last one included; open-ended without a last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: Option<u64>,
}

impl Range {
    /// Reads `0-9` and `10-`. What is in other units, such as bytes, is left alone, as the
    /// RFC has it.
    ///
    /// # Errors
    /// It ends before it begins.
    pub(crate) fn read(text: &str, unit: Option<&str>) -> Result<Option<Self>, Detail> {
        let text = text.trim();
        let text = text.strip_prefix("items=").unwrap_or(text);
        let number = |text: &str| {
            let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            // More digits than a bigint holds: beyond every table all the same.
            digits.then(|| text.parse().unwrap_or(u64::MAX).min(i64::MAX as u64))
        };
        let Some((first, last)) = text
            .split_once('-')
            .filter(|_| unit.unwrap_or("items") == "items")
        else {
            return Ok(None);
        };
        let range = match (number(first), number(last)) {
            (Some(first), None) if last.is_empty() => Self { first, last: None },
            (Some(first), Some(last)) if first <= last => Self {
                first,
                last: Some(last),
            },
            (Some(_), Some(_)) => {
                return Err(Detail::new("Range", "must not end before it begins"));
            }
            _ => return Ok(None),
        };
        Ok(Some(range))
    }

    /// How many rows that are.
    pub(crate) fn rows(self) -> Option<u64> {
        self.last
            .map(|last| last.saturating_sub(self.first).saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_liked_best() {
        for (accept, shape) in [
            (&[] as &[&str], Some(Shape::Whole)),
            (&[""], Some(Shape::Whole)),
            (&["*/*"], Some(Shape::Whole)),
            (
                &["text/html, image/gif, *; q=.2, */*; q=.2"],
                Some(Shape::Whole),
            ),
            (&["application/json; charset=utf-8"], Some(Shape::Whole)),
            (&["Application/Vnd.pgrst.Object+JSON"], Some(Shape::Single)),
            (&["application/vnd.pgrst.object"], Some(Shape::Single)),
            (
                &["application/vnd.pgrst.object+json, */*"],
                Some(Shape::Single),
            ),
            (
                &["*/*;q=0.1", "application/vnd.pgrst.object+json;q=0.9"],
                Some(Shape::Single),
            ),
            (
                &["application/vnd.pgrst.object+json;q=0.1, */*"],
                Some(Shape::Whole),
            ),
            (&["application/vnd.pgrst.object+json;q=0"], None),
            (&["application/vnd.pgrst.object+json;nulls=stripped"], None),
            (&["application/vnd.pgrst.array+json;nulls=stripped"], None),
            (&["text/csv"], None),
            (&["text/csv, application/json;q=0.5"], Some(Shape::Whole)),
            (&["nonsense"], None),
            (&["application/json;q=nonsense"], Some(Shape::Whole)),
        ] {
            assert_eq!(Shape::read(accept.iter().copied()), shape, "{accept:?}");
        }
    }

    #[test]
    fn ranges_are_rows() {
        let range = |first, last| Ok(Some(Range { first, last }));
        for (text, unit, read) in [
            ("0-9", None, range(0, Some(9))),
            (" 5-5 ", Some("items"), range(5, Some(5))),
            ("items=0-9", None, range(0, Some(9))),
            ("10-", Some("items"), range(10, None)),
            ("0-9", Some("bytes"), Ok(None)),
            ("bytes=0-9", None, Ok(None)),
            ("-5", None, Ok(None)),
            ("0-9,20-29", None, Ok(None)),
            ("+1-9", None, Ok(None)),
            ("", None, Ok(None)),
            (
                "0-99999999999999999999",
                None,
                range(0, Some(i64::MAX as u64)),
            ),
        ] {
            assert_eq!(Range::read(text, unit), read, "{text}");
        }
        assert!(Range::read("9-0", None).is_err());
        let whole = Range {
            first: 0,
            last: Some(i64::MAX as u64),
        };
        assert_eq!(whole.rows(), Some(1 << 63));
    }
}
