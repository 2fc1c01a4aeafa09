//! The family over a real replica set, asked as the gateway asks it: through the handlers'
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
mod away;
mod cases;
mod credentials;
mod flowing;
mod refusals;
mod support;
mod twice;
mod wall;
