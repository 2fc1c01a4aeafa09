//! The runner's checks under attack and under failure, with a real Keycloak behind them
//! and issuers that lie, hang and rotate their keys.
//!
//! `e2e` holds the contract true for clients that mean well; here are the others. A test
//! that kills or stops something has a server or a stack of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod directory;
mod jwt;
mod limits;
