//! Bodies on their way to a statement: one JSON array of objects, and the names in them.

use std::collections::{BTreeMap, HashSet};

use serde_json::value::RawValue;

use crate::catalog::{Column, Table};
use crate::parse::{csv, shown};

use super::Unplanned;

/// A body's objects, and which names occur in them.
#[derive(Debug)]
pub(crate) struct Body {
    /// The objects, as a JSON array.
    pub(crate) array: String,
    /// Every name that occurs.
    pub(crate) names: Vec<String>,
}

/// Nesting of a body's JSON at most: PostgreSQL's own reader is recursive.
pub(super) const MAX_NESTING: usize = 128;

impl Body {
    /// Reads one object or an array of objects.
    ///
    /// # Errors
    /// It is neither, or nests too deep.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, Unplanned> {
        let wrong = |reason: &str| Unplanned::invalid("body", reason);
        let text = std::str::from_utf8(bytes)
            .map_err(|_| wrong("must be UTF-8"))?
            .trim();
        if nesting(text) > MAX_NESTING {
            return Err(wrong("nests deeper than 128 levels"));
        }
        type Object<'b> = BTreeMap<String, &'b RawValue>;
        let syntax = |error: serde_json::Error| {
            Unplanned::invalid(
                "body",
                format!("must be a JSON object or an array of objects: {error}"),
            )
        };
        let (array, objects) = if text.starts_with('[') {
            (
                text.to_owned(),
                serde_json::from_str::<Vec<Object<'_>>>(text).map_err(syntax)?,
            )
        } else {
            (
                format!("[{text}]"),
                vec![serde_json::from_str(text).map_err(syntax)?],
            )
        };
        let mut names: Vec<String> = objects.into_iter().flat_map(BTreeMap::into_keys).collect();
        names.sort_unstable();
        names.dedup();
        Ok(Self { array, names })
    }

    /// One object.
    ///
    /// # Errors
    /// As [`Self::read`], or there are several.
    pub(crate) fn read_one(bytes: &[u8]) -> Result<Self, Unplanned> {
        let body = Self::read(bytes)?;
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(Unplanned::invalid("body", "must be a JSON object"));
        }
        Ok(body)
    }
}

/// Refuses a merge patch (RFC 7396) of what a JSON column holds: there is no such operator,
/// and taken as it is the patch would replace the whole.
///
/// # Errors
/// It names a JSON column with an object.
pub(crate) fn merges_nothing(bytes: &[u8], table: &Table) -> Result<(), Unplanned> {
    let Ok(object) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(bytes) else {
        // Told by whoever reads it.
        return Ok(());
    };
    let is_object = |value: &RawValue| value.get().starts_with('{');
    let json = |name: &str| {
        table
            .column(name)
            .is_some_and(|column| column.base.is_json())
    };
    match object
        .iter()
        .find(|(name, value)| json(name) && is_object(value))
    {
        Some((name, _)) => Err(Unplanned::invalid(
            name,
            "a JSON column is not merged: send the whole value as application/json",
        )),
        None => Ok(()),
    }
}

/// How deep the JSON nests, brackets in texts aside.
pub(super) fn nesting(text: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

impl Body {
    /// Reads CSV. A cell is a text that PostgreSQL reads as its column's type; in a JSON
    /// column it is JSON, digit for digit, where it reads as such. Cells of other columns
    /// than the table's are left out, and their names refused where they are to be written.
    ///
    /// # Errors
    /// It is no CSV, or its header names a column twice.
    pub(crate) fn from_csv(bytes: &[u8], table: &Table) -> Result<Self, Unplanned> {
        let wrong = |reason: &str| Unplanned::invalid("body", reason);
        let text = std::str::from_utf8(bytes).map_err(|_| wrong("must be UTF-8"))?;
        let csv = csv::read(text).map_err(Unplanned::Invalid)?;
        let mut seen = HashSet::new();
        if let Some(twice) = csv.columns.iter().find(|name| !seen.insert(*name)) {
            let reason = format!("names {} twice in its header", shown(twice));
            return Err(wrong(&reason));
        }
        let columns = csv.columns.iter().map(|name| table.column(name));
        let columns: Vec<Option<&Column>> = columns.collect();
        let mut array = String::with_capacity(bytes.len() + 2);
        array.push('[');
        for (place, row) in csv.rows.into_iter().enumerate() {
            array.push_str(if place > 0 { ",{" } else { "{" });
            let cells = columns.iter().zip(row);
            let cells = cells.filter_map(|(column, cell)| Some(((*column)?, cell)));
            for (place, (column, cell)) in cells.enumerate() {
                if place > 0 {
                    array.push(',');
                }
                array.push_str(&quoted(&column.name)?);
                array.push(':');
                array.push_str(&value(column, cell)?);
            }
            array.push('}');
        }
        array.push(']');
        if nesting(&array) > MAX_NESTING {
            return Err(wrong("nests deeper than 128 levels"));
        }
        Ok(Self {
            array,
            names: csv.columns,
        })
    }
}

fn value(column: &Column, cell: csv::Cell) -> Result<String, Unplanned> {
    match cell {
        None => Ok("null".to_owned()),
        Some(cell) if column.base.is_json() && serde_json::from_str::<&RawValue>(&cell).is_ok() => {
            Ok(cell)
        }
        Some(cell) => quoted(&cell),
    }
}

fn quoted(text: &str) -> Result<String, Unplanned> {
    serde_json::to_string(text).map_err(|_| Unplanned::invalid("body", "cannot be read"))
}
