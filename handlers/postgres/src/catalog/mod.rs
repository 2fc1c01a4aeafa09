//! What is in a workspace's schema, as PostgreSQL's catalog has it.
//!
//! Every identifier of a statement comes from here. A [`Catalog`] is read by one
//! statement ([`load`](mod@load)), kept by [`cache`], and never changed: what changes in the
//! schema makes a new one.

mod cache;
mod load;

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;

pub(crate) use cache::{Catalogs, Live};
pub(crate) use load::{FINGERPRINTS, load};

/// A column that the platform fills, and nobody writes.
pub(crate) const SCOPE_COLUMNS: [&str; 2] = ["tenant_id", "workspace_id"];

/// A schema at one moment.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    /// Its name.
    pub(crate) schema: String,
    /// Differs when anything in it differs; empty: there is no such schema.
    pub(crate) fingerprint: String,
    /// Whose it is; none: nobody has written it down.
    pub(crate) tenant: Option<String>,
    tables: HashMap<String, Arc<Table>>,
    functions: HashMap<String, Vec<Arc<Function>>>,
}

impl Catalog {
    /// A catalog of these.
    #[must_use]
    pub(crate) fn new(
        schema: String,
        fingerprint: String,
        tenant: Option<String>,
        tables: Vec<Table>,
        functions: Vec<Function>,
    ) -> Self {
        let mut by_name: HashMap<String, Vec<Arc<Function>>> = HashMap::new();
        for function in functions {
            by_name
                .entry(function.name.clone())
                .or_default()
                .push(Arc::new(function));
        }
        Self {
            schema,
            fingerprint,
            tenant,
            tables: tables
                .into_iter()
                .map(|table| (table.name.clone(), Arc::new(table)))
                .collect(),
            functions: by_name,
        }
    }

    /// Whether the schema is there at all.
    #[must_use]
    pub(crate) fn exists(&self) -> bool {
        !self.fingerprint.is_empty()
    }

    /// A table or view.
    #[must_use]
    pub(crate) fn table(&self, name: &str) -> Option<&Arc<Table>> {
        self.tables.get(name)
    }

    /// All of them, by name.
    #[must_use]
    pub(crate) fn tables(&self) -> Vec<&Arc<Table>> {
        let mut tables: Vec<_> = self.tables.values().collect();
        tables.sort_by(|a, b| a.name.cmp(&b.name));
        tables
    }

    /// The functions of a name.
    #[must_use]
    pub(crate) fn functions(&self, name: &str) -> &[Arc<Function>] {
        self.functions.get(name).map_or(&[], Vec::as_slice)
    }
}

/// What kind of relation a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Kind {
    /// A table.
    #[serde(rename = "r")]
    Table,
    /// A partitioned table.
    #[serde(rename = "p")]
    Partitioned,
    /// A view.
    #[serde(rename = "v")]
    View,
    /// A materialized view; it has no row-level security.
    #[serde(rename = "m")]
    Materialized,
    /// A foreign table; it has no row-level security.
    #[serde(rename = "f")]
    Foreign,
}

/// A table or a view.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Table {
    /// The schema it is in.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) kind: Kind,
    /// Forced row-level security, or a view that runs with its reader's rights.
    pub(crate) protected: bool,
    /// A table whose owner is the workspace's role: the API may alter and drop it.
    pub(crate) own: bool,
    /// What is written about it.
    pub(crate) comment: Option<String>,
    /// In their order.
    pub(crate) columns: Vec<Column>,
    /// Its unique keys, the primary one first.
    pub(crate) keys: Vec<Key>,
    /// Its references to tables of the same schema.
    pub(crate) references: Vec<Reference>,
    /// Its other indexes.
    pub(crate) indexes: Vec<Index>,
}

/// A column.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Column {
    /// Its name.
    pub(crate) name: String,
    /// As a person writes it: `character varying(20)`.
    pub(crate) shown_type: String,
    /// Its type without length and precision, quoted and qualified.
    pub(crate) declared: String,
    /// Beneath domains: what operators are chosen by.
    pub(crate) base: Type,
    /// Whether null is refused.
    pub(crate) not_null: bool,
    /// The default, as SQL of the catalog.
    pub(crate) default: Option<String>,
    /// The identity: `always`, or `default` where the caller may choose.
    pub(crate) identity: Option<Identity>,
    /// Whether it is computed from other columns.
    pub(crate) generated: bool,
}

impl Column {
    /// Whether its values may be of any length.
    #[must_use]
    pub(crate) fn is_wide(&self) -> bool {
        /// A text of so many characters is short.
        const SHORT: u32 = 1_000;
        const NARROW: [&str; 4] = ["uuid", "name", "char", "oid"];
        let of = &self.base;
        match of.category {
            'B' | 'D' | 'T' | 'E' | 'I' => false,
            'N' if of.name != "numeric" => false,
            _ if NARROW.contains(&of.name.as_str()) => false,
            // `numeric(12,2)`, `character varying(20)`; an array has no bound on its length.
            'N' | 'S' => {
                let length = self.shown_type.split(['(', ',', ')']).nth(1);
                let length: Option<u32> = length.and_then(|length| length.parse().ok());
                length.is_none_or(|length| length > SHORT)
            }
            _ => true,
        }
    }
}

/// How an identity column takes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Identity {
    /// Never from the caller.
    #[serde(rename = "a")]
    Always,
    /// From the caller where it names one.
    #[serde(rename = "d")]
    ByDefault,
}

/// A type.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Type {
    /// Its name without a schema.
    pub(crate) name: String,
    /// Quoted and qualified.
    pub(crate) sql: String,
    /// Quoted and qualified, the array of it; none: there is none.
    pub(crate) array: Option<String>,
    /// `pg_type.typcategory`: `S` text, `A` array, `R` range, …
    pub(crate) category: char,
}

impl Type {
    /// Whether patterns apply.
    #[must_use]
    pub(crate) fn is_text(&self) -> bool {
        self.category == 'S'
    }

    /// Whether it is json or jsonb.
    #[must_use]
    pub(crate) fn is_json(&self) -> bool {
        matches!(self.name.as_str(), "json" | "jsonb")
    }

    /// Whether it is a range, or several.
    #[must_use]
    pub(crate) fn is_range(&self) -> bool {
        self.category == 'R' || self.name.ends_with("multirange")
    }
}

/// Columns whose values no two rows share.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Key {
    /// The constraint's or the index's name.
    pub(crate) name: String,
    /// Whether it is the primary one.
    pub(crate) primary: bool,
    /// Its columns.
    pub(crate) columns: Vec<String>,
}

/// A foreign key.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Reference {
    /// The constraint's name.
    pub(crate) name: String,
    /// This table's columns.
    pub(crate) columns: Vec<String>,
    /// The table they point to.
    pub(crate) target: String,
    /// Its columns, in the same order.
    pub(crate) target_columns: Vec<String>,
    /// What becomes of this row when that one goes: `a` nothing, `r` restrict, `c`
    /// cascade, `n` set null, `d` set default.
    pub(crate) on_delete: char,
}

/// An index that is no unique key.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Index {
    /// Its name.
    pub(crate) name: String,
    /// `btree`, `gin`, …
    pub(crate) method: String,
    /// Its columns; empty where it is over expressions.
    pub(crate) columns: Vec<String>,
}

impl Table {
    /// A column.
    #[must_use]
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The primary key's columns that callers name: without those that the platform fills.
    #[must_use]
    pub(crate) fn primary_key(&self) -> Vec<&Column> {
        let primary = self.keys.iter().find(|key| key.primary);
        primary.map_or_else(Vec::new, |key| self.visible(&key.columns))
    }

    /// These columns without those that the platform fills.
    #[must_use]
    pub(crate) fn visible(&self, columns: &[String]) -> Vec<&Column> {
        let shown = columns
            .iter()
            .filter(|name| !is_scope(name) || columns.len() == 1);
        shown.filter_map(|name| self.column(name)).collect()
    }

    /// A key whose columns, besides those the platform fills, are exactly these.
    #[must_use]
    pub(crate) fn key_of(&self, columns: &[String]) -> Option<&Key> {
        self.keys.iter().find(|key| {
            let own = || key.columns.iter().filter(|name| !is_scope(name));
            let named = || columns.iter().filter(|name| !is_scope(name));
            own().count() == named().count() && own().all(|name| columns.contains(name))
        })
    }

    /// Whether no two rows share these columns' values.
    #[must_use]
    pub(crate) fn is_unique(&self, columns: &[String]) -> bool {
        self.keys.iter().any(|key| {
            key.columns
                .iter()
                .all(|name| columns.contains(name) || is_scope(name))
        })
    }
}

/// Whether a column is one that the platform fills.
#[must_use]
pub(crate) fn is_scope(column: &str) -> bool {
    SCOPE_COLUMNS.contains(&column)
}

/// A function that the operator has installed and opened to the workspace.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    /// The schema it is in.
    pub(crate) schema: String,
    /// Its name.
    pub(crate) name: String,
    /// Its arguments in their order.
    pub(crate) arguments: Vec<Argument>,
    /// How many of them, from the last on, have defaults.
    pub(crate) defaults: usize,
    /// Whether it gives rows.
    pub(crate) returns_set: bool,
    /// The table whose rows it gives.
    pub(crate) returns_table: Option<String>,
    /// Whether it gives nothing.
    pub(crate) returns_void: bool,
}

/// An argument of a function.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Argument {
    /// Its name; empty: it has none.
    pub(crate) name: String,
    /// Quoted and qualified.
    pub(crate) sql: String,
    /// As a person writes it.
    pub(crate) shown_type: String,
}
