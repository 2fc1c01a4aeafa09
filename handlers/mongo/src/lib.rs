//! The mongo family: documents and collections of a workspace.

#![expect(dead_code, reason = "the routes come next")]

mod arguments;
mod failure;
mod render;
mod store;
mod wall;
