//! The postgres family: rows, tables and functions of a workspace.
//!
//! A request on its way:
//!
//! | module | does |
//! |---|---|
//! | [`parse`] | the text of the request → what it asks for |
//! | [`catalog`] | what is in the workspace's schema, kept until it changes |
//! | [`plan`] | what is asked for → a plan of catalog names and values |
//! | [`sql`] | the plan → one statement; names quoted, values bound |
//! | [`execute`] | the statement → PostgreSQL, as the workspace's role, with its record |
//! | [`errors`] | what PostgreSQL refuses → what the client is told |
//! | `rows`, `tables`, `rpc` | the routes, a function each |
//! | [`address`], `handshake` | where a PostgreSQL is, and how it is spoken to |
//! | [`cluster`] | what the data cluster needs besides workspaces; changes of schemas |

mod address;
mod catalog;
pub mod cluster;
mod define;
mod errors;
mod execute;
mod family;
mod handshake;
mod parse;
mod plan;
mod rows;
mod rpc;
mod sql;
mod tables;

pub use address::{Address, AddressError};
pub use execute::Bounds;
pub use family::{Postgres, Quotas};

/// What the routes take and give.
pub const SCHEMAS: &str = include_str!("schemas.json");
