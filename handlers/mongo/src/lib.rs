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
//! | [`read`], [`render`] | the server's documents → the body |
//! | [`store`] | record and effect in one transaction |
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
mod read;
mod render;
mod store;
mod validator;
mod wall;

pub use family::{Bounds, Mongo, Quotas};
pub use store::{provision, purge};
