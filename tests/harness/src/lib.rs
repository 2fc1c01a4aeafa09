//! Real servers for the tests and the quickstart, and a client to speak to them.
//!
//! Nothing here stands in for anything: PostgreSQL, the issuer, the handlers,
//! the gateway and the runner are processes of their own, on ports of their own,
//! with their configuration and logs in a folder of their own. They end with the
//! value that stands for them, and with this process if that comes first.

pub mod api;
pub mod certificates;
pub mod http;
mod installation;
pub mod keycloak;
pub mod mongo;
pub mod pooler;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod services;
pub mod stack;
pub mod token;
mod wait;
mod watchdog;

use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

pub use wait::wait_for;

/// A folder that is removed with the value, or with this process. Other users
/// may pass through it: PostgreSQL and a gateway's workers run as such.
///
/// # Errors
/// It cannot be made.
pub fn temporary_folder(prefix: &str) -> Result<TempDir> {
    let folder = tempfile::Builder::new()
        .prefix(&format!("{prefix}-"))
        .permissions(std::fs::Permissions::from_mode(0o711))
        .tempdir()
        .context("cannot make a temporary folder")?;
    watchdog::remove(folder.path())?;
    Ok(folder)
}
