//! Key files, read at the start and again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use postern_context::OpeningKeys;
use postern_contract::key_file::KeyFileError;
use secrecy::zeroize::Zeroizing;
use tokio_util::sync::CancellationToken;

/// A key file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// It is not of its form.
    #[error("{}: {error}", path.display())]
    Form {
        /// Which.
        path: PathBuf,
        /// Why.
        error: KeyFileError,
    },
}

/// Reads a key file with the parser of its kind.
///
/// # Errors
/// When it cannot be read or is not of its form.
pub fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str) -> Result<T, KeyFileError>,
) -> Result<T, KeysError> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| KeysError::Read {
        path: path.into(),
        error,
    })?;
    parse(&text).map_err(|error| KeysError::Form {
        path: path.into(),
        error,
    })
}

/// How often a key file is looked at: a handler has to know a new key before the
/// runners seal with it.
const EVERY: Duration = Duration::from_secs(2);

/// Replaces the keys when their file changes, until `stop`. A file that became
/// unusable is logged and the keys stay.
pub async fn follow(path: PathBuf, keys: Arc<ArcSwap<OpeningKeys>>, stop: CancellationToken) {
    let mut seen = stamp(&path);
    while stop
        .run_until_cancelled(tokio::time::sleep(EVERY))
        .await
        .is_some()
    {
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        seen = now;
        match read(&path, OpeningKeys::parse) {
            Ok(new) => {
                keys.store(Arc::new(new));
                tracing::info!("the context keys were read again");
            }
            Err(error) => tracing::error!(%error, "the context keys stay as they were"),
        }
    }
}

/// Changes when the file does.
fn stamp(path: &Path) -> Option<(std::time::SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}
