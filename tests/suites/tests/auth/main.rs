//! Tokens and identities, with a real Keycloak behind the handlers and tokens of its
//! realms at the gateway.
//!
//! Tests share one server and one stack and make tenants of their own; what kills or
//! stops a server starts one for itself.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

mod away;
mod clients;
mod crashes;
mod pins;
mod realms;
mod refusals;
mod revoke;
mod server;
mod tokens;
mod users;
mod world;
