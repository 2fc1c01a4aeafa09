//! A stand-in for Apache APISIX 3.18, for development and tests.
//!
//! It reads the `apisix.yaml` and `config.yaml` of a real one, starts the runner
//! as a real one does, and does to the external-plugin RPC what a real one does:
//! `QUIRKS.md` beside this crate numbers every fact and says whether it is
//! imitated. It is no gateway for production: no TLS, no workers, no admin API,
//! a handful of plugins.
//!
//! A request comes in at [`gateway`], is read by [`http::head`], becomes a
//! [`request::Request`] and goes through APISIX's phases in [`exchange`]: the
//! [`router`] finds its route, [`plugins`] change or answer it (the runner is asked over
//! [`rpc`]), and [`upstream`] sends on what is left. Answers, whoever made
//! them, leave by [`http::answer`].

pub mod clock;
pub mod config;
pub mod exchange;
pub mod gateway;
pub mod http;
pub mod plugins;
pub mod request;
pub mod router;
pub mod rpc;
pub mod runner;
pub mod upstream;
mod vars;
