//! Free TCP ports on loopback, held against other test processes.
//!
//! Most servers here take their port from a file and cannot tell which one the
//! kernel chose for port 0, so the port must be known before they start. Ports
//! come from below the ephemeral range, where no outgoing connection takes one
//! in the meantime, and a locked file per port keeps two stacks apart.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;

const RANGE: std::ops::Range<u16> = 15_000..32_000;
const ATTEMPTS: u32 = 500;

/// A port that is this process's until the value is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Takes a free port.
    ///
    /// # Errors
    /// None was free in many attempts, or the folder of locks cannot be written.
    pub fn free() -> Result<Self> {
        let locks = lock_folder()?;
        let mut random = rand::rng();
        for _ in 0..ATTEMPTS {
            let number = random.random_range(RANGE);
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(locks.join(number.to_string()))
                .context("cannot open a port's lock file")?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self {
                    number,
                    _lock: lock,
                });
            }
        }
        bail!("no free port between {} and {}", RANGE.start, RANGE.end)
    }

    /// The port's number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:<port>`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }
}

fn lock_folder() -> Result<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let folder = std::env::temp_dir().join(format!("postern-ports-{user}"));
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
