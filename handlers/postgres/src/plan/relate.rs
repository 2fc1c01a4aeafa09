//! The ways from a table to another one: foreign keys, from here, to here, or from a
//! table between.

use std::sync::Arc;

use crate::catalog::{Catalog, Reference, Table, is_scope};
use crate::parse::{Embed, shown};

use super::Unplanned;

/// How the rows of two tables belong together: pairs of columns that are equal.
#[derive(Clone, Debug)]
pub(crate) enum Link {
    /// Outer column, inner column.
    Direct(Vec<(String, String)>),
    /// Through rows of a table between.
    Between {
        /// Which.
        table: Arc<Table>,
        /// Outer column, column between.
        outer: Vec<(String, String)>,
        /// Column between, inner column.
        inner: Vec<(String, String)>,
    },
}

/// One way.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) link: Link,
    pub(super) target: Arc<Table>,
    pub(super) many: bool,
    /// What a hint may call it, the surest first.
    hints: Vec<String>,
    /// For people.
    shown: String,
}

/// The one way that an embed means.
///
/// # Errors
/// There is none, or there are several, which are then listed.
pub(super) fn way(catalog: &Catalog, outer: &Table, embed: &Embed) -> Result<Way, Unplanned> {
    let target = embed.target.as_str();
    let mut ways = ways(catalog, outer, target);
    if ways.is_empty() {
        let reason = match catalog.table(target) {
            Some(_) => format!("no foreign key leads from {} to {target}", outer.name),
            None => format!("there is no table {} to embed", shown(target)),
        };
        return Err(Unplanned::invalid("select", reason));
    }
    let all = list(target, &ways);
    if let Some(hint) = &embed.hint {
        ways.retain(|way| way.hints.contains(hint));
        if ways.is_empty() {
            let reason = format!(
                "{target}!{} is no way from {}; there are: {all}",
                shown(hint),
                outer.name
            );
            return Err(Unplanned::invalid("select", reason));
        }
    }
    let count = ways.len();
    let choices = list(target, &ways);
    match (ways.pop(), count) {
        (Some(way), 1) => {
            let between = match &way.link {
                Link::Between { table, .. } => Some(table),
                Link::Direct(_) => None,
            };
            match std::iter::once(&way.target)
                .chain(between)
                .find(|table| !table.protected)
            {
                Some(table) => Err(Unplanned::NotProtected(table.name.clone())),
                None => Ok(way),
            }
        }
        _ => {
            let reason = format!(
                "{target} can be reached from {} in {count} ways; name one: {choices}",
                outer.name
            );
            Err(Unplanned::invalid("select", reason))
        }
    }
}

fn list(target: &str, ways: &[Way]) -> String {
    let choice = |way: &Way| {
        let hint = way.hints.first().map_or("", String::as_str);
        format!("{target}!{hint} ({})", way.shown)
    };
    ways.iter().map(choice).collect::<Vec<_>>().join(", ")
}

fn ways(catalog: &Catalog, outer: &Table, target: &str) -> Vec<Way> {
    let mut ways = Vec::new();
    for reference in &outer.references {
        let by_name = reference.target == target
            || reference.name == target
            || matches!(visible(&reference.columns).as_slice(), [one] if *one == target);
        if by_name && let Some(table) = catalog.table(&reference.target) {
            ways.push(to_one(outer, reference, table));
        }
    }
    let Some(table) = catalog.table(target) else {
        return ways;
    };
    for reference in &table.references {
        if reference.target == outer.name {
            ways.push(back(outer, reference, table));
        }
    }
    for between in catalog.tables() {
        for to_outer in between.references.iter().filter(|r| r.target == outer.name) {
            for to_target in between.references.iter().filter(|r| r.target == target) {
                if to_outer.name != to_target.name && joins(between, to_outer, to_target) {
                    ways.push(through(between, to_outer, to_target, table));
                }
            }
        }
    }
    ways
}

/// A table stands between two others when its primary key holds the references to both.
fn joins(between: &Table, one: &Reference, other: &Reference) -> bool {
    let Some(key) = between.keys.iter().find(|key| key.primary) else {
        return false;
    };
    let held = |reference: &Reference| {
        visible(&reference.columns)
            .iter()
            .all(|column| key.columns.iter().any(|own| own == column))
    };
    held(one) && held(other)
}

fn visible(columns: &[String]) -> Vec<&str> {
    let shown = columns
        .iter()
        .filter(|name| !is_scope(name) || columns.len() == 1);
    shown.map(String::as_str).collect()
}

fn pairs(from: &[String], to: &[String]) -> Vec<(String, String)> {
    from.iter().cloned().zip(to.iter().cloned()).collect()
}

fn columns(table: &str, columns: &[String]) -> String {
    format!("{table}({})", visible(columns).join(", "))
}

fn arrow(from: &str, reference: &Reference) -> String {
    format!(
        "{} → {}",
        columns(from, &reference.columns),
        columns(&reference.target, &reference.target_columns)
    )
}

/// A reference has two sides, and where both are one table its columns tell them apart:
/// the referring one leads to the one row, the referred one to the many.
fn hints(reference: &Reference, column: &[String], own: bool) -> Vec<String> {
    let column = match visible(column).as_slice() {
        [one] => Some((*one).to_owned()),
        _ => None,
    };
    let name = reference.name.clone();
    if own {
        column.into_iter().chain([name]).collect()
    } else {
        std::iter::once(name).chain(column).collect()
    }
}

fn to_one(outer: &Table, reference: &Reference, target: &Arc<Table>) -> Way {
    let own = reference.target == outer.name;
    Way {
        link: Link::Direct(pairs(&reference.columns, &reference.target_columns)),
        target: Arc::clone(target),
        many: false,
        hints: hints(reference, &reference.columns, own),
        shown: format!("to one: {}", arrow(&outer.name, reference)),
    }
}

fn back(outer: &Table, reference: &Reference, target: &Arc<Table>) -> Way {
    let own = target.name == outer.name;
    let many = !target.is_unique(&reference.columns);
    let column = if own {
        &reference.target_columns
    } else {
        &reference.columns
    };
    Way {
        link: Link::Direct(pairs(&reference.target_columns, &reference.columns)),
        target: Arc::clone(target),
        many,
        hints: hints(reference, column, own),
        shown: format!(
            "to {}: {}",
            if many { "many" } else { "one" },
            arrow(&target.name, reference)
        ),
    }
}

fn through(
    between: &Arc<Table>,
    to_outer: &Reference,
    to_target: &Reference,
    target: &Arc<Table>,
) -> Way {
    Way {
        link: Link::Between {
            table: Arc::clone(between),
            outer: pairs(&to_outer.target_columns, &to_outer.columns),
            inner: pairs(&to_target.columns, &to_target.target_columns),
        },
        target: Arc::clone(target),
        many: true,
        hints: vec![
            between.name.clone(),
            to_target.name.clone(),
            to_outer.name.clone(),
        ],
        shown: format!(
            "to many, through {}: {} and {}",
            between.name,
            columns(&between.name, &to_outer.columns),
            columns(&between.name, &to_target.columns)
        ),
    }
}
