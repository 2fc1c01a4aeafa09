//! Which rows of a table, in which order, and what each shows.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::catalog::{Catalog, Table};
use crate::parse::{self, Ask, Embed, Field, Is, Item, Operator, Scoped, Tree, shown};

use super::Unplanned;
use super::condition::{self, Condition, Place};
use super::page::{self, Key};
use super::relate::{self, Link};

/// Rows of a table.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    /// Which table.
    pub(crate) table: Arc<Table>,
    /// What a row shows, in this order.
    pub(crate) outputs: Vec<Output>,
    /// To-one rows beside each, whose columns stand among its own or order it.
    pub(crate) joins: Vec<Join>,
    /// Every one holds.
    pub(crate) conditions: Vec<Condition>,
    /// The order.
    pub(crate) order: Vec<Key>,
    /// How many at most.
    pub(crate) limit: Option<u64>,
    /// How many are left out.
    pub(crate) offset: u64,
    /// Whether the order is total, so that a cursor can name a place in it.
    pub(crate) total_order: bool,
}

/// One member of a row's JSON.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) value: Shown,
}

/// What a row shows.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    /// A column, or something inside it, cast to a type of the closed list.
    Place(Place, Option<&'static str>),
    /// How many rows there are.
    Count,
    /// An embedded row, or several.
    Embedded(Arc<Embedded>),
    /// Something of a row beside this one.
    Joined(Joined),
    /// A column as orders see it.
    Compared(Place),
}

/// A row beside each: the one that an embed means, or none.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// Which.
    pub(crate) embedded: Arc<Embedded>,
    /// What is taken of it.
    pub(crate) outputs: Vec<Shown>,
}

/// Which output of which join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    /// The join's place.
    pub(crate) join: usize,
    /// The output's place in it.
    pub(crate) output: usize,
}

/// Rows of another table that belong to one of this.
#[derive(Clone, Debug)]
pub(crate) struct Embedded {
    /// How they belong.
    pub(crate) link: Link,
    /// Whether there can be several.
    pub(crate) many: bool,
    /// Which, and how.
    pub(crate) rows: Rows,
}

/// Plans against one catalog.
#[derive(Clone, Copy)]
pub(crate) struct Planner<'c> {
    /// The catalog.
    pub(crate) catalog: &'c Catalog,
    /// The greatest number of rows, of a page and of an embedded list.
    pub(crate) max_rows: u64,
}

/// What is asked of embedded resources, which of it has been used, and how much has been
/// planned so far.
struct Asked<'a> {
    scoped: &'a BTreeMap<Vec<String>, Scoped>,
    used: Vec<Vec<String>>,
    outputs: usize,
    wide: HashMap<(String, Field), usize>,
}

/// What rows show at most, embedded ones and all: as many as PostgreSQL takes in one list.
const MAX_OUTPUTS: usize = 1664;
/// A column without a bound on its length is selected so often at most, on all levels: each
/// time it is in the answer again.
const MAX_REPEATS: usize = 8;

impl Asked<'_> {
    /// Room for more outputs, asked before they are made.
    fn room(&mut self, outputs: usize) -> Result<(), Unplanned> {
        self.outputs += outputs;
        if self.outputs > MAX_OUTPUTS {
            let reason = format!("shows more than {MAX_OUTPUTS} columns in all; name fewer");
            return Err(Unplanned::invalid("select", reason));
        }
        Ok(())
    }

    /// A column that may be long is shown once more.
    fn shows(&mut self, table: &Table, field: &Field, place: &Place) -> Result<(), Unplanned> {
        if !place.wide {
            return Ok(());
        }
        let times = self.wide.entry((table.name.clone(), field.clone()));
        let times = times.or_default();
        *times += 1;
        if *times > MAX_REPEATS {
            let column = shown(&field.column);
            let reason = format!("shows {column} more than {MAX_REPEATS} times");
            return Err(Unplanned::invalid("select", reason));
        }
        Ok(())
    }
}

impl<'c> Planner<'c> {
    /// A table that is served.
    ///
    /// # Errors
    /// It is not there, or not every row of it is guarded.
    pub(crate) fn table(&self, name: &str) -> Result<&'c Arc<Table>, Unplanned> {
        match self.catalog.table(name) {
            None => Err(Unplanned::NoTable(name.to_owned())),
            Some(table) if !table.protected => Err(Unplanned::NotProtected(name.to_owned())),
            Some(table) => Ok(table),
        }
    }

    /// The rows that a whole query asks for. Limit and offset are the caller's to set.
    ///
    /// # Errors
    /// Something that is not there, is not protected, or does not apply.
    pub(crate) fn rows(&self, table: &Arc<Table>, ask: &Ask) -> Result<Rows, Unplanned> {
        let mut asked = Asked {
            scoped: &ask.embedded,
            used: Vec::new(),
            outputs: 0,
            wide: HashMap::new(),
        };
        let items = match ask.select.as_slice() {
            [] => &[Item::All],
            items => items,
        };
        let rows = self.scoped(table, items, &ask.top, &[], &mut asked)?;
        if rows
            .outputs
            .iter()
            .any(|output| matches!(output.value, Shown::Count))
        {
            let reason =
                "count() stands in embedded resources; the list's own count is in pagination.total";
            return Err(Unplanned::invalid("select", reason));
        }
        match ask.embedded.keys().find(|way| !asked.used.contains(way)) {
            None => Ok(rows),
            Some(way) => {
                let way = shown(&way.join("."));
                let reason = format!("select embeds no {way}");
                Err(Unplanned::invalid(way, reason))
            }
        }
    }

    fn scoped(
        &self,
        table: &Arc<Table>,
        items: &[Item],
        scoped: &Scoped,
        way: &[String],
        asked: &mut Asked<'_>,
    ) -> Result<Rows, Unplanned> {
        let (mut outputs, mut joins) = (Vec::new(), Vec::new());
        let (mut embeds, mut conditions) = (Vec::new(), Vec::new());
        for item in items {
            match item {
                Item::All => {
                    asked.room(table.columns.len())?;
                    for column in &table.columns {
                        let place = Place::whole(column);
                        let field = Field {
                            column: column.name.clone(),
                            path: Vec::new(),
                        };
                        asked.shows(table, &field, &place)?;
                        outputs.push(Output {
                            name: field.column,
                            value: Shown::Place(place, None),
                        });
                    }
                }
                Item::Column { alias, field, cast } => {
                    asked.room(1)?;
                    let output = self.column(table, alias.as_deref(), field, *cast)?;
                    if let Shown::Place(place, _) = &output.value {
                        asked.shows(table, field, place)?;
                    }
                    outputs.push(output);
                }
                Item::Count { alias } => {
                    asked.room(1)?;
                    outputs.push(Output {
                        name: alias.clone().unwrap_or_else(|| "count".to_owned()),
                        value: Shown::Count,
                    });
                }
                Item::Embed(embed) => {
                    let embedded = Arc::new(self.embedded(table, embed, way, asked)?);
                    if embed.join == parse::Join::Inner {
                        conditions.push(Condition::Exists(Arc::clone(&embedded)));
                    }
                    embeds.push((embed.name().to_owned(), Arc::clone(&embedded)));
                    let added = shows(embed, embedded, &mut joins)?;
                    asked.room(added.len())?;
                    outputs.extend(added);
                }
            }
        }
        let mut names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            let twice = twice.first().copied().unwrap_or_default();
            let reason = format!("gives {} twice; give one an alias", shown(twice));
            return Err(Unplanned::invalid("select", reason));
        }
        let counted = outputs
            .iter()
            .any(|output| matches!(output.value, Shown::Count));
        if counted && outputs.len() > 1 {
            let reason = "count() stands alone in its embedded resource";
            return Err(Unplanned::invalid("select", reason));
        }
        for tree in &scoped.conditions {
            conditions.push(tree_condition(table, tree, &embeds)?);
        }
        let conditions = once(conditions);
        let order = page::keys(table, &embeds, &mut joins, &scoped.order)?;
        Ok(Rows {
            table: Arc::clone(table),
            outputs,
            joins,
            conditions,
            order,
            limit: scoped.limit,
            offset: scoped.offset.unwrap_or_default(),
            total_order: false,
        })
    }

    fn column(
        &self,
        table: &Table,
        alias: Option<&str>,
        field: &Field,
        cast: Option<&'static str>,
    ) -> Result<Output, Unplanned> {
        // `orders(count)`, as PostgREST's clients have long written it.
        let counts = field.column == "count" && field.path.is_empty();
        if counts && table.column("count").is_none() {
            return Ok(Output {
                name: alias.unwrap_or("count").to_owned(),
                value: Shown::Count,
            });
        }
        let place = Place::of(table, field, "select")?;
        let last_key = field.path.iter().rev().find_map(|step| match &step.key {
            parse::Key::Member(name) => Some(name.as_str()),
            parse::Key::Index(_) => None,
        });
        let name = alias.or(last_key).unwrap_or(&field.column);
        if name.len() > parse::MAX_NAME {
            return Err(Unplanned::invalid(
                "select",
                "needs an alias for a key above 63 bytes",
            ));
        }
        Ok(Output {
            name: name.to_owned(),
            value: Shown::Place(place, cast),
        })
    }

    fn embedded(
        &self,
        outer: &Table,
        embed: &Embed,
        way: &[String],
        asked: &mut Asked<'_>,
    ) -> Result<Embedded, Unplanned> {
        let relation = relate::way(self.catalog, outer, embed)?;
        let mut inner_way = way.to_vec();
        inner_way.push(embed.name().to_owned());
        let none = Scoped::default();
        let scoped = asked.scoped.get(&inner_way).unwrap_or(&none);
        asked.used.push(inner_way.clone());
        let mut rows = self.scoped(&relation.target, &embed.items, scoped, &inner_way, asked)?;
        if relation.many {
            page::make_total(&relation.target, &mut rows.order);
            rows.limit = Some(rows.limit.unwrap_or(self.max_rows).min(self.max_rows));
        }
        Ok(Embedded {
            link: relation.link,
            many: relation.many,
            rows,
        })
    }

    /// Completes the order of a page.
    pub(crate) fn page(&self, rows: &mut Rows, limit: u64, offset: u64) {
        rows.total_order = page::make_total(&rows.table, &mut rows.order);
        // One row more tells whether there is a next page.
        rows.limit = Some(limit.saturating_add(1));
        rows.offset = offset;
    }
}

/// What an embed adds to a row: itself, nothing where it shows nothing, or its members.
fn shows(
    embed: &Embed,
    embedded: Arc<Embedded>,
    joins: &mut Vec<Join>,
) -> Result<Vec<Output>, Unplanned> {
    if embedded.rows.outputs.is_empty() {
        return Ok(Vec::new());
    }
    if !embed.spread {
        return Ok(vec![Output {
            name: embed.name().to_owned(),
            value: Shown::Embedded(embedded),
        }]);
    }
    if embedded.many {
        let reason = format!(
            "...{} is not one row and cannot be spread",
            shown(&embed.target)
        );
        return Err(Unplanned::invalid("select", reason));
    }
    let join = joins.len();
    let outputs = &embedded.rows.outputs;
    let among = outputs.iter().enumerate().map(|(output, one)| Output {
        name: one.name.clone(),
        value: Shown::Joined(Joined { join, output }),
    });
    let among = among.collect();
    let outputs = outputs.iter().map(|output| output.value.clone()).collect();
    joins.push(Join { embedded, outputs });
    Ok(among)
}

/// Conditions on embedded rows, each once: said again they ask for nothing more, and each
/// is a subselect.
fn once(conditions: Vec<Condition>) -> Vec<Condition> {
    let mut kept: Vec<Condition> = Vec::with_capacity(conditions.len());
    for one in conditions {
        if !kept.iter().any(|there| same(there, &one)) {
            kept.push(one);
        }
    }
    kept
}

fn same(one: &Condition, other: &Condition) -> bool {
    match (one, other) {
        (Condition::Exists(one), Condition::Exists(other)) => Arc::ptr_eq(one, other),
        (Condition::Not(one), Condition::Not(other)) => same(one, other),
        _ => false,
    }
}

/// Conditions under one word; a single one needs none.
fn under(word: fn(Vec<Condition>) -> Condition, conditions: Vec<Condition>) -> Condition {
    let mut conditions = once(conditions);
    match (conditions.pop(), conditions.is_empty()) {
        (Some(single), true) => single,
        (last, _) => {
            conditions.extend(last);
            word(conditions)
        }
    }
}

fn tree_condition(
    table: &Table,
    tree: &Tree,
    embeds: &[(String, Arc<Embedded>)],
) -> Result<Condition, Unplanned> {
    let all = |trees: &[Tree]| {
        trees
            .iter()
            .map(|tree| tree_condition(table, tree, embeds))
            .collect::<Result<Vec<_>, _>>()
    };
    match tree {
        Tree::All(trees) => Ok(under(Condition::All, all(trees)?)),
        Tree::Any(trees) => Ok(under(Condition::Any, all(trees)?)),
        Tree::Not(tree) => Ok(Condition::Not(Box::new(tree_condition(
            table, tree, embeds,
        )?))),
        Tree::One(one) => {
            let embed = embeds.iter().find(|(name, _)| *name == one.field.column);
            match (embed, table.column(&one.field.column)) {
                (Some((name, embedded)), None) => exists(one, name, embedded),
                _ => condition::condition(table, one),
            }
        }
    }
}

/// `customers=is.null`: rows that have no embedded row, or one at least.
fn exists(
    one: &parse::Condition,
    name: &str,
    embedded: &Arc<Embedded>,
) -> Result<Condition, Unplanned> {
    let none = match one.operator {
        Operator::Is(Is::Null) => !one.negated,
        Operator::Is(Is::NotNull) => one.negated,
        _ => {
            let reason = "is an embedded resource: is.null and not.is.null apply to it";
            return Err(Unplanned::invalid(shown(name), reason));
        }
    };
    let exists = Condition::Exists(Arc::clone(embedded));
    Ok(if none {
        Condition::Not(Box::new(exists))
    } else {
        exists
    })
}
