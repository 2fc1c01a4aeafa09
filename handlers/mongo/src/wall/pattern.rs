//! Regular expressions: a pattern that repeats something may look at a text again from
//! each of its places, and the server ends no such search when its time is over.
//!
//! So it searches short texts only, with so many steps: the pattern goes to the server
//! behind a look at the text's length and a limit of its steps. What is looked for as it
//! is written, with nothing that repeats, searches any text, and may use an index.

use super::{At, Refused};

/// The longest text, in characters, that a pattern with repetitions is looked for in.
const MAX_TEXT: usize = 16_384;
/// The same for a pattern of an expression; and for one whose every place is asked for, or
/// that is looked for again and again.
pub(super) const MAX_INPUT: (i64, i64) = (16_384, 1_024);
/// Steps of a search, each of which may go over the text once.
const STEPS: (u32, u32) = (50_000, 2_000);

/// Whether nothing in it repeats, but for a `.*` at its end.
pub(super) fn is_plain(pattern: &str) -> bool {
    let body = pattern.strip_suffix(".*").unwrap_or(pattern);
    !body.contains(['*', '+', '?', '{', '('])
}

/// A pattern of a filter or a validator, as the server gets it.
pub(super) fn bounded(pattern: &str) -> String {
    if is_plain(pattern) {
        return pattern.to_owned();
    }
    let steps = STEPS.0;
    // From the text's start: its length first, then the pattern, wherever it is.
    format!("(*LIMIT_MATCH={steps})\\A(?=(?s:.{{0,{MAX_TEXT}}})\\z)(?s:.*?)(?:{pattern})")
}

/// A pattern of an expression, as the server gets it: what is found is what the client's
/// own part of it finds.
pub(super) fn searching(pattern: &str, often: bool) -> String {
    if is_plain(pattern) {
        return pattern.to_owned();
    }
    let steps = if often { STEPS.1 } else { STEPS.0 };
    format!("(*LIMIT_MATCH={steps})\\G(?s:.*?)\\K(?:{pattern})")
}

/// Whether a pattern is one by itself: its groups end in it, and it says nothing about
/// how the whole is searched.
pub(super) fn check(pattern: &str, options: &str, at: &At<'_>) -> Result<(), Refused> {
    if is_plain(pattern) {
        // Classes and escapes are the server's to judge.
        return Ok(());
    }
    if options.contains('x') {
        return Err(at.refused("has the option x beside something that repeats"));
    }
    let mut rest = pattern;
    let mut open = 0_usize;
    while let Some(next) = rest.chars().next() {
        rest = rest.get(next.len_utf8()..).unwrap_or_default();
        match next {
            '\\' => {
                let Some(escaped) = rest.chars().next() else {
                    return Err(at.refused("ends in a backslash"));
                };
                if "QEGKgkR".contains(escaped) {
                    return Err(at.refused(format!("has \\{escaped}, which is not taken here")));
                }
                rest = rest.get(escaped.len_utf8()..).unwrap_or_default();
            }
            '[' => rest = class(rest).ok_or_else(|| at.refused("has a [ that does not end"))?,
            '(' => {
                open += 1;
                let kinds = ["?:", "?=", "?!", "?<=", "?<!", "?i)", "?i:", "?s:", "?s)"];
                if rest.starts_with(['*', '?']) && !kinds.iter().any(|kind| rest.starts_with(kind))
                {
                    return Err(at.refused(
                        "has a group of a kind that is not taken; there are (…) (?:…) (?=…) (?!…) (?<=…) (?<!…) (?i) (?s)",
                    ));
                }
            }
            ')' => {
                open = open
                    .checked_sub(1)
                    .ok_or_else(|| at.refused("has a ) without a ("))?;
            }
            _ => {}
        }
    }
    if open > 0 {
        return Err(at.refused("has a ( without a )"));
    }
    Ok(())
}

/// What follows a class of characters.
fn class(rest: &str) -> Option<&str> {
    let rest = rest.strip_prefix('^').unwrap_or(rest);
    // In front it stands for itself.
    let mut rest = rest.strip_prefix(']').unwrap_or(rest);
    loop {
        let next = rest.chars().next()?;
        if let Some(posix) = rest.strip_prefix("[:")
            && let Some((_, after)) = posix.split_once(":]")
        {
            rest = after;
            continue;
        }
        rest = rest.get(next.len_utf8()..)?;
        match next {
            ']' => return Some(rest),
            '\\' => {
                let escaped = rest.chars().next()?;
                // `\Q` would hide the end.
                if escaped == 'Q' || escaped == 'E' {
                    return None;
                }
                rest = rest.get(escaped.len_utf8()..)?;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_repeats_is_looked_for_in_short_texts() {
        for plain in ["^abc", "a.c", "[abc]$", "a|b", "\\d\\d", "^abc.*"] {
            assert_eq!(bounded(plain), plain);
            assert_eq!(searching(plain, true), plain);
        }
        for repeating in ["a*b", "^a+", "a{2}", "(a|b)", ".*a.*", "a?"] {
            let sent = bounded(repeating);
            assert!(sent.starts_with("(*LIMIT_MATCH=50000)"), "{sent}");
            assert!(sent.contains("{0,16384}"), "{sent}");
            assert!(sent.ends_with(&format!("(?:{repeating})")), "{sent}");
            assert!(searching(repeating, true).starts_with("(*LIMIT_MATCH=2000)"));
        }
    }

    /// A pattern that ended the group it stands in would be searched for without its bounds.
    #[test]
    fn a_pattern_stays_in_its_group() {
        let at = At::root("pattern");
        for good in [
            "a*b",
            "(a|b)+",
            "[)]*",
            "[]a)]+",
            "[^])]+",
            "\\)*",
            "(?:a)*",
            "(?i)a*",
            "[[:alpha:])]*",
        ] {
            check(good, "i", &at).unwrap();
        }
        for bad in [
            ")|a*b|(",
            "a*)|(b",
            "(a*",
            "\\Qa)*\\E",
            "(*LIMIT_MATCH=1)a*",
            "(?#)a*",
            "(?R)*",
            "(?x)a*",
            "(?1)*",
            "[a*",
            "a*\\",
            "[\\Q]*",
        ] {
            check(bad, "", &at).unwrap_err();
        }
        check("a*#", "x", &at).unwrap_err();
    }
}
