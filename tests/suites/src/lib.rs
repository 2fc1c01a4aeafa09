//! Suites that speak to real servers. Each is a test binary of its own, named
//! as `./tests/run` names it.
//!
//! | suite | what it holds true |
//! |---|---|
//! | `conformance` | the development gateway does to a request what APISIX does |
//! | `e2e` | the HTTP API, from a client through the gateway to the store and back |
//! | `faults` | one effect a key, whoever is killed whenever |
//!
//! Here is what they share besides the harness: a client that can break the
//! rules of HTTP, the control plane's tables, and the look of what a gateway
//! refuses by itself.

pub mod database;
pub mod envelope;
pub mod raw;
