//! The directory: what runners ask about tenants and workspaces, and what they watch.
//!
//! `directory.proto` is the source; this crate is its generated client and server.
//! `platform` serves it, the runner's `authorize` is its client.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    reason = "generated code"
)]

tonic::include_proto!("postern.directory.v1");

use std::time::Duration;

/// How often the server sends at least something.
pub const HEARTBEAT: Duration = Duration::from_millis(300);
/// After this much silence a client takes the stream for dead.
pub const SILENCE: Duration = Duration::from_secs(1);
