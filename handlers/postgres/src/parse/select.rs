//! `select=id,total::text,customer:customers!inner(name,orders(*)),...address(city)`

use winnow::Parser;
use winnow::combinator::{alt, cut_err, delimited, opt, preceded, repeat, separated, terminated};
use winnow::error::ErrMode;

use super::name::{Field, cast, field, name};
use super::{MAX_DEPTH, MAX_ITEMS, Parsed, Text, expected};

/// One thing that a row shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// Every column.
    All,
    /// A column, or something inside its JSON.
    Column {
        /// What it is called in the answer; none: as the field.
        alias: Option<String>,
        /// Which.
        field: Field,
        /// PostgreSQL's name of the type it is cast to.
        cast: Option<&'static str>,
    },
    /// How many rows there are: `count()`.
    Count {
        /// What it is called in the answer.
        alias: Option<String>,
    },
    /// Another table's rows that belong to this one.
    Embed(Embed),
}

/// Which rows of the outer table stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Join {
    /// All.
    Left,
    /// Those that have an embedded row.
    Inner,
}

/// An embedded resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Embed {
    /// What it is called in the answer and in filters; none: the target.
    pub(crate) alias: Option<String>,
    /// A table.
    pub(crate) target: String,
    /// A foreign key, a column, or a table between, where there are several ways.
    pub(crate) hint: Option<String>,
    /// Which outer rows stay.
    pub(crate) join: Join,
    /// Whether its columns stand among the outer ones (`...`).
    pub(crate) spread: bool,
    /// What it shows.
    pub(crate) items: Vec<Item>,
}

impl Embed {
    /// What filters, orders and the answer call it.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        self.alias.as_deref().unwrap_or(&self.target)
    }
}

/// The whole value of `select`.
pub(super) fn items(input: &mut Text<'_>) -> Parsed<Vec<Item>> {
    list(input, 0)
}

fn list(input: &mut Text<'_>, depth: usize) -> Parsed<Vec<Item>> {
    if input.is_empty() || input.starts_with(')') {
        return Ok(Vec::new());
    }
    let one = move |i: &mut Text<'_>| item(i, depth);
    let first = cut_err(one).parse_next(input)?;
    // After a comma there is another one, whatever is wrong with it.
    let others: Vec<Item> = repeat(0..MAX_ITEMS, preceded(',', cut_err(one))).parse_next(input)?;
    Ok(std::iter::once(first).chain(others).collect())
}

fn item(input: &mut Text<'_>, depth: usize) -> Parsed<Item> {
    let embed = move |i: &mut Text<'_>| embed(i, depth).map(Item::Embed);
    alt(('*'.value(Item::All), count, embed, column))
        .context(expected(
            "a column, *, or a table with its columns in brackets",
        ))
        .parse_next(input)
}

/// `alias:`, but not `column::type`.
fn alias(input: &mut Text<'_>) -> Parsed<String> {
    terminated(name, (':', winnow::combinator::not(':'))).parse_next(input)
}

fn count(input: &mut Text<'_>) -> Parsed<Item> {
    terminated(opt(alias), "count()")
        .map(|alias| Item::Count { alias })
        .parse_next(input)
}

fn column(input: &mut Text<'_>) -> Parsed<Item> {
    (opt(alias), field, opt(cast))
        .map(|(alias, field, cast)| Item::Column { alias, field, cast })
        .parse_next(input)
}

fn embed(input: &mut Text<'_>, depth: usize) -> Parsed<Embed> {
    let spread = opt("...").map(|dots| dots.is_some());
    let head = (spread, opt(alias), name, hints);
    let (spread, alias, target, (hint, join)) = terminated(head, '(').parse_next(input)?;
    if depth + 1 >= MAX_DEPTH {
        return Err(ErrMode::Cut(winnow::error::ContextError::new()).map(
            |error: winnow::error::ContextError| {
                let mut error = error;
                error.push(expected("at most 10 levels of embedded resources"));
                error
            },
        ));
    }
    let inside = move |i: &mut Text<'_>| list(i, depth + 1);
    let items = cut_err((inside, ')'.context(expected("another column or )"))))
        .map(|(items, _)| items)
        .parse_next(input)?;
    Ok(Embed {
        alias,
        target,
        hint,
        join,
        spread,
        items,
    })
}

/// `!hint`, `!inner`, `!left`, in any order.
fn hints(input: &mut Text<'_>) -> Parsed<(Option<String>, Join)> {
    let (mut hint, mut join) = (None, Join::Left);
    while let Some(word) = opt(preceded('!', name)).parse_next(input)? {
        match word.as_str() {
            "inner" => join = Join::Inner,
            "left" => join = Join::Left,
            _ => hint = Some(word),
        }
    }
    Ok((hint, join))
}

/// `a,b`: names only, as `columns` and `onConflict` take them.
pub(super) fn names(input: &mut Text<'_>) -> Parsed<Vec<String>> {
    let one = delimited(winnow::ascii::space0, name, winnow::ascii::space0);
    separated(1..=super::MAX_TERMS * 8, one, ',')
        .context(expected("columns, separated by commas"))
        .parse_next(input)
}
