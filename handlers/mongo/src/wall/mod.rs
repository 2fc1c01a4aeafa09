//! The tenant wall: what a client wrote becomes a typed tree, and only what a tree
//! can say reaches the server.
//!
//! ```text
//! extended JSON → value (bounded) → Filter | Update | Pipeline (allow-lists)
//!               → rebuilt as BSON, with the tenant's predicate wherever documents are read
//! ```
//!
//! A leading `$match` is not enough: `$lookup` reads another collection past it, and the
//! server puts conditions in an order of its own, so that an expression may meet another
//! tenant's document before the predicate does and tell of it by its error. So
//! nothing a client sends is handed on as it came. Each stage, operator and option
//! that may pass has a place in a tree; what has none is refused with its name and
//! where it stands. The tenant's two fields are nobody's to name: they are not read,
//! written, projected or sorted by, and a pipeline's documents lose them before its
//! first stage, so that `$$ROOT` has nothing to carry out.

mod expression;
mod filter;
#[cfg(test)]
mod leaks;
mod path;
mod pattern;
mod pipeline;
mod projection;
mod update;
mod value;

use std::fmt;

use bson::{Bson, Document, bson, doc};
use postern_common::Failure;
use postern_contract::Detail;

pub(crate) use expression::MARK;
pub(crate) use filter::Filter;
pub(crate) use path::{collection, field_path};
pub(crate) use pipeline::Pipeline;
pub(crate) use projection::{Projection, Sort};
pub(crate) use update::Update;
pub(crate) use value::{BEYOND, document, id, is_beyond, json, number, value};

/// The field of every document that says whose tenant's it is.
pub(crate) const TENANT: &str = "_tenantId";
/// And which workspace's.
pub(crate) const WORKSPACE: &str = "_workspaceId";
/// Collections that are ours begin so: records of what was done, above all.
pub(crate) const RESERVED_COLLECTION: &str = "postern";

/// Operators and names in one filter, update or pipeline.
const MAX_NODES: usize = 2_000;
/// How deep logical operators, expressions and sub-pipelines nest.
const MAX_DEPTH: usize = 32;
/// Stages of a pipeline, those of its sub-pipelines among them.
const MAX_STAGES: usize = 64;
/// Regular expressions in one request.
const MAX_REGEXES: usize = 8;
/// The longest one.
const MAX_REGEX: usize = 256;

/// Whose documents a request reads and writes. Made from the sealed context only.
#[derive(Clone, Debug)]
pub(crate) struct Wall {
    tenant: String,
    workspace: String,
}

impl Wall {
    pub(crate) fn new(tenant: impl Into<String>, workspace: impl Into<String>) -> Self {
        Self {
            tenant: tenant.into(),
            workspace: workspace.into(),
        }
    }

    /// What holds of this workspace's documents and of no others.
    pub(crate) fn predicate(&self) -> Document {
        doc! { TENANT: &self.tenant, WORKSPACE: &self.workspace }
    }

    /// The predicate as an expression.
    fn holds(&self) -> Bson {
        let is =
            |field: &str, value: &str| doc! { "$eq": [format!("${field}"), { "$literal": value }] };
        bson!({ "$and": [is(TENANT, &self.tenant), is(WORKSPACE, &self.workspace)] })
    }

    /// The workspace's documents of which this holds too. The client's own filter
    /// stands in a list of its own, so nothing in it replaces the predicate; and what it
    /// computes, it computes of the workspace's documents, whatever comes first.
    pub(crate) fn and(&self, filter: &Filter) -> Document {
        let mut whole = self.predicate();
        let filter = filter.behind(Some(&self.holds()));
        if !filter.is_empty() {
            whole.insert("$and", vec![Bson::Document(filter)]);
        }
        whole
    }

    /// A document as it is stored.
    pub(crate) fn mark(&self, mut document: Document) -> Document {
        document.insert(TENANT, &self.tenant);
        document.insert(WORKSPACE, &self.workspace);
        document
    }

    /// What every pipeline over a collection begins with. A condition that computes
    /// something has [`barrier`] in front of it.
    pub(crate) fn head(&self) -> [Document; 2] {
        [
            doc! { "$match": self.predicate() },
            doc! { "$unset": [TENANT, WORKSPACE] },
        ]
    }
}

/// A stage that lets everything by, and that the server moves no condition across.
pub(crate) fn barrier() -> Document {
    doc! { "$limit": i64::MAX }
}

/// What was refused, and why.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at} {reason}")]
pub(crate) struct Refused {
    /// Where it stands: `pipeline[2].$lookup.from`.
    pub(crate) at: String,
    pub(crate) reason: String,
}

impl From<Refused> for Failure {
    fn from(Refused { at, reason }: Refused) -> Self {
        Self::invalid(vec![Detail::new(at, reason)])
    }
}

/// Where something stands in what the client sent: a list from the inside out.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    outer: Option<&'a At<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// A longer name is cut when it is told.
const SHOWN: usize = 64;

impl<'a> At<'a> {
    pub(crate) fn root(name: &'a str) -> Self {
        Self {
            outer: None,
            step: Step::Name(name),
        }
    }

    pub(crate) fn field(&'a self, name: &'a str) -> Self {
        Self {
            outer: Some(self),
            step: Step::Name(name),
        }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self {
            outer: Some(self),
            step: Step::Index(index),
        }
    }

    pub(crate) fn refused(&self, reason: impl Into<String>) -> Refused {
        Refused {
            at: self.to_string(),
            reason: reason.into(),
        }
    }

    /// An operator that has no place here.
    fn unknown(&self, what: &str, allowed: &[&str]) -> Refused {
        self.refused(format!(
            "is no {what} that is allowed here; allowed are {}",
            allowed.join(" ")
        ))
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            outer.fmt(f)?;
        }
        match self.step {
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Name(name) => {
                let dot = if self.outer.is_some() { "." } else { "" };
                let shown: String = name
                    .chars()
                    .filter(|c| !c.is_control())
                    .take(SHOWN)
                    .collect();
                write!(f, "{dot}{shown}")
            }
        }
    }
}

/// What one request may still use up while its trees are read, and what is known there.
#[derive(Debug)]
pub(crate) struct Budget {
    nodes: usize,
    depth: usize,
    stages: usize,
    regexes: usize,
    /// Variables that are bound at this place.
    vars: Vec<String>,
    /// Whether documents have lost the tenant's fields there: only then `$$ROOT` is open.
    stripped: bool,
    /// Whether names are those of a nested object, which may be like the tenant's fields.
    nested: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            nodes: MAX_NODES,
            depth: MAX_DEPTH,
            stages: MAX_STAGES,
            regexes: MAX_REGEXES,
            vars: Vec::new(),
            stripped: false,
            nested: false,
        }
    }
}

fn take(left: &mut usize, at: &At<'_>, what: &str, most: usize) -> Result<(), Refused> {
    *left = left.checked_sub(1).ok_or_else(|| {
        at.refused(format!(
            "is one too many: at most {most} {what} in a request"
        ))
    })?;
    Ok(())
}

impl Budget {
    /// For a request of several operations, each of which may take as much as a request
    /// with one, up to ten times that in all.
    pub(crate) fn for_many(operations: usize) -> Self {
        let one = Self::default();
        let times = operations.clamp(1, 10);
        Self {
            nodes: one.nodes * times,
            regexes: one.regexes * times,
            ..one
        }
    }

    /// A pattern of a validator.
    pub(crate) fn pattern(&mut self, pattern: &str, at: &At<'_>) -> Result<(), Refused> {
        self.regex(pattern, "", at)
    }

    fn node(&mut self, at: &At<'_>) -> Result<(), Refused> {
        take(&mut self.nodes, at, "operators and fields", MAX_NODES)
    }

    fn stage(&mut self, at: &At<'_>) -> Result<(), Refused> {
        take(&mut self.stages, at, "stages", MAX_STAGES)
    }

    /// Reads something that lies one level deeper.
    fn deeper<T>(
        &mut self,
        at: &At<'_>,
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        take(&mut self.depth, at, "levels of operators", MAX_DEPTH)?;
        let read = read(self);
        self.depth += 1;
        read
    }

    /// Reads something in which these variables are bound.
    fn bound<T>(
        &mut self,
        vars: &[&str],
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let before = self.vars.len();
        self.vars.extend(vars.iter().map(|var| (*var).to_owned()));
        let read = read(self);
        self.vars.truncate(before);
        read
    }

    /// Reads something whose names are those of a nested object.
    fn inside<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Refused>,
    ) -> Result<T, Refused> {
        let before = std::mem::replace(&mut self.nested, true);
        let read = read(self);
        self.nested = before;
        read
    }

    /// A path where names are read now.
    fn path<'p>(&self, path: &'p str, at: &At<'_>) -> Result<&'p str, Refused> {
        let checked = if self.nested {
            path::nested_path(path)
        } else {
            path::field_path(path)
        };
        checked.map_err(|rule| at.refused(rule))
    }

    /// A pattern that the server may compile, as [`pattern`] has it.
    fn regex(&mut self, pattern: &str, options: &str, at: &At<'_>) -> Result<(), Refused> {
        take(&mut self.regexes, at, "regular expressions", MAX_REGEXES)?;
        if pattern.len() > MAX_REGEX {
            return Err(at.refused(format!("is a pattern of more than {MAX_REGEX} bytes")));
        }
        if pattern.contains('\0') {
            return Err(at.refused("is a pattern with a NUL"));
        }
        match options.chars().find(|option| !"imsx".contains(*option)) {
            None => pattern::check(pattern, options, at),
            Some(option) => Err(at.refused(format!(
                "has the option `{}`; allowed are i, m, s, x",
                option.escape_default()
            ))),
        }
    }
}

/// Reads one schema of a validator, which takes up nodes and depth as operators do.
pub(crate) fn take_schema<T>(
    budget: &mut Budget,
    at: &At<'_>,
    read: impl FnOnce(&mut Budget) -> Result<T, Refused>,
) -> Result<T, Refused> {
    budget.node(at)?;
    budget.deeper(at, read)
}

/// The fields of an object, or what is there instead.
fn object<'v>(value: &'v Bson, at: &At<'_>) -> Result<&'v Document, Refused> {
    value
        .as_document()
        .ok_or_else(|| at.refused("must be an object"))
}

fn array<'v>(value: &'v Bson, at: &At<'_>) -> Result<&'v [Bson], Refused> {
    match value {
        Bson::Array(items) => Ok(items),
        _ => Err(at.refused("must be an array")),
    }
}

fn string<'v>(value: &'v Bson, at: &At<'_>) -> Result<&'v str, Refused> {
    value.as_str().ok_or_else(|| at.refused("must be a string"))
}

/// A whole number of any numeric type, within these bounds.
fn whole(value: &Bson, least: i64, most: i64, at: &At<'_>) -> Result<i64, Refused> {
    let number = match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        _ => None,
    };
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| at.refused(format!("must be a whole number from {least} to {most}")))
}
