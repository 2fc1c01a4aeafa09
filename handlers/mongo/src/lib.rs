//! The mongo family: documents and collections of a workspace.
//!
//! A request on its way:
//!
//! | module | does |
//! |---|---|
//! | `arguments`, `body` | the text of the request → values with their types |
//! | [`wall`] | what a client wrote → what the server may be asked, inside its tenant |
//! | `documents`, `document`, `bulk`, `aggregate`, `collections`, `credentials` | the routes, a function each |
//! | [`validator`] | what a collection is told of its documents |
//! | [`keyset`] | where a page goes on |
//! | [`merge`] | a merge patch over a document |
//! | [`read`], [`render`] | the server's documents → the body |
//! | [`store`] | record and effect in one transaction |
//! | [`remembered`] | what the server said a moment ago |
//! | [`retry`] | a server that is away is asked again |
//! | [`failure`](mod@failure) | what the server refuses → what the client is told |

mod aggregate;
mod arguments;
mod body;
mod bulk;
mod collections;
mod credentials;
mod document;
mod documents;
mod failure;
mod family;
mod keyset;
mod merge;
mod read;
mod remembered;
mod render;
mod retry;
mod store;
mod turns;
mod validator;
mod wall;

pub use family::{Bounds, Mongo, Quotas, Reservation};
pub use store::{provision, purge};

/// What the routes take and give.
pub const SCHEMAS: &str = include_str!("schemas.json");
