//! Definitions of tables, from a closed vocabulary: no text of a request becomes SQL.
//!
//! | module | does |
//! |---|---|
//! | `types` | column types and defaults, of the closed list |
//! | `read` | the body of a request → what is to be made or altered |
//! | `write` | that → statements, identifiers and literals quoted |
//!
//! Every table gets `tenant_id` and `workspace_id`, filled by default; keys and references
//! that hold the workspace; forced row-level security; an index for each reference.

mod read;
mod types;
mod write;

pub(crate) use read::{Alter, Create};
pub(crate) use write::{alter, create, drop_table};

/// A column to be made.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// As PostgreSQL writes it: `varchar(20)`, `int8[]`.
    pub(crate) of: String,
    pub(crate) nullable: bool,
    pub(crate) default: Option<types::Default>,
    pub(crate) identity: Option<Identity>,
}

/// How an identity column takes values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    Always,
    ByDefault,
}

/// A reference to another table of the workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) columns: Vec<String>,
    pub(crate) table: String,
    /// Empty: its primary key.
    pub(crate) target_columns: Vec<String>,
    pub(crate) on_delete: OnDelete,
}

/// What becomes of rows whose referred row goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnDelete {
    #[default]
    NoAction,
    Restrict,
    Cascade,
    SetNull,
}

/// An index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) columns: Vec<String>,
    pub(crate) method: &'static str,
}
