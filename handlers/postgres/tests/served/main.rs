//! The family over a real PostgreSQL, asked as the gateway asks it: through the handlers'
//! chain, with contexts that a runner's keys have sealed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

mod attacks;
mod cases;
mod encrypted;
mod isolation;
mod paging;
mod schemas;
mod shares;
mod support;
mod tables;
mod twice;
