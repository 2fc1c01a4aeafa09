//! Orders that are total, and the places in them that cursors name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::Table;
use crate::parse::{By, Nulls, Term};

use super::Unplanned;
use super::condition::Place;
use super::rows::{Embedded, Join, Joined, Shown};

/// One key of an order.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// By what.
    pub(crate) by: KeyOf,
    /// Whether the greatest comes first.
    pub(crate) descending: bool,
    /// Whether nulls come first.
    pub(crate) nulls_first: bool,
    /// Whether there can be nulls.
    pub(crate) nullable: bool,
}

/// What an order goes by.
#[derive(Clone, Debug)]
pub(crate) enum KeyOf {
    /// A column of the table itself.
    Place(Place),
    /// A column of a to-one row beside it.
    Joined(Joined, Place),
}

impl KeyOf {
    /// What is found there.
    pub(crate) fn place(&self) -> &Place {
        match self {
            Self::Place(place) | Self::Joined(_, place) => place,
        }
    }
}

/// A place in an order: the values of its keys, as PostgreSQL writes them.
#[derive(Clone, Debug)]
pub(crate) struct Position(pub(crate) Vec<(Key, Option<String>)>);

/// What a cursor holds.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Values(pub(crate) Vec<Option<String>>);

/// The keys of an order as asked for.
///
/// # Errors
/// A column that is not there, or an embedded resource that is not to one.
pub(super) fn keys(
    table: &Table,
    embeds: &[(String, Arc<Embedded>)],
    joins: &mut Vec<Join>,
    terms: &[Term],
) -> Result<Vec<Key>, Unplanned> {
    let mut key = |term: &Term| {
        let by = match &term.by {
            By::Field(field) => {
                let place = Place::of(table, field, "order")?;
                if place.found().name == "json" {
                    let reason = format!("{} is json, which has no order", place.column);
                    return Err(Unplanned::invalid("order", reason));
                }
                KeyOf::Place(place)
            }
            By::Embedded { embed, field } => {
                let Some((_, embedded)) = embeds.iter().find(|(name, _)| name == embed) else {
                    let reason = format!("select embeds no {}", crate::parse::shown(embed));
                    return Err(Unplanned::invalid("order", reason));
                };
                if embedded.many {
                    let reason =
                        format!("{embed} is not one row; order by columns of to-one resources");
                    return Err(Unplanned::invalid("order", reason));
                }
                let place = Place::of(&embedded.rows.table, field, "order")?;
                KeyOf::Joined(joined(joins, embedded, place.clone()), place)
            }
        };
        let nullable = match &by {
            KeyOf::Place(place) => place.nullable || !place.path.is_empty(),
            KeyOf::Joined(..) => true,
        };
        Ok(Key {
            by,
            descending: term.descending,
            nulls_first: term
                .nulls
                .map_or(term.descending, |nulls| nulls == Nulls::First),
            nullable,
        })
    };
    // What stands there already decides nothing any more.
    let new = |(place, term): &(usize, &Term)| {
        let mut before = terms.iter().take(*place);
        !before.any(|before| before.by == term.by)
    };
    let terms = terms.iter().enumerate().filter(new);
    terms.map(|(_, term)| key(term)).collect()
}

/// A column of an embedded row as an output of a join: of the one that is there for the
/// order, or a new one.
fn joined(joins: &mut Vec<Join>, embedded: &Arc<Embedded>, place: Place) -> Joined {
    let ordered = |join: &Join| {
        let counts = |output: &Shown| matches!(output, Shown::Count);
        Arc::ptr_eq(&join.embedded, embedded) && !join.outputs.iter().any(counts)
    };
    let there = joins.iter().position(ordered);
    let join = there.unwrap_or_else(|| {
        joins.push(Join {
            embedded: Arc::clone(embedded),
            outputs: Vec::new(),
        });
        joins.len() - 1
    });
    let mut output = 0;
    if let Some(join) = joins.get_mut(join) {
        output = join.outputs.len();
        join.outputs.push(Shown::Compared(place));
    }
    Joined { join, output }
}

/// Completes an order with a unique key, so that no two rows stand at one place.
/// Whether there is one: rows without it have no place that a cursor could name.
pub(super) fn make_total(table: &Table, keys: &mut Vec<Key>) -> bool {
    let whole = |key: &crate::catalog::Key| {
        key.columns
            .iter()
            .all(|name| table.column(name).is_some_and(|column| column.not_null))
    };
    let Some(unique) = table.keys.iter().find(|key| whole(key)) else {
        return false;
    };
    for column in table.visible(&unique.columns) {
        let there = keys.iter().any(|key| {
            matches!(&key.by, KeyOf::Place(place) if place.column == column.name && place.path.is_empty())
        });
        if !there {
            keys.push(Key {
                by: KeyOf::Place(Place::whole(column)),
                descending: false,
                nulls_first: false,
                nullable: false,
            });
        }
    }
    true
}
