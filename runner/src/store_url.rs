//! How a configuration names a store: a URL, which may hold a password, and who vouches
//! for its certificate.

use std::path::Path;

use anyhow::{Context as _, bail};
use postern_redis::Authority;
use secrecy::{ExposeSecret as _, SecretString};

/// The URL of `url` or of the file `urlFile`.
pub(crate) fn secret_url(
    url: Option<&SecretString>,
    file: Option<&Path>,
) -> anyhow::Result<String> {
    match (url, file) {
        (Some(url), None) => Ok(url.expose_secret().to_owned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("urlFile: {}", path.display()))?;
            Ok(text.trim().to_owned())
        }
        _ => bail!("one of url and urlFile, and not both"),
    }
}

/// The authority of the file `authority`, where there is one.
pub(crate) fn authority(file: Option<&Path>) -> anyhow::Result<Option<Authority>> {
    let read = |path: &Path| {
        Authority::read(path).with_context(|| format!("authority: {}", path.display()))
    };
    file.map(read).transpose()
}
