//! The gateway's side of the process: frames in, frames out.
//!
//! [`Link`](link::Link) cuts a connection into frames; [`connection`] serves them one
//! by one; [`calls`] runs a route's chain on a call; [`prepare`] turns a route's `conf`
//! into a chain behind a token.

pub(crate) mod calls;
pub(crate) mod connection;
pub(crate) mod link;
pub(crate) mod prepare;
pub(crate) mod tokens;
