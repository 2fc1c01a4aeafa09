//! Suites that speak to real servers. Each is a test binary of its own, named
//! as `./tests/run` names it.
//!
//! | suite | what it holds true |
//! |---|---|
//! | `conformance` | the development gateway does to a request what APISIX does |
//! | `e2e` | the HTTP API, from a client through the gateway to the store and back |
//! | `policies` | tokens and limits under attack and under failure, with a real Keycloak |
//! | `auth` | tokens and identities, with a real Keycloak |
//! | `postgres` | rows, tables and functions of workspaces, through the whole path |
//! | `faults` | one effect a key, whoever is killed whenever |
//! | `security` | every route of the table refuses all that it must refuse, with the code that it must |
//!
//! Here is what they share besides the harness: a client that can break the
//! rules of HTTP, the API's own description held against its answers, a runner by itself,
//! an upstream that tells what reaches it, the control plane's tables, the points
//! where handlers are held, and the look of what a gateway
//! refuses by itself.

pub mod database;
pub mod described;
pub mod envelope;
pub mod foreign;
pub mod points;
pub mod raw;
pub mod runner;
