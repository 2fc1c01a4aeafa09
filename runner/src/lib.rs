//! A plugin runner for Apache APISIX: a kit to write plugins with, the house's own
//! plugins, and the process that serves them.
//!
//! A frame from the gateway is read in place ([`Request`]), a route's [`Chain`] of
//! [`Plugin`]s judges it one after the other, and what they decided goes back as one
//! frame. A binary of one's own adds its plugins to ours:
//!
//! ```no_run
//! use postern_runner::{Registry, RunnerConfig};
//!
//! fn plugins(config: &RunnerConfig) -> anyhow::Result<Registry> {
//!     postern_runner::plugins::house(config) // .map(|house| house.with(Mine::new()))
//! }
//! ```
//!
//! | module | part of the journey |
//! |---|---|
//! | [`plugin`], [`request`], [`response`], [`reply`], [`facts`] | what a plugin sees and says |
//! | [`chain`], [`registry`] | plugins bound to a route's configuration |
//! | `rpc` | frames in, frames out: connections, calls, tokens |
//! | `supervisor`, `worker`, `control` | the process that keeps the socket, the one that answers, and what they say |
//! | [`config`] | the process's own settings |
//! | `admin`, `events`, `logging`, `metrics`, `tally` | what is seen from outside |
//! | `cli` | serve, check, schema, explain |
//! | [`testkit`] | tests of plugins without a gateway |
//! | [`plugins`] | the house's plugins |

mod admin;
pub mod caller;
pub mod chain;
mod cli;
pub mod config;
mod control;
mod descriptors;
mod edits;
mod events;
mod extra;
pub mod facts;
mod histogram;
mod legacy;
mod logging;
mod metrics;
pub mod plugin;
pub mod plugins;
pub mod registry;
pub mod reply;
pub mod request;
pub mod response;
mod rpc;
mod singles;
mod store_url;
mod supervisor;
mod tally;
pub mod testkit;
mod waiting;
mod worker;

pub use caller::Caller;
pub use chain::Chain;
pub use cli::main;
pub use config::RunnerConfig;
pub use extra::ExtraError;
pub use facts::{Facts, Identity, RateLimit};
pub use plugin::{ConfigError, Flow, Plugin};
/// The RPC's messages, for tests that speak it.
pub use postern_wire as wire;
pub use registry::{ChainError, Compose, Registry};
pub use reply::Reply;
pub use request::{Entry, Request};
pub use response::Response;
