//! The query as a whole: which parameter is a filter, and which is not.
//!
//! ```text
//! select  order  limit  offset  cursor  count  columns  onConflict  or  and  not.or  not.and
//! customers.order  customers.limit  customers.or  …   of an embedded resource
//! anything else: a filter, `column=` or `customers.column=`
//! ```
//! A column that is called like a parameter is named in quotes: `"limit"=eq.5`.

use std::collections::BTreeMap;

use postern_contract::Detail;
use winnow::Parser;
use winnow::combinator::separated;

use super::filter::{self, Condition, Tree};
use super::name::{Field, field};
use super::order::{self, Term};
use super::select::{self, Item};
use super::{MAX_CONDITIONS, MAX_DEPTH, MAX_PARAMETERS, Text, expected, shown, whole};

/// What a request does, as far as its parameters depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Reads rows.
    List,
    /// Reads, changes or removes the row of a primary key.
    One,
    /// Adds rows.
    Insert,
    /// Changes or removes rows by filters.
    Change,
    /// Calls a function.
    Call,
}

/// How the total is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Count {
    /// By counting.
    #[default]
    Exact,
    /// By the planner's estimate.
    Planned,
    /// By counting up to the greatest page, beyond it by the estimate.
    Estimated,
    /// Not at all.
    None,
}

const COUNTS: [(&str, Count); 4] = [
    ("exact", Count::Exact),
    ("planned", Count::Planned),
    ("estimated", Count::Estimated),
    ("none", Count::None),
];

impl Count {
    /// Of its word.
    pub(super) fn read(word: &str) -> Option<Self> {
        let found = COUNTS.iter().find(|(known, _)| *known == word);
        found.map(|(_, count)| *count)
    }

    /// Its word.
    pub(super) fn word(self) -> &'static str {
        let found = COUNTS.iter().find(|(_, count)| *count == self);
        found.map_or("", |(word, _)| word)
    }
}

/// What is asked of the table itself, or of one embedded resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Scoped {
    /// Every one has to hold.
    pub(crate) conditions: Vec<Tree>,
    /// The order.
    pub(crate) order: Vec<Term>,
    /// How many rows at most.
    pub(crate) limit: Option<u64>,
    /// How many rows to leave out.
    pub(crate) offset: Option<u64>,
}

/// A whole query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Ask {
    /// What a row shows; empty: every column.
    pub(crate) select: Vec<Item>,
    /// The table itself.
    pub(crate) top: Scoped,
    /// Embedded resources, by the names on the way to them.
    pub(crate) embedded: BTreeMap<Vec<String>, Scoped>,
    /// Where the page before ended.
    pub(crate) cursor: Option<String>,
    /// How the total is found out.
    pub(crate) count: Option<Count>,
    /// The columns to write; none: those that the body names.
    pub(crate) columns: Option<Vec<String>>,
    /// The columns whose duplicates are merged or ignored.
    pub(crate) on_conflict: Option<Vec<String>>,
}

/// The words that are no columns, with the verbs that take them.
const WORDS: [(&str, &[Verb]); 9] = [
    (
        "select",
        &[
            Verb::List,
            Verb::One,
            Verb::Insert,
            Verb::Change,
            Verb::Call,
        ],
    ),
    ("order", &[Verb::List, Verb::Call]),
    ("limit", &[Verb::List, Verb::Call]),
    ("offset", &[Verb::List, Verb::Call]),
    ("cursor", &[Verb::List]),
    ("count", &[Verb::List]),
    ("columns", &[Verb::Insert, Verb::Change, Verb::One]),
    ("onConflict", &[Verb::Insert]),
    // As PostgREST spells it.
    ("on_conflict", &[Verb::Insert]),
];

impl Ask {
    /// Reads the decoded parameters.
    ///
    /// # Errors
    /// Every parameter that is wrong, with the reason.
    pub(crate) fn read(verb: Verb, pairs: &[(String, String)]) -> Result<Self, Vec<Detail>> {
        if pairs.len() > MAX_PARAMETERS {
            let reason = format!("has more than {MAX_PARAMETERS} parameters");
            return Err(vec![Detail::new("query", reason)]);
        }
        let (mut ask, mut bad) = (Self::default(), Vec::new());
        let mut seen: Vec<&str> = Vec::new();
        for (name, value) in pairs {
            if once(name) && seen.contains(&name.as_str()) {
                bad.push(Detail::new(shown(name), "must be given once"));
                continue;
            }
            seen.push(name);
            if let Err(detail) = ask.parameter(verb, name, value) {
                bad.push(detail);
            }
        }
        let all = std::iter::once(&ask.top).chain(ask.embedded.values());
        let conditions: usize = all
            .flat_map(|scoped| &scoped.conditions)
            .map(Tree::conditions)
            .sum();
        if conditions > MAX_CONDITIONS {
            let reason = format!("has {conditions} conditions; {MAX_CONDITIONS} at most");
            bad.push(Detail::new("query", reason));
        }
        if ask.cursor.is_some() && ask.top.offset.is_some() {
            bad.push(Detail::new("offset", "excludes cursor"));
        }
        if bad.is_empty() { Ok(ask) } else { Err(bad) }
    }

    fn parameter(&mut self, verb: Verb, name: &str, value: &str) -> Result<(), Detail> {
        if let Some((word, verbs)) = WORDS.iter().find(|(word, _)| *word == name) {
            if !verbs.contains(&verb) {
                return Err(Detail::new(*word, "does not apply to this request"));
            }
            return self.word(word, value);
        }
        let (way, last) = way(name)?;
        let embedded = !way.is_empty();
        let filtered = matches!(verb, Verb::List | Verb::Change | Verb::Call);
        if !embedded && !filtered {
            let reason = "is not known here: this request takes no filters";
            return Err(Detail::new(shown(name), reason));
        }
        let scoped = if embedded {
            self.embedded.entry(way).or_default()
        } else {
            &mut self.top
        };
        match last {
            Last::Order => scoped.order = whole(name, value, order::terms)?,
            Last::Limit => scoped.limit = Some(number(name, value)?),
            Last::Offset => scoped.offset = Some(number(name, value)?),
            Last::Tree { any, negated } => {
                let members = whole(name, value, filter::members)?;
                let tree = if any {
                    Tree::Any(members)
                } else {
                    Tree::All(members)
                };
                scoped.conditions.push(if negated {
                    Tree::Not(Box::new(tree))
                } else {
                    tree
                });
            }
            Last::Filter(field) => {
                let (negated, operator) = whole(name, value, filter::alone)?;
                scoped.conditions.push(Tree::One(Condition {
                    field,
                    negated,
                    operator,
                }));
            }
        }
        Ok(())
    }

    fn word(&mut self, word: &str, value: &str) -> Result<(), Detail> {
        match word {
            "select" => self.select = whole(word, value, select::items)?,
            "order" => self.top.order = whole(word, value, order::terms)?,
            "limit" => self.top.limit = Some(number(word, value)?),
            "offset" => self.top.offset = Some(number(word, value)?),
            "cursor" => self.cursor = Some(value.to_owned()),
            "count" => {
                let count = Count::read(value).ok_or_else(|| {
                    Detail::new(word, "must be exact, planned, estimated or none")
                })?;
                self.count = Some(count);
            }
            "columns" => self.columns = Some(whole(word, value, select::names)?),
            _ => self.on_conflict = Some(whole(word, value, select::names)?),
        }
        Ok(())
    }
}

/// Whether a parameter may stand once only. Filters may be repeated: all have to hold.
fn once(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    matches!(last, "order" | "limit" | "offset") || WORDS.iter().any(|(word, _)| *word == name)
}

/// What the last part of a parameter's name stands for.
enum Last {
    Order,
    Limit,
    Offset,
    Tree { any: bool, negated: bool },
    Filter(Field),
}

/// Cuts a parameter's name: the embedded resources on the way, and the last part.
fn way(name: &str) -> Result<(Vec<String>, Last), Detail> {
    const TREES: [(&str, bool, bool); 4] = [
        ("not.or", true, true),
        ("not.and", false, true),
        ("or", true, false),
        ("and", false, false),
    ];
    for (word, any, negated) in TREES {
        if let Some(before) = ends(name, word) {
            return Ok((names(name, before)?, Last::Tree { any, negated }));
        }
    }
    for word in ["order", "limit", "offset"] {
        // Alone they are words of the table itself.
        if let Some(before) = ends(name, word).filter(|before| !before.is_empty()) {
            let last = match word {
                "order" => Last::Order,
                "limit" => Last::Limit,
                _ => Last::Offset,
            };
            return Ok((names(name, before)?, last));
        }
    }
    let dotted = separated(1..=MAX_DEPTH + 1, field, '.')
        .context(expected("a column, or an embedded resource and its column"));
    let mut fields: Vec<Field> = whole(name, name, dotted)?;
    let Some(last) = fields.pop() else {
        return Err(Detail::new(shown(name), "names no column"));
    };
    if let Some(field) = fields.iter().find(|field| !field.path.is_empty()) {
        let reason = format!("{} is no embedded resource", shown(&field.column));
        return Err(Detail::new(shown(name), reason));
    }
    let way = fields.into_iter().map(|field| field.column).collect();
    Ok((way, Last::Filter(last)))
}

/// What stands before a last word and its dot.
fn ends<'n>(name: &'n str, word: &str) -> Option<&'n str> {
    let before = name.strip_suffix(word)?;
    if before.is_empty() {
        Some(before)
    } else {
        before.strip_suffix('.')
    }
}

fn names(name: &str, before: &str) -> Result<Vec<String>, Detail> {
    if before.is_empty() {
        return Ok(Vec::new());
    }
    let dotted =
        |input: &mut Text<'_>| separated(1..=MAX_DEPTH, super::name::name, '.').parse_next(input);
    whole(name, before, dotted)
}

fn number(name: &str, value: &str) -> Result<u64, Detail> {
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Detail::new(shown(name), "must be a whole number from 0"));
    }
    // More digits than a bigint holds: beyond every table all the same.
    let number = value.parse().unwrap_or(u64::MAX);
    Ok(number.min(i64::MAX as u64))
}

/// The values of a primary key in a path.
///
/// # Errors
/// The path's last part does not read as that many values.
pub(crate) fn key(text: &str, columns: usize) -> Result<Vec<String>, Detail> {
    let values = if columns == 1 {
        vec![text.to_owned()]
    } else {
        whole("primaryKey", text, filter::key_values)?
    };
    let nul = values.iter().any(|value| value.contains('\0'));
    if values.len() == columns && !nul {
        Ok(values)
    } else {
        let reason =
            format!("must have {columns} values, separated by commas, quoted where they hold one");
        Err(Detail::new("primaryKey", reason))
    }
}
