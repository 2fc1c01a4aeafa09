//! The handlers as a process of their own, over a real PostgreSQL, asked as the
//! gateway asks them: with contexts that a runner's keys have sealed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod calls;
mod context;
mod directory;
mod directory_tls;
mod encrypted;
mod idempotency;
mod provisioning;
mod resources;
mod revocations;
mod starting;
mod support;
mod traces;
