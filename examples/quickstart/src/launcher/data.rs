//! Where the data of all runs are.
//!
//! In `data` beside everything else, unless root has cloned into a folder that is
//! closed to others, as `/root` is: PostgreSQL refuses to run as root, and whom it
//! runs as instead could not pass through. Then `data` is a link to a folder of its
//! own in `/var/lib`, which a second run and `--reset` find again by that link.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use postern_harness::token::unique;

/// Closed folders' data go here.
const ELSEWHERE: &str = "/var/lib";

/// The folder for data, which may not exist yet.
pub(super) fn folder(folder: &Path) -> Result<PathBuf> {
    let data = folder.join("data");
    if let Ok(elsewhere) = std::fs::read_link(&data) {
        return Ok(elsewhere);
    }
    if !rustix::process::geteuid().is_root() || open_to_others(folder) {
        return Ok(data);
    }
    let elsewhere = Path::new(ELSEWHERE).join(format!("postern-quickstart-{}", unique()));
    symlink(&elsewhere, &data)
        .with_context(|| format!("cannot make the link {}", data.display()))?;
    eprintln!(
        "quickstart: {} is closed to PostgreSQL's user; data are in {}",
        folder.display(),
        elsewhere.display()
    );
    Ok(elsewhere)
}

/// Whether anybody may pass through a folder and all above it.
fn open_to_others(folder: &Path) -> bool {
    folder.ancestors().all(|folder| {
        std::fs::metadata(folder).is_ok_and(|found| found.permissions().mode() & 0o001 != 0)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[test]
    fn a_closed_folder_closes_what_is_in_it() {
        let outer = postern_harness::temporary_folder("closed").unwrap();
        let inner = outer.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        assert!(open_to_others(&inner));
        assert_eq!(folder(&inner).unwrap(), inner.join("data"));
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(outer.path(), closed).unwrap();
        assert!(!open_to_others(&inner));
    }
}
