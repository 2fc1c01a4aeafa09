//! Places where a test can hold a handler, to kill it there.
//!
//! In builds with debug assertions only. A test puts an empty file named after a
//! point into the folder; the next mutation that comes to the point renames it to
//! `<point>.reached` and waits until that file is gone.

#[cfg(debug_assertions)]
use std::path::PathBuf;

/// The folder, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    #[cfg(debug_assertions)]
    folder: Option<PathBuf>,
}

impl Faults {
    /// Points armed by files in this folder.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self {
            folder: Some(folder),
        }
    }

    /// Waits here while the point is held.
    #[cfg(debug_assertions)]
    pub async fn at(&self, point: &str) {
        let Some(folder) = &self.folder else { return };
        let reached = folder.join(format!("{point}.reached"));
        if tokio::fs::rename(folder.join(point), &reached)
            .await
            .is_ok()
        {
            while tokio::fs::try_exists(&reached).await.unwrap_or(false) {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    }

    /// Nothing holds a release build.
    #[cfg(not(debug_assertions))]
    #[expect(
        clippy::unused_async,
        reason = "the same form as with debug assertions"
    )]
    pub async fn at(&self, _point: &str) {}
}
