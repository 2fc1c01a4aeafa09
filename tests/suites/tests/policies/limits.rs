//! Limits that hold: every policy through the gateway, one Redis behind several runners,
//! that Redis stopped, its cluster, a runner that is reloaded, and calls a month.

mod gateway;
pub(crate) mod month;
mod runner;
mod shared;
mod stopped;
mod swap;
