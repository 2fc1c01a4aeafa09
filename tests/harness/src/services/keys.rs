//! Secret keys of one deployment, made once and kept with its data.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postern_context::SealingKeys;
use postern_contract::Family;
use rand::RngExt as _;

use super::write_private;

/// The runner's master keys, which seal the context.
pub(super) fn master(data: &Path) -> PathBuf {
    data.join("context-master.keys")
}

/// The handlers' keys, derived from them.
pub(super) fn opening(data: &Path) -> PathBuf {
    data.join("context-handlers.keys")
}

/// The keys that encrypt kept outcomes, which runner and handlers share.
pub(super) fn outcomes(data: &Path) -> PathBuf {
    data.join("outcomes.keys")
}

/// The password of the role that reads and writes rows.
pub(super) fn data_login(data: &Path) -> Result<String> {
    let path = data.join("data-login.password");
    if !path.exists() {
        write_private(&path, &crate::token::unique())?;
    }
    std::fs::read_to_string(path).context("cannot read the data login's password")
}

/// Makes those that are not there yet.
pub(super) fn write_missing(data: &Path) -> Result<()> {
    for path in [master(data), outcomes(data)] {
        if !path.exists() {
            let key = BASE64_STANDARD.encode(rand::rng().random::<[u8; 32]>());
            write_private(&path, &format!("k1 {key}\n"))?;
        }
    }
    let text = std::fs::read_to_string(master(data)).context("cannot read the master keys")?;
    let keys = SealingKeys::parse(&text).context("the master keys are not right")?;
    write_private(&opening(data), &keys.opening_file(&Family::ALL))
}
