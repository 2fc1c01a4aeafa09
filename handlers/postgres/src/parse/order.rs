//! `order=a.desc.nullslast,data->>b,customer(name).desc`

use winnow::Parser;
use winnow::combinator::{alt, delimited, preceded, repeat, separated};

use super::name::{Field, field, name};
use super::{MAX_TERMS, Parsed, Text, expected};

/// One order term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// By what.
    pub(crate) by: By,
    /// Whether the greatest comes first.
    pub(crate) descending: bool,
    /// Where nulls stand; none: as PostgreSQL has it, last when ascending.
    pub(crate) nulls: Option<Nulls>,
}

/// What an order goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum By {
    /// A column of the table itself.
    Field(Field),
    /// A column of an embedded to-one resource.
    Embedded {
        /// The embed's name.
        embed: String,
        /// Its column.
        field: Field,
    },
}

/// Where nulls stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    First,
    Last,
}

#[derive(Clone)]
enum Word {
    Descending(bool),
    Nulls(Nulls),
}

pub(super) fn terms(input: &mut Text<'_>) -> Parsed<Vec<Term>> {
    separated(1..=MAX_TERMS, term, ',').parse_next(input)
}

fn term(input: &mut Text<'_>) -> Parsed<Term> {
    let embedded =
        (name, delimited('(', field, ')')).map(|(embed, field)| By::Embedded { embed, field });
    let by = alt((embedded, field.map(By::Field))).parse_next(input)?;
    let word = alt((
        "nullsfirst".value(Word::Nulls(Nulls::First)),
        "nullslast".value(Word::Nulls(Nulls::Last)),
        "asc".value(Word::Descending(false)),
        "desc".value(Word::Descending(true)),
    ));
    let word = preceded('.', winnow::combinator::cut_err(word))
        .context(expected("asc, desc, nullsfirst or nullslast"));
    let words: Vec<Word> = repeat(0..=2, word)
        .verify(|words: &Vec<Word>| {
            let directions = words.iter().filter(|w| matches!(w, Word::Descending(_)));
            words.len() < 2 || directions.count() == 1
        })
        .context(expected("a direction and a place of nulls, each once"))
        .parse_next(input)?;
    let mut term = Term {
        by,
        descending: false,
        nulls: None,
    };
    for word in words {
        match word {
            Word::Descending(descending) => term.descending = descending,
            Word::Nulls(nulls) => term.nulls = Some(nulls),
        }
    }
    Ok(term)
}
