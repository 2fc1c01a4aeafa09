//! Identifiers, JSON paths and casts.

use winnow::Parser;
use winnow::ascii::digit1;
use winnow::combinator::{alt, cut_err, delimited, opt, peek, preceded, repeat};
use winnow::token::{any, none_of, one_of, take_while};

use super::{MAX_NAME, MAX_PATH, Parsed, Text, expected};

/// A column, or something inside its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Field {
    /// The column's name.
    pub(crate) column: String,
    /// The way into it; empty: the column itself.
    pub(crate) path: Vec<Step>,
}

/// One `->` or `->>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Step {
    /// A member's name, or an element's place.
    pub(crate) key: Key,
    /// Whether it ends in text (`->>`).
    pub(crate) text: bool,
}

/// Where a step goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// An element of an array; negative: from its end.
    Index(i32),
    /// A member of an object.
    Member(String),
}

/// The types that `::` casts to, with what PostgreSQL calls them.
pub(crate) const CASTS: &[(&str, &str)] = &[
    ("text", "text"),
    ("varchar", "varchar"),
    ("bool", "bool"),
    ("boolean", "bool"),
    ("int2", "int2"),
    ("smallint", "int2"),
    ("int", "int4"),
    ("int4", "int4"),
    ("integer", "int4"),
    ("int8", "int8"),
    ("bigint", "int8"),
    ("numeric", "numeric"),
    ("decimal", "numeric"),
    ("float4", "float4"),
    ("real", "float4"),
    ("float8", "float8"),
    ("date", "date"),
    ("time", "time"),
    ("timetz", "timetz"),
    ("timestamp", "timestamp"),
    ("timestamptz", "timestamptz"),
    ("interval", "interval"),
    ("uuid", "uuid"),
    ("json", "json"),
    ("jsonb", "jsonb"),
];

/// Characters of a name that needs no quotes. A dash belongs to it unless `->` begins.
fn bare(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | ' ')
}

/// A name, quoted (`"a.b"`, with `\"` and `\\` inside) or not.
pub(super) fn name(input: &mut Text<'_>) -> Parsed<String> {
    let plain = repeat(1.., alt((one_of(bare), dash)));
    alt((quoted, plain))
        .map(|name: String| name.trim_matches(' ').to_owned())
        .verify(|name: &String| (1..=MAX_NAME).contains(&name.len()) && !name.contains('\0'))
        .context(expected("a name of 1 to 63 bytes"))
        .parse_next(input)
}

/// A dash inside a name, not the beginning of an arrow.
fn dash(input: &mut Text<'_>) -> Parsed<char> {
    let before_another = ('-', peek(none_of('>'))).value('-');
    let last = ('-', winnow::combinator::eof).value('-');
    alt((before_another, last)).parse_next(input)
}

/// `"…"` with backslash escapes.
pub(super) fn quoted(input: &mut Text<'_>) -> Parsed<String> {
    let escaped = preceded('\\', any);
    let inside = repeat(0.., alt((escaped, none_of(['"', '\\']))));
    delimited('"', inside, '"').parse_next(input)
}

/// `column`, `column->a->0->>b`
pub(super) fn field(input: &mut Text<'_>) -> Parsed<Field> {
    (name, path)
        .map(|(column, path)| Field { column, path })
        .parse_next(input)
}

fn path(input: &mut Text<'_>) -> Parsed<Vec<Step>> {
    let arrow = alt(("->>".value(true), "->".value(false)));
    let step = (arrow, key).map(|(text, key)| Step { key, text });
    let path: Vec<Step> = repeat(0..=MAX_PATH, step).parse_next(input)?;
    Ok(path)
}

fn key(input: &mut Text<'_>) -> Parsed<Key> {
    let end = peek(alt((
        winnow::combinator::eof,
        "->",
        "::",
        ".",
        ",",
        ")",
        "=",
        ":",
    )));
    let index = (opt('-'), digit1, end)
        .take()
        .try_map(|digits: &str| digits.parse().map(Key::Index));
    let member = alt((quoted, repeat(1.., alt((one_of(bare), dash)))))
        .verify(|member: &String| !member.contains('\0'))
        .map(Key::Member);
    alt((index, member))
        .context(expected("a key or an index"))
        .parse_next(input)
}

/// `::type`, of the closed list.
pub(super) fn cast(input: &mut Text<'_>) -> Parsed<&'static str> {
    let known = take_while(1.., |c: char| c.is_ascii_alphanumeric()).verify_map(|name: &str| {
        CASTS
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, sql)| *sql)
    });
    preceded("::", cut_err(known))
        .context(expected(
            "a cast such as ::text, ::int8, ::numeric, ::timestamptz, ::jsonb",
        ))
        .parse_next(input)
}
