//! What changes rows: inserts, updates, removals, and calls of functions.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;

use crate::catalog::{Argument, Column, Function, Identity, Key, Kind, Table, is_scope};
use crate::parse::{Ask, Missing, Resolution, shown};

use super::body::{Body, MAX_NESTING, nesting};
use super::rows::{Planner, Rows};
use super::{Condition, Place, Unplanned};

/// New rows.
#[derive(Clone, Debug)]
pub(crate) struct Insert {
    /// The columns that the body fills.
    pub(crate) columns: Vec<Column>,
    /// The rows, as a JSON array.
    pub(crate) body: String,
    /// What a column gets that a row leaves out.
    pub(crate) missing: Missing,
    /// What becomes of duplicates.
    pub(crate) conflict: Option<Conflict>,
    /// The table, and what the new rows show.
    pub(crate) rows: Rows,
}

/// What becomes of duplicates.
#[derive(Clone, Debug)]
pub(crate) struct Conflict {
    /// The key's columns.
    pub(crate) key: Vec<String>,
    /// The columns that take the new values; none: the row stays as it is.
    pub(crate) merge: Vec<String>,
}

/// New values for rows.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// The columns that change.
    pub(crate) columns: Vec<Column>,
    /// Their values, as a JSON object.
    pub(crate) body: String,
    /// Which rows, and what they show afterwards.
    pub(crate) rows: Rows,
}

/// Rows that go.
#[derive(Clone, Debug)]
pub(crate) struct Remove {
    /// Which rows, and what they show.
    pub(crate) rows: Rows,
}

/// A call of a function.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Where the rows come from.
    pub(crate) source: Source,
    /// What the rows show, where they are a table's.
    pub(crate) rows: Option<Rows>,
}

/// A function with its arguments.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Which.
    pub(crate) function: Arc<Function>,
    /// The arguments given.
    pub(crate) arguments: Vec<Argument>,
    /// Their values, as a JSON object; the one argument itself where it has no name.
    pub(crate) body: String,
}

impl Planner<'_> {
    /// Plans an insert.
    ///
    /// # Errors
    /// A column that is not there or that nobody writes, a key that is none.
    pub(crate) fn insert(
        &self,
        table: &Arc<Table>,
        ask: &Ask,
        body: Body,
        missing: Missing,
        resolution: Option<Resolution>,
    ) -> Result<Insert, Unplanned> {
        writable_kind(table)?;
        let columns = written(table, ask.columns.as_deref().unwrap_or(&body.names))?;
        let conflict = match (&ask.on_conflict, resolution) {
            (None, None) => None,
            (Some(_), None) => {
                let reason =
                    "needs Prefer: resolution=merge-duplicates or resolution=ignore-duplicates";
                return Err(Unplanned::invalid("onConflict", reason));
            }
            (named, Some(resolution)) => {
                let key = conflict_key(table, named.as_deref())?;
                let merge = match resolution {
                    Resolution::Ignore => Vec::new(),
                    Resolution::Merge => columns
                        .iter()
                        .map(|column| column.name.clone())
                        .filter(|name| !key.columns.contains(name))
                        .collect(),
                };
                // A row of nothing but its key is merged with itself, and answered as others.
                let keys_only = resolution == Resolution::Merge && merge.is_empty();
                let merge = if keys_only {
                    columns.iter().map(|column| column.name.clone()).collect()
                } else {
                    merge
                };
                Some(Conflict {
                    key: key.columns.clone(),
                    merge,
                })
            }
        };
        Ok(Insert {
            columns,
            body: body.array,
            missing,
            conflict,
            rows: self.rows(table, ask)?,
        })
    }

    /// Plans an update.
    ///
    /// # Errors
    /// A column that is not there or that nobody writes.
    pub(crate) fn update(
        &self,
        table: &Arc<Table>,
        ask: &Ask,
        body: &[u8],
    ) -> Result<Update, Unplanned> {
        writable_kind(table)?;
        let body = Body::read_one(body)?;
        let names = match &ask.columns {
            None => body.names,
            Some(columns) => columns
                .iter()
                .filter(|name| body.names.contains(name))
                .cloned()
                .collect(),
        };
        if names.is_empty() {
            return Err(Unplanned::invalid(
                "body",
                "must name a column that changes",
            ));
        }
        Ok(Update {
            columns: written(table, &names)?,
            body: body.array,
            rows: self.rows(table, ask)?,
        })
    }

    /// Plans a removal.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub(crate) fn remove(&self, table: &Arc<Table>, ask: &Ask) -> Result<Remove, Unplanned> {
        writable_kind(table)?;
        Ok(Remove {
            rows: self.rows(table, ask)?,
        })
    }

    /// Plans a call.
    ///
    /// # Errors
    /// No function of the name takes these arguments.
    pub(crate) fn call(&self, name: &str, ask: &Ask, body: &[u8]) -> Result<Call, Unplanned> {
        let functions = self.catalog.functions(name);
        let whole = functions.iter().find(|function| {
            matches!(function.arguments.as_slice(),
                [one] if one.name.is_empty() && matches!(one.shown_type.as_str(), "json" | "jsonb"))
        });
        let trimmed = body.trim_ascii();
        let source = match whole {
            Some(function) => Source {
                function: Arc::clone(function),
                arguments: function.arguments.clone(),
                body: json_text(trimmed)?,
            },
            None => named_call(name, functions, trimmed)?,
        };
        let rows = match &source.function.returns_table {
            Some(table) => {
                let mut rows = self.rows(self.table(table)?, ask)?;
                let limit = rows.limit.unwrap_or(self.max_rows).min(self.max_rows);
                rows.limit = Some(limit);
                Some(rows)
            }
            None if *ask == Ask::default() => None,
            None => {
                let reason =
                    "select, filters, order and limit apply to functions that give a table's rows";
                return Err(Unplanned::invalid("query", reason));
            }
        };
        Ok(Call { source, rows })
    }

    /// The row of a primary key.
    ///
    /// # Errors
    /// The table has no primary key, or one of another number of columns.
    pub(crate) fn by_key(&self, table: &Table, key: &str) -> Result<Vec<Condition>, Unplanned> {
        let columns = table.primary_key();
        if columns.is_empty() {
            let reason = format!("{} has no primary key; use filters", table.name);
            return Err(Unplanned::invalid("primaryKey", reason));
        }
        let values = crate::parse::key(key, columns.len()).map_err(Unplanned::Invalid)?;
        let condition = |(column, value): (&&Column, String)| Condition::Compare {
            place: Place::whole(column),
            operator: "=",
            cast: column.base.sql.clone(),
            value,
        };
        Ok(columns.iter().zip(values).map(condition).collect())
    }
}

fn json_text(body: &[u8]) -> Result<String, Unplanned> {
    let wrong = |reason: &str| Unplanned::invalid("body", reason);
    let text = std::str::from_utf8(body).map_err(|_| wrong("must be UTF-8"))?;
    let text = if text.is_empty() { "{}" } else { text };
    if nesting(text) > MAX_NESTING {
        return Err(wrong("nests deeper than 128 levels"));
    }
    let _: &RawValue =
        serde_json::from_str(text).map_err(|error| wrong(&format!("must be JSON: {error}")))?;
    Ok(text.to_owned())
}

fn named_call(name: &str, functions: &[Arc<Function>], body: &[u8]) -> Result<Source, Unplanned> {
    let given = Body::read_one(if body.is_empty() { b"{}" } else { body })?;
    let takes = |function: &&Arc<Function>| {
        let arguments = &function.arguments;
        let known = |name: &String| arguments.iter().any(|argument| argument.name == *name);
        let needed = arguments.len().saturating_sub(function.defaults);
        given.names.iter().all(known)
            && arguments
                .iter()
                .take(needed)
                .all(|argument| given.names.contains(&argument.name))
    };
    let mut fitting = functions.iter().filter(takes);
    let Some(function) = fitting.next() else {
        return match functions {
            [] => Err(Unplanned::NoFunction(name.to_owned())),
            some => {
                let list = |function: &Arc<Function>| {
                    let argument = |a: &Argument| format!("{} {}", a.name, a.shown_type);
                    let arguments: Vec<_> = function.arguments.iter().map(argument).collect();
                    format!("{name}({})", arguments.join(", "))
                };
                let all: Vec<_> = some.iter().map(list).collect();
                let reason = format!("must name the arguments of {}", all.join(" or "));
                Err(Unplanned::invalid("body", reason))
            }
        };
    };
    if fitting.next().is_some() {
        let reason = format!("fits several functions called {name}; name more arguments");
        return Err(Unplanned::invalid("body", reason));
    }
    Ok(Source {
        function: Arc::clone(function),
        arguments: function
            .arguments
            .iter()
            .filter(|argument| given.names.contains(&argument.name))
            .cloned()
            .collect(),
        body: given.array,
    })
}

fn writable_kind(table: &Table) -> Result<(), Unplanned> {
    match table.kind {
        Kind::Table | Kind::Partitioned | Kind::View => Ok(()),
        Kind::Materialized | Kind::Foreign => Err(Unplanned::NotProtected(table.name.clone())),
    }
}

/// The columns of these names, each of which may be written, once.
fn written<'n>(table: &Table, names: &'n [String]) -> Result<Vec<Column>, Unplanned> {
    let mut seen = HashSet::new();
    let column = |name: &'n String| {
        let refuse = |reason: String| Unplanned::invalid(shown(name), reason);
        if !seen.insert(name) {
            return Err(refuse("is named twice".into()));
        }
        let Some(column) = table.column(name) else {
            return Err(refuse(format!("is no column of {}", table.name)));
        };
        if is_scope(name) {
            return Err(refuse(
                "is filled by the platform and cannot be written".into(),
            ));
        }
        if column.generated || column.identity == Some(Identity::Always) {
            return Err(refuse(
                "is computed by the database and cannot be written".into(),
            ));
        }
        Ok(column.clone())
    };
    names.iter().map(column).collect()
}

/// The unique key that duplicates are told by.
fn conflict_key<'t>(table: &'t Table, named: Option<&[String]>) -> Result<&'t Key, Unplanned> {
    let key = match named {
        Some(columns) => table.key_of(columns),
        None => table.keys.iter().find(|key| key.primary),
    };
    key.ok_or_else(|| {
        let keys = table.keys.iter().map(|key| {
            let columns: Vec<_> = table
                .visible(&key.columns)
                .iter()
                .map(|c| c.name.as_str())
                .collect();
            columns.join(",")
        });
        let all = keys.collect::<Vec<_>>().join(" or ");
        let reason = match all.as_str() {
            "" => format!("needs a unique key, and {} has none", table.name),
            all => format!("must name a unique key of {}: {all}", table.name),
        };
        Unplanned::invalid("onConflict", reason)
    })
}
