//! The handlers' server: one binary that serves the families it is told to.
//!
//! [`Config`] is read and checked, [`Prepared`] holds everything that can be wrong
//! without a network, [`Server`] has the database and the sockets, and runs until
//! it is told to drain.

mod config;
mod directory;
mod mongo;
mod pooler;
mod quotas;
mod schemas;
mod server;

pub use config::Config;
pub use server::{Prepared, Server, migrate};
