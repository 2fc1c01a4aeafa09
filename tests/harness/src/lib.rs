//! Real servers for the tests and the quickstart, and a client to speak to them.
//!
//! Nothing here stands in for anything: PostgreSQL, the issuer, the handlers,
//! the gateway and the runner are processes of their own, on ports of their own,
//! with their configuration and logs in a folder of their own. They end with the
//! value that stands for them, and with this process if that comes first.

pub mod api;
pub mod http;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod token;
mod wait;
mod watchdog;

pub use wait::wait_for;
