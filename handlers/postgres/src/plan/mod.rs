//! From what is asked to a plan in which every name is the catalog's.
//!
//! | module | plans |
//! |---|---|
//! | `rows` | which rows of a table, in which order, shown how, with what is embedded |
//! | `relate` | the ways from a table to another |
//! | `condition` | operators on types |
//! | `page` | order, total order, cursors |
//! | `body` | bodies: JSON and CSV |
//! | `write` | inserts, updates, removals, calls |
//!
//! A plan holds values and catalog names apart; [`crate::sql`] writes it down, the names
//! quoted and the values bound. What cannot be planned is [`Unplanned`].

mod body;
mod condition;
mod page;
mod relate;
mod rows;
mod write;

use postern_common::Failure;
use postern_contract::{Code, Detail};

use crate::parse::shown;

pub(crate) use body::{Body, merges_nothing};
pub(crate) use condition::{Condition, Place};
pub(crate) use page::{Key, KeyOf, Position, Values};
pub(crate) use relate::Link;
pub(crate) use rows::{Embedded, Join, Joined, Output, Planner, Rows, Shown};
pub(crate) use write::{Call, Insert, Remove, Source, Update};

/// Why a request cannot be planned. A catalog that is a moment old may be why.
#[derive(Debug)]
pub(crate) enum Unplanned {
    /// A parameter, and what is wrong with it.
    Invalid(Detail),
    /// No such table.
    NoTable(String),
    /// No such function.
    NoFunction(String),
    /// Not every row of it is guarded.
    NotProtected(String),
    /// A definition that is the operator's.
    NotOwn(String),
}

impl Unplanned {
    fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Invalid(Detail::new(field, reason))
    }
}

impl From<Unplanned> for Failure {
    fn from(why: Unplanned) -> Self {
        match why {
            Unplanned::Invalid(detail) => Failure::invalid(vec![detail]),
            Unplanned::NoTable(name) => Failure::new(
                Code::TableNotFound,
                format!("there is no table {}", shown(&name)),
            ),
            Unplanned::NoFunction(name) => Failure::new(
                Code::FunctionNotFound,
                format!("there is no function {} with these arguments", shown(&name)),
            ),
            Unplanned::NotProtected(name) => Failure::new(
                Code::TableNotProtected,
                format!(
                    "{} is not served: a table needs row-level security, enabled and forced, and no policy that lets \
                     rows in without app.tenant_id and app.workspace_id; a view needs security_invoker",
                    shown(&name)
                ),
            ),
            Unplanned::NotOwn(name) => Failure::new(
                Code::PermissionDenied,
                format!(
                    "{} is a view, or a table that the workspace does not own: its operator alters it",
                    shown(&name)
                ),
            ),
        }
    }
}
